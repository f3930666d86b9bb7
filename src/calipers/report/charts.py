"""The three interactive charts, as plain Plotly specifications; colours are CSS variables that the page resolves."""

from __future__ import annotations

import html
from itertools import pairwise

import numpy as np
import pandas as pd

from calipers.report.band import axis_end, band
from calipers.report.facts import Facts
from calipers.report.words import named, number

__all__ = ["SEGMENTS", "Spec", "band_chart", "bracket_chart", "histogram_chart"]

Spec = dict[str, object]
SEGMENTS = 400
_BINS = 40


def band_chart(facts: Facts) -> Spec:
    """Robust accuracy against radius: proved below, open between, attacked above; asked eps as upright lines."""
    end = axis_end(facts.lower, facts.upper, facts.eps)
    curve = band(facts.lower, facts.upper, facts.eps, end)
    x = _short(curve.radius)

    def line(name: str, y: list[float], shape: str, color: str, fill: Spec) -> Spec:
        stroke = {"color": f"var(--{color})", "width": 2, "shape": shape}
        return {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "line": stroke,
                "hovertemplate": f"{name} %{{y:.1%}}<extra></extra>", **fill}  # fmt: skip

    hatched = {"shape": "/", "size": 7, "solidity": 0.12, "fgcolor": "var(--open)", "bgcolor": "var(--open-soft)"}
    ceiling = {"type": "scatter", "mode": "lines", "x": [0, end], "y": [1, 1], "line": {"width": 0},
               "hoverinfo": "skip", "fill": "tonexty", "fillcolor": "var(--attacked-soft)"}  # fmt: skip
    traces = [
        line("proved", _short(curve.proved), "vh", "certified",
             {"fill": "tozeroy", "fillcolor": "var(--certified-soft)"}),
        line("not broken", _short(curve.not_broken), "hv", "attacked",
             {"fill": "tonexty", "fillcolor": "var(--open-soft)", "fillpattern": hatched}),
        ceiling,
    ]  # fmt: skip
    yaxis = _axis("fraction of the examples", range=[0, 1.001], tickformat=".0%")
    return {
        "data": traces,
        "layout": _layout(
            height=400,
            hovermode="x",
            xaxis=_axis(_radius_title(facts), range=[0, end], hoverformat=".4~g"),
            yaxis=yaxis,
            shapes=[_upright(eps) for eps in facts.eps],
            annotations=[_eps_name(eps) for eps in facts.eps],
        ),
    }


def histogram_chart(facts: Facts) -> Spec:
    """How the lower and the upper bounds are distributed, one above the other on the same radii."""
    end = axis_end(facts.lower, facts.upper, facts.eps)
    edges = np.linspace(0.0, end, _BINS + 1)
    middles, width = _short((edges[:-1] + edges[1:]) / 2), end / _BINS
    between = [f"{number(a)} to {number(b)}" for a, b in pairwise(edges)]

    def bars(name: str, values: np.ndarray, color: str, axis: str) -> Spec:
        counts = np.histogram(values[values <= end], edges)[0]
        return {"type": "bar", "name": name, "x": middles, "y": counts.tolist(), "width": width, "yaxis": axis,
                "marker": {"color": f"var(--{color})", "line": {"width": 0}}, "customdata": between,
                "hovertemplate": f"{name} %{{customdata}}: %{{y}} examples<extra></extra>"}  # fmt: skip

    whole: Spec = {"dtick": 1} if len(facts.lower) < 6 else {}
    beyond = [_beyond(facts.upper, end, 1.0), _beyond(facts.lower, end, 0.46)]
    return {
        "data": [bars("upper", facts.upper, "attacked", "y2"), bars("lower", facts.lower, "certified", "y")],
        "layout": _layout(
            height=380,
            bargap=0.05,
            xaxis=_axis(_radius_title(facts), range=[0, end]),
            yaxis=_axis("lower", domain=[0, 0.46], rangemode="tozero", **whole),
            yaxis2=_axis("upper", domain=[0.54, 1], rangemode="tozero", **whole),
            shapes=[_upright(eps) for eps in facts.eps],
            annotations=[note for note in beyond if note] + [_eps_name(eps) for eps in facts.eps],
        ),
    }


def bracket_chart(facts: Facts, examples: pd.DataFrame) -> Spec:
    """Every example's bracket as a row, sorted by upper; at most 400 rows, evenly chosen among the ranks."""
    end = axis_end(facts.lower, facts.upper, facts.eps)
    order = np.lexsort((facts.lower, facts.upper))
    if len(order) > SEGMENTS:
        order = order[np.linspace(0, len(order) - 1, SEGMENTS).round().astype(int)]
    rows = list(range(1, len(order) + 1))
    lower, upper = np.minimum(facts.lower[order], end), np.minimum(facts.upper[order], end)
    past = facts.upper[order] > end

    def bars(name: str, lengths: np.ndarray, color: str) -> Spec:
        return {"type": "bar", "orientation": "h", "name": name, "y": rows, "x": _short(lengths),
                "hoverinfo": "skip", "marker": {"color": f"var(--{color})", "line": {"width": 0}}}  # fmt: skip

    size = 4 if len(rows) > 60 else 7
    tips = {"type": "scatter", "mode": "markers", "name": "upper", "y": rows, "x": _short(upper), "cliponaxis": False,
            "marker": {"line": {"width": 0}, "symbol": np.where(past, "triangle-right", "circle").tolist(),
                       "size": np.where(past, size + 4, size).tolist(),
                       "color": np.where(past, "var(--muted)", "var(--attacked)").tolist()},
            "hovertext": [_told(facts, examples.iloc[at]) for at in order], "hoverinfo": "text"}  # fmt: skip
    return {
        "data": [
            bars("certified", lower, "certified"),
            bars("open", upper - lower, "open"),
            bars("attacked", end - upper, "attacked-soft"),
            tips,
        ],
        "layout": _layout(
            height=int(min(560, max(190, 90 + 24 * len(rows)))),
            barmode="stack",
            bargap=0.25 if len(rows) <= 60 else 0,
            hovermode="y",
            xaxis=_axis(_radius_title(facts), range=[0, end]),
            yaxis=_axis("examples", range=[len(rows) + 0.5, 0.5], showticklabels=False, showgrid=False),
            shapes=[_upright(eps) for eps in facts.eps],
            annotations=[_eps_name(eps) for eps in facts.eps],
        ),
    }


def _told(facts: Facts, row: pd.Series) -> str:
    """One example in words; escaped, because Plotly reads hover text as HTML."""
    lower = f"lower {number(float(row['lower']), 'without end')} ({named(row['certificate'], 'no certificate')})"
    found = np.isfinite(row["upper"])
    upper = f"upper {number(float(row['upper']))}" + (f" ({named(row['attack'], 'no attack')})" if found else "")
    said = f"label {facts.class_name(row['label'])}, predicted {facts.class_name(row['predicted'])}"
    return "<br>".join(html.escape(line) for line in (f"example {row['index']}: {said}", lower, upper))


def _short(values: np.ndarray) -> list[float]:
    """Six significant digits: all that a screen can show, at half the size."""
    return [float(f"{value:.6g}") for value in values]


def _radius_title(facts: Facts) -> str:
    return f"radius ({html.escape(facts.norm_sign)})" if facts.norm else "radius"


def _upright(eps: float) -> Spec:
    stroke = {"color": "var(--ink)", "width": 1, "dash": "dot"}
    return {"type": "line", "x0": eps, "x1": eps, "yref": "paper", "y0": 0, "y1": 1, "line": stroke}


def _eps_name(eps: float) -> Spec:
    return {"x": eps, "yref": "paper", "y": 1, "yanchor": "bottom", "text": number(eps), "showarrow": False}


def _beyond(values: np.ndarray, end: float, top: float) -> Spec | None:
    finite, endless = int(np.sum((values > end) & np.isfinite(values))), int(np.sum(np.isinf(values)))
    told = [f"{finite} beyond →"] * bool(finite) + [f"{endless} infinite →"] * bool(endless)
    place = {"xref": "paper", "x": 1, "xanchor": "right", "yref": "paper", "y": top, "yanchor": "top"}
    return {**place, "text": ", ".join(told), "showarrow": False, "bgcolor": "var(--paper)"} if told else None


def _axis(title: str, **own: object) -> Spec:
    lines = {"gridcolor": "var(--rule)", "linecolor": "var(--rule)", "zerolinecolor": "var(--rule)"}
    return {"title": {"text": title, "standoff": 8}, "automargin": True, **lines, **own}


def _layout(**own: object) -> Spec:
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "var(--ink)"},
        "hoverlabel": {"bgcolor": "var(--card)", "bordercolor": "var(--rule)", "font": {"color": "var(--ink)"}},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "var(--muted)", "activecolor": "var(--ink)"},
        "margin": {"l": 48, "r": 16, "t": 36, "b": 44},
        "showlegend": False,
        **own,
    }
