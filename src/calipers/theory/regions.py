"""Adversarial regions of a polynomial classifier, found from its roots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from scipy.optimize import brentq

from calipers.errors import BadInput
from calipers.theory.polynomials import Polynomial

__all__ = ["AdversarialRegions", "adversarial_regions", "sign_changes"]

# Two roots closer than this are one root seen twice through rounding.
RESOLUTION = 1e-12


@dataclass(frozen=True, eq=False)
class AdversarialRegions:
    """Where a classifier on [0, 1] disagrees with the true one, whose only boundary is ``boundary``.

    Arguments:
        intervals: the disjoint intervals, ascending, shape (r, 2).
        length: their total length: the probability of error under the uniform distribution.
        depth: the largest distance of a misclassified point to the true boundary; 0 if there is none.

    Example:
        >>> from calipers.theory.polynomials import bernstein_margin
        >>> adversarial_regions(bernstein_margin(5)).intervals.shape
        (0, 2)
    """

    intervals: NDArray[np.float64]
    length: float
    depth: float


def sign_changes(polynomial: Polynomial) -> NDArray[np.float64]:
    r"""The points of (0, 1) where a polynomial changes sign, ascending; roots of even order are none.

    Candidates come from the eigenvalues of the colleague matrix (Chebyshev) or from subdivision by Descartes' rule
    (Bernstein); the sign between neighbouring candidates decides, and each change is then bracketed and refined.

    Example:
        >>> from calipers.theory.polynomials import bernstein_margin, chebyshev_margin
        >>> sign_changes(chebyshev_margin(3)).round(6).tolist()
        [0.146447, 0.5, 0.853553]
        >>> sign_changes(bernstein_margin(60)).round(12).tolist()
        [0.5]
    """
    c = np.asarray(polynomial.coefficients)
    if not c.any():
        raise BadInput("polynomial", expected="a coefficient other than 0")
    found = _chebyshev_candidates(c) if polynomial.basis == "chebyshev" else _bernstein_candidates(c, 0.0, 1.0)
    inner = np.sort([r for r in found if RESOLUTION < r < 1 - RESOLUTION])
    keep = np.append(True, np.diff(inner) > RESOLUTION)[: len(inner)]
    inner = inner[keep]
    between = np.convolve(np.concatenate([[0.0], inner, [1.0]]), [0.5, 0.5], "valid")
    sign = np.sign(polynomial(between))
    changes = [
        brentq(lambda x: float(polynomial([x])[0]), a, b, xtol=1e-15, rtol=1e-14)
        for a, b, s, t in zip(between[:-1], between[1:], sign[:-1], sign[1:], strict=True)
        if s * t < 0
    ]
    return np.asarray(changes, dtype=np.float64)


def _chebyshev_candidates(c: NDArray[np.float64]) -> list[float]:
    """Real parts of the roots near [0, 1]; too many do no harm, because signs decide."""
    trimmed = np.asarray(chebyshev.chebtrim(c, tol=1e-15 * float(np.abs(c).max())))
    if len(trimmed) < 2:
        return []
    roots = np.asarray(chebyshev.chebroots(trimmed), dtype=np.complex128)
    real = roots[np.abs(roots.imag) < 1e-3].real
    return [float(r) for r in (real[np.abs(real) <= 1] + 1) / 2]


def _bernstein_candidates(c: NDArray[np.float64], low: float, high: float) -> list[float]:
    """Isolate roots: no sign variation among the coefficients means no root, one means one; otherwise halve."""
    signs = np.sign(c[c != 0])
    variations = int((signs[1:] != signs[:-1]).sum())
    if variations == 0:
        return []
    middle = (low + high) / 2
    if high - low < RESOLUTION:
        return [middle]
    left, right, row = np.empty_like(c), np.empty_like(c), c
    for i in range(len(c)):
        left[i], right[-1 - i] = row[0], row[-1]
        row = (row[1:] + row[:-1]) / 2
    at_middle = [middle] if left[-1] == 0 else []
    return _bernstein_candidates(left, low, middle) + at_middle + _bernstein_candidates(right, middle, high)


def adversarial_regions(polynomial: Polynomial, boundary: float = 0.5) -> AdversarialRegions:
    r"""Where sign(polynomial) differs from sign(x − boundary) on [0, 1].

    Raises:
        BadInput: if the boundary is not inside (0, 1), or the polynomial is 0.

    Example:
        >>> from calipers.theory.polynomials import chebyshev_margin
        >>> three = adversarial_regions(chebyshev_margin(3))
        >>> len(three.intervals), round(three.length, 6), round(three.depth, 6)
        (2, 0.707107, 0.353553)
    """
    if not 0 < boundary < 1:
        raise BadInput("true boundary", expected="a number strictly between 0 and 1", got=boundary)
    cuts = np.unique(np.concatenate([[0.0, boundary, 1.0], sign_changes(polynomial)]))
    low, high = cuts[:-1], cuts[1:]
    middle = (low + high) / 2
    wrong = (np.sign(polynomial(middle)) * np.sign(middle - boundary) < 0) & (high - low > RESOLUTION)
    intervals = np.stack([low[wrong], high[wrong]], axis=1)
    depth = float(np.abs(intervals - boundary).max(initial=0.0))
    return AdversarialRegions(intervals, float((high - low)[wrong].sum()), depth)
