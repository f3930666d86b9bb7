"""A run, or several side by side, in a few lines for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from calipers.errors import BadInput
from calipers.records import Run, status
from calipers.report.band import median
from calipers.report.facts import Facts, facts_of, part
from calipers.report.words import at_least, at_most, number, plural

__all__ = ["side_by_side", "table"]


def table(run: Run) -> str:
    """The band at every asked eps, the median bracket and the checks, as plain text.

    Example:
        >>> from calipers.records import Radius, Summary, ThreatSummary
        >>> row = {"index": 0, "label": 1, "predicted": 1, "lower": 0.08, "certificate": "affine", "upper": 0.12,
        ...        "attack": "pgd", "forwards": 9, "gradients": 8}
        >>> medians = Radius(lower_median=0.08, upper_median=0.12, ratio_median=0.67)
        >>> at = ThreatSummary(norm="linf", eps=0.1, proved=0, not_broken=1, certified=0, attacked=0, open=1,
        ...                    radius=medians)
        >>> summary = Summary(schema=1, examples=1, clean_accuracy=1, seconds=1, forwards=9, gradients=8, threats=(at,),
        ...                   checks=(), trusted=False)
        >>> print(table(Run("run1", {"model": "net", "data": "toy"}, pd.DataFrame([row]), {}, (), summary)))
        net on toy: 1 example, clean accuracy 100.0 %
        norm  eps  proved  not broken  certified  open  attacked
        linf  0.1   0.0 %     100.0 %          0     1         0
        median bracket: lower 0.08, upper 0.12
        checks: 0 passed, 0 failed
    """
    facts = facts_of(run)
    head = ("norm", "eps", "proved", "not broken", "certified", "open", "attacked")
    rows = [
        (threat.norm, number(threat.eps), at_least(threat.proved), at_most(threat.not_broken),
         str(threat.certified), str(threat.open), str(threat.attacked))
        for threat in sorted(run.summary.threats, key=lambda threat: threat.eps)
    ]  # fmt: skip
    verdicts = [check.verdict for check in run.checks]
    silent = verdicts.count("not applicable")
    aside = f", {silent} not applicable" if silent else ""
    checks = f"checks: {verdicts.count('passed')} passed, {verdicts.count('failed')} failed{aside}"
    lines = [_title(run, facts), *(_columns([head, *rows]) if rows else []), _bracket(facts), *_smoothed(run), checks]
    return "\n".join(lines)


def _smoothed(run: Run) -> list[str]:
    """The smoothed model in one line, if it was asked for."""
    found = run.summary.smoothed
    if found is None:
        return []
    return [
        f"smoothed model (sigma {number(found.sigma)}, {found.draws:,} draws): median l2 radius "
        f"{number(found.radius_median)}, each at confidence {found.confidence:.1%}; "
        f"{plural(found.abstained, 'abstention')}"
    ]


def side_by_side(runs: Sequence[Run]) -> str:
    """Several runs at the eps they share; where the data are the same, also paired example by example.

    Arguments:
        runs: two or more; they are called A, B, … in their order.

    Raises:
        BadInput: if there are fewer than two runs.

    Example:
        >>> side_by_side([])
        Traceback (most recent call last):
            ...
        calipers.errors.BadInput: runs to compare: expected at least 2, got 0
    """
    if len(runs) < 2:
        raise BadInput("runs to compare", expected="at least 2", got=len(runs))
    told = [facts_of(run) for run in runs]
    letters = [_letter(at) for at in range(len(runs))]
    lines = []
    for letter, run, facts in zip(letters, runs, told, strict=True):
        lines += [f"{letter}: {_title(run, facts)} ({run.folder})", f"   {_bracket(facts)}"]
    shared = _shared_eps(told)
    if not shared:
        return "\n".join([*lines, "The runs share no norm and eps, so no two bands can be compared."])
    head = ("norm", "eps", "run", "proved", "not broken", "certified", "open", "attacked")
    rows = [
        _band_row(told[0].norm, eps, letter, run) for eps in shared for letter, run in zip(letters, runs, strict=True)
    ]
    lines += ["", *_columns([head, *rows])]
    for a, b in combinations(range(len(runs)), 2):
        lines += ["", *_paired((letters[a], runs[a]), (letters[b], runs[b]), shared)]
    return "\n".join(lines)


def _title(run: Run, facts: Facts) -> str:
    accuracy = f"clean accuracy {100 * run.summary.clean_accuracy:.1f} %"
    return f"{facts.model} on {facts.data}: {plural(len(facts.lower), 'example')}, {accuracy}"


def _bracket(facts: Facts) -> str:
    lower, upper = median(facts.lower), median(facts.upper)
    return f"median bracket: lower {number(lower, 'without end')}, upper {number(upper)}"


def _band_row(norm: str, eps: float, letter: str, run: Run) -> tuple[str, ...]:
    threat = next(threat for threat in run.summary.threats if threat.eps == eps)
    counts = (str(threat.certified), str(threat.open), str(threat.attacked))
    return (norm, number(eps), letter, at_least(threat.proved), at_most(threat.not_broken), *counts)


def _shared_eps(told: Sequence[Facts]) -> list[float]:
    if len({facts.norm for facts in told}) != 1:
        return []
    return sorted(set.intersection(*(set(facts.eps) for facts in told)))


def _paired(a: tuple[str, Run], b: tuple[str, Run], shared: Sequence[float]) -> list[str]:
    """On the examples that two runs share: how many are robust under both, under one only, under neither."""
    (first, run_a), (second, run_b) = a, b
    hashes = [part(run, "data").get("sha256") for run in (run_a, run_b)]
    if hashes[0] is None or hashes[0] != hashes[1]:
        return [f"{first} and {second} are not paired: their data are not known to be the same."]
    left, right = (run.examples.set_index("index") for run in (run_a, run_b))
    common = left.index.intersection(right.index)
    if common.empty:
        return [f"{first} and {second} are not paired: they share no example."]
    left, right = left.loc[common], right.loc[common]
    head = ("eps", "", "both", f"only {first}", f"only {second}", "neither")
    rows = [row for eps in shared for row in _pair_rows(left, right, eps)]
    return [f"{first} and {second} on {plural(len(common), 'common example')}:", *_columns([head, *rows])]


def _pair_rows(left: pd.DataFrame, right: pd.DataFrame, eps: float) -> list[tuple[str, ...]]:
    a, b = (status(rows["lower"].to_numpy(), rows["upper"].to_numpy(), eps) for rows in (left, right))
    rows = []
    for what, of_a, of_b in (
        ("proved", a == "certified", b == "certified"),
        ("not broken", a != "attacked", b != "attacked"),
    ):
        counts = (of_a & of_b, of_a & ~of_b, ~of_a & of_b, ~of_a & ~of_b)
        rows.append((number(eps), what, *(str(int(np.sum(count))) for count in counts)))
    return rows


def _letter(at: int) -> str:
    return chr(ord("A") + at) if at < 26 else f"run {at + 1}"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell; the first to the left, the others to the right."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(w) if at == 0 else cell.rjust(w) for at, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
