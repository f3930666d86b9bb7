"""The run folder: what an audit leaves behind, written so that it is either whole or absent."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from calipers.errors import BadInput
from calipers.records import Check, Run, RunSettings, Summary
from calipers.runner import atomic_write, differences

__all__ = [
    "COLUMNS",
    "begun_run",
    "check_claim",
    "clear_run",
    "finished_run",
    "read_run",
    "read_settings",
    "table_of",
    "write_run",
]

# The columns of examples.parquet, in order, with their dtypes.
COLUMNS: dict[str, str] = {
    "index": "int64",
    "label": "int64",
    "predicted": "int64",
    "lower": "float64",
    "certificate": "str",
    "upper": "float64",
    "attack": "str",
    "forwards": "int64",
    "gradients": "int64",
}

# What --smooth adds: the smoothed model's answer (−1: it abstains) and its radius, which is not one of the model.
SMOOTHED: dict[str, str] = {"smoothed": "int64", "smoothed_radius": "float64"}

# Every file of a run, the report among them.
_FILES = (
    "summary.json", "run.json", "examples.parquet", "adversarials.safetensors", "landscape.safetensors", "checks.json",
    "report.html",
)  # fmt: skip


def check_claim(folder: Path, settings: RunSettings, *, resume: bool, replace: bool) -> None:
    """Make sure that the folder is ours to write: new, this very run, or given up by the caller. Touches nothing.

    Raises:
        BadInput: if the folder holds other files, other settings, or this run unfinished and nothing is said about it.
    """
    if resume and replace:
        raise BadInput("resume and replace", expected="one of the two", got="both")
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"run folder {folder}", expected="a folder", got="a file")
    begun = None if replace else read_settings(folder)
    if not (folder / "run.json").is_file() and folder.is_dir() and not all(map(_is_ours, folder.iterdir())):
        hint = "choose a folder of its own for the run"
        raise BadInput(f"run folder {folder}", expected="a new, empty or run folder", got="other files", hint=hint)
    if begun is None:
        return
    other = differences(begun.model_dump(mode="json"), settings.model_dump(mode="json"))
    if other:
        # Other words say it better than other hashes.
        other = [said for said in other if "_sha256" not in said] or other
        hint = "choose another --out, or --replace"
        raise BadInput(f"run folder {folder}", expected="the settings of its run", got="; ".join(other), hint=hint)
    if not resume and not (folder / "summary.json").is_file():
        hint = "--resume goes on with it, --replace starts again"
        raise BadInput(f"run folder {folder}", expected="a new run", got="this very run, unfinished", hint=hint)


@contextmanager
def begun_run(folder: Path | None, settings: RunSettings, *, anew: bool) -> Iterator[None]:
    """Say what the folder is going to hold; if bad input or Ctrl-C ends the run before any part, nothing is left."""
    if folder is None:
        yield
        return
    new = not folder.exists()
    try:
        clear_run(folder, parts=anew)
        atomic_write(folder / "run.json", _json({"settings": settings.model_dump(mode="json")}))
        yield
    except (BadInput, KeyboardInterrupt) as end:
        kept = sum(not part.suffix for part in folder.glob("parts/part-*"))
        if not kept:
            clear_run(folder)
            if new and folder.is_dir():
                folder.rmdir()
        if isinstance(end, KeyboardInterrupt):
            raise KeyboardInterrupt(_left(kept)) from None
        raise


def _left(parts: int) -> str:
    """What Ctrl-C leaves of a run."""
    if not parts:
        return "stopped before the first shard of the examples was finished: nothing is kept"
    stay = "1 finished shard stays" if parts == 1 else f"{parts} finished shards stay"
    return f"stopped; {stay}, and --resume goes on from there"


def clear_run(folder: Path, *, parts: bool = True) -> None:
    """Remove what an earlier run left, and nothing else; without ``parts``, what it needs to go on stays."""
    if not folder.is_dir():
        return
    for path in filter(_is_ours, folder.iterdir()):
        if path.name != "parts" and (parts or path.name != "run.json"):
            path.unlink(missing_ok=True)
    if parts:
        shutil.rmtree(folder / "parts", ignore_errors=True)


def _is_ours(path: Path) -> bool:
    """Whether an audit made it, under its name or under the one it is written as at first."""
    return path.name.partition(".tmp")[0] in (*_FILES, "parts")


def finished_run(folder: Path) -> Run | None:
    """The run in the folder if it is whole; None if it is unfinished or a file of it is damaged."""
    try:
        return read_run(folder)
    except BadInput:
        return None


def write_run(run: Run) -> None:
    """Write every file of a run but the report, each atomically; summary.json last: it says that the run is whole."""
    from safetensors.numpy import save

    folder = Path(run.folder)
    atomic_write(folder / "run.json", _json(run.about))
    buffer = io.BytesIO()
    run.examples.to_parquet(buffer, index=False, compression="zstd")
    atomic_write(folder / "examples.parquet", buffer.getvalue())
    atomic_write(folder / "adversarials.safetensors", save(run.witnesses))
    if run.landscape:
        atomic_write(folder / "landscape.safetensors", save(run.landscape))
    atomic_write(folder / "checks.json", _json([check.model_dump() for check in run.checks]))
    atomic_write(folder / "summary.json", run.summary.model_dump_json(by_alias=True, indent=2) + "\n")
    shutil.rmtree(folder / "parts", ignore_errors=True)


def read_run(folder: Path) -> Run:
    """Read a finished run back.

    Raises:
        BadInput: if the folder is not one, or a file is missing or damaged.
    """
    from safetensors.numpy import load

    missing = [name for name in ("run.json", "examples.parquet", "summary.json") if not (folder / name).is_file()]
    if missing:
        got = "nothing there" if not folder.exists() else f"no {', '.join(missing)}"
        raise BadInput(str(folder), expected="the folder of a finished run", got=got, hint="audit with --out first")
    try:
        return Run(
            folder=str(folder),
            about=json.loads((folder / "run.json").read_text()),
            examples=pd.read_parquet(folder / "examples.parquet"),
            witnesses=load((folder / "adversarials.safetensors").read_bytes()),
            checks=tuple(Check(**check) for check in json.loads((folder / "checks.json").read_text())),
            summary=Summary.model_validate_json((folder / "summary.json").read_text()),
            landscape=load(views.read_bytes()) if (views := folder / "landscape.safetensors").is_file() else {},
        )
    except Exception as error:
        # pyarrow, safetensors, json and pydantic each have errors of their own for a damaged file.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(str(folder), expected="whole files", got=reason, hint="audit again with --resume") from error


def read_settings(folder: Path) -> RunSettings | None:
    """The settings a folder was begun with; None if it holds no run."""
    try:
        return RunSettings(**json.loads((folder / "run.json").read_text())["settings"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        hint = "choose another --out, or --replace"
        raise BadInput(
            str(folder / "run.json"), expected="the settings of a run", got="something else", hint=hint
        ) from error


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n"


def table_of(columns: dict[str, np.ndarray]) -> pd.DataFrame:
    """Rows of an audit with the columns of the contract, in their order and dtypes."""
    kinds = COLUMNS | (SMOOTHED if "smoothed" in columns else {})
    return pd.DataFrame({name: pd.Series(columns[name], dtype=kind) for name, kind in kinds.items()})
