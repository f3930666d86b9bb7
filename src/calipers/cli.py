"""The door: parse, call one use case, say what came out, leave with an exit status.

0: fine. 1: the answer is no (``--fail-under``, ``verify``). 2: bad input, one line. 3: a bug in Calipers. 130: Ctrl-C.
Everything heavy is imported by the command that needs it, so that ``--help`` comes at once.
"""

from __future__ import annotations

import json as jsonlib
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from calipers.errors import BadInput

if TYPE_CHECKING:
    from calipers.records import Run

__all__ = ["app", "main"]

_HELP = """How robust is a classifier? A certified lower bound and an attack's upper bound for every input.

Audit the built-in network on the embedded digits:

    calipers audit digits-mlp --data digits --norm linf --eps 0.05 --eps 0.1

Audit your own: a factory, weights, or a scikit-learn estimator:

    calipers audit mypackage.nets:make --data mnist --norm linf --eps 0.1 --examples 1000

    calipers audit weights.safetensors --arch mypackage.nets:make --data test.npz --norm l2 --eps 0.5

    calipers audit model.skops --data test.npz --norm l2 --eps 0.5 --fail-under 0.8
"""

app = App(name="calipers", help=_HELP, help_format="markdown", version_flags=["--version"])
data_app = App(name="data", help="List, fetch and verify the data sets.")
papers_app = App(name="papers", help="List and reproduce the figures and tables of the source papers.")
app.command(data_app)
app.command(papers_app)

_out, _err = Console(highlight=False), Console(stderr=True, highlight=False)

Flag = Annotated[bool, Parameter(negative=())]


@app.command
def audit(
    model: str,
    /,
    *,
    data: str,
    norm: str = "linf",
    eps: Annotated[tuple[float, ...], Parameter(consume_multiple=True)] = (),
    examples: int | None = None,
    budget: str = "standard",
    seed: int = 0,
    out: Path | None = None,
    resume: Flag = False,
    replace: Flag = False,
    fail_under: float | None = None,
    workers: str = "1",
    batch_size: int = 128,
    arch: str | None = None,
    box: tuple[float, float] | None = None,
    trust: Flag = False,
    quiet: Flag = False,
    json: Flag = False,
) -> int:
    """Bracket every example between a certificate and an attack, and check that the numbers can be trusted.

    Examples:

        calipers audit digits-mlp --data digits --norm linf --eps 0.05 --eps 0.1 --out run1

        calipers audit digits-mlp --data digits --norm l2                 (the minimal distortion alone)

        calipers audit net.safetensors --arch nets:make --data mnist --eps 0.1 --examples 1000 --budget quick

    Parameters
    ----------
    model
        A built-in name (digits-mlp, digits-linear), FILE.safetensors or a state dict FILE.pt with --arch, FILE.skops,
        or package.module:factory.
    data
        digits, mnist, fashion-mnist, cifar10, FILE.npz with x and y, or a folder of images.
    norm
        linf, l2, l1 or l0.
    eps
        A radius to decide, in the units of the inputs; give several by repeating it.
    examples
        Audit the first so many examples.
    budget
        quick, standard or thorough.
    seed
        Of every random draw; the same seed gives the same rows.
    out
        The run folder; runs/MODEL-DATA-NORM by default.
    resume
        Go on with the unfinished run in --out.
    replace
        Overwrite the run in --out.
    fail_under
        Exit with status 1 if less than this fraction is proved robust at the largest eps.
    workers
        How many processes, or dask:FILE with a scheduler file.
    batch_size
        How many examples the model sees at once.
    arch
        The architecture for weights: mnist-cnn, mnist-mlp, digits-mlp, digits-linear or package.module:factory.
    box
        The lowest and the highest value an input may take; the data set's own by default.
    trust
        Load model files that can run code. Nothing shields you from them.
    quiet
        Say nothing but errors.
    json
        Print summary.json instead of the table.
    """
    from calipers.audit import audit as run_audit
    from calipers.audit import open_inputs

    count: int | str = workers if workers.startswith("dask:") else _whole_number("--workers", workers)
    inputs = open_inputs(model, data, arch=arch, box=box, examples=examples, trust=trust)
    _warn_of_large_eps(eps, norm, inputs.model.box.width)
    folder = out or Path("runs") / "-".join(Path(part).name.replace(":", "-") for part in (model, data, norm))
    with _progress(f"{model} on {data}", len(inputs.data), quiet or json) as tell:
        run = run_audit(
            inputs,
            norm=norm,
            eps=eps,
            budget=budget,
            seed=seed,
            out=folder,
            resume=resume,
            replace=replace,
            workers=count,
            batch_size=batch_size,
            progress=tell,
            command=shlex.join(["calipers", *sys.argv[1:]]),
        )
    return _tell(run, folder, quiet, json, fail_under)


def _tell(run: Run, folder: Path, quiet: bool, json: bool, fail_under: float | None) -> int:
    """Write the report, print what was found, and answer --fail-under."""
    from calipers import report

    page = report.write(run, folder / "report.html")
    if json:
        _out.print_json(run.summary.model_dump_json(by_alias=True))
    elif not quiet:
        _out.print(report.table(run), markup=False, soft_wrap=True)
        for check in run.checks:
            if not check.passed:
                _out.print(f"check failed: {check.id}: {check.evidence}. {check.advice}", markup=False)
        _out.print(f"report: {page}", markup=False, soft_wrap=True)
    if fail_under is not None:
        proved = run.summary.threats[-1].proved if run.summary.threats else 0.0
        if proved < fail_under:
            _err.print(f"--fail-under: expected at least {fail_under:g} proved, got {proved:.4f}", markup=False)
            return 1
    return 0


@app.command
def report(run: Path, /, *, out: Path | None = None) -> int:
    """Write the report of a finished run again, as one self-contained page.

    Example:

        calipers report runs/digits --out page.html

    Parameters
    ----------
    run
        The run folder.
    out
        The page; report.html in the run folder by default.
    """
    from calipers import report as room
    from calipers.audit import read_run

    _out.print(str(room.write(read_run(run), out or run / "report.html")), markup=False, soft_wrap=True)
    return 0


@app.command
def compare(first: Path, second: Path, /, *others: Path) -> int:
    """Set finished runs side by side, with the examples on which they differ.

    Example:

        calipers compare runs/before runs/after

    Parameters
    ----------
    first
        A run folder.
    second
        Another.
    others
        And more.
    """
    from calipers import report as room
    from calipers.audit import read_run

    runs = [read_run(folder) for folder in (first, second, *others)]
    _out.print(room.side_by_side(runs), markup=False, soft_wrap=True)
    return 0


@data_app.command(name="list")
def data_list(*, json: Flag = False) -> int:
    """Say which data sets there are, and which of them are on this machine."""
    from calipers import data

    found = data.available()
    if json:
        _out.print_json(jsonlib.dumps(found))
        return 0
    for name, state in found.items():
        _out.print(f"{name:15} {state}", markup=False)
    home = data.home()
    _out.print(f"$CALIPERS_DATA: {home if home else 'not set'}", markup=False, soft_wrap=True)
    return 0


@data_app.command
def fetch(name: str, /, *, quiet: Flag = False) -> int:
    """Download the official files of a data set into $CALIPERS_DATA, resuming where it stopped.

    Example:

        CALIPERS_DATA=~/data calipers data fetch mnist

    Parameters
    ----------
    name
        mnist, fashion-mnist or cifar10.
    quiet
        Say nothing but errors.
    """
    from calipers import data

    with _bytes_progress(quiet) as tell:
        files = data.fetch(name, progress=tell)
    if not quiet:
        for file in files:
            _out.print(str(file), markup=False, soft_wrap=True)
        if not files:
            _out.print(f"{name} is complete", markup=False)
    return 0


@data_app.command
def verify(name: str, /) -> int:
    """Check the files of a data set against their checksums; exit status 1 if one is missing or wrong.

    Parameters
    ----------
    name
        mnist, fashion-mnist or cifar10.
    """
    from calipers import data

    results = data.verify(name)
    for result in results:
        _out.print(f"{'ok ' if result.ok else 'NO '} {result.file}: {result.what}", markup=False, soft_wrap=True)
    return 0 if all(result.ok for result in results) else 1


@papers_app.command(name="list")
def papers_list() -> int:
    """List the figures and tables that can be reproduced."""
    from calipers import papers

    for name, figure in papers.figures().items():
        _out.print(f"{name:35} {figure.claim}", markup=False, soft_wrap=True)
    return 0


@papers_app.command(name="run")
def papers_run(
    name: str, /, *, scale: Literal["smoke", "cpu", "paper"] = "cpu", out: Path = Path("runs/papers")
) -> int:
    """Reproduce one figure: a table, a picture, and a record of how they were made.

    Parameters
    ----------
    name
        As `calipers papers list` names it.
    scale
        smoke (seconds), cpu (minutes) or paper (as published).
    out
        Where to write NAME.csv, NAME.svg and NAME.json.
    """
    from calipers import papers

    for file in papers.run(name, scale, out):
        _out.print(str(file), markup=False, soft_wrap=True)
    return 0


def _whole_number(what: str, text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise BadInput(what, expected="a whole number of at least 1, or dask:FILE", got=repr(text))
    return int(text)


def _warn_of_large_eps(eps: tuple[float, ...], norm: str, width: float) -> None:
    """In L∞ a radius beyond the box's width asks what the box already answers."""
    if norm == "linf" and eps and max(eps) >= width:
        _err.print(f"warning: eps {max(eps):g} is as large as the input box, which is {width:g} wide", markup=False)


@contextmanager
def _progress(title: str, total: int, quiet: bool) -> Iterator[Callable[[float], None]]:
    """A bar with rate and time left, on a terminal; nothing where nobody looks."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
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
def _bytes_progress(quiet: bool) -> Iterator[Callable[[str, int, int | None], None]]:
    """A bar for every file that is downloaded."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
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


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit status."""
    sys.exit(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    try:
        status = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except (BadInput, CycloptsError) as error:
        _err.print(f"calipers: {' '.join(str(error).split())}", markup=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        _err.print("calipers: stopped; what was finished stays, and --resume goes on from there", markup=False)
        return 130
    except OSError as error:
        _err.print(f"calipers: {error.filename or 'system'}: {error.strerror or error}", markup=False, soft_wrap=True)
        return 2
    except RuntimeError as error:
        if type(error).__name__ != "SandwichBroken":
            raise
        _err.print(f"calipers: {error}", markup=False, soft_wrap=True)
        return 3
    return status if isinstance(status, int) else 0
