"""The numbers that stand on the page outside its charts, ready to print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from calipers.records import Run
from calipers.report.band import axis_end, binomial_interval, median
from calipers.report.facts import Facts, part
from calipers.report.words import named, number, plural

__all__ = ["beyond", "costs", "intervals", "makers", "median_bracket", "origins"]


def median_bracket(run: Run, facts: Facts) -> dict[str, float | None]:
    """The median bracket, as numbers and as places in percent of the picture's width."""
    lower, upper = median(facts.lower), median(facts.upper)
    broken = bool(np.isfinite(upper))
    reach = upper if broken else lower if np.isfinite(lower) else 0.0
    end = reach / (0.68 if broken else 0.5) or 1.0
    ratio = run.summary.threats[0].radius.ratio_median if run.summary.threats else None
    return {
        "lower": lower,
        "upper": upper,
        "ratio": ratio,
        "lower_at": round(100 * min(lower / end, 1.0), 2),
        "upper_at": round(100 * upper / end, 2) if broken else None,
    }


def intervals(facts: Facts) -> dict[float, tuple[tuple[float, float], tuple[float, float]]]:
    """Exact 95 % intervals of proved and not broken, at every eps, if the examples are a sample of more."""
    if not facts.sampled:
        return {}
    return {
        eps: (
            _interval(facts, (facts.lower >= eps) & (facts.upper > eps)),
            _interval(facts, facts.upper > eps),
        )
        for eps in facts.eps
    }


def _interval(facts: Facts, which: np.ndarray) -> tuple[float, float]:
    low, high = binomial_interval(int(which.sum()), len(facts.lower))
    return float(low), float(high)


def beyond(facts: Facts) -> str:
    """What the charts can only hint at: bounds that are infinite or lie beyond the right edge."""
    end = axis_end(facts.lower, facts.upper, facts.eps)
    endless = int(np.sum(np.isinf(facts.upper)))
    far = int(np.sum((facts.upper > end) & np.isfinite(facts.upper)))
    told = []
    if endless:
        share = f"{endless:,} of {plural(len(facts.upper), 'example')}"
        verb = "has" if endless == 1 else "have"
        told.append(f"{share} {verb} no upper bound: no witness was found, or none was sought after a certificate.")
    if far:
        told.append(f"{plural(far, 'upper bound')} lie{'s' if far == 1 else ''} beyond the right edge of the charts.")
    return " ".join(told)


def makers(run: Run) -> dict[str, list[tuple[str, int]]]:
    """Who set each jaw: the certificates behind the lower bounds, the attacks behind the upper ones."""
    names = {
        "lower": [named(name, "none") for name in run.examples["certificate"]],
        "upper": [named(name, "none") for name in run.examples["attack"]],
    }
    return {side: Counter(found).most_common() for side, found in names.items()}


def costs(run: Run) -> list[tuple[str, str, str, str, str]]:
    """Rows of the cost table: what, in all, and mean, median and largest per example."""
    rows = []
    for kind, total in (("forwards", run.summary.forwards), ("gradients", run.summary.gradients)):
        each = run.examples[kind].to_numpy(dtype=np.float64)
        rows.append((kind, f"{total:,}", number(each.mean()), number(float(np.median(each))), number(each.max())))
    seconds = run.summary.seconds
    rows.append(("seconds", number(seconds), number(seconds / len(run.examples)), "", ""))
    return rows


def origins(run: Run) -> dict[str, list[tuple[str, str]]]:
    """Everything ``run.about`` says, in reading order: what the run was, then where it came from."""
    settings = part(run, "settings")
    known = ("settings", "model", "data", "versions", "machine")
    single = {key: value for key, value in run.about.items() if key not in (*known, "command")}
    first = [("seed", str(settings["seed"]))] if "seed" in settings else []
    sections = {"run": first + [(key, _plain(value)) for key, value in single.items()]}
    for key in ("model", "data", "settings", "versions", "machine"):
        sections[key] = [(name, _plain(value)) for name, value in part(run, key).items()]
    return {name: rows for name, rows in sections.items() if rows}


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        some = ", ".join(_plain(inner) for inner in value[:20])
        return some + (f", … ({len(value)} in all)" if len(value) > 20 else "")
    return "none" if value is None else str(value)
