"""PGD-40 on an MNIST network beside the floor (40 forwards and input gradients) and the peers.

Same images, same eps, same number and size of steps, random start, cross-entropy; success is judged by one more call of
the model on what each library returns. Peers that are not installed are left out, and the table says so.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor, nn

from benchmarks.networks import correct, robust_cnn, undefended_cnn
from benchmarks.timing import Contender, race
from calipers.attacks import pgd
from calipers.models import Classifier
from calipers.threats import Threat

__all__ = ["main"]

STEPS = 40


def _accuracy(net: nn.Module, z: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((torch.cat([net(part) for part in z.split(128)]).argmax(1) == y).float().mean())


def _floor(net: nn.Module, x: Tensor, y: Tensor, batch: int) -> Contender:
    def run() -> float:
        for some, labels in zip(x.split(batch), y.split(batch), strict=True):
            for _ in range(STEPS):
                z = some.detach().requires_grad_()
                torch.autograd.grad(nn.functional.cross_entropy(net(z), labels, reduction="sum"), z)
        return float("nan")

    return run


def _ours(net: nn.Module, x: Tensor, y: Tensor, eps: float, batch: int) -> Contender:
    model = Classifier.of(net, shape=tuple(x.shape[1:]))

    def run() -> float:
        # The attack ends with a fresh call of the model on every witness: what it returns has been judged.
        found = pgd(model, x, y, Threat("linf", eps), steps=STEPS, loss="ce", batch_size=batch)
        return 1 - float(found.success.double().mean())

    return run


def _foolbox(net: nn.Module, x: Tensor, y: Tensor, eps: float, batch: int) -> Contender:
    import foolbox

    model = foolbox.PyTorchModel(net, bounds=(0, 1))
    attack = foolbox.attacks.LinfPGD(steps=STEPS, abs_stepsize=2.5 * eps / STEPS, random_start=True)

    def run() -> float:
        parts = [attack(model, a, b, epsilons=eps)[1] for a, b in zip(x.split(batch), y.split(batch), strict=True)]
        return _accuracy(net, torch.cat(parts), y)

    return run


def _torchattacks(net: nn.Module, x: Tensor, y: Tensor, eps: float, batch: int) -> Contender:
    import torchattacks

    attack = torchattacks.PGD(net, eps=eps, alpha=2.5 * eps / STEPS, steps=STEPS, random_start=True)

    def run() -> float:
        parts = [attack(a, b) for a, b in zip(x.split(batch), y.split(batch), strict=True)]
        return _accuracy(net, torch.cat(parts), y)

    return run


def _art(net: nn.Module, x: Tensor, y: Tensor, eps: float, batch: int) -> Contender:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    shape = tuple(x.shape[1:])
    model = PyTorchClassifier(net, nn.CrossEntropyLoss(), shape, 10, clip_values=(0, 1), device_type="cpu")
    attack = ProjectedGradientDescentPyTorch(
        model, norm="inf", eps=eps, eps_step=2.5 * eps / STEPS, max_iter=STEPS, num_random_init=1, batch_size=batch,
        verbose=False,
    )  # fmt: skip

    def run() -> float:
        return _accuracy(net, torch.from_numpy(attack.generate(x.numpy(), y.numpy())), y)

    return run


def _adv_lib(net: nn.Module, x: Tensor, y: Tensor, eps: float, batch: int) -> Contender:
    from adv_lib.attacks import pgd_linf

    def run() -> float:
        size = 2.5 * eps / STEPS
        parts = [
            pgd_linf(net, a, b, eps, steps=STEPS, absolute_step_size=size)
            for a, b in zip(x.split(batch), y.split(batch), strict=True)
        ]
        return _accuracy(net, torch.cat(parts), y)

    return run


def _cleverhans(net: nn.Module, x: Tensor, y: Tensor, eps: float, batch: int) -> Contender:
    import numpy as np
    from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent

    def run() -> float:
        size = 2.5 * eps / STEPS
        parts = [
            projected_gradient_descent(
                net, a, eps, size, STEPS, np.inf, clip_min=0.0, clip_max=1.0, y=b, sanity_checks=False
            ).detach()
            for a, b in zip(x.split(batch), y.split(batch), strict=True)
        ]
        return _accuracy(net, torch.cat(parts), y)

    return run


_PEERS = {
    "foolbox": _foolbox,
    "torchattacks": _torchattacks,
    "adversarial-robustness-toolbox": _art,
    "adv-lib": _adv_lib,
    "cleverhans": _cleverhans,
}


def main(robust: str | None = None, examples: int = 256, batch: int = 128, repeats: int = 3) -> None:
    """Print a table for each network: the undefended one, where examples fall early, and the robust one, if given."""
    networks = {"undefended cnn, examples fall early": undefended_cnn()}
    if robust:
        networks = {"adversarially trained cnn, few examples fall": robust_cnn(robust)} | networks
    for title, net in networks.items():
        compare(title, net, 0.3, examples, batch, repeats)


def compare(title: str, net: nn.Module, eps: float, examples: int, batch: int, repeats: int) -> None:
    """Print one table: the floor, ours, and the peers that are installed."""
    x, y = correct(net, examples)
    print(f"\n{title}: PGD-{STEPS}, L-infinity, eps {eps}, {len(x)} MNIST images, batch {batch}, "
          f"{torch.get_num_threads()} threads, torch {torch.__version__}, medians of {repeats} repeats")  # fmt: skip
    contenders = {"floor": _floor(net, x, y, batch), "calipers": _ours(net, x, y, eps, batch)}
    for name, make in _PEERS.items():
        try:
            contenders[f"{name} {version(name)}"] = make(net, x, y, eps, batch)
        except (PackageNotFoundError, ImportError) as missing:
            print(f"  {name}: left out ({missing})")
    result = race(contenders, repeats)
    ours, floor = result["calipers"][0], result["floor"][0]
    print(f"{'':45}{'seconds':>9}{'x floor':>9}{'x calipers':>12}{'robust':>9}")
    for name, (seconds, left) in result.items():
        print(f"{name:45}{seconds:9.2f}{seconds / floor:9.2f}{seconds / ours:12.2f}{left:9.3f}")
