"""The list of reproduced figures, and how one is run: a table, its findings, a picture."""

from __future__ import annotations

import importlib
import io
import json
import os
import pkgutil
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from calipers.errors import BadInput, nearest
from calipers.runner import Part, Work, atomic_write, check_workers, run_shards

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Picture

__all__ = ["HERE", "Bench", "Figure", "Result", "Scale", "figure", "figures", "run"]

Scale = Literal["smoke", "cpu", "paper"]
Reproduce = Callable[..., "Result"]
_FIGURES: dict[str, Figure] = {}


@dataclass(frozen=True, eq=False)
class Result:
    """What a figure measures.

    Arguments:
        table: the numbers, one row per thing measured.
        findings: sentences with numbers: does the claim hold?
        plot: draws the picture from the table; ``None`` where a table is all there is.
        files: more files by name, and what makes their bytes: an interactive page, a Parquet table.

    Example:
        >>> import pandas as pd
        >>> Result(pd.DataFrame({"n": [1]}), ("n is 1",)).plot is None
        True
    """

    table: pd.DataFrame
    findings: tuple[str, ...]
    plot: Callable[[], Picture] | None = None
    files: Mapping[str, Callable[[], bytes]] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """Where a long figure works: finished shards are kept in a folder, so that a killed run goes on where it was.

    Arguments:
        folder: where; ``None`` keeps them in memory, or in a temporary folder if there are several workers.
        trained: where networks are kept, which figures share; ``None`` keeps none.
        workers: processes.
        tell: told in a line how far the work is.

    Example:
        >>> import numpy as np
        >>> parts = Bench().shards("squares", "up to 2", lambda i: Part({"n": np.array([i * i])}), 3)
        >>> parts[2].table["n"].tolist()
        [4]
    """

    folder: Path | None = None
    trained: Path | None = None
    workers: int = 1
    tell: Callable[[str], None] = lambda line: None

    def shards(self, stage: str, what: str, work: Work, count: int) -> list[Part]:
        """All shards of one stage, in order; what was kept counts if ``what`` and the versions are the same.

        Arguments:
            stage: its name, a folder of its own.
            what: everything that determines the shards, in words.
            work: see :func:`calipers.runner.run_shards`.
            count: how many shards.
        """
        start, done = time.perf_counter(), 0

        def on_done(shard: int, part: Part) -> None:
            nonlocal done
            done += 1
            self.tell(f"{stage}: {done} of {count} after {time.perf_counter() - start:.0f} s")

        folder = self.folder / stage if self.folder else None
        mark = json.dumps([stage, what, _versions()])
        return run_shards(work, folder, mark, count, workers=self.workers, on_done=on_done)


# Nothing kept, one process: what a figure called from Python works at.
HERE = Bench()


@dataclass(frozen=True)
class Figure:
    """A published figure or table, and the function that reproduces it.

    Arguments:
        name: ``"paper.figure"``.
        paper: title, authors, year.
        claim: what the paper says it shows.
        reproduce: scale to result; of a long figure, scale and bench to result.
        long: whether it takes a :class:`Bench` to work at.

    Example:
        >>> figures()["pointwise.figure3"].claim
        'The Chebyshev nodes are very close to the maxima of the expected loss (12), n = 10.'
    """

    name: str
    paper: str
    claim: str
    reproduce: Reproduce
    long: bool = False


def figure(name: str, *, paper: str, claim: str, long: bool = False) -> Callable[[Reproduce], Reproduce]:
    """Register a function ``scale -> Result`` as the reproduction of one figure; a long one ``scale, bench -> Result``.

    ``"smoke"`` takes a second, ``"cpu"`` is small, ``"paper"`` is the published size.

    Raises:
        BadInput: if the name is taken by another function.

    Example:
        >>> @figure("example.figure1", paper="None", claim="One is one.")
        ... def one(scale: Scale) -> Result:
        ...     return Result(pd.DataFrame({"one": [1]}), ("it is",))
        >>> _ = _FIGURES.pop("example.figure1")
    """

    def register(function: Reproduce) -> Reproduce:
        known = _FIGURES.get(name)
        if known and (known.reproduce.__module__, known.reproduce.__qualname__) != (
            function.__module__,
            function.__qualname__,
        ):
            raise BadInput("figure", expected="a new name", got=repr(name))
        _FIGURES[name] = Figure(name, paper, claim, function, long)
        return function

    return register


def figures() -> dict[str, Figure]:
    """All figures by name, sorted; importing every paper's module on the way.

    Example:
        >>> "pointwise.figure1" in figures()
        True
    """
    package = importlib.import_module("calipers.papers")
    for module in pkgutil.iter_modules(package.__path__):
        if module.name != "registry":
            importlib.import_module(f"calipers.papers.{module.name}")
    return dict(sorted(_FIGURES.items()))


def run(
    name: str,
    scale: Scale = "paper",
    out: Path | str = ".",
    *,
    workers: int = 1,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Path]:
    """Reproduce one figure: NAME.csv, NAME.svg (if it has a picture), NAME.json and the figure's own files, each whole.

    The JSON holds the claim, the findings, the command, the scale, the seconds, the kind of machine and the versions.
    A long figure keeps finished shards in NAME.SCALE.parts until it is through, and networks in trained/SCALE, where
    other figures find them: run again, it goes on from there. Its seconds are those of the last run, and the JSON
    then says how many shards that run had found done.

    Arguments:
        name: see ``figures``.
        scale: ``"smoke"``, ``"cpu"`` or ``"paper"``.
        out: a folder; made if it is missing.
        workers: processes, for a long figure.
        tell: told in a line how far a long figure is.

    Raises:
        BadInput: for an unknown name or scale, or less than one worker.

    Example:
        >>> run("pointwise.figure7")
        Traceback (most recent call last):
            ...
        calipers.errors.BadInput: figure: got 'pointwise.figure7'; did you mean 'pointwise.figure...
    """
    known = figures()
    if name not in known:
        raise BadInput("figure", got=repr(name), hint=nearest(name, known))
    if scale not in get_args(Scale):
        raise BadInput("scale", got=repr(scale), hint=nearest(str(scale), get_args(Scale)))
    check_workers(workers)
    chosen, start, folder = known[name], time.perf_counter(), Path(out)
    kept = folder / f"{name}.{scale}.parts"
    bench = Bench(kept, folder / "trained" / scale, workers, tell)
    before = _count(kept)
    try:
        result = chosen.reproduce(scale, bench) if chosen.long else chosen.reproduce(scale)
    except KeyboardInterrupt:
        some = _count(kept)
        left = f"finished shards stay in {kept}, and the same command goes on from there" if some else "nothing is kept"
        raise KeyboardInterrupt(f"stopped; {left}") from None
    picture = _svg(name, result.plot) if result.plot else None
    more = {file: make() for file, make in result.files.items()}
    about = {
        "name": name,
        "paper": chosen.paper,
        "claim": chosen.claim,
        "findings": list(result.findings),
        "command": f"calipers papers run {name} --scale {scale}",
        "scale": scale,
        "seconds": round(time.perf_counter() - start, 1),
        **({"shards_kept_from_earlier_runs": before} if before else {}),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "versions": _versions(),
    }
    texts = {"csv": result.table.to_csv(index=False, float_format="%.8g", lineterminator="\n")}
    texts |= {"svg": picture} if picture else {}
    texts |= {"json": json.dumps(about, indent=2, ensure_ascii=False) + "\n"}
    files: dict[Path, str | bytes] = {folder / file: made for file, made in more.items()}
    files |= {folder / f"{name}.{kind}": text for kind, text in texts.items()}
    for path, content in files.items():
        atomic_write(path, content)
    shutil.rmtree(kept, ignore_errors=True)
    return list(files)


def _count(kept: Path) -> int:
    """How many shards are done in a folder; those being written have a suffix."""
    return sum(not part.suffix for part in kept.rglob("part-*")) if kept.is_dir() else 0


def _svg(name: str, plot: Callable[[], Picture]) -> str:
    """The picture as SVG, the same bytes every time: fixed ids, no date, text as text."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "font.size": 9}):
        page = io.StringIO()
        plot().savefig(page, format="svg", metadata={"Date": None, "Creator": None})
    return page.getvalue()


def _versions() -> dict[str, str]:
    """The libraries that the numbers depend on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for library in ("calipers", "numpy", "scipy", "scikit-learn", "torch", "matplotlib"):
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "not installed"
    return found
