"""Polynomial classifiers on [0, 1]: Bernstein and shifted Chebyshev bases, the maximum-margin pair f_n and g_n."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln, xlog1py, xlogy

from calipers.errors import BadInput, nearest
from calipers.theory.checks import check_degree

__all__ = ["Basis", "Polynomial", "basis_values", "bernstein_margin", "chebyshev_margin"]

Basis = Literal["bernstein", "chebyshev"]


def basis_values(x: ArrayLike, degree: int, basis: Basis) -> NDArray[np.float64]:
    r"""The n + 1 basis polynomials at every x in [0, 1], shape (N, n + 1); never a monomial.

    Bernstein: b_i(x) = C(n, i)·x^i·(1 − x)^{n−i}, equation (3), through its logarithm. Shifted Chebyshev:
    T*_i(x) = T_i(2x − 1), by the three-term recurrence.

    Arguments:
        x: points in [0, 1], shape (N,).
        degree: n ≥ 1.
        basis: ``"bernstein"`` or ``"chebyshev"``.

    Raises:
        BadInput: for degree 0, points outside [0, 1], an unknown basis.

    Example:
        >>> basis_values([0.0, 0.5, 1.0], 2, "bernstein").round(6).tolist()
        [[1.0, 0.0, 0.0], [0.25, 0.5, 0.25], [0.0, 0.0, 1.0]]
        >>> basis_values([0.0, 0.5, 1.0], 2, "chebyshev").tolist()
        [[1.0, -1.0, 1.0], [1.0, 0.0, -1.0], [1.0, 1.0, 1.0]]
    """
    check_degree(degree)
    at = np.atleast_1d(np.asarray(x, dtype=np.float64))
    if not ((at >= 0) & (at <= 1)).all():
        raise BadInput("points of a polynomial classifier", expected="numbers in [0, 1]")
    if basis == "chebyshev":
        return np.asarray(chebyshev.chebvander(2 * at - 1, degree))
    if basis != "bernstein":
        raise BadInput("basis", got=repr(basis), hint=nearest(str(basis), ["bernstein", "chebyshev"]))
    i = np.arange(degree + 1)
    log_choose = gammaln(degree + 1) - gammaln(i + 1) - gammaln(degree - i + 1)
    powers = xlogy(i, at[:, None]) + xlog1py(degree - i, -at[:, None])
    return np.asarray(np.exp(log_choose + powers))


@dataclass(frozen=True, eq=False)
class Polynomial:
    r"""x ↦ Σ c_i·basis_i(x) on [0, 1]; as a classifier it says + where it is ≥ 0.

    Arguments:
        basis: ``"bernstein"`` or ``"chebyshev"``.
        coefficients: c_0 … c_n, shape (n + 1,), n ≥ 1.

    Example:
        >>> Polynomial("chebyshev", [0.0, 1.0])([0.0, 0.5, 1.0]).tolist()
        [-1.0, 0.0, 1.0]
    """

    basis: Basis
    coefficients: ArrayLike

    def __post_init__(self) -> None:
        c = np.asarray(self.coefficients, dtype=np.float64)
        if c.ndim != 1 or not np.isfinite(c).all():
            raise BadInput("coefficients of the polynomial", expected="one finite vector", got=f"shape {c.shape}")
        check_degree(len(c) - 1)
        if self.basis not in ("bernstein", "chebyshev"):
            raise BadInput("basis", got=repr(self.basis), hint=nearest(str(self.basis), ["bernstein", "chebyshev"]))
        object.__setattr__(self, "coefficients", c)

    @property
    def degree(self) -> int:
        """n, as stored; the leading coefficients may be 0."""
        return len(np.asarray(self.coefficients)) - 1

    def __call__(self, x: ArrayLike) -> NDArray[np.float64]:
        """The values at x in [0, 1], shape (N,)."""
        return np.asarray(basis_values(x, self.degree, self.basis) @ np.asarray(self.coefficients))


def bernstein_margin(degree: int) -> Polynomial:
    r"""f_n(x) = x^n − (1 − x)^n, the maximum-margin classifier of {(0, −), (1, +)} in the Bernstein basis: (5).

    Its only sign change is at ½: it has no adversarial region.

    Source:
        Barati, Safabakhsh and Rahmati, Towards Explaining Adversarial Examples Phenomenon in Artificial Neural
        Networks, 2021, equations (3)–(5).

    Example:
        >>> bernstein_margin(3)([0.25]).round(12).tolist()
        [-0.40625]
    """
    check_degree(degree)
    ends = np.zeros(degree + 1)
    ends[0], ends[-1] = -1.0, 1.0
    return Polynomial("bernstein", ends)


def chebyshev_margin(degree: int) -> Polynomial:
    r"""g_n = c·Σ T*_{2i+1}, i = 0 … ⌊(n − 1)/2⌋, the maximum-margin classifier in the shifted Chebyshev basis: (7).

    The margin is 1 at both points only for c = 1/⌊(n + 1)/2⌋. Equation (7) prints c = 2/(n + 1), which is the same for
    odd n, but for even n leaves g_n(1) = n/(n + 1); the sign of g_n, and so the classifier, does not depend on c.

    With N the largest odd number ≤ n and x = (1 + cos θ)/2, the sum is sin((N + 1)θ)/(2 sin θ): g_n is the Chebyshev
    polynomial of the *second* kind U_N(2x − 1)/(N + 1), with roots (1 + cos(jπ/(N + 1)))/2, j = 1 … N. So g_n = g_{n−1}
    for even n.

    Source:
        Barati, Safabakhsh and Rahmati, Towards Explaining Adversarial Examples Phenomenon in Artificial Neural
        Networks, 2021, equations (6) and (7).

    Example:
        >>> chebyshev_margin(10)([0.0, 1.0]).round(12).tolist()
        [-1.0, 1.0]
    """
    check_degree(degree)
    c = np.zeros(degree + 1)
    c[1::2] = 1 / ((degree + 1) // 2)
    return Polynomial("chebyshev", c)
