"""Zhao 2018, a strict lower bound for the minimum distortion: is it below every witness, and how far below?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from calipers.attacks import fmn, linear
from calipers.audit import open_inputs
from calipers.certificates import NotApplicable, affine, interval, lipschitz
from calipers.models import Classifier
from calipers.papers.registry import Result, Scale, figure
from calipers.threats import Norm, Threat

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture
    from torch import Tensor

__all__ = ["theorem1"]

_EXAMPLES: dict[Scale, int] = {"smoke": 12, "cpu": 100, "paper": 360}
_STEPS: dict[Scale, int] = {"smoke": 20, "cpu": 50, "paper": 200}
_NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")


@figure(
    "strict_lower_bound.theorem1",
    paper="Analyzing the Robustness of Deep Learning Against Adversarial Examples, J. Zhao, 2018",
    claim="min_j (f_c - f_j) / max ||grad(f_c - f_j)||_q is below the minimal distortion, and exact for affine models.",
)
def theorem1(scale: Scale) -> Result:
    """Equation (1) beside interval bounds, the exact radius where it is known, and the best witness."""
    rows = []
    for name in ("digits-linear", "digits-mlp"):
        both = open_inputs(name, "digits", examples=_EXAMPLES[scale])
        y = both.model(both.data.x).argmax(1)
        rows += [_row(both.model, both.data.x, y, norm, _STEPS[scale]) for norm in _NORMS]
    table = pd.DataFrame(rows)
    return Result(table, _findings(table), lambda: _picture(table))


def _row(model: Classifier, x: Tensor, y: Tensor, norm: Norm, steps: int) -> dict[str, object]:
    """One network in one norm: medians over the examples, with the predicted class as the label."""
    try:
        exact = affine(model, x, y, norm).radius
        upper = linear(model, x, y, Threat(norm)).distance
    except NotApplicable:
        exact, upper = None, fmn(model, x, y, Threat(norm), steps=steps).distance
    strict, intervals = lipschitz(model, x, y, norm).radius, interval(model, x, y, norm).radius
    return {
        "network": model.name,
        "norm": norm,
        "examples": len(x),
        "equation_1_median": float(strict.median()),
        "interval_median": float(intervals.median()),
        "exact_median": float("nan") if exact is None else float(exact.median()),
        "witness_median": float(upper.median()),
        "equation_1_over_witness": float((strict / upper).median()),
        "interval_over_witness": float((intervals / upper).median()),
        "above_a_witness": int((strict > upper).sum() + (intervals > upper).sum()),
    }


def _findings(table: pd.DataFrame) -> tuple[str, ...]:
    bad = int(table["above_a_witness"].sum())
    linear_rows, deep = table[table["exact_median"].notna()], table[table["exact_median"].isna()]
    share, other = deep["equation_1_over_witness"], deep["interval_over_witness"]
    return (
        f"{bad} of {int(2 * table['examples'].sum())} bounds are above a witness; the theorem says none.",
        f"On the affine network equation (1) is at {linear_rows['equation_1_over_witness'].min():.4f} of the witness "
        "or more in the median; what is missing is the box, which the equation does not use.",
        f"On the ReLU network it reaches {share.min():.3f} to {share.max():.3f} of the witness, interval bounds "
        f"{other.min():.3f} to {other.max():.3f}.",
        "The theorem asks for continuously differentiable f; a ReLU network is not, and the bound holds all the same: "
        "the proof needs a Lipschitz constant on a convex domain and nothing else.",
    )


def _picture(table: pd.DataFrame) -> Picture:
    """Each bound's median as a fraction of the witness's distance."""
    from matplotlib.figure import Figure as Canvas

    picture = Canvas(figsize=(6.0, 2.6), layout="constrained")
    axes = picture.subplots()
    labels = [f"{network}, {norm}" for network, norm in zip(table["network"], table["norm"], strict=True)]
    places = range(len(table))
    axes.barh([p + 0.2 for p in places], table["equation_1_over_witness"], height=0.35, label="equation (1)")
    axes.barh([p - 0.2 for p in places], table["interval_over_witness"], height=0.35, label="interval bounds")
    axes.set(yticks=list(places), yticklabels=labels, xlim=(0, 1), xlabel="bound / distance of the witness (median)")
    axes.invert_yaxis()
    axes.legend(loc="lower right", frameon=False)
    return picture
