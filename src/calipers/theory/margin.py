"""Hard-margin support vector classifiers on polynomial features, and the grids they are trained on."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls

from calipers.errors import BadInput, nearest
from calipers.theory.polynomials import Basis, Polynomial, basis_values

__all__ = ["Grid", "grid", "hard_margin", "nearest_label"]

Grid = Literal["equispaced", "chebyshev"]


def grid(kind: Grid, m: int, *, ends: bool = True) -> NDArray[np.float64]:
    r"""m training points in [0, 1], ascending: E_m or C_m.

    E_m is equispaced, 0 and 1 included. C_m is 0, the m − 2 roots of T*_{m−2}, and 1: the paper's nodes "plus the
    boundary".

    Arguments:
        kind: ``"equispaced"`` or ``"chebyshev"``.
        m: how many, at least 3.
        ends: whether to keep 0 and 1; without them m − 2 points are left.

    Example:
        >>> grid("equispaced", 5).tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
        >>> grid("chebyshev", 4, ends=False).round(4).tolist()
        [0.1464, 0.8536]
    """
    if isinstance(m, bool) or not isinstance(m, int) or m < 3:
        raise BadInput("number of grid points", expected="a whole number >= 3", got=m)
    if kind == "equispaced":
        points = np.linspace(0.0, 1.0, m)
    elif kind == "chebyshev":
        angle = (2 * np.arange(m - 2) + 1) * np.pi / (2 * (m - 2))
        points = np.concatenate([[0.0], np.sin(angle / 2) ** 2, [1.0]])
    else:
        raise BadInput("grid", got=repr(kind), hint=nearest(str(kind), ["equispaced", "chebyshev"]))
    return points if ends else points[1:-1]


def nearest_label(x: ArrayLike) -> NDArray[np.float64]:
    """The nearest-neighbour rule of {(0, −1), (1, +1)}: ±1; the point ½, as far from both, is called +1.

    Example:
        >>> nearest_label([0.2, 0.5, 0.7]).tolist()
        [-1.0, 1.0, 1.0]
    """
    return np.where(np.asarray(x, dtype=np.float64) >= 0.5, 1.0, -1.0)


def hard_margin(x: ArrayLike, y: ArrayLike, degree: int, basis: Basis = "chebyshev") -> Polynomial:
    r"""The maximum-margin classifier of a training set in the span of a polynomial basis.

        minimise ‖c‖₂  subject to  y_j·Σ c_i·basis_i(x_j) ≥ 1 for every j.

    Like equations (4) and (6) it has no bias of its own. A least-distance problem: solved exactly by non-negative
    least squares on its dual (Lawson and Hanson, Solving Least Squares Problems, chapter 23), with n + 1 unknowns and
    one multiplier per training point; 10⁴ points at degree 60 take about half a second.

    Arguments:
        x: training points in [0, 1], all different, shape (m,).
        y: their labels ±1, shape (m,).
        degree: n ≥ 1.
        basis: ``"chebyshev"`` or ``"bernstein"``.

    Raises:
        BadInput: for repeated nodes, labels other than ±1, a single class, degree 0, or labels that no polynomial of
            this degree separates.

    Example:
        >>> hard_margin([0.0, 1.0], [-1, 1], 3)([0.0, 1.0]).round(9).tolist()
        [-1.0, 1.0]
    """
    at, sign = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if at.ndim != 1 or at.shape != sign.shape:
        raise BadInput("training set", expected="as many labels as points", got=f"shapes {at.shape} and {sign.shape}")
    order = np.sort(at)
    if (order[1:] == order[:-1]).any():
        raise BadInput("training points", expected="different nodes",
                       got=f"{order[1:][order[1:] == order[:-1]][0]:g} more than once")  # fmt: skip
    if not (np.abs(sign) == 1).all() or len(set(sign.tolist())) < 2:
        raise BadInput("labels of the training set", expected="-1 and 1, both present", got=sorted(set(sign.tolist())))
    rows = basis_values(at, degree, basis) * sign[:, None]
    c, scale = np.zeros(degree + 1), 1.0
    for _ in range(3):
        # The dual loses digits as ‖c‖ leaves 1, so it is solved again in units in which ‖c‖ is 1.
        dual = np.vstack([rows.T, np.full(len(rows), scale)])
        target = np.append(np.zeros(degree + 1), 1.0)
        multipliers, _ = nnls(dual, target, maxiter=30 * len(rows))
        rest = target - dual @ multipliers
        if rest[-1] <= 1e-13:
            break
        c = -rest[:-1] / rest[-1] / scale
        scale = 1 / float(np.linalg.norm(c))
    if not float((rows @ c).min()) > 1 - 1e-6:
        raise BadInput(f"training set of {len(at)} points", expected=f"labels that a polynomial of degree {degree} "
                       "separates", got="none that does", hint="raise the degree")  # fmt: skip
    return Polynomial(basis, c)
