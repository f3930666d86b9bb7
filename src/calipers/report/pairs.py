"""Runs compared example by example: who is robust where the other is not, and whether that could be luck."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from calipers.errors import BadInput
from calipers.records import Run, status
from calipers.report.facts import Facts, facts_of, part

__all__ = ["Counts", "Named", "Pair", "named_runs", "pair", "shared_eps", "sign_test"]


@dataclass(frozen=True, eq=False)
class Named:
    """A run under the letter it goes by."""

    letter: str
    run: Run
    facts: Facts


@dataclass(frozen=True)
class Counts:
    """On how many common examples something holds of both runs, of one only, of neither.

    Arguments:
        what: what is counted.
        eps: at which radius; None for the distances themselves.
        both, only_first, only_second, neither: numbers of examples.
        p: the chance of a split of ``only_first`` against ``only_second`` at least as uneven, if each were as likely.
    """

    what: str
    eps: float | None
    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def p(self) -> float:
        """The two-sided p value of the exact sign test; for two yes-no answers that is McNemar's exact test."""
        return sign_test(self.only_first, self.only_second)


@dataclass(frozen=True, eq=False)
class Pair:
    """Two runs on the examples that they share.

    Arguments:
        first, second: the runs.
        apart: why they are not paired; empty if they are.
        index: the common examples, shape (C,), in ascending order.
        lower, upper: their bounds in the first and in the second run, shape (2, C).
        counts: at every shared eps, what is proved and what is not broken.
        nearer: of the lower and of the upper bounds, how many are larger in the first only, in the second only, equal.
    """

    first: Named
    second: Named
    apart: str
    index: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    counts: tuple[Counts, ...]
    nearer: tuple[Counts, ...]


def sign_test(first: int, second: int) -> float:
    """The exact two-sided p value of ``first`` against ``second`` under a fair coin; 1 if nothing differs.

    Reference:
        Q. McNemar, Note on the sampling error of the difference between correlated proportions or percentages, 1947;
        its exact form is the sign test on the pairs that differ.

    Example:
        >>> sign_test(0, 5), sign_test(3, 3), sign_test(0, 0)
        (0.0625, 1.0, 1.0)
    """
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(first, second), first + second, 0.5))) if first + second else 1.0


def named_runs(runs: Sequence[Run]) -> list[Named]:
    """The runs as A, B, … in their order.

    Raises:
        BadInput: if there are fewer than two.
    """
    if len(runs) < 2:
        raise BadInput("runs to compare", expected="at least 2", got=len(runs))
    return [Named(_letter(at), run, facts_of(run)) for at, run in enumerate(runs)]


def shared_eps(named: Sequence[Named]) -> list[float]:
    """The radii that all of them were asked for, ascending; none if their norms differ."""
    if len({each.facts.norm for each in named}) != 1:
        return []
    return sorted(set.intersection(*(set(each.facts.eps) for each in named)))


def pair(first: Named, second: Named) -> Pair:
    """Two runs on their common examples, at the radii that both were asked for.

    They are paired if the data they were taken from are the same to the last bit: then the index names the same
    example, also where one run has audited fewer.
    """
    empty = np.empty(0)
    apart, common = _common(first.run, second.run)
    if not apart and first.facts.norm != second.facts.norm:
        apart = "their norms differ"
    if apart:
        return Pair(first, second, apart, empty, np.empty((2, 0)), np.empty((2, 0)), (), ())
    left, right = (each.run.examples.set_index("index").loc[common] for each in (first, second))
    if not np.array_equal(left["label"], right["label"]):
        apart = "their labels differ"
        return Pair(first, second, apart, empty, np.empty((2, 0)), np.empty((2, 0)), (), ())
    lower, upper = (np.stack([rows[side].to_numpy(dtype=np.float64) for rows in (left, right)])
                    for side in ("lower", "upper"))  # fmt: skip
    counts = tuple(count for eps in shared_eps([first, second]) for count in _counts(lower, upper, eps))
    nearer = tuple(
        Counts(f"{side} bound larger", None, 0, int((a > b).sum()), int((a < b).sum()), int((a == b).sum()))
        for side, (a, b) in (("lower", lower), ("upper", upper))
    )
    return Pair(first, second, "", np.asarray(common), lower, upper, counts, nearer)


def _common(first: Run, second: Run) -> tuple[str, pd.Index]:
    """The examples of both, or why there are none."""
    whole, taken = ([part(run, "data").get(key) for run in (first, second)] for key in ("whole_sha256", "sha256"))
    same = any(hashes[0] is not None and hashes[0] == hashes[1] for hashes in (whole, taken))
    common = pd.Index(np.intersect1d(first.examples["index"], second.examples["index"]))
    if not same:
        return "their data are not known to be the same", common
    return ("they share no example" if common.empty else ""), common


def _counts(lower: np.ndarray, upper: np.ndarray, eps: float) -> list[Counts]:
    a, b = (status(low, up, eps) for low, up in zip(lower, upper, strict=True))
    made = []
    for what, of_a, of_b in (
        ("proved", a == "certified", b == "certified"),
        ("not broken", a != "attacked", b != "attacked"),
    ):
        split = (of_a & of_b, of_a & ~of_b, ~of_a & of_b, ~of_a & ~of_b)
        made.append(Counts(what, eps, *(int(np.sum(each)) for each in split)))
    return made


def _letter(at: int) -> str:
    return chr(ord("A") + at) if at < 26 else f"run {at + 1}"
