"""The four norms, their duals, and distances that may be relied on."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from calipers.errors import BadInput, nearest

__all__ = ["NORMS", "Norm", "distance", "dual", "find_norm", "norm", "norm_of"]

Norm = Literal["linf", "l2", "l1", "l0"]
NORMS: tuple[Norm, ...] = get_args(Norm)

_INFINITY = ("∞", "infty", "infinity", "max", "sup")
_ORDER: dict[str, float] = {"linf": math.inf, "l2": 2.0, "l1": 1.0, "l0": 0.0}
_DUAL: dict[str, Norm] = {"linf": "l1", "l2": "l2", "l1": "linf"}


def find_norm(name: object) -> Norm:
    r"""The norm that is meant, however it is written: ``Linf``, ``l_inf``, ``L∞``, ``inf``, ``L2``, ``l-1``, 2, ∞.

    Raises:
        BadInput: for any other, with the nearest.

    Example:
        >>> find_norm("L_inf"), find_norm("inf"), find_norm(math.inf), find_norm("L2"), find_norm(1)
        ('linf', 'linf', 'linf', 'l2', 'l1')
    """
    order = str(name).strip().lower().removeprefix("l").lstrip("_-").removesuffix(".0")
    for known in NORMS:
        if order in (known[1:], *_INFINITY * (known == "linf")):
            return known
    raise BadInput("norm", expected="linf, l2, l1 or l0", got=repr(name), hint=nearest(str(name), NORMS))


def norm_of(name: Norm) -> float:
    r"""The order p of a norm: ∞, 2, 1 or 0.

    Example:
        >>> norm_of("l2")
        2.0
    """
    return _ORDER[name]


def dual(name: Norm) -> Norm:
    r"""The dual norm q with 1/p + 1/q = 1; L0 has none.

    Example:
        >>> dual("linf"), dual("l2"), dual("l1")
        ('l1', 'l2', 'linf')
    """
    if name not in _DUAL:
        raise BadInput("dual norm", expected="linf, l2 or l1", got=repr(name))
    return _DUAL[name]


def norm(delta: Tensor, name: Norm) -> Tensor:
    r"""‖δ_n‖ of every example, in the dtype of ``delta``.

    Arguments:
        delta: shape (N, \*shape).
        name: which norm.

    Returns:
        shape (N,).

    Example:
        >>> norm(torch.tensor([[3.0, -4.0]]), "l2")
        tensor([5.])
    """
    flat = delta.flatten(1)
    if name == "linf":
        return flat.abs().amax(1)
    if name == "l2":
        length: Tensor = torch.linalg.vector_norm(flat, dim=1)
        return length
    if name == "l1":
        return flat.abs().sum(1)
    return (flat != 0).sum(1).to(delta.dtype)


def distance(x: Tensor, z: Tensor, name: Norm) -> Tensor:
    r"""‖z_n − x_n‖ of every example, in float64 and rounded up: never below the true distance.

    The difference of two float32 numbers is taken in float64; the sum over d coordinates has a relative error of
    at most (d + 2)·2⁻⁵³, which is added.

    Arguments:
        x, z: shape (N, \*shape), any floating dtype.
        name: which norm.

    Returns:
        float64, shape (N,).

    Example:
        >>> distance(torch.zeros(1, 2), torch.tensor([[0.5, 0.25]]), "linf") >= 0.5
        tensor([True])
    """
    delta = z.double() - x.double()
    plain = norm(delta, name)
    if name == "l0":
        return plain
    terms = 1 if name == "linf" else max(delta[0].numel() if len(delta) else 1, 1)
    return plain * (1.0 + (terms + 3) * 2.0**-53)
