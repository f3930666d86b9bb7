"""``auto`` and ``reference`` beside the peers' AutoAttack: robust accuracy against seconds and against evaluations.

torchattacks' and ART's own ensembles are not the published one (10 steps instead of 100; PGD and DeepFool instead of
FAB): they are weaker, and shown as they are. For a like-for-like time the published composition is put together from
torchattacks' attacks with the published parameters, each run on what the ones before it have not broken.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks.networks import correct, named
from benchmarks.record import Record
from calipers.attacks import auto, reference
from calipers.models import Classifier
from calipers.threats import Threat

__all__ = ["main", "plot"]

EPS = 0.3
FIELDS = ("network", "images", "contender", "first", "stage", "robust", "seconds", "forwards", "gradients")

# How many images a contender is given at once; ``auto`` gets all of them, because it compares examples.
BLOCK = 100

Row = tuple[str, float, float, int, int]


class _Counted(nn.Module):
    """Counts the examples that go forward, and those whose gradient is asked for."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.forwards, self.gradients = inner, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        logits: Tensor = self.inner(x)
        if logits.requires_grad:
            logits.register_hook(self._count)
        return logits

    def _count(self, gradient: Tensor) -> None:
        self.gradients += len(gradient)


def _ours(attack: Callable[..., object]) -> Callable[[nn.Module, Tensor, Tensor], Iterator[Row]]:
    def run(net: nn.Module, x: Tensor, y: Tensor) -> Iterator[Row]:
        found = attack(Classifier.of(net, shape=(1, 28, 28)), x, y, Threat("linf", EPS), batch_size=128)
        standing, seconds, forwards, gradients = len(x), 0.0, 0, 0
        for stage in found.stages:
            standing, seconds = standing - stage.broke, seconds + stage.seconds
            forwards, gradients = forwards + stage.forwards, gradients + stage.gradients
            yield stage.attack, standing / len(x), seconds, forwards, gradients
        assert standing == int((~found.success).sum())

    return run


def _in_turn(
    attacks: dict[str, Callable[[Tensor, Tensor], Tensor]], net: _Counted, x: Tensor, y: Tensor
) -> Iterator[Row]:
    """Each attack on what still stands; success is judged by one more, uncounted, call of the network."""
    seconds = 0.0
    for name, attack in attacks.items():
        if not len(x):
            return
        start = time.perf_counter()
        z = torch.cat([attack(a, b).detach() for a, b in zip(x.split(128), y.split(128), strict=True)])
        seconds += time.perf_counter() - start
        with torch.no_grad():
            stands = torch.cat([net.inner(part) for part in z.split(128)]).argmax(1) == y
            stands |= ((z - x).abs().flatten(1).amax(1) > EPS + 1e-5) & (net.inner(x).argmax(1) == y)
        x, y = x[stands], y[stands]
        yield name, float(len(x)), seconds, net.forwards, net.gradients


def _share(rows: Iterator[Row], count: int) -> Iterator[Row]:
    for name, standing, *rest in rows:
        yield (name, standing / count, *rest)


def _published_by_torchattacks(net: nn.Module, x: Tensor, y: Tensor) -> Iterator[Row]:
    import torchattacks as ta

    counted = _Counted(net)
    attacks = {
        "apgd-ce": ta.APGD(counted, eps=EPS, steps=100, loss="ce"),
        "apgd-targeted": ta.APGDT(counted, eps=EPS, steps=100),
        "fab-targeted": ta.FAB(counted, eps=EPS, steps=100, multi_targeted=True),
        "square": ta.Square(counted, eps=EPS, n_queries=5000),
    }
    return _share(_in_turn(attacks, counted, x, y), len(x))


def _torchattacks(net: nn.Module, x: Tensor, y: Tensor) -> Iterator[Row]:
    import torchattacks as ta

    counted = _Counted(net)
    return _share(_in_turn({"AutoAttack": ta.AutoAttack(counted, eps=EPS)}, counted, x, y), len(x))


def _art(net: nn.Module, x: Tensor, y: Tensor) -> Iterator[Row]:
    from art.attacks.evasion import AutoAttack
    from art.estimators.classification import PyTorchClassifier

    counted = _Counted(net)
    model = PyTorchClassifier(counted, nn.CrossEntropyLoss(), (1, 28, 28), 10, clip_values=(0, 1), device_type="cpu")
    attack = AutoAttack(model, eps=EPS, eps_step=EPS / 4, batch_size=128)

    def run(a: Tensor, b: Tensor) -> Tensor:
        return torch.from_numpy(attack.generate(a.numpy(), nn.functional.one_hot(b, 10).numpy()))

    return _share(_in_turn({"AutoAttack": run}, counted, x, y), len(x))


CONTENDERS = {
    "calipers auto": _ours(auto),
    "calipers reference": _ours(reference),
    "torchattacks, published composition": _published_by_torchattacks,
    "torchattacks AutoAttack": _torchattacks,
    "ART AutoAttack": _art,
}


def main(network: str = "undefended", images: int = 200, only: str = "") -> None:
    """Run the contenders whose name contains ``only``, a block of images at a time; what ensembles.csv has is not run.

    The weights of the robust network (arch mnist-cnn) are in the file that $CALIPERS_ROBUST names. The rows of a block
    are written when it is done: costs are counted from its first image on.
    """
    net, record = named(network, os.environ.get("CALIPERS_ROBUST")), Record("ensembles.csv", FIELDS)
    x, y = correct(net, images)
    with torch.no_grad():
        net(x[:BLOCK])  # the first call of a process is slow
    for name, run in CONTENDERS.items():
        size = images if name == "calipers auto" else BLOCK
        for first in range(0, images, size):
            if only not in name or record.has(network, images, name, first):
                continue
            some = slice(first, first + size)
            record.add(
                *(
                    (network, images, name, first, stage, f"{robust:.4f}", f"{seconds:.2f}", forwards, gradients)
                    for stage, robust, seconds, forwards, gradients in run(net, x[some], y[some])
                )
            )
    total = totals(network, images)
    print(f"\n{network}, {images} images, L-infinity, eps {EPS}, torch {torch.__version__}")
    print("| | robust accuracy | seconds | forwards | gradients |\n|---|---|---|---|---|")
    for name, rows in total.items():
        _, robust, seconds, forwards, gradients = rows[-1]
        print(f"| {name} | {robust:.1%} | {seconds:.1f} | {forwards:,} | {gradients:,} |")


def totals(network: str, images: int) -> dict[str, list[Row]]:
    """For each contender that is done with all its blocks, what each stage left and had cost, the blocks together."""
    rows, found = Record("ensembles.csv", FIELDS).about(network, images), {}
    for name in dict.fromkeys(row["contender"] for row in rows):
        blocks: dict[int, list[Row]] = {}
        for row in rows:
            if row["contender"] == name:
                costs = (float(row["robust"]), float(row["seconds"]), int(row["forwards"]), int(row["gradients"]))
                blocks.setdefault(int(row["first"]), []).append((row["stage"], *costs))
        size = images if name == "calipers auto" else BLOCK
        if len(blocks) < -(-images // size):
            print(f"  {name}: {len(blocks)} of {-(-images // size)} blocks done")
            continue
        share = {first: min(size, images - first) / images for first in blocks}
        # A block in which nothing stands any more has fewer stages: its last one holds on.
        longest = max(blocks.values(), key=len)
        found[name] = [
            (
                stage[0],
                sum(share[first] * part[min(i, len(part) - 1)][1] for first, part in blocks.items()),
                sum(part[min(i, len(part) - 1)][2] for part in blocks.values()),
                sum(part[min(i, len(part) - 1)][3] for part in blocks.values()),
                sum(part[min(i, len(part) - 1)][4] for part in blocks.values()),
            )
            for i, stage in enumerate(longest)
        ]
    return found


def plot(images: int = 200) -> None:
    """Robust accuracy against seconds and evaluations, from ensembles.csv, as ensembles.svg."""
    import matplotlib.pyplot as plt

    measured = {network: totals(network, images) for network in ("undefended", "robust")}
    measured = {network: total for network, total in measured.items() if total}
    figure, axes = plt.subplots(len(measured), 2, figsize=(10, 3.6 * len(measured)), squeeze=False)
    for line, (network, total) in zip(axes, measured.items(), strict=True):
        for axis, cost in zip(line, ("seconds", "evaluations"), strict=True):
            for number, (name, rows) in enumerate(total.items()):
                spent = [row[2] if cost == "seconds" else row[3] + 2 * row[4] for row in rows]
                look = {"where": "post", "marker": "o", "markersize": 3, "color": f"C{number}", "label": name}
                axis.step([max(min(spent) / 2, 1e-3), *spent], [1.0, *(row[1] for row in rows)], **look)
            axis.set(xscale="log", xlabel=cost, ylabel=f"robust accuracy, {network}")
    axes[0, 0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(Record("ensembles.csv", FIELDS).path.with_suffix(".svg"))


if __name__ == "__main__":
    import sys

    words = sys.argv[1:]
    if words[:1] == ["plot"]:
        plot(*map(int, words[1:]))
    else:
        main(*words[:1], *map(int, words[1:2]), *words[2:])
