"""``auto`` and ``reference`` beside the peers' AutoAttack: robust accuracy against seconds and against evaluations.

torchattacks' and ART's own ensembles are not the published one (10 steps instead of 100; PGD and DeepFool instead of
FAB): they are weaker, and shown as they are. For a like-for-like time the published composition is put together from
torchattacks' attacks with the published parameters, each run on what the ones before it have not broken.
"""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.networks import correct, robust_cnn, undefended_cnn
from calipers.attacks import auto, reference
from calipers.models import Classifier
from calipers.threats import Threat

__all__ = ["main", "plot"]

EPS = 0.3
TABLE = Path(__file__).with_name("ensembles.csv")
FIELDS = ("network", "images", "contender", "stage", "robust", "seconds", "forwards", "gradients")

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


def _network(name: str) -> nn.Module:
    """The undefended network, or the robust one whose weights (arch mnist-cnn) $CALIPERS_ROBUST names."""
    return undefended_cnn() if name == "undefended" else robust_cnn(os.environ["CALIPERS_ROBUST"])


@contextmanager
def _frozen(net: nn.Module) -> Iterator[None]:
    """No gradients of weights: peers need not pay for what they do not use."""
    for p in net.parameters():
        p.requires_grad_(False)
    yield


def main(network: str = "undefended", images: int = 200, only: str = "") -> None:
    """Run the contenders whose name contains ``only``; append a row for every stage to ensembles.csv."""
    net = _network(network)
    x, y = correct(net, images)
    new = not TABLE.exists()
    with _frozen(net), TABLE.open("a", newline="") as file:
        table = csv.writer(file)
        if new:
            table.writerow(FIELDS)
        for name, run in CONTENDERS.items():
            if only in name:
                for stage, robust, seconds, forwards, gradients in run(net, x, y):
                    row = (network, images, name, stage, f"{robust:.4f}", f"{seconds:.2f}", forwards, gradients)
                    table.writerow(row)
                    file.flush()
                    print(*row, sep="  ")


def plot(images: int = 200) -> None:
    """Robust accuracy against seconds and evaluations, from ensembles.csv, as ensembles.svg."""
    import matplotlib.pyplot as plt
    import pandas as pd

    rows = pd.read_csv(TABLE)
    networks = [n for n in ("undefended", "robust") if n in set(rows.network)]
    figure, axes = plt.subplots(len(networks), 2, figsize=(10, 3.6 * len(networks)), squeeze=False)
    rows["evaluations"] = rows.forwards + 2 * rows.gradients
    for line, network in zip(axes, networks, strict=True):
        for axis, cost in zip(line, ("seconds", "evaluations"), strict=True):
            for number, name in enumerate(CONTENDERS):
                some = rows[(rows.network == network) & (rows.contender == name)]
                some = some[some.images == some.images.max()]
                if some.empty:
                    continue
                cheap = max(float(some[cost].min()) / 2, 1e-3)
                look = {"where": "post", "marker": "o", "markersize": 3, "color": f"C{number}", "label": name}
                axis.step([cheap, *some[cost]], [1.0, *some.robust], **look)
            axis.set(xscale="log", xlabel=cost, ylabel=f"robust accuracy, {network}")
    axes[0, 0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(TABLE.with_suffix(".svg"))


if __name__ == "__main__":
    import sys

    words = sys.argv[1:]
    if words[0] == "plot":
        plot()
    else:
        main(words[0], int(words[1]), words[2] if len(words) > 2 else "")
