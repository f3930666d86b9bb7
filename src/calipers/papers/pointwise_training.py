"""Barati, Safabakhsh and Rahmati 2021, Section IV-C: training on hard points, and what transfers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from calipers.data import DataSet
from calipers.models import Classifier
from calipers.papers.pointwise import PAPER
from calipers.papers.registry import HERE, Bench, Result, Scale, figure
from calipers.papers.trainings import Studio
from calipers.threats import steepest
from calipers.training import Ascent, Plan, Schedule

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

__all__ = ["figure5"]

_SIZES = {
    # data sets, network, training examples, epochs, test examples
    "smoke": (("digits",), "digits-mlp", 300, 2, 50),
    "cpu": (("mnist",), "mnist-mlp-512", 6000, 10, 1000),
    "paper": (("mnist", "fashion-mnist"), "mnist-mlp-512", None, 10, None),
}
# The paper says "a few gradient ascend steps" and gives no numbers: five normalised steps within an L2 distance of 2.
_REACH, _STEPS = 2.0, 5
_SOURCES = ("reference", "hard")


@figure(
    "pointwise.figure5",
    paper=PAPER,
    claim="Trained on a third of the data and on hard points near it, a network is as accurate as one trained on all "
    "of the data, more robust, and its adversarial examples transfer to that one, but not vice versa.",
    long=True,
)
def figure5(scale: Scale, bench: Bench = HERE) -> Result:
    """Accuracy against the length of a normalised one-step attack, direct and transferred both ways."""
    sets, arch, examples, epochs, judged = _SIZES[scale]
    table = pd.concat(
        [_rows(scale, bench.trained, data, arch, examples, epochs, judged) for data in sets], ignore_index=True
    )
    return Result(table, tuple(_finding(table[table.data == data], data) for data in sets), lambda: _draw(table))


def _rows(scale: Scale, folder: Path | None, data: str, arch: str, examples: int | None, epochs: int,
          judged: int | None) -> pd.DataFrame:  # fmt: skip
    """Both networks of one data set; the attack is computed on ``source`` and judged by ``target``."""
    whole = Studio(scale, data, arch, folder, examples)
    third = Studio(scale, data, arch, folder, len(whole.training) // 3)
    hard = Plan("hard", Schedule("constant", _REACH), Ascent("l2", steps=_STEPS), epochs=epochs)
    alone = Plan("standard", Schedule("constant", 0.0), epochs=epochs)
    models = {
        "reference": whole.fit("reference", alone).model,
        "hard": third.fit("hard", hard).model,
        "third": third.fit("third", alone).model,
    }
    test, rows = whole.test(judged), []
    for source in models:
        away = _direction(models[source], test)
        for target in models if source in _SOURCES else (source,):
            for length in np.linspace(0, 4, 17):
                z = models[source].box.clamp(test.x + float(length) * away)
                right = float((_logits(models[target], z).argmax(1) == test.y).double().mean())
                rows.append({"data": data, "source": source, "target": target, "length": length, "accuracy": right})
    return pd.DataFrame(rows)


def _direction(model: Classifier, test: DataSet) -> Tensor:
    """The gradient of the cross-entropy, of L2 length 1."""
    parts = []
    for x, y in zip(test.x.split(500), test.y.split(500), strict=True):
        z = x.detach().requires_grad_()
        (grad,) = torch.autograd.grad(nn.functional.cross_entropy(model(z), y, reduction="sum"), z)
        parts.append(steepest(grad, "l2"))
    return torch.cat(parts)


def _logits(model: Classifier, x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([model(part) for part in x.split(1000)])


def _finding(table: pd.DataFrame, data: str) -> str:
    """Accuracies at 0 and at length 2, in percent."""
    at = table.set_index(["source", "target", "length"]).accuracy.mul(100).round(1)

    def told(source: str, target: str, length: float) -> str:
        return f"{at[source, target, length]:.1f}%"

    return (
        f"{data}: clean accuracy {told('hard', 'hard', 0)} with hard points on a third, "
        f"{told('reference', 'reference', 0)} on all of the data, {told('third', 'third', 0)} on the same third alone. "
        f"At length 2, direct: {told('hard', 'hard', 2)}, {told('reference', 'reference', 2)} and "
        f"{told('third', 'third', 2)}. Transferred: the hard network's examples leave the reference "
        f"{told('hard', 'reference', 2)}, the reference's leave the hard network {told('reference', 'hard', 2)}."
    )


def _draw(table: pd.DataFrame) -> Picture:
    from matplotlib.figure import Figure as Canvas

    sets = list(table.data.unique())
    page = Canvas(figsize=(4.8 * len(sets), 3.6), layout="constrained")
    for axis, data in zip(np.atleast_1d(page.subplots(1, len(sets))), sets, strict=True):
        for (source, target), part in table[table.data == data].groupby(["source", "target"]):
            direct = source == target
            label = f"{target}, direct" if direct else f"{target}, from {source}"
            colour = {"reference": "tab:red", "hard": "tab:blue", "third": "0.6"}[str(target)]
            axis.plot(part.length, part.accuracy, color=colour, linestyle="-" if direct else "--", label=label)
        axis.set(xlabel="length of the step (L2)", ylabel="accuracy", title=data, ylim=(0, 1))
        axis.legend(fontsize=7, frameon=False)
    return page
