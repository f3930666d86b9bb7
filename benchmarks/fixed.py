"""Attacks at a fixed eps side by side: the share not broken after at most so many gradients each.

Eps is, for each network and norm, the median of the distances our FMN finds with 20 gradients: about half can fall.
What a library returns is judged alike for all: one fresh call of the model, the distance in float64, 1e-5·eps allowed
for the rounding of those that do not look after it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from itertools import product

import torch
from torch import Tensor, nn

from benchmarks.networks import correct, named, networks
from benchmarks.record import Record, words_of
from calipers import attacks
from calipers.models import Classifier
from calipers.threats import Threat, distance, norm_of

__all__ = ["main"]

FIELDS = ("network", "norm", "images", "gradients", "contender", "eps", "not_broken", "gradients_used", "seconds")

Peer = Callable[[nn.Module, Tensor, Tensor], Tensor]


def _ours(steps: int) -> dict[str, Callable[..., attacks.AttackResult]]:
    return {
        "pgd": partial(attacks.pgd, steps=steps, loss="ce"),
        "apgd-ce": partial(attacks.apgd, steps=steps),
        "apgd-margin": partial(attacks.apgd, steps=steps, loss="margin"),
        "apgd-dlr": partial(attacks.apgd, steps=steps, loss="dlr"),
        "apgd-targeted": partial(attacks.apgd, steps=max(steps // 9, 1), loss="dlr", targets=9),
        "fmn": partial(attacks.fmn, steps=steps),
        "fab": partial(attacks.fab, steps=max(steps // 9, 1)),
    }


def _adv_lib(norm: str, eps: float, steps: int) -> dict[str, Peer]:
    from adv_lib import attacks as theirs

    usual = {"eps": eps, "norm": norm_of(norm)}
    found: dict[str, Peer] = {
        f"apgd-{loss}": partial(theirs.apgd, **usual, n_iter=steps, loss_function=loss) for loss in ("ce", "dlr")
    }
    found["apgd-targeted"] = partial(theirs.apgd_targeted, **usual, n_iter=max(steps // 9, 1), num_targets=9)
    found["fab"] = partial(theirs.fab, norm=norm_of(norm), n_iter=max(steps // 9, 1))
    if norm == "linf":
        found["pgd"] = lambda net, x, y: theirs.pgd_linf(
            net, x, y, eps, steps=steps, absolute_step_size=2.5 * eps / steps
        )
    return found


def _foolbox(norm: str, eps: float, steps: int) -> dict[str, Peer]:
    import foolbox

    kind = {"linf": "Linf", "l2": "L2", "l1": "L1"}[norm]
    attack = getattr(foolbox.attacks, f"{kind}ProjectedGradientDescentAttack")(steps=steps, rel_stepsize=2.5 / steps)

    def run(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return attack(foolbox.PyTorchModel(net, bounds=(0, 1)), x, y, epsilons=eps)[1]

    return {"pgd": run}


def _torchattacks(norm: str, eps: float, steps: int) -> dict[str, Peer]:
    import torchattacks as ta

    kind, size = {"linf": "Linf", "l2": "L2", "l1": ""}[norm], 2.5 * eps / steps
    if not kind:
        return {}
    found: dict[str, Peer] = {
        f"apgd-{loss}": lambda net, x, y, loss=loss: ta.APGD(net, norm=kind, eps=eps, steps=steps, loss=loss)(x, y)
        for loss in ("ce", "dlr")
    }
    pgd = ta.PGD if norm == "linf" else ta.PGDL2
    return found | {"pgd": lambda net, x, y: pgd(net, eps=eps, alpha=size, steps=steps)(x, y)}


def _own(attack: Callable[..., attacks.AttackResult], x: Tensor, y: Tensor, threat: Threat, net: nn.Module) -> tuple:
    found = attack(Classifier.of(net, shape=tuple(x.shape[1:])), x, y, threat)
    return 1 - float(found.success.double().mean()), f"{found.gradients.double().mean():.0f}"


def _foreign(peer: Peer, x: Tensor, y: Tensor, threat: Threat, net: nn.Module) -> tuple:
    z = peer(net, x, y).detach()
    with torch.no_grad():
        fooled = (net(z).argmax(1) != y) & ((z >= 0) & (z <= 1)).flatten(1).all(1)
    fooled &= distance(x, z, threat.norm) <= threat.ladder[0] * (1 + 1e-5)
    return 1 - float(fooled.double().mean()), ""


def _contenders(norm: str, eps: float, steps: int) -> dict[str, Callable[..., tuple]]:
    found = {f"calipers {name}": partial(_own, attack) for name, attack in _ours(steps).items()}
    for package, make in (("adv-lib", _adv_lib), ("foolbox", _foolbox), ("torchattacks", _torchattacks)):
        try:
            label, peers = f"{package} {version(package)}", make(norm, eps, steps)
        except ImportError as missing:
            print(f"  {package}: left out ({missing})")
            continue
        found |= {f"{label} {name}": partial(_foreign, peer) for name, peer in peers.items()}
    return found


def compare(record: Record, name: str, norm: str, images: int, steps: int, robust: str | None) -> None:
    """The contenders of one network and norm that have no row yet; then the table."""
    net = named(name, robust)
    x, y = correct(net, images)
    first = attacks.fmn(Classifier.of(net, shape=tuple(x.shape[1:])), x, y, Threat(norm), steps=20)
    eps = float(f"{first.distance.median():.3g}")
    for contender, run in _contenders(norm, eps, steps).items():
        if record.has(name, norm, images, steps, contender):
            continue
        start = time.perf_counter()
        try:
            left, used = run(x, y, Threat(norm, eps), net)
        except Exception as error:  # a peer may fail on a network; the others go on
            print(f"  {contender}: {type(error).__name__}: {error}")
            continue
        seconds = f"{time.perf_counter() - start:.2f}"
        record.add((name, norm, images, steps, contender, eps, f"{left:.4f}", used, seconds))


def table(record: Record, name: str, norm: str, images: int, steps: int) -> None:
    """What was measured on one network and norm, the strongest first."""
    rows = sorted(record.about(name, norm, images, steps), key=lambda row: float(row["not_broken"]))
    print(
        f"\n{name}, {norm}, eps {rows[0]['eps']}, {images} MNIST images, {steps} gradients, torch {torch.__version__}"
    )
    print("| | not broken | gradients | seconds |\n|---|---|---|---|")
    for row in rows:
        print("| {contender} | {not_broken} | {gradients_used} | {seconds} |".format(**row))


def summary(record: Record, networks: list[str], norms: list[str], images: int, steps: int) -> None:
    """Of every network and norm the least share not broken by ours and by the peers', and that of APGD-CE and PGD."""
    print("\n| network, norm, eps | Calipers' strongest | its APGD-CE / PGD | peers' strongest | their APGD-CE / PGD |")
    print("|---|---|---|---|---|")
    for name, norm in product(networks, norms):
        rows = record.about(name, norm, images, steps)
        cells = []
        for own in (True, False):
            left = {row["contender"].removeprefix("calipers "): float(row["not_broken"])
                    for row in rows if row["contender"].startswith("calipers ") == own}  # fmt: skip
            if not left:
                cells += ["none", "none"]
                continue
            least = min(left.values())
            strongest = ", ".join(sorted(contender for contender, share in left.items() if share == least))
            kinds = [
                min((s for c, s in left.items() if c.split()[-1] == kind), default=None) for kind in ("apgd-ce", "pgd")
            ]
            cells += [f"{least:.3f} {strongest}", " / ".join("none" if s is None else f"{s:.3f}" for s in kinds)]
        print(f"| {name}, {norm}, {rows[0]['eps']} | {' | '.join(cells)} |")


def main(robust: str | None = None, words: list[str] | None = None) -> None:
    """Tables for every network and norm asked for; rows go to fixed.csv, and what is there is not run again."""
    asked = words_of("fixed", main.__doc__, robust, images=64, gradients=40).parse_args(words or [])
    record = Record("fixed.csv", FIELDS)
    chosen = asked.networks or networks(asked.robust)
    for name, norm in product(chosen, asked.norms):
        compare(record, name, norm, asked.images, asked.gradients, asked.robust)
        table(record, name, norm, asked.images, asked.gradients)
    summary(record, chosen, asked.norms, asked.images, asked.gradients)


if __name__ == "__main__":
    import sys

    main(words=sys.argv[1:])
