"""Minimal-norm attacks side by side: median distance, failures, gradients and seconds, at the same number of steps.

What a library returns is judged alike for all: one fresh call of the model, the distance in float64. Rows that fail
count as infinite in the median, whatever the library says of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version

import torch
from torch import Tensor, nn

from benchmarks.networks import correct, mlp, robust_cnn, undefended_cnn
from calipers import attacks
from calipers.models import Classifier
from calipers.threats import Threat, distance, norm_of

__all__ = ["main"]

Peer = Callable[[nn.Module, Tensor, Tensor], Tensor]


def _adv_lib(norm: str, steps: int) -> dict[str, Peer]:
    from adv_lib import attacks as theirs

    p, found = norm_of(norm), {}
    found["fmn"] = partial(theirs.fmn, norm=p, steps=steps)
    if norm == "l0":
        found["sigma-zero"] = partial(theirs.sigma_zero, num_steps=steps)
        return found
    found["fab"] = partial(theirs.fab, norm=p, n_iter=max(steps // 9, 1))
    found["pdpgd"] = partial(theirs.pdpgd, norm=p, num_steps=steps)
    if norm in ("l2", "l1"):
        found["alma"] = partial(
            theirs.alma, distance=norm, num_steps=steps, init_lr_distance={"l2": 1.0, "l1": 10.0}[norm]
        )
    if norm == "l2":
        found["ddn"] = partial(theirs.ddn, steps=steps, levels=None)
        found["pdgd"] = partial(theirs.pdgd, num_steps=steps)
        found["cw"] = partial(theirs.carlini_wagner_l2, binary_search_steps=9, max_iterations=steps // 9)
        found["deepfool"] = partial(theirs.deepfool.df, steps=50, norm=2)
        found["superdeepfool"] = partial(theirs.sdf, steps=20, df_steps=20)
    return found


def _foolbox(norm: str, steps: int) -> dict[str, Peer]:
    import foolbox.attacks as theirs
    from foolbox import PyTorchModel

    made = {
        "linf": {"fmn": theirs.LInfFMNAttack(steps=steps)},
        "l2": {
            "fmn (known to be wrong)": theirs.L2FMNAttack(steps=steps),
            "ddn": theirs.DDNAttack(steps=steps),
            "cw": theirs.L2CarliniWagnerAttack(steps=steps // 9),
            "deepfool": theirs.L2DeepFoolAttack(),
        },
        "l1": {"fmn": theirs.L1FMNAttack(steps=steps), "ead": theirs.EADAttack(steps=steps // 9)},
        "l0": {"fmn": theirs.L0FMNAttack(steps=steps)},
    }[norm]

    def run(attack: object, net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return attack(PyTorchModel(net, bounds=(0, 1)), x, y, epsilons=None)[1]

    return {name: partial(run, attack) for name, attack in made.items()}


def _torchattacks(norm: str, steps: int) -> dict[str, Peer]:
    import torchattacks

    if norm != "l2":
        return {}
    return {
        "cw (known to be wrong)": lambda net, x, y: torchattacks.CW(net, steps=steps, c=1.0)(x, y),
        "deepfool": lambda net, x, y: torchattacks.DeepFool(net)(x, y),
    }


def _ours(norm: str, steps: int) -> dict[str, Callable[..., attacks.AttackResult]]:
    each = max(steps // 9, 1)
    if norm == "l0":
        return {"fmn": partial(attacks.fmn, steps=steps), "sigma-zero": partial(attacks.sigma_zero, steps=steps)}
    found = {
        "fmn": partial(attacks.fmn, steps=steps),
        "fab-targeted": partial(attacks.fab, steps=each),
        "fab": partial(attacks.fab, steps=each, targets=0),
        "apgd": partial(attacks.apgd, steps=max(steps // 10, 1), loss="margin"),
        "deepfool": attacks.deepfool,
        "superdeepfool": partial(attacks.superdeepfool, steps=30),
    }
    if norm == "l2":
        found |= {"ddn": partial(attacks.ddn, steps=steps), "cw": partial(attacks.cw, steps=steps)}
    return found | ({"ead": partial(attacks.ead, steps=steps)} if norm == "l1" else {})


def compare(net: nn.Module, x: Tensor, y: Tensor, norm: str, steps: int) -> None:
    """Print one table: every attack of the norm, ours first, then the peers that are installed."""
    model, best = Classifier.of(net, shape=tuple(x.shape[1:])), torch.full((len(x),), torch.inf, dtype=torch.float64)
    rows: list[tuple[str, Tensor, str, float]] = []
    for name, attack in _ours(norm, steps).items():
        start = time.perf_counter()
        found = attack(model, x, y, Threat(norm))
        seconds = time.perf_counter() - start
        rows.append((f"calipers {name}", found.distance, f"{found.gradients.double().mean():.0f}", seconds))
    for package, make in (("adv-lib", _adv_lib), ("foolbox", _foolbox), ("torchattacks", _torchattacks)):
        try:
            label, peers = f"{package} {version(package)}", make(norm, steps)
        except ImportError as missing:
            print(f"  {package}: left out ({missing})")
            continue
        for name, peer in peers.items():
            start = time.perf_counter()
            z = peer(net, x, y).detach()
            seconds = time.perf_counter() - start
            with torch.no_grad():
                fooled = (net(z).argmax(1) != y) & ((z >= 0) & (z <= 1)).flatten(1).all(1)
            rows.append((f"{label} {name}", torch.where(fooled, distance(x, z, norm), torch.inf), "", seconds))
    best = torch.stack([far for _, far, _, _ in rows]).amin(0)
    print(f"{'':45}{'median':>9}{'mean':>9}{'failed':>8}{'nearest':>9}{'gradients':>11}{'seconds':>9}")
    for name, far, gradients, seconds in rows:
        failed, near = int(far.isinf().sum()), float((far <= 1.01 * best).double().mean())
        mean = float(far[far.isfinite()].mean()) if failed < len(far) else float("inf")
        print(f"{name:45}{far.median():9.4f}{mean:9.4f}{failed:8d}{near:9.0%}{gradients:>11}{seconds:9.2f}", flush=True)


def main(robust: str | None = None, examples: int = 100, steps: int = 100, norms: str = "linf l2 l1 l0") -> None:
    """Print a table for every network and norm; ``nearest``: the share within 1 % of the nearest witness of all."""
    networks: dict[str, Callable[[], nn.Module]] = {"mlp 784-64-10": mlp, "undefended cnn": undefended_cnn}
    if robust:
        networks["adversarially trained cnn"] = partial(robust_cnn, robust)
    for title, make in networks.items():
        net = make()
        for parameter in net.parameters():
            parameter.requires_grad_(False)
        x, y = correct(net, examples)
        for norm in norms.split():
            print(f"\n{title}, {norm}, {len(x)} MNIST images, {steps} steps, torch {torch.__version__}")
            compare(net, x, y, norm, steps)
