"""The two byte formats of the official files: IDX and CIFAR records."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from calipers.errors import BadInput

__all__ = ["parse_cifar", "parse_idx"]

RECORD = 1 + 3 * 32 * 32


def parse_idx(raw: bytes, where: str = "IDX file") -> NDArray[np.uint8]:
    r"""An IDX file of unsigned bytes: 0, 0, type 8, the number of axes, their lengths (big-endian), then the bytes.

    Arguments:
        raw: the whole content, already gunzipped.
        where: what to call it in a complaint.

    Raises:
        BadInput: a wrong magic number, or more or fewer bytes than the header says.

    Example:
        >>> parse_idx(bytes([0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 3, 7, 8, 9])).tolist()
        [[7, 8, 9]]
    """
    axes = raw[3] if len(raw) > 3 else 0
    start = 4 + 4 * axes
    if raw[:3] != b"\0\0\x08" or axes == 0 or len(raw) < start:
        raise BadInput(
            where, expected="an IDX header of unsigned bytes (00 00 08 …)", got=raw[:4].hex(" ") or "nothing"
        )
    shape = tuple(int.from_bytes(raw[at : at + 4], "big") for at in range(4, start, 4))
    if len(raw) - start != math.prod(shape):
        raise BadInput(where, expected=f"{math.prod(shape)} bytes for shape {shape}", got=len(raw) - start)
    return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(shape)


def parse_cifar(raw: bytes, where: str = "CIFAR file") -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """CIFAR-10 records: one byte of label, then 3 × 32 × 32 bytes of red, green and blue, row by row.

    Arguments:
        raw: the whole content.
        where: what to call it in a complaint.

    Returns:
        Images, shape (N, 3, 32, 32), and labels, shape (N,).

    Raises:
        BadInput: not a whole number of records.

    Example:
        >>> x, y = parse_cifar(bytes([6]) + bytes(3072))
        >>> x.shape, y.tolist()
        ((1, 3, 32, 32), [6])
    """
    if not raw or len(raw) % RECORD:
        raise BadInput(where, expected=f"whole records of {RECORD} bytes", got=f"{len(raw)} bytes")
    rows = np.frombuffer(raw, dtype=np.uint8).reshape(-1, RECORD)
    return rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0]
