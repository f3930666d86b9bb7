"""``calipers papers``: list and reproduce the figures and tables of the source papers."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Literal

from cyclopts import App

from calipers.cli.terminal import complain, say
from calipers.cli.wording import Flag, Whole

__all__ = ["papers_app"]

papers_app = App(name="papers", help="List and reproduce the figures and tables of the source papers.")


@papers_app.command(name="list")
def papers_list() -> int:
    """List the figures and tables that can be reproduced.

    For example:

        calipers papers list
    """
    from calipers import papers

    for name, figure in papers.figures().items():
        say(f"{name:35} {figure.claim}")
    return 0


@papers_app.command(name="run")
def papers_run(
    name: str,
    /,
    *,
    scale: Literal["smoke", "cpu", "paper"] = "cpu",
    out: Path = Path("runs/papers"),
    workers: Whole = 1,
    quiet: Flag = False,
) -> int:
    """Reproduce one figure: a table, a picture, and a record of how they were made.

    A long figure that was killed goes on where it was when it is run again.

    For example:

        calipers papers run strict_lower_bound.theorem1 --scale smoke --out figures

    Parameters
    ----------
    name
        As `calipers papers list` names it.
    scale
        smoke (seconds), cpu (minutes) or paper (as published).
    out
        Where to write NAME.csv, NAME.svg and NAME.json.
    workers
        Processes, for the long figures.
    quiet
        Say nothing but where the files are.
    """
    from calipers import papers

    files = papers.run(name, scale, out, workers=workers, tell=(lambda line: None) if quiet else complain)
    if not quiet:
        told = jsonlib.loads(files[-1].read_text(encoding="utf-8"))
        say(f"the paper says: {told['claim']}")
        for finding in told["findings"]:
            say(f"found: {finding}")
    for file in files:
        say(f"file: {file}")
    return 0
