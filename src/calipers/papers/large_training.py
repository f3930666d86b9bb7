"""Shaeiri, Nobahari and Rohban 2020, Sections 3 and Appendices B, D, E: training at large perturbations."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from calipers.attacks import apgd, pgd
from calipers.data import DataSet
from calipers.models import Classifier
from calipers.papers.large_perturbations import PAPER
from calipers.papers.registry import Result, Scale, figure
from calipers.papers.trainings import Studio, draw_curves
from calipers.threats import Threat
from calipers.training import Ascent, Plan, Schedule, Trained, accuracy

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

__all__ = ["figure1", "figure2", "figure7", "figure8", "figure10", "table1"]


@dataclass(frozen=True)
class _Size:
    """How much of the published training a scale does, and on how many test examples it is judged."""

    data: str
    arch: str
    examples: int | None
    epochs: int
    extended: int
    rise: float
    judged: int
    strongly: int


SIZES: dict[Scale, _Size] = {
    "smoke": _Size("digits", "digits-mlp", 256, 2, 1, 0.2, 20, 10),
    "cpu": _Size("mnist", "mnist-small", None, 4, 2, 0.05, 1000, 500),
    "paper": _Size("mnist", "mnist-cnn", None, 30, 5, 0.01, 10_000, 1000),
}
PUBLISHED = {"adversarial training (0.3)": (98, 91, 15, 30), "0.3 -> 0.4": (98, 94, 90, 60), "IAT (0 -> 0.4)": (98, 95, 91, None)}


def _plan(eps: float, size: _Size, *, epochs: int | None = None) -> Plan:
    """Section 3.1.1: signed PGD with random start, step 0.05 and 2.5·eps/0.05 steps; Adam, 0.001, batches of 128."""
    return Plan("pgd", Schedule("constant", eps), Ascent("linf", step_size=0.05), epochs=epochs or size.epochs)


class _Trainings:
    """The networks of the paper, each trained once for all figures."""

    def __init__(self, scale: Scale, folder: Path | None) -> None:
        self.size = SIZES[scale]
        self.studio = Studio(scale, self.size.data, self.size.arch, folder, self.size.examples)

    def base(self, eps: float) -> Trained:
        return self.studio.fit(f"{eps:g}", _plan(eps, self.size))

    def extended(self, start: float, eps: float) -> Trained:
        plan = _plan(eps, self.size, epochs=self.size.extended)
        return self.studio.fit(f"{start:g}-{eps:g}", plan, start=self.base(start).model)

    def iterative(self, eps: float) -> Trained:
        rise = self.size.rise
        plan = replace(_plan(eps, self.size, epochs=math.ceil(eps / rise - 1e-9)), schedule=Schedule("iterative", eps, rise=rise))
        return self.studio.fit(f"iat-{eps:g}", plan)


@figure(
    "large_perturbations.table1",
    paper=PAPER,
    claim="MNIST, L-infinity: started from a network trained at 0.3, or with eps raised by 0.01 an epoch, adversarial "
    "training at 0.4 works (90% and 91% under PGD-200); the baseline trained at 0.3 has 15% there.",
    trains=True,
)
def table1(scale: Scale, folder: Path | None = None) -> Result:
    """Clean and robust accuracy of the three networks, under the paper's attack and under this project's strongest."""
    runs = _Trainings(scale, folder)
    models = {
        "adversarial training (0.3)": runs.base(0.3),
        "0.3 -> 0.4": runs.extended(0.3, 0.4),
        "IAT (0 -> 0.4)": runs.iterative(0.4),
    }
    size, test = runs.size, runs.studio.test(runs.size.judged)
    table = pd.DataFrame([{"model": name} | _judged(run.model, test, size) for name, run in models.items()])
    return Result(table, (*_findings(table, runs, models), _compared(table)))


def _judged(model: Classifier, test: DataSet, size: _Size) -> dict[str, float]:
    """Percent right: clean; PGD-200 with the training's step size, as published; and the strongest of ours."""
    row = {"clean": 100 * accuracy(model, test.x, test.y)}
    few = test.take(min(size.strongly, len(test)))
    for eps in (0.3, 0.4):
        threat = Threat("linf", eps)
        found = pgd(model, test.x, test.y, threat, steps=200, step_size=0.05, loss="ce-raw")
        row[f"pgd200_{eps:g}"] = 100 * (1 - float(found.success.double().mean()))
        row[f"pgd200_{eps:g}_few"] = 100 * (1 - float(found.success[: len(few)].double().mean()))
        row[f"strongest_{eps:g}_few"] = _strongest(model, few, threat, ~found.success[: len(few)])
    far = pgd(model, test.x, test.y, Threat("l2", 5.0), steps=125, step_size=0.1, loss="ce-raw")
    row["l2_5"] = 100 * (1 - float(far.success.double().mean()))
    return row


def _strongest(model: Classifier, few: DataSet, threat: Threat, left: "object") -> float:
    """Percent not broken by PGD-200, APGD on the cross-entropy and the DLR loss, and APGD at each other class."""
    import torch

    assert isinstance(left, torch.Tensor)
    left = left.clone()
    for options in ({"loss": "ce", "restarts": 2}, {"loss": "dlr", "restarts": 2}, {"loss": "dlr", "targets": 9}):
        some = left.nonzero()[:, 0]
        if len(some):
            left[some] = ~apgd(model, few.x[some], few.y[some], threat, index=some, **options).success
    return 100 * float(left.double().mean())


def _findings(table: pd.DataFrame, runs: _Trainings, models: dict[str, Trained]) -> tuple[str, ...]:
    size = runs.size
    epochs = ", ".join(f"{name}: {len(run.metrics)} epochs" for name, run in models.items())
    stops = [f"{name} stopped: {run.stopped}." for name, run in models.items() if run.stopped]
    optimism = max((table[f"pgd200_{e:g}_few"] - table[f"strongest_{e:g}_few"]).max() for e in (0.3, 0.4))
    return (
        f"{runs.studio.told()}; {epochs}; judged on {size.judged} test examples, the strongest attack on the first "
        f"{size.strongly}.",
        *stops,
        f"PGD-200 is optimistic by up to {optimism:.1f} points against PGD-200, APGD on both losses and targeted APGD "
        "together, on the same examples.",
    )


def _compared(table: pd.DataFrame) -> str:
    told = []
    for row in table.to_dict("records"):
        clean, low, high, far = PUBLISHED[row["model"]]
        told.append(
            f"{row['model']}: clean {row['clean']:.1f} (published {clean}), 0.3 {row['pgd200_0.3']:.1f} ({low}), "
            f"0.4 {row['pgd200_0.4']:.1f} ({high}), L2 5 {row['l2_5']:.1f} ({far or 'none'})"
        )
    return "; ".join(told) + "."


def _curves(trainings: dict[str, Trained], columns: tuple[str, ...] = ("loss",)) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """One row an epoch of every training."""
    kept = ["epoch", "eps", *columns, "clean", "robust"]
    parts = {name: pd.DataFrame(run.metrics)[kept] for name, run in trainings.items()}
    return pd.concat([part.assign(training=name) for name, part in parts.items()], ignore_index=True), parts


def _curve_figure(runs: _Trainings, trainings: dict[str, Trained], said: tuple[str, ...] = (),
                  columns: tuple[str, ...] = ("loss",)) -> Result:  # fmt: skip
    table, parts = _curves(trainings, columns)
    ends = "; ".join(f"{name}: {part.loss.iloc[0]:.3f} to {part.loss.iloc[-1]:.3f}" for name, part in parts.items())
    told = f"Training loss from the first epoch to the last, {runs.studio.told()}: {ends} (chance is log 10 = 2.303)."

    def draw() -> Picture:
        from matplotlib.figure import Figure as Picture

        page = Picture(figsize=(4.5 * len(columns), 3.4), layout="constrained")
        for axis, column in zip(np.atleast_1d(page.subplots(1, len(columns))), columns, strict=True):
            draw_curves(axis, parts, column)
        return page

    return Result(table, (told, *said), draw)


@figure(
    "large_perturbations.figure1",
    paper=PAPER,
    claim="Adversarial training from random weights does not lower the training loss for eps above about 0.35 on MNIST.",
    trains=True,
)
def figure1(scale: Scale, folder: Path | None = None) -> Result:
    """Training loss by epoch from random weights, for five eps."""
    runs = _Trainings(scale, folder)
    return _curve_figure(runs, {f"{eps:g}": runs.base(eps) for eps in (0.1, 0.2, 0.3, 0.35, 0.4, 0.5)})


@figure(
    "large_perturbations.figure2",
    paper=PAPER,
    claim="From weights trained at a smaller eps the training loss at a larger one falls within a few epochs: "
    "0.3 -> 0.4 (A) and 0.35 -> 0.45 (B) on MNIST.",
    trains=True,
)
def figure2(scale: Scale, folder: Path | None = None) -> Result:
    """Extended adversarial training beside training from random weights at the same eps."""
    runs = _Trainings(scale, folder)
    trainings = {"A: 0.3 -> 0.4": runs.extended(0.3, 0.4), "B: 0.35 -> 0.45": runs.extended(0.35, 0.45),
                 "0.4 from random weights": runs.base(0.4)}  # fmt: skip
    return _curve_figure(runs, trainings)


@figure(
    "large_perturbations.figure7",
    paper=PAPER,
    claim="Iterative adversarial training to 0.5: the training loss rises slowly, then suddenly; there one stops.",
    trains=True,
)
def figure7(scale: Scale, folder: Path | None = None) -> Result:
    """The training loss while eps rises, and where the stopping rule ends it."""
    runs = _Trainings(scale, folder)
    run = runs.iterative(0.5)
    return _curve_figure(runs, {"IAT 0 -> 0.5": run}, (run.stopped or "The stopping rule found no sudden rise.",))


@figure(
    "large_perturbations.figure8",
    paper=PAPER,
    claim="Adversarial training fails above about 0.35 from random weights; extended training to 0.5 lowers the loss.",
    trains=True,
)
def figure8(scale: Scale, folder: Path | None = None) -> Result:
    """Extended training from 0.3 to 0.4 and 0.5, and from 0.35 to 0.45."""
    runs = _Trainings(scale, folder)
    pairs = ((0.3, 0.4), (0.35, 0.45), (0.3, 0.5))
    return _curve_figure(runs, {f"{start:g} -> {eps:g}": runs.extended(start, eps) for start, eps in pairs})


@figure(
    "large_perturbations.figure10",
    paper=PAPER,
    claim="Adversarial training converges: the change of the training loss and the L2 distance of the weights from "
    "epoch to epoch both become small.",
    trains=True,
)
def figure10(scale: Scale, folder: Path | None = None) -> Result:
    """Change of the loss and movement of the weights by epoch."""
    runs = _Trainings(scale, folder)
    trainings = {"0.3": runs.base(0.3), "0.3 -> 0.4": runs.extended(0.3, 0.4)}
    moved = trainings["0.3"].metrics
    said = (f"At 0.3 the weights move {moved[0]['weights_moved']:.2f} in the first epoch and "
            f"{moved[-1]['weights_moved']:.2f} in the last.")  # fmt: skip
    return _curve_figure(runs, trainings, (said,), ("loss", "loss_change", "weights_moved"))
