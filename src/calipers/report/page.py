"""A run told as one HTML page that opens anywhere, offline: its words, its charts, its pictures, in that order."""

from __future__ import annotations

import base64
import hashlib
import os
from importlib import resources
from pathlib import Path

from calipers.errors import BadInput
from calipers.records import Run
from calipers.report.charts import SEGMENTS, Spec, band_chart, bracket_chart, histogram_chart
from calipers.report.facts import Facts, facts_of
from calipers.report.gallery import gallery
from calipers.report.tables import beyond, costs, intervals, makers, median_bracket, origins
from calipers.report.words import at_least, at_most, number, sentences

__all__ = ["render", "write"]


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
    from jinja2 import Environment, StrictUndefined
    from plotly.offline import get_plotlyjs

    facts = facts_of(run)
    room = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    room.filters.update(number=number, at_least=at_least, at_most=at_most)
    scripts = (str(get_plotlyjs()), _file("page.js"))
    template = room.from_string(_file("page.html.jinja"))
    return template.render(
        run=run,
        facts=facts,
        sentences=sentences(run, facts),
        picture=median_bracket(run, facts),
        intervals=intervals(facts),
        charts=_charts(run, facts),
        beyond=beyond(facts),
        makers=makers(run),
        gallery=gallery(run, facts),
        costs=costs(run),
        origins=origins(run),
        style=_file("page.css"),
        scripts=scripts,
        script_hashes=" ".join(_hash(script) for script in scripts),
        segments=SEGMENTS,
    )


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
    if not path.parent.is_dir() or path.is_dir():
        raise BadInput(f"report file {path}", expected="a file in an existing folder", got="none such")
    page = render(run)
    part = path.with_name(f"{path.name}.tmp{os.getpid()}")
    try:
        part.write_text(page, encoding="utf-8")
        return part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _file(name: str) -> str:
    return resources.files("calipers.report").joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """What the page's content security policy calls a script that may run; any other may not."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _charts(run: Run, facts: Facts) -> dict[str, Spec]:
    return {
        "band": band_chart(facts),
        "histogram": histogram_chart(facts),
        "brackets": bracket_chart(facts, run.examples),
    }
