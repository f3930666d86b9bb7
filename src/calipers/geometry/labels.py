"""What every function of this room asks of its data: finite numbers, and two classes as −1 and +1."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calipers.errors import BadInput

__all__ = ["matrix", "two_classes"]

Floats = NDArray[np.float64]


def matrix(x: ArrayLike, what: str = "x") -> Floats:
    """Inputs as a float64 matrix (n, d), an image as its pixels; a sentence if a number is NaN or infinite.

    Example:
        >>> matrix([[[1, 2], [3, 4]]]).shape
        (1, 4)
    """
    found = np.asarray(x, dtype=np.float64)
    if found.ndim < 2 or len(found) == 0 or found.size == 0:
        raise BadInput(what, expected="a matrix of shape (n, d), n and d >= 1", got=f"shape {found.shape}")
    flat = found.reshape(len(found), -1)
    bad = np.flatnonzero(~np.isfinite(flat).all(1))
    if len(bad):
        raise BadInput(f"row {bad[0]} of {what}", expected="finite numbers", got="NaN or infinity")
    return flat


def two_classes(x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    """Inputs (n, d) and labels −1 (class I of the paper) or +1 (class J), both present.

    Example:
        >>> two_classes([[0.0], [1.0]], [-1, 1])[1]
        array([-1.,  1.])
    """
    rows, labels = matrix(x), np.asarray(y)
    if labels.shape != (len(rows),):
        raise BadInput("labels", expected=f"one for each of {len(rows)} inputs", got=f"shape {labels.shape}")
    other = [value for value in np.unique(labels).tolist() if value not in (-1, 1)]
    if other:
        raise BadInput("labels", expected="-1 or +1", got=other[0], hint="use np.where(y == b, 1, -1) for classes a, b")
    for sign in (-1, 1):
        if not (labels == sign).any():
            raise BadInput("labels", expected="two classes, -1 and +1", got=f"none with label {sign:+d}")
    return rows, labels.astype(np.float64)
