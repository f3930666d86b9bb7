"""Shaeiri, Nobahari and Rohban 2020, Section 3 and Appendices B, D and E: the learning curves."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from calipers.data import DataSet
from calipers.papers.large_perturbations import PAPER
from calipers.papers.large_training import CURVES, LEARNED, Trainings, not_broken, training_pgd
from calipers.papers.registry import HERE, Bench, Result, Scale, figure
from calipers.papers.trainings import draw_curves, train_chains
from calipers.threats import Threat
from calipers.training import Trained

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

__all__ = ["figure1", "figure2", "figure7", "figure8", "figure10"]


def _curves(runs: Trainings, trainings: dict[str, Trained], *said: str, columns: tuple[str, ...] = ("loss",)) -> Result:
    """One row an epoch of every training, and a picture of some columns."""
    kept = ["epoch", "eps", *columns, "clean", "robust"]
    parts = {name: pd.DataFrame(run.metrics)[kept] for name, run in trainings.items()}
    table = pd.concat([part.assign(training=name) for name, part in parts.items()], ignore_index=True)
    ends = "; ".join(f"{name}: {part.loss.iloc[0]:.3f} to {part.loss.iloc[-1]:.3f}" for name, part in parts.items())
    told = f"Training loss from the first epoch to the last, {runs.told()}: {ends} (chance is log 10 = 2.303)."
    flat = ", ".join(name for name, part in parts.items() if part.loss.iloc[-1] > LEARNED) or "none"
    reasons: dict[str, list[str]] = {}
    for name, run in trainings.items():
        if run.stopped:
            reasons.setdefault(run.stopped, []).append(name)
    stops = [f"Stopped early: {', '.join(names)}; {reason}." for reason, names in reasons.items()]
    ended = f"At chance in the end (a last loss above 0.95 log 10): {flat}."

    def draw() -> Picture:
        from matplotlib.figure import Figure as Canvas

        page = Canvas(figsize=(4.5 * len(columns), 3.4), layout="constrained")
        for axis, column in zip(np.atleast_1d(page.subplots(1, len(columns))), columns, strict=True):
            draw_curves(axis, parts, column)
        return page

    return Result(table, (told, ended, *stops, *said), draw)


@figure(
    "large_perturbations.figure1",
    paper=PAPER,
    claim="Adversarial training from random weights does not lower the training loss for eps above about 0.35 (MNIST).",
    long=True,
)
def figure1(scale: Scale, bench: Bench = HERE) -> Result:
    """Training loss by epoch from random weights, for six eps."""
    runs = Trainings(scale, bench.trained, CURVES)
    every = (0.1, 0.2, 0.3, 0.35, 0.4, 0.5)
    return _curves(runs, train_chains(bench, runs.told(), *({f"{eps:g}": partial(runs.plain, eps)} for eps in every)))


@figure(
    "large_perturbations.figure2",
    paper=PAPER,
    claim="From weights trained at a smaller eps the training loss at a larger one falls within a few epochs: "
    "0.3 -> 0.4 (A) and 0.35 -> 0.45 (B) on MNIST.",
    long=True,
)
def figure2(scale: Scale, bench: Bench = HERE) -> Result:
    """Extended adversarial training beside training from random weights at the same eps."""
    runs = Trainings(scale, bench.trained, CURVES)
    trainings = train_chains(
        bench,
        runs.told(),
        {"A: 0.3 -> 0.4": partial(runs.extended, 0.3, 0.4)},
        {"B: 0.35 -> 0.45": partial(runs.extended, 0.35, 0.45)},
        {"0.4 from random weights": partial(runs.plain, 0.4)},
    )
    return _curves(runs, trainings)


@figure(
    "large_perturbations.figure7",
    paper=PAPER,
    claim="Iterative adversarial training to 0.5: the training loss rises slowly, then suddenly; there one stops.",
    long=True,
)
def figure7(scale: Scale, bench: Bench = HERE) -> Result:
    """The training loss while eps rises, and where the stopping rule ends it."""
    runs = Trainings(scale, bench.trained, CURVES)
    run = runs.iterative(0.5)
    said = () if run.stopped else ("The stopping rule found no sudden rise.",)
    return _curves(runs, {"IAT 0 -> 0.5": run}, *said, _withstood(run, runs.studio.test(100)))


def _withstood(run: Trained, few: DataSet) -> str:
    """What the weights that a training keeps withstand at the eps they were trained for, in words."""
    model, eps = run.model, float(run.kept["eps"] or 0.0)
    threat = Threat("linf", eps)
    own, strong = (~training_pgd(eps, **more)(model, few.x, few.y, threat).success for more in ({}, {"steps": 200}))
    every = (own, strong, not_broken(model, few, threat, strong))
    usual, longer, strongest = (f"{100 * float(right.double().mean()):.0f} %" for right in every)
    return (
        f"Of the first {len(few)} test examples the weights kept get right at {eps:.2f}: under the PGD of their "
        f"training {usual}, under PGD-200 {longer}, under both it and the ensemble auto {strongest}."
    )


@figure(
    "large_perturbations.figure8",
    paper=PAPER,
    claim="Adversarial training fails above about 0.35 from random weights; extended training to 0.5 lowers the loss.",
    long=True,
)
def figure8(scale: Scale, bench: Bench = HERE) -> Result:
    """Extended training from 0.3 to 0.4 and 0.5, and from 0.35 to 0.45."""
    runs = Trainings(scale, bench.trained, CURVES)
    trainings = train_chains(
        bench,
        runs.told(),
        {"0.3 -> 0.4": partial(runs.extended, 0.3, 0.4), "0.3 -> 0.5": partial(runs.extended, 0.3, 0.5)},
        {"0.35 -> 0.45": partial(runs.extended, 0.35, 0.45)},
    )
    return _curves(runs, trainings)


@figure(
    "large_perturbations.figure10",
    paper=PAPER,
    claim="Adversarial training converges: the change of the training loss and the L2 distance of the weights from "
    "epoch to epoch both become small.",
    long=True,
)
def figure10(scale: Scale, bench: Bench = HERE) -> Result:
    """Change of the loss and movement of the weights by epoch."""
    runs = Trainings(scale, bench.trained)
    trainings = {"0.3": runs.base(0.3), "0.3 -> 0.4": runs.extended(0.3, 0.4)}
    moved = [row["weights_moved"] or 0.0 for row in trainings["0.3"].metrics]
    change = abs(trainings["0.3"].metrics[-1]["loss_change"] or 0.0)
    said = (
        f"At 0.3 the weights move {moved[0]:.2f} in the first epoch, {min(moved):.2f} at the least (epoch "
        f"{moved.index(min(moved)) + 1}), and {moved[-1]:.2f} in the last, in which the loss changes by {change:.4f}."
    )
    return _curves(runs, trainings, said, columns=("loss", "loss_change", "weights_moved"))
