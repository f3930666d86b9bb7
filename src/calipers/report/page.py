"""Runs told as HTML pages that open anywhere, offline: their words, their charts, their pictures."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from calipers.errors import BadInput
from calipers.records import Run
from calipers.report.band import median
from calipers.report.charts import ROWS, Chart, band_chart, bracket_chart, histogram_chart
from calipers.report.comparison import comparison
from calipers.report.confusion import confusions
from calipers.report.facts import facts_of
from calipers.report.gallery import gallery
from calipers.report.landscape import landscape
from calipers.report.tables import beyond, costs, intervals, makers, median_bracket, origins
from calipers.report.words import at_least, at_most, number, p_value, sentences

__all__ = ["render", "render_comparison", "write", "write_comparison"]


def render(run: Run) -> str:
    """The whole page, as text: it loads nothing, so it can be mailed, archived and opened from disk.

    Arguments:
        run: a finished run; any key of ``run.about`` may be missing.

    Raises:
        BadInput: if the records contradict themselves (a lower bound above an upper bound, say).

    Example:
        >>> import pandas as pd
        >>> from calipers.records import Run, Summary
        >>> row = {"index": 0, "label": 1, "predicted": 1, "lower": 0.1, "certificate": "affine", "upper": 0.2,
        ...        "attack": "pgd", "forwards": 9, "gradients": 8}
        >>> summary = Summary(schema=1, examples=1, clean_accuracy=1, seconds=1, forwards=9, gradients=8, threats=(),
        ...                   checks=(), trusted=False)
        >>> page = render(Run("run1", {"model": {"name": "<net>"}}, pd.DataFrame([row]), {}, (), summary))
        >>> page[:15], "<net>" in page, "&lt;net&gt;" in page
        ('<!DOCTYPE html>', False, True)
    """
    facts = facts_of(run)
    charts = [band_chart(facts), histogram_chart(facts), bracket_chart(facts, run.examples)]
    exhibits, witnesses = gallery(run, facts)
    views = landscape(run, facts)
    return _page(
        "run.html.jinja",
        [*charts, *(view.profile for view in views)],
        run=run,
        facts=facts,
        sentences=sentences(run, facts),
        median=median_bracket(run, facts),
        intervals=intervals(facts),
        drawn={chart.name: chart for chart in charts},
        beyond=beyond(facts),
        makers=makers(run),
        exhibits=exhibits,
        witnesses=witnesses,
        labels=sorted({it.label for it in exhibits}),
        answers=sorted({it.predicted for it in exhibits}),
        confusions=confusions(run, facts),
        views=views,
        reaction=run.summary.reaction,
        costs=costs(run),
        origins=origins(run),
        rows=ROWS,
    )


def render_comparison(runs: Sequence[Run]) -> str:
    """The page of several runs, called A, B, … in their order.

    Raises:
        BadInput: if there are fewer than two, or the records of one contradict themselves.

    Example:
        >>> render_comparison([])
        Traceback (most recent call last):
            ...
        calipers.errors.BadInput: runs to compare: expected at least 2, got 0
    """
    told, charts = comparison(runs)
    return _page("compare.html.jinja", charts, **told)


def write(run: Run, path: Path) -> Path:
    """Render a run into a file, whole or not at all.

    Arguments:
        run: a finished run.
        path: the file; an older one is replaced.

    Returns:
        The path.

    Raises:
        BadInput: if the folder does not exist, or the records contradict themselves.

    Example:
        >>> import pandas as pd
        >>> from calipers.records import Run, Summary
        >>> summary = Summary(schema=1, examples=0, clean_accuracy=0, seconds=0, forwards=0, gradients=0, threats=(),
        ...                   checks=(), trusted=False)
        >>> write(Run("run1", {}, pd.DataFrame(), {}, (), summary), Path("no such folder/report.html"))
        Traceback (most recent call last):
            ...
        calipers.errors.BadInput: report file no such folder/report.html: expected a file in an existing folder, ...
    """
    _check_place(path)
    return _save(render(run), path)


def write_comparison(runs: Sequence[Run], path: Path) -> Path:
    """Render several runs into a file, whole or not at all; see :func:`render_comparison` and :func:`write`."""
    _check_place(path)
    return _save(render_comparison(runs), path)


def _check_place(path: Path) -> None:
    if not path.parent.is_dir() or path.is_dir():
        raise BadInput(f"report file {path}", expected="a file in an existing folder", got="none such")


def _save(page: str, path: Path) -> Path:
    part = path.with_name(f"{path.name}.tmp{os.getpid()}")
    try:
        part.write_text(page, encoding="utf-8")
        return part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _page(template: str, charts: Sequence[Chart], **told: object) -> str:
    """A template filled in, with the style and the one script that its security policy allows."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("calipers.report")
    room = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    room.filters.update(number=number, at_least=at_least, at_most=at_most, p_value=p_value, middle=median)
    script = _file("page.js")
    data: Mapping[str, object] = {chart.name: chart.data for chart in charts}
    return room.get_template(template).render(
        charts=data, style=_file("page.css"), script=script, script_hash=_hash(script), **told
    )


def _file(name: str) -> str:
    return resources.files("calipers.report").joinpath("templates", name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """What the page's content security policy calls the script that may run; any other may not."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
