"""The interactive page of figure 4: two charts to hover over, in one file that needs no network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Chart

__all__ = ["page"]

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>What fools one classifier, shown to the others</title>
<style>
  body { font: 15px/1.4 system-ui, sans-serif; max-width: 75rem; margin: 1.5rem auto; padding: 0 1rem; color: #222; }
  .row { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); }
  .row > div { min-width: 0; }
</style></head>
<body><h1>What fools one classifier, shown to the others</h1>
<p>Mean accuracy of all classifiers of a kind on what was made for every classifier of a kind; bars from the least to
the greatest of them. Hover for numbers; a click in the legend hides a line.</p>
<div class="row">CHARTS</div></body></html>
"""


_COLOURS = {"random": "#1f77b4", "SVM": "#ff7f0e", "network": "#2ca02c"}


def page(table: pd.DataFrame) -> bytes:
    """The page as bytes, the plotting library inside.

    Arguments:
        table: rows of target, perturbation, eps, mean, min and max.
    """
    charts = [
        _chart(table, target).to_html(full_html=False, include_plotlyjs=first, config={"responsive": True},
                                      default_height="26rem", div_id=f"accuracy-{target}")
        for first, target in ((True, "SVM"), (False, "network"))
    ]  # fmt: skip
    return _PAGE.replace("CHARTS", "".join(charts)).encode()


def _chart(table: pd.DataFrame, target: str) -> Chart:
    import plotly.graph_objects as go

    chart = go.Figure()
    for kind, colour in _COLOURS.items():
        part = table[(table.target == target) & (table.perturbation == kind)]
        spread = {"array": part["max"] - part["mean"], "arrayminus": part["mean"] - part["min"], "symmetric": False}
        chart.add_trace(go.Scatter(x=part.eps, y=part["mean"], error_y=spread, name=kind, line={"color": colour}))
    chart.update_layout(
        template="plotly_white", title=f"accuracy of {target}s", margin={"l": 50, "r": 10, "t": 50},
        legend={"title": "made for", "orientation": "h", "y": -0.25},
    )  # fmt: skip
    chart.update_xaxes(title_text="eps (L-infinity)")
    chart.update_yaxes(range=[-0.02, 1.02])
    return chart
