"""A file is either whole or absent."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from calipers.errors import BadInput

__all__ = ["atomic_write"]


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write beside the target, flush to the disk, then rename over it: a kill at any moment leaves no half file.

    Raises:
        BadInput: if the disk is full or cannot be written to; nothing half-written is left.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "note.txt"
        >>> atomic_write(target, "whole")
        >>> target.read_text(), [p.name for p in target.parent.iterdir()]
        ('whole', ['note.txt'])
    """
    data = content.encode() if isinstance(content, str) else content
    beside = path.with_name(f"{path.name}.tmp{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException as error:
        with suppress(OSError):
            beside.unlink()
        if isinstance(error, OSError):
            raise _refused(path, len(data), error) from error
        raise


def _refused(path: Path, size: int, error: OSError) -> BadInput:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    hint = "what was finished is kept: make room and go on with --resume" if full else None
    expected = f"a disk that takes {size:,} bytes" if full else "a place that can be written to"
    return BadInput(f"writing {path}", expected=expected, got=error.strerror or str(error), hint=hint)
