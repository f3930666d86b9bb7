"""What an audit leaves behind, as plain records: the vocabulary that audit writes and report reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Check", "Radius", "Reaction", "Run", "RunSettings", "Smoothed", "Summary", "ThreatSummary", "status"]

Verdict = Literal["passed", "failed", "not applicable"]
Status = Literal["certified", "attacked", "open"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RunSettings(_Record):
    """Everything that determines the rows of a run; its hash names the run."""

    model: str
    data: str
    norm: str
    eps: tuple[float, ...]
    budget: str
    examples: int
    seed: int
    box: str
    model_sha256: str
    data_sha256: str
    calipers: str
    other_sha256: str = ""
    smooth: tuple[float, int] | None = None


class Check(_Record):
    """One test of the evaluation itself, with evidence and a verdict."""

    id: str
    question: str
    verdict: Verdict
    evidence: str
    advice: str = ""

    @property
    def passed(self) -> bool:
        """Nothing speaks against the numbers: the check passed, or has nothing to say here."""
        return self.verdict != "failed"


class Radius(_Record):
    """Medians over the examples; None where the median is infinite or undefined."""

    lower_median: float | None
    upper_median: float | None
    ratio_median: float | None


class ThreatSummary(_Record):
    """The robust-accuracy band at one eps: proved ≤ true robust accuracy ≤ not_broken."""

    norm: str
    eps: float
    proved: float
    not_broken: float
    certified: int
    attacked: int
    open: int
    radius: Radius


class Reaction(_Record):
    """What the audit did when checks failed, and what it changed: ``not_broken`` at every eps before and after."""

    causes: tuple[str, ...]
    actions: tuple[str, ...]
    eps: tuple[float, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    upper_median_before: float | None
    upper_median_after: float | None


class Smoothed(_Record):
    """The smoothed model beside the model: L2 radii that hold with this confidence each; never a lower bound."""

    sigma: float
    draws: int
    confidence: float
    certified_accuracy: float
    abstained: int
    radius_median: float


class Summary(_Record):
    """The content of summary.json, schema 1; ``reaction`` is null where no failed check asked for one."""

    schema_: int = Field(default=1, alias="schema")
    examples: int
    clean_accuracy: float
    seconds: float
    forwards: int
    gradients: int
    threats: tuple[ThreatSummary, ...]
    checks: tuple[dict[str, str | bool], ...]
    trusted: bool
    reaction: Reaction | None = None
    smoothed: Smoothed | None = None


@dataclass(frozen=True, eq=False)
class Run:
    r"""A finished run folder, read back: all a report needs.

    Arguments:
        folder: its path, for the page's title.
        about: run.json: settings, command, versions, machine, hashes, class_names, box, shape.
        examples: one row per example: index, label, predicted, lower, certificate, upper, attack, forwards,
            gradients. ``lower`` is never above ``upper``; ``upper`` may be inf.
        witnesses: ``index`` (M,), ``clean`` (M, \*shape), ``adversarial`` (M, \*shape), ``predicted`` (M,) of the
            adversarial.
        checks: the tests of the evaluation itself.
        summary: summary.json.
        landscape: the loss around a few witnesses, or empty: ``index`` (L,), ``loss`` (L, n, n) with a row for every
            step along a random direction and a column for every step toward the witness, ``toward`` and ``aside`` (n,)
            those steps in units of the witness' distance, ``saliency`` (L, \*shape), and the numbers of
            :mod:`calipers.diagnostics.shape`, each (L,).
    """

    folder: str
    about: dict[str, object]
    examples: pd.DataFrame
    witnesses: dict[str, np.ndarray]
    checks: tuple[Check, ...]
    summary: Summary
    landscape: dict[str, np.ndarray] = field(default_factory=dict)


def status(lower: np.ndarray, upper: np.ndarray, eps: float) -> np.ndarray:
    """The status of every bracket at one eps: certified (lower ≥ eps), attacked (upper ≤ eps) or open.

    An example that is already misclassified has upper = 0 and is attacked at every eps.

    Example:
        >>> status(np.array([0.2, 0.0, 0.0]), np.array([0.3, 0.05, 0.3]), 0.1).tolist()
        ['certified', 'attacked', 'open']
    """
    # A witness decides first, so that a radius equal on both sides is never called safe.
    return np.where(upper <= eps, "attacked", np.where(lower >= eps, "certified", "open"))
