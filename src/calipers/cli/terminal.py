"""What appears on the terminal: lines, warnings, and bars where somebody looks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

__all__ = ["bytes_progress", "complain", "progress", "say", "say_json", "warnings_in_a_line"]

# What users typed comes out as they typed it: ":x:" is no cross, "[b]" no bold.
_out = Console(highlight=False, markup=False, emoji=False)
_err = Console(highlight=False, markup=False, emoji=False, stderr=True)


def say(text: str) -> None:
    """A line, or several, on stdout."""
    _out.print(text, soft_wrap=True)


def say_json(text: str) -> None:
    """JSON on stdout, coloured on a terminal."""
    _out.print_json(text)


def complain(text: str) -> None:
    """One line on stderr, whatever line breaks the text has."""
    _err.print(f"calipers: {' '.join(text.split())}", soft_wrap=True)


@contextmanager
def warnings_in_a_line(quiet: Callable[[], bool]) -> Iterator[None]:
    """Inside, a warning to the user is a line on stderr, the same one only once."""
    told: set[str] = set()

    def show(message: Warning | str, *where: Any, **more: Any) -> None:
        if str(message) not in told and not quiet():
            complain(f"warning: {message}")
        told.add(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield


@contextmanager
def progress(title: str, total: int, quiet: bool) -> Iterator[Callable[[float], None]]:
    """A bar with rate and time left, on a terminal; nothing where nobody looks."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_err, disable=quiet or not _err.is_terminal, transient=True) as bar:
        task = bar.add_task(title, total=total, rate="")

        def tell(examples: float) -> None:
            bar.update(task, advance=examples)
            speed = bar.tasks[task].speed
            bar.update(task, rate=f"{speed:.3g} examples/s" if speed else "")

        yield tell


@contextmanager
def bytes_progress(quiet: bool) -> Iterator[Callable[[str, int, int | None], None]]:
    """A bar for every file that is downloaded."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_err, disable=quiet or not _err.is_terminal) as bar:
        tasks: dict[str, object] = {}

        def tell(file: str, done: int, total: int | None) -> None:
            if file not in tasks:
                tasks[file] = bar.add_task(file, total=total)
            bar.update(tasks[file], completed=done, total=total)  # type: ignore[arg-type]

        yield tell
