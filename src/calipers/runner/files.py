"""A file is either whole or absent."""

from __future__ import annotations

import os
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
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise BadInput(
            f"writing {path}",
            expected=f"a disk that takes {len(data):,} bytes",
            got=error.strerror or str(error),
            hint="what was finished is kept: make room and go on with --resume",
        ) from error
