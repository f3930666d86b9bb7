"""The three interactive charts, drawn here as SVG; colours are the page's, so they follow dark mode and the printer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from calipers.report.band import axis_end, band, binomial_interval
from calipers.report.facts import Facts
from calipers.report.words import at_least, at_most, named, number

__all__ = ["ROWS", "SIDE", "Chart", "Shape", "Tick", "band_chart", "bracket_chart", "histogram_chart", "ticks"]

# Shapes are drawn in a square of this side, which the page stretches to the size of the chart.
SIDE = 1000
ROWS = 400
_BINS = 40


@dataclass(frozen=True)
class Shape:
    """A path in the square: ``kind`` is its CSS class."""

    kind: str
    path: str


@dataclass(frozen=True)
class Tick:
    """A place on an axis, in percent from the left or from the bottom, and what stands there."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """One chart: what is drawn, what stands at its axes, and what it says where somebody points.

    Arguments:
        name: its id on the page.
        label: what it shows, for those who cannot see it.
        shapes: from the bottom to the top.
        x, y: the ticks of the axes.
        x_title, y_title: what the axes are.
        marks: upright lines at the asked eps.
        stops: places along the pointed axis, ascending, 0…1000; ``told`` holds a line for each.
        upright: whether one points along x (else along y, from the top).
        notes: what lies beyond the right edge.
        tall: the height in rem.
    """

    name: str
    label: str
    shapes: tuple[Shape, ...]
    x: tuple[Tick, ...]
    y: tuple[Tick, ...]
    x_title: str
    y_title: str
    marks: tuple[Tick, ...]
    stops: tuple[float, ...]
    told: tuple[str, ...]
    upright: bool = True
    notes: tuple[str, ...] = ()
    tall: float = 21.0

    @property
    def data(self) -> dict[str, object]:
        """What the page's script needs."""
        return {"stops": self.stops, "told": self.told, "upright": self.upright}


def band_chart(facts: Facts, name: str = "band") -> Chart:
    """Robust accuracy against radius: proved below, open between, attacked above; asked eps as upright lines."""
    end = axis_end(facts.lower, facts.upper, facts.eps)
    curve = band(facts.lower, facts.upper, facts.eps, end)
    x, n = SIDE * curve.radius / end, len(facts.lower)
    proved, whole = steps(x, curve.proved, "right"), steps(x, curve.not_broken, "left")
    shapes = [
        Shape("attacked-area", _polygon([(0, 0), (SIDE, 0), (SIDE, SIDE), (0, SIDE)])),
        Shape("open-area", _polygon([*whole, (SIDE, SIDE), (0, SIDE)])),
        Shape("certified-area", _polygon([*proved, (SIDE, SIDE), (0, SIDE)])),
    ]
    told = [
        f"radius {number(r)}: proved {at_least(p)}, not broken {at_most(q)}"
        for r, p, q in zip(curve.radius, curve.proved, curve.not_broken, strict=True)
    ]
    if facts.sampled:
        low, _ = binomial_interval(np.rint(n * curve.proved), n)
        _, high = binomial_interval(np.rint(n * curve.not_broken), n)
        shapes += [Shape("limit", _line(steps(x, low, "right"))), Shape("limit", _line(steps(x, high, "left")))]
        told = [
            f"{line}; 95 % limits for all the data {at_least(p)} and {at_most(q)}"
            for line, p, q in zip(told, low, high, strict=True)
        ]
    shapes += [Shape("certified-line", _line(proved)), Shape("attacked-line", _line(whole))]
    table = " The table below gives its numbers at every asked eps." if facts.eps else ""
    percents = tuple(Tick(float(at), f"{at} %") for at in range(0, 101, 25))
    return Chart(
        name, f"Robust accuracy against radius.{table}", tuple(shapes), ticks(end), percents,
        _radius_title(facts), "fraction of the examples", _marks(facts, end), _short(x), tuple(told),
    )  # fmt: skip


def histogram_chart(facts: Facts) -> Chart:
    """How the upper bounds (upwards) and the lower bounds (downwards) are distributed over the same radii."""
    end = axis_end(facts.lower, facts.upper, facts.eps)
    edges = np.linspace(0.0, end, _BINS + 1)
    up, down = (np.histogram(values[values <= end], edges)[0] for values in (facts.upper, facts.lower))
    most, width, middle = max(int(max(up.max(), down.max())), 1), SIDE / _BINS, SIDE / 2

    def bars(counts: np.ndarray, sign: int) -> str:
        heights = sign * counts / most * (middle - 10)
        corners = ((at * width, middle, width, -height) for at, height in enumerate(heights) if height)
        return "".join(_bar(left + 0.05 * width, y, 0.9 * across, tall) for left, y, across, tall in corners)

    told = tuple(
        f"{number(a)} to {number(b)}: {h} upper bounds, {k} lower bounds"
        for (a, b), h, k in zip(pairwise(edges), up, down, strict=True)
    )
    scale = [
        tick for tick in ticks(float(most), 3, unit=100 * (middle - 10) / SIDE / most) if float(tick.text) % 1 == 0
    ]
    y = (*(Tick(50 + tick.at, tick.text) for tick in scale), *(Tick(50 - t.at, t.text) for t in scale if t.at))
    notes = _beyond("upper", facts.upper, end) + _beyond("lower", facts.lower, end)
    return Chart(
        "histogram", "Histograms of the upper bounds, upwards, and of the lower bounds, downwards.",
        (Shape("attacked", bars(up, 1)), Shape("certified", bars(down, -1)),
         Shape("base", f"M0 {middle:g}H{SIDE}")),
        ticks(end), y, _radius_title(facts), "lower ↓  examples  ↑ upper", _marks(facts, end),
        _short((np.arange(_BINS) + 0.5) * width), told, notes=notes,
    )  # fmt: skip


def bracket_chart(facts: Facts, examples: pd.DataFrame) -> Chart:
    """Every example's bracket as a row, sorted by upper; at most 400 rows, evenly chosen among the ranks."""
    end = axis_end(facts.lower, facts.upper, facts.eps)
    order = np.lexsort((facts.lower, facts.upper))
    if len(order) > ROWS:
        order = order[np.linspace(0, len(order) - 1, ROWS).round().astype(int)]
    lower, upper = (SIDE * np.minimum(values[order], end) / end for values in (facts.lower, facts.upper))
    height, reached = SIDE / len(order), facts.upper[order] <= end
    thick = height if len(order) > 60 else 0.75 * height
    tops = height * np.arange(len(order)) + (height - thick) / 2

    def bars(starts: np.ndarray, ends: np.ndarray) -> str:
        return "".join(_bar(a, top, b - a, thick) for a, b, top in zip(starts, ends, tops, strict=True) if b > a)

    tips = "".join(f"M{u:.1f} {top:.1f}v{thick:.2f}" for u, top, on in zip(upper, tops, reached, strict=True) if on)
    return Chart(
        "brackets", "The bracket of each example as a horizontal bar.",
        (Shape("certified", bars(np.zeros_like(lower), lower)), Shape("open-area", bars(lower, upper)),
         Shape("attacked-area", bars(upper, np.full_like(upper, SIDE))), Shape("tip", tips)),
        ticks(end), (), _radius_title(facts), "examples", _marks(facts, end), _short(tops + thick / 2),
        tuple(_told(facts, examples.iloc[at]) for at in order), upright=False,
        tall=min(32.0, max(6.0, 1.5 * len(order))),
    )  # fmt: skip


def steps(x: np.ndarray, y: np.ndarray, value: str) -> list[tuple[float, float]]:
    """The corners of a step curve in the square; between two places it has the value of the one on the ``value`` side.

    Example:
        >>> steps(np.array([0.0, 1000.0]), np.array([1.0, 0.5]), "left")
        [(0.0, 0.0), (1000.0, 0.0), (1000.0, 500.0)]
    """
    down = SIDE * (1 - y)
    corners = [(x[0], down[0])]
    for (left, high), (right, low) in pairwise(zip(x.tolist(), down.tolist(), strict=True)):
        corners += [(right, high) if value == "left" else (left, low), (right, low)]
    return [(float(f"{a:.6g}"), float(f"{b:.6g}")) for a, b in corners]


def ticks(end: float, about: int = 5, unit: float = 0.0) -> tuple[Tick, ...]:
    """Round numbers from 0 to ``end``, at percent of the axis (or ``unit`` percent for each 1).

    Example:
        >>> [(tick.at, tick.text) for tick in ticks(0.25)]
        [(0.0, '0'), (20.0, '0.05'), (40.0, '0.1'), (60.0, '0.15'), (80.0, '0.2'), (100.0, '0.25')]
    """
    rough = end / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    count = math.floor(end / step * (1 + 1e-9))
    return tuple(Tick(round((unit or 100 / end) * step * at, 3), f"{step * at:.10g}") for at in range(count + 1))


def _told(facts: Facts, row: pd.Series) -> str:
    """One example in words."""
    lower = f"lower {number(float(row['lower']), 'without end')} ({named(row['certificate'], 'no certificate')})"
    found = np.isfinite(row["upper"])
    upper = f"upper {number(float(row['upper']))}" + (f" ({named(row['attack'], 'no attack')})" if found else "")
    said = f"label {facts.class_name(row['label'])}, predicted {facts.class_name(row['predicted'])}"
    return f"example {row['index']}: {said}; {lower}; {upper}"


def _beyond(side: str, values: np.ndarray, end: float) -> tuple[str, ...]:
    finite, endless = int(np.sum((values > end) & np.isfinite(values))), int(np.sum(np.isinf(values)))
    told = [f"{finite} beyond"] * bool(finite) + [f"{endless} infinite"] * bool(endless)
    return (f"{side}: {', '.join(told)} →",) if told else ()


def _short(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values)


def _radius_title(facts: Facts) -> str:
    return f"radius ({facts.norm_sign})" if facts.norm else "radius"


def _marks(facts: Facts, end: float) -> tuple[Tick, ...]:
    return tuple(Tick(round(100 * eps / end, 3), number(eps)) for eps in facts.eps)


def _bar(x: float, y: float, width: float, height: float) -> str:
    return f"M{x:.2f} {y:.2f}h{width:.2f}v{height:.2f}h{-width:.2f}z"


def _line(corners: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in corners)


def _polygon(corners: Sequence[tuple[float, float]]) -> str:
    return _line(corners) + "z"
