"""Several runs on one page: their bands in one chart, one table, and every pair of runs example by example."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from calipers.records import Run
from calipers.report.band import axis_end
from calipers.report.charts import SIDE, Chart, Shape, Tick, steps, ticks
from calipers.report.pairs import Named, Pair, named_runs, pair, shared_eps
from calipers.report.words import at_least, at_most, named, number

__all__ = ["COLOURS", "bands_chart", "comparison", "difference_chart"]

# How many runs have a colour of their own in the style sheet; the next one begins again.
COLOURS = 6
_STOPS = 200


def comparison(runs: Sequence[Run]) -> tuple[dict[str, object], list[Chart]]:
    """What the page of several runs is told, and its charts.

    Raises:
        BadInput: if there are fewer than two runs, or the records of one contradict themselves.
    """
    every = named_runs(runs)
    pairs = [pair(*two) for two in combinations(every, 2)]
    overlaid = bands_chart(every) if len({each.facts.norm for each in every}) == 1 else None
    differences = {id(both): difference_chart(both) for both in pairs if len(both.index)}
    told: dict[str, object] = {
        "every": every,
        "overlaid": overlaid,
        "bands": [(eps, each, _threat(each, eps)) for eps in shared_eps(every) for each in every],
        "pairs": [(both, differences.get(id(both)), _largest(both)) for both in pairs],
        "colours": COLOURS,
    }
    return told, [*([overlaid] if overlaid else []), *differences.values()]


def bands_chart(every: Sequence[Named]) -> Chart:
    """All bands in one chart: not broken as a line, proved as a dashed one, in the colour of the run."""
    asked = tuple(sorted({eps for each in every for eps in each.facts.eps}))
    end = max(axis_end(each.facts.lower, each.facts.upper, asked) for each in every)
    radius = np.unique(np.concatenate([np.linspace(0, end, _STOPS), asked]))
    shapes, curves = [], []
    for at, each in enumerate(every):
        lower, upper = each.facts.lower, each.facts.upper
        proved = np.array([np.mean((lower >= r) & (upper > r)) for r in radius])
        whole = np.array([np.mean(upper > r) for r in radius])
        for kind, y, side in (("proved", proved, "right"), ("whole", whole, "left")):
            corners = steps(SIDE * radius / end, y, side)
            shapes.append(Shape(f"{kind} run-{at % COLOURS}", "M" + "L".join(f"{a:g} {b:g}" for a, b in corners)))
        curves.append((each.letter, proved, whole))
    told = tuple(
        f"radius {number(r)}: " + "; ".join(f"{letter} {at_least(p[i])} to {at_most(w[i])}" for letter, p, w in curves)
        for i, r in enumerate(radius.tolist())
    )
    marks = tuple(Tick(round(100 * eps / end, 3), number(eps)) for eps in asked)
    facts = every[0].facts
    return Chart(
        "bands", "Robust accuracy of every run against radius.", tuple(shapes), ticks(end),
        tuple(Tick(float(at), f"{at} %") for at in range(0, 101, 25)), f"radius ({facts.norm_sign})",
        "fraction of the examples", marks, tuple((SIDE * radius / end).round(3).tolist()), told,
    )  # fmt: skip


def difference_chart(both: Pair) -> Chart:
    """Upper bound in the second run minus that in the first, for every common example, in ascending order."""
    names = both.first.letter, both.second.letter
    with np.errstate(invalid="ignore"):
        change = np.nan_to_num(both.upper[1] - both.upper[0], nan=0.0)  # both infinite: no difference
    order = np.argsort(change, kind="stable")
    finite = np.abs(change[np.isfinite(change)])
    reach = float(finite.max(initial=0.0)) or 1.0
    width, middle = SIDE / len(order), SIDE / 2
    heights = np.clip(change[order] / reach, -1, 1) * middle

    def bars(sign: int) -> str:
        some = [(at, tall) for at, tall in enumerate(heights.tolist()) if tall * sign > 0]
        return "".join(f"M{at * width:.2f} {middle:g}h{width:.2f}v{-tall:.2f}h{-width:.2f}z" for at, tall in some)

    told = tuple(
        f"example {both.index[at]}: upper {names[0]} {number(both.upper[0][at])}, "
        f"{names[1]} {number(both.upper[1][at])}"
        for at in order
    )
    scale = ticks(reach, 2, unit=50 / reach)
    y = (*(Tick(50 + tick.at, f"+{tick.text}" if tick.at else "0") for tick in scale),
         *(Tick(50 - tick.at, f"−{tick.text}") for tick in scale if tick.at))  # fmt: skip
    return Chart(
        f"difference-{'-'.join(names)}".replace(" ", ""),
        f"Upper bound of {names[1]} minus that of {names[0]} for every common example.",
        (Shape("attacked", bars(-1)), Shape("certified", bars(1)), Shape("base", f"M0 {middle:g}H{SIDE}")), (), y,
        f"common examples, by {names[1]} − {names[0]}", f"upper: {names[1]} − {names[0]}", (),
        tuple(((np.arange(len(order)) + 0.5) * width).round(3).tolist()), told, tall=15.0,
    )  # fmt: skip


def _threat(each: Named, eps: float) -> object:
    return next(threat for threat in each.run.summary.threats if threat.eps == eps)


def _largest(both: Pair, most: int = 8) -> list[tuple[str, ...]]:
    """The common examples whose upper bounds differ most, as rows: index, label, upper and attack in each run."""
    if not len(both.index):
        return []
    with np.errstate(invalid="ignore"):
        change = np.nan_to_num(np.abs(both.upper[1] - both.upper[0]), nan=0.0, posinf=np.inf)
    chosen = [int(at) for at in np.argsort(-change, kind="stable")[:most] if change[at] > 0]
    rows = [each.run.examples.set_index("index") for each in (both.first, both.second)]
    label = both.first.facts.class_name
    return [
        (str(both.index[at]), label(rows[0].loc[both.index[at], "label"]),
         *(f"{number(both.upper[k][at])} {named(rows[k].loc[both.index[at], 'attack'])}".strip() for k in (0, 1)))
        for at in chosen
    ]  # fmt: skip
