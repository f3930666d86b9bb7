"""Shaeiri, Nobahari and Rohban 2020, Table 1 beyond the eps of the training: accuracy by eps and by PGD's steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from calipers.data import DataSet
from calipers.models import Classifier
from calipers.papers.large_perturbations import PAPER
from calipers.papers.large_training import BASE, Trainings, training_pgd
from calipers.papers.registry import HERE, Bench, Result, Scale, figure
from calipers.papers.trainings import kept_by_network
from calipers.runner import Part
from calipers.threats import Threat

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

__all__ = ["beyond"]

EPS = (0.30, 0.32, 0.34, 0.36, 0.38, 0.40, 0.42, 0.44)


class _Try(NamedTuple):
    """PGD with these settings."""

    eps: float
    steps: int = 200
    step_size: float = 0.05


# The published attack by eps; and at 0.4, where the paper's number is far from ours, with other steps.
USUAL = [_Try(eps) for eps in EPS]
OTHERS = [
    _Try(0.4, *steps)
    for steps in ((10, 0.1), (200, 0.1), (20, 0.05), (40, 0.05), (40, 0.01), (200, 0.01), (1000, 0.01))
]


@dataclass(frozen=True, eq=False)
class _Measure:
    """Percent of the examples that withstand each try: a shard is a try."""

    model: Classifier
    tries: list[_Try]
    test: DataSet

    def rows(self, bench: Bench) -> pd.DataFrame:
        """A row a try."""
        what = [self.tries, len(self.test)]
        columns = kept_by_network(bench, "measured", self.model, what, self, len(self.tries))
        return pd.DataFrame(self.tries).assign(right=columns["right"])

    def __call__(self, shard: int) -> Part:
        """One number."""
        eps, steps, step_size = self.tries[shard]
        attack = training_pgd(eps, steps=steps, step_size=step_size)
        fooled = attack(self.model, self.test.x, self.test.y, Threat("linf", eps)).success
        return Part({"right": np.array([100 * float((~fooled).double().mean())])})


@figure(
    "large_perturbations.beyond",
    paper=PAPER,
    claim="The network trained at 0.3 has 91 % at 0.3 and 15 % at 0.4 under PGD with 200 steps of 0.05 (Table 1).",
    long=True,
)
def beyond(scale: Scale, bench: Bench = HERE) -> Result:
    """Accuracy of Table 1's networks between and beyond its two eps, and at 0.4 under PGD with other steps."""
    runs = Trainings(scale, bench.trained)
    test, parts = runs.studio.test(runs.size.strongly), []
    for name, run in runs.compared(bench).items():
        measure = _Measure(run.model, USUAL + OTHERS if name == BASE else USUAL, test)
        parts.append(measure.rows(bench).assign(model=name))
    table = pd.concat(parts, ignore_index=True)[["model", *_Try._fields, "right"]]
    return Result(table, (f"{runs.told()}; {len(test)} test examples.", *_told(table)), lambda: _draw(table))


def _split(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Percent right under the published attack, a row an eps and a column a network; and the tries of other steps."""
    usual = (table.steps == 200) & (table.step_size == 0.05)
    return table[usual].pivot_table(index="eps", columns="model", values="right", sort=False), table[~usual]


def _told(table: pd.DataFrame) -> list[str]:
    """How steep accuracy falls, and how much it is the attack that is measured."""
    curves, others = _split(table)
    curve = curves[BASE]
    falls = curve.to_numpy()[:-1] - curve.to_numpy()[1:]
    steep = int(falls.argmax())
    ranked = ", ".join(
        f"{row.right:.1f} ({row.steps} of {row.step_size:g})" for row in others.sort_values("right").itertuples()
    )
    return [
        f"Network trained at 0.3, PGD with 200 steps of 0.05: {_listed(curve)}. It falls most, by {falls[steep]:.1f} "
        f"points, between {EPS[steep]:g} and {EPS[steep + 1]:g}.",
        f"At 0.4 with other steps: {ranked}; with 200 of 0.05 {curve[0.4]:.1f} (published 15).",
        *(f"{name}: {_listed(line)}." for name, line in curves.items() if name != BASE),
    ]


def _listed(curve: pd.Series) -> str:
    return ", ".join(f"{right:.1f} at {eps:g}" for eps, right in curve.items())


def _draw(table: pd.DataFrame) -> Picture:
    from matplotlib.figure import Figure as Canvas

    page = Canvas(figsize=(5.5, 3.4), layout="constrained")
    axis = page.subplots()
    curves, others = _split(table)
    for name, curve in curves.items():
        axis.plot(curve.index, curve, ".-", label=name)
    axis.plot(others.eps, others.right, "_", color="tab:gray", label=f"{BASE}, other steps")
    axis.axhline(15, color="tab:red", linewidth=0.8, linestyle=":", label="published for 0.3 at 0.4")
    axis.set(xlabel="eps of the attack (L-infinity)", ylabel="% right", ylim=(0, 100))
    page.legend(fontsize=7, frameon=False, loc="outside lower center", ncols=2)
    return page
