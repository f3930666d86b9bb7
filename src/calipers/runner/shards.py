"""A job is cut in shards; a finished shard is a part on disk; what is missing is done, wherever it was left off."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from calipers.errors import BadInput
from calipers.runner.files import atomic_write

__all__ = ["Part", "Work", "check_workers", "merge", "run_shards"]

_log = logging.getLogger(__name__)

# How often a worker may die before the job is given up.
_TRIES = 3


@dataclass(frozen=True, eq=False)
class Part:
    """What one shard leaves behind.

    Arguments:
        table: columns of equal length.
        arrays: further arrays, to be concatenated along the first axis.
        notes: anything JSON can hold.
    """

    table: dict[str, np.ndarray]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


Work = Callable[[int], Part]


def run_shards(
    work: Work,
    folder: Path | None,
    mark: str,
    count: int,
    *,
    workers: int | str = 1,
    on_done: Callable[[int, Part], None] = lambda shard, part: None,
) -> list[Part]:
    """Do the shards that are missing and return all parts in order.

    A part is written by whoever made it, atomically, as ``folder/parts/part-00000``; it counts only if its checksum
    holds, which covers the mark and the shard's number as well. A damaged or foreign part is done again.

    Arguments:
        work: a pure function of the shard's number; it is pickled if there are several workers.
        folder: where the parts are kept; None keeps them in memory (one worker) or in a temporary folder.
        mark: the fingerprint of everything that determines the parts.
        count: how many shards there are.
        workers: processes on this machine, or ``"dask:FILE"`` with the scheduler file of a Dask cluster.
        on_done: told of every part as it becomes available, those found on disk included.

    Example:
        >>> parts = run_shards(lambda i: Part({"n": np.array([i, i])}), None, "mark", 3)
        >>> merge(parts).table["n"].tolist()
        [0, 0, 1, 1, 2, 2]
    """
    check_workers(workers)
    if folder is None and workers == 1:
        parts = []
        for shard in range(count):
            parts.append(work(shard))
            on_done(shard, parts[-1])
        return parts
    with nullcontext(folder) if folder is not None else tempfile.TemporaryDirectory() as place:
        shelf = _Shelf(Path(place) / "parts", mark)
        have = {shard: part for shard in range(count) if (part := shelf.read(shard)) is not None}
        for shard, part in have.items():
            on_done(shard, part)
        missing = [shard for shard in range(count) if shard not in have]
        for shard in _do(work, shelf, missing, workers):
            part = shelf.read(shard)
            if part is None:
                raise BadInput(f"part {shard} of {place}", expected="what was just written", got="something else")
            have[shard] = part
            on_done(shard, part)
    return [have[shard] for shard in range(count)]


def check_workers(workers: int | str) -> None:
    """Whether ``workers`` can be meant: a number from 1, or the scheduler file of a Dask cluster.

    Raises:
        BadInput: if not.

    Example:
        >>> check_workers(0)
        Traceback (most recent call last):
            ...
        calipers.errors.BadInput: workers: expected a whole number of at least 1, or dask:FILE, got 0
    """
    if not (workers.startswith("dask:") if isinstance(workers, str) else workers >= 1):
        raise BadInput("workers", expected="a whole number of at least 1, or dask:FILE", got=repr(workers))
    if isinstance(workers, str) and not (file := Path(workers.removeprefix("dask:"))).is_file():
        raise BadInput(f"scheduler file {file}", expected="the file a dask scheduler wrote", got="no such file")


def merge(parts: list[Part]) -> Part:
    """All parts as one: columns and arrays concatenated in order; of notes of the same name, the last."""
    first = parts[0]
    return Part(
        table={name: np.concatenate([part.table[name] for part in parts]) for name in first.table},
        arrays={name: np.concatenate([part.arrays[name] for part in parts]) for name in first.arrays},
        notes={name: note for part in parts for name, note in part.notes.items()},
    )


@dataclass(frozen=True)
class _Shelf:
    """The folder of the parts; a part is a checksum of 64 characters and an .npz behind it."""

    folder: Path
    mark: str

    def path(self, shard: int) -> Path:
        return self.folder / f"part-{shard:05d}"

    def _checksum(self, shard: int, payload: bytes) -> bytes:
        # The mark and the number belong to the checksum: a part of another run or place is as bad as a damaged one.
        return hashlib.sha256(f"{self.mark}/{shard}\n".encode() + payload).hexdigest().encode()

    def write(self, shard: int, part: Part) -> None:
        buffer = io.BytesIO()
        columns = {
            f"table.{n}": np.asarray(a.tolist(), dtype=str) if a.dtype == object else a for n, a in part.table.items()
        }
        arrays = {f"array.{name}": array for name, array in part.arrays.items()}
        np.savez(buffer, allow_pickle=False, notes=np.array(json.dumps(part.notes)), **columns, **arrays)
        payload = buffer.getvalue()
        atomic_write(self.path(shard), self._checksum(shard, payload) + payload)

    def read(self, shard: int) -> Part | None:
        """The part, or None if it is not there; a damaged or foreign one is removed."""
        path = self.path(shard)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        if content[:64] != self._checksum(shard, content[64:]):
            _log.warning("%s is damaged or belongs to another run: it is done again", path)
            path.unlink()
            return None
        with np.load(io.BytesIO(content[64:]), allow_pickle=False) as stored:
            named = {name: stored[name] for name in stored.files}
        return Part(
            table={name.removeprefix("table."): a for name, a in named.items() if name.startswith("table.")},
            arrays={name.removeprefix("array."): a for name, a in named.items() if name.startswith("array.")},
            notes=json.loads(str(named["notes"])),
        )


def _do(work: Work, shelf: _Shelf, missing: list[int], workers: int | str) -> Iterable[int]:
    """Do the missing shards and name each when it is written."""
    if workers == 1:
        return (_one(work, shelf, shard) for shard in missing)
    if isinstance(workers, str):
        return _on_dask(work, shelf, missing, workers.removeprefix("dask:"))
    return _on_this_machine(work, shelf, missing, workers)


def _one(work: Work, shelf: _Shelf, shard: int) -> int:
    shelf.write(shard, work(shard))
    return shard


def _packed(work: Work) -> tuple[bytes, str]:
    """The work as bytes, and the folder from which its modules may have been imported."""
    from joblib.externals.loky.cloudpickle_wrapper import dumps

    try:
        return dumps(work), str(Path.cwd())
    except Exception as error:
        # What cannot be pickled says so with whatever error it likes.
        raise BadInput("work for several workers", expected="what can be pickled", got=error) from error


def _one_elsewhere(packed: tuple[bytes, str], shelf: _Shelf, shard: int) -> int:
    """In another process: unpack only after its modules can be found."""

    if packed[1] not in sys.path:
        sys.path.append(packed[1])
    return _one(pickle.loads(packed[0]), shelf, shard)


def _on_this_machine(work: Work, shelf: _Shelf, missing: list[int], workers: int) -> Iterable[int]:
    """joblib's loky processes; what a killed worker left undone is tried again."""
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    threads, packed = max(1, (os.cpu_count() or 1) // workers), _packed(work)
    for _ in range(_TRIES):
        with parallel_config(backend="loky", n_jobs=workers, inner_max_num_threads=threads):
            tasks = [delayed(_one_elsewhere)(packed, shelf, shard) for shard in missing]
            try:
                for shard in Parallel(return_as="generator_unordered")(tasks):
                    missing = [other for other in missing if other != shard]
                    yield shard
                return
            except TerminatedWorkerError:
                _log.warning("a worker died; %d of the shards are tried again", len(missing))
    raise BadInput(
        f"{len(missing)} of the shards",
        expected=f"workers that live through one of {_TRIES} tries",
        got="workers that were killed",
        hint="there may be too little memory for so many workers; --resume goes on with what is left",
    )


def _on_dask(work: Work, shelf: _Shelf, missing: list[int], scheduler_file: str) -> Iterable[int]:
    """joblib's Dask backend on a cluster that shares the run folder; Dask itself retries what a dead worker held."""
    try:
        from distributed import Client
    except ImportError as error:
        raise BadInput("workers", expected="Dask for dask:FILE", got="none", hint="install calipers[dask]") from error
    from joblib import Parallel, delayed, parallel_config

    packed = _packed(work)
    with Client(scheduler_file=scheduler_file), parallel_config(backend="dask"):
        yield from Parallel()(delayed(_one_elsewhere)(packed, shelf, shard) for shard in missing)
