"""Minimal-norm attacks side by side: median distance, failures, gradients and seconds, at the same number of steps.

What a library returns is judged alike for all: one fresh call of the model, the distance in float64. Rows that fail
count as infinite in the median, whatever the library says of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version

import torch
from torch import Tensor, nn

from benchmarks.networks import correct, named, networks
from benchmarks.record import Record, words_of
from benchmarks.timing import race
from calipers import attacks
from calipers.models import Classifier
from calipers.threats import Threat, distance, norm_of

__all__ = ["main"]

FIELDS = ("network", "norm", "images", "steps", "contender", "median", "failed", "gradients", "seconds", "distances")

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


def _own(
    attack: Callable[..., attacks.AttackResult], model: Classifier, x: Tensor, y: Tensor, norm: str
) -> tuple[Tensor, str]:
    found = attack(model, x, y, Threat(norm))
    return found.distance, f"{found.gradients.double().mean():.0f}"


def _foreign(peer: Peer, model: Classifier, x: Tensor, y: Tensor, norm: str) -> tuple[Tensor, str]:
    net = model.module
    z = peer(net, x, y).detach()
    with torch.no_grad():
        fooled = (net(z).argmax(1) != y) & ((z >= 0) & (z <= 1)).flatten(1).all(1)
    return torch.where(fooled, distance(x, z, norm), torch.inf), ""


def _contenders(norm: str, steps: int) -> dict[str, Callable[..., tuple[Tensor, str]]]:
    runs: dict[str, Callable[..., tuple[Tensor, str]]] = {
        f"calipers {name}": partial(_own, attack) for name, attack in _ours(norm, steps).items()
    }
    for package, make in (("adv-lib", _adv_lib), ("foolbox", _foolbox), ("torchattacks", _torchattacks)):
        try:
            label, peers = f"{package} {version(package)}", make(norm, steps)
        except ImportError as missing:
            print(f"  {package}: left out ({missing})")
            continue
        runs |= {f"{label} {name}": partial(_foreign, peer) for name, peer in peers.items()}
    return runs


def compare(
    record: Record, network: str, norm: str, images: int, steps: int, only: str, repeats: int, robust: str | None
) -> None:
    """The contenders of one network and norm that have no row yet (``only``: of these names), then the table.

    With ``repeats`` they run interleaved after a warm-up, and the seconds are medians; without, once each.
    """
    key = (network, norm, images, steps)
    runs = {name: run for name, run in _contenders(norm, steps).items() if not record.has(*key, name)}
    if only:
        runs = {name: run for name, run in runs.items() if any(name.endswith(f" {one}") for one in only.split())}
    if runs:
        net = named(network, robust)
        x, y = correct(net, images)
        model = Classifier.of(net, shape=tuple(x.shape[1:]))
        runs = {name: partial(run, model, x, y, norm) for name, run in runs.items()}
        for name, (seconds, (far, used)) in race(runs, repeats).items() if repeats else _once(runs):
            failed = int(far.isinf().sum())
            record.add((*key, name, f"{far.median():.4f}", failed, used, f"{seconds:.2f}", _packed(far)))
    rows = record.about(*key)
    if not rows:
        return
    print(f"\n{network}, {norm}, {images} MNIST images, {steps} gradients, torch {torch.__version__}")
    print("| | median | failed | near | gradients | seconds |\n|---|---|---|---|---|---|")
    for row, share in sorted(zip(rows, _near(rows), strict=True), key=lambda pair: float(pair[0]["median"])):
        print(
            "| {contender} | {median} | {failed} | {share:.0%} | {gradients} | {seconds} |".format(**row, share=share)
        )


def summary(record: Record, network: str, norms: list[str], images: int, steps: int) -> None:
    """One network in all norms: median distance, and the share of images within a percent of the nearest witness."""
    cells: dict[str, dict[str, str]] = {}
    for norm in norms:
        rows = record.about(network, norm, images, steps)
        least = min((float(row["median"]) for row in rows), default=math.inf)
        for row, share in zip(rows, _near(rows), strict=True):
            median, failed = float(row["median"]), int(row["failed"])
            told = f"{median:.{2 if norm == 'l1' else 4}f}" if math.isfinite(median) else "none"
            told = f"**{told}**" if median == least else told
            told += f" ({share:.0%}{f', fails on {failed}' if failed else ''})"
            cells.setdefault(row["contender"], {})[norm] = told
    print(f"\n{network}, {images} MNIST images, {steps} gradients: median distance (near)")
    print(f"| | {' | '.join(norms)} |\n|---|{'---|' * len(norms)}")
    for name in sorted(cells, key=lambda name: (not name.startswith("calipers"), name)):
        print(f"| {name} | {' | '.join(cells[name].get(norm, '') for norm in norms)} |")


def _near(rows: list[dict[str, str]]) -> list[float]:
    """For each contender the share of images on which it is within a percent of the nearest of all."""
    if not rows:
        return []
    found = torch.tensor([[float(d) for d in row["distances"].split()] for row in rows])
    near: list[float] = (found <= 1.01 * found.amin(0)).double().mean(1).tolist()
    return near


def _once(runs: dict[str, Callable[[], tuple[Tensor, str]]]) -> Iterator[tuple[str, tuple[float, tuple[Tensor, str]]]]:
    """Each contender once, as it is asked for: a run that is stopped keeps what it has."""
    for name, run in runs.items():
        start = time.perf_counter()
        try:
            answer = run()
        except Exception as error:  # a peer may fail on a network; the others go on
            print(f"  {name}: {type(error).__name__}: {error}")
            continue
        yield name, (time.perf_counter() - start, answer)


def _packed(far: Tensor) -> str:
    """Distances to five digits in one cell: who comes near depends on all contenders, also later ones."""
    return " ".join(f"{d:.5g}" for d in far.tolist())


def main(robust: str | None = None, words: list[str] | None = None) -> None:
    """Tables for every network and norm asked for; rows go to minimal.csv, and what is there is not run again."""
    parser = words_of("minimal", main.__doc__, robust, images=32, gradients=100)
    parser.add_argument("--only", default="", help="names of attacks, of whatever package")
    parser.add_argument("--repeats", type=int, default=0, help="for the seconds: interleaved, after a warm-up")
    asked = parser.parse_args(words or [])
    record = Record("minimal.csv", FIELDS)
    for name in asked.networks or networks(asked.robust):
        for norm in asked.norms:
            compare(record, name, norm, asked.images, asked.gradients, asked.only, asked.repeats, asked.robust)
        summary(record, name, asked.norms, asked.images, asked.gradients)


if __name__ == "__main__":
    import sys

    main(words=sys.argv[1:])
