"""What every function of this room asks of what it is given: finite numbers, labels −1 and +1, a Classifier."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse

from calipers.errors import BadInput
from calipers.models import Classifier

__all__ = ["array", "classifier", "examples", "matrix", "signs", "two_classes", "vector"]

Floats = NDArray[np.float64]


def array(x: ArrayLike, what: str) -> Floats:
    """Numbers as float64, a tensor's too; a sentence for words, ragged rows and sparse matrices.

    Example:
        >>> array(torch.ones(2, requires_grad=True), "x")
        array([1., 1.])
    """
    if issparse(x):
        raise BadInput(what, expected="a dense array", got="a sparse one", hint="call .toarray()")
    try:
        found = np.asarray(x.detach().cpu() if isinstance(x, torch.Tensor) else x)
        numbers = found.astype(np.float64) if found.dtype.kind in "biufO" else None
    except (TypeError, ValueError):
        numbers = None
    if numbers is None:
        raise BadInput(what, expected="real numbers, the same count in every row", got="something else")
    return numbers


def matrix(x: ArrayLike, what: str = "x", features: int | None = None) -> Floats:
    """Inputs as a float64 matrix (n, d), an image as its pixels; a sentence if a number is NaN or infinite.

    Example:
        >>> matrix([[[1, 2], [3, 4]]]).shape
        (1, 4)
    """
    found = array(x, what)
    if found.ndim < 2 or len(found) == 0 or found.size == 0:
        raise BadInput(what, expected="a matrix of shape (n, d), n and d >= 1", got=f"shape {found.shape}")
    flat = found.reshape(len(found), -1)
    if features is not None and flat.shape[1] != features:
        raise BadInput(what, expected=f"{features} features", got=flat.shape[1])
    bad = np.flatnonzero(~np.isfinite(flat).all(1))
    if len(bad):
        raise BadInput(f"row {bad[0]} of {what}", expected="finite numbers", got="NaN or infinity")
    return flat


def vector(v: ArrayLike, size: int, what: str = "direction") -> Floats:
    """A vector of ``size`` finite numbers that are not all 0.

    Example:
        >>> vector([1, 2], 2)
        array([1., 2.])
    """
    found = array(v, what)
    if found.shape != (size,):
        raise BadInput(what, expected=f"{size} numbers", got=f"shape {found.shape}")
    if not np.isfinite(found).all() or not found.any():
        raise BadInput(what, expected="finite numbers, not all 0", got="all 0" if np.isfinite(found).all() else "NaN")
    return found


def signs(y: ArrayLike, n: int) -> Floats:
    """n labels, each −1 or +1.

    Example:
        >>> signs([1, -1], 2)
        array([ 1., -1.])
    """
    labels = np.asarray(y)
    if labels.shape != (n,):
        raise BadInput("labels", expected=f"one for each of {n} inputs", got=f"shape {labels.shape}")
    other = [value for value in np.unique(labels).tolist() if value not in (-1, 1)]
    if other:
        raise BadInput("labels", expected="-1 or +1", got=other[0], hint="use np.where(y == b, 1, -1) for classes a, b")
    return labels.astype(np.float64)


def two_classes(x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    """Inputs (n, d) and labels −1 (class I of the paper) or +1 (class J), both present.

    Example:
        >>> two_classes([[0.0], [1.0]], [-1, 1])[1]
        array([-1.,  1.])
    """
    rows = matrix(x)
    labels = signs(y, len(rows))
    for sign in (-1, 1):
        if not (labels == sign).any():
            raise BadInput("labels", expected="two classes, -1 and +1", got=f"none with label {sign:+d}")
    return rows, labels


def examples(*tensors: object) -> None:
    """Refuse what is not a tensor of one example or more.

    Example:
        >>> examples(torch.zeros(2, 3), [0, 1])
        Traceback (most recent call last):
            ...
        calipers.errors.BadInput: x and y: expected tensors of one example or more, got list; torch.as_tensor makes them
    """
    for one in tensors:
        if not isinstance(one, torch.Tensor) or one.dim() < 1 or len(one) == 0:
            got = f"shape {tuple(one.shape)}" if isinstance(one, torch.Tensor) else type(one).__name__
            raise BadInput("x and y", expected="tensors of one example or more", got=got,
                           hint="torch.as_tensor makes them")  # fmt: skip


def classifier(model: object) -> Classifier:
    """The model itself, if it is a Classifier.

    Raises:
        BadInput: for a bare network or estimator: its box, and a network's shape, are the caller's to say.
    """
    if not isinstance(model, Classifier):
        hint = "Classifier.of(net, shape=..., box=...) and from_sklearn(estimator, box=...) make one"
        raise BadInput("model", expected="a Classifier", got=type(model).__name__, hint=hint)
    return model
