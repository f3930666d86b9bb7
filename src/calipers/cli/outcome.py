"""What is said of a finished audit, and whether the answer is no."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from calipers.cli.terminal import complain, say, say_json
from calipers.errors import BadInput

if TYPE_CHECKING:
    from calipers.records import Run

__all__ = ["check_place", "tell_run"]


def check_place(file: Path | None) -> None:
    """A file that can be written when the audit is over: said before it begins."""
    if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
        raise BadInput(f"--junit {file}", expected="a file in an existing folder", got="none such")


def tell_run(
    run: Run, folder: Path, quiet: bool, json: bool, fail_under: float | None, junit: Path | None = None
) -> int:
    """Write the report and the JUnit file, print what was found, and answer --fail-under."""
    from calipers import report

    page = report.write(run, folder / "report.html")
    if junit is not None:
        from calipers.runner import atomic_write

        atomic_write(junit, report.junit(run, fail_under))
    if json:
        say_json(run.summary.model_dump_json(by_alias=True))
    elif not quiet:
        say(report.table(run))
        for check in run.checks:
            if not check.passed:
                say(f"check failed: {check.id}: {check.evidence}. {check.advice}")
        if run.summary.reaction:
            say(f"the audit attacked once more: {report.second_pass(run.summary.reaction)}")
        if (why := report.uncertified(run)) is not None:
            say(why)
        say(f"report: {page}")
    return 0 if fail_under is None else _answer(run, fail_under)


def _answer(run: Run, least: float) -> int:
    """--fail-under: 1 if too little is proved, or if the numbers cannot be trusted; else 0."""
    proved, failed = run.summary.threats[-1].proved, [check.id for check in run.checks if not check.passed]
    if proved < least:
        complain(f"--fail-under: expected at least {least:g} proved, got {proved:.4f}")
    if failed:
        complain(f"--fail-under: expected numbers that can be trusted, got failed checks: {', '.join(failed)}")
    return 1 if proved < least or failed else 0
