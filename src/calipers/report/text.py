"""A run, or several side by side, in a few lines for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from calipers.records import Run
from calipers.report.band import median
from calipers.report.facts import Facts, facts_of
from calipers.report.pairs import Named, Pair, named_runs, pair, shared_eps
from calipers.report.words import at_least, at_most, number, p_value, plural

__all__ = ["side_by_side", "table", "title"]


def table(run: Run) -> str:
    """The band at every asked eps, the median bracket and the checks, as plain text.

    Example:
        >>> import pandas as pd
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
    lines = [title(run, facts), *(_columns([head, *rows]) if rows else []), _bracket(facts), *_smoothed(run), checks]
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
    named = named_runs(runs)
    lines = []
    for each in named:
        lines += [f"{each.letter}: {title(each.run, each.facts)} ({each.run.folder})", f"   {_bracket(each.facts)}"]
    shared = shared_eps(named)
    if shared:
        head = ("norm", "eps", "run", "proved", "not broken", "certified", "open", "attacked")
        rows = [_band_row(eps, each) for eps in shared for each in named]
        lines += ["", *_columns([head, *rows])]
    else:
        lines += ["The runs share no norm and eps, so no two bands can be compared."]
    for first, second in combinations(named, 2):
        lines += ["", *_paired(pair(first, second))]
    return "\n".join(lines)


def title(run: Run, facts: Facts) -> str:
    """A run in a line: model, data, how many examples, clean accuracy."""
    accuracy = f"clean accuracy {100 * run.summary.clean_accuracy:.1f} %"
    return f"{facts.model} on {facts.data}: {plural(len(facts.lower), 'example')}, {accuracy}"


def _bracket(facts: Facts) -> str:
    lower, upper = median(facts.lower), median(facts.upper)
    return f"median bracket: lower {number(lower, 'without end')}, upper {number(upper)}"


def _band_row(eps: float, each: Named) -> tuple[str, ...]:
    threat = next(threat for threat in each.run.summary.threats if threat.eps == eps)
    counts = (str(threat.certified), str(threat.open), str(threat.attacked))
    return (threat.norm, number(eps), each.letter, at_least(threat.proved), at_most(threat.not_broken), *counts)


def _paired(both: Pair) -> list[str]:
    """On the examples that two runs share: how many are robust under both, under one only, under neither."""
    first, second = both.first.letter, both.second.letter
    if both.apart:
        return [f"{first} and {second} are not paired: {both.apart}."]
    head = ("eps", "", "both", f"only {first}", f"only {second}", "neither", "p")
    rows = [
        (number(each.eps), each.what, *(str(count) for count in (each.both, each.only_first, each.only_second,
                                                                 each.neither)), p_value(each.p))
        for each in both.counts
    ]  # fmt: skip
    told = [
        f"{each.what} in {first} {each.only_first}, in {second} {each.only_second}, equal {each.neither}: "
        f"{p_value(each.p, 'p')}"
        for each in both.nearer
    ]
    table = _columns([head, *rows]) if rows else []
    return [f"{first} and {second} on {plural(len(both.index), 'common example')}:", *table, *told]


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell; the first to the left, the others to the right."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(w) if at == 0 else cell.rjust(w) for at, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
