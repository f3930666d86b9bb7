"""The robust-accuracy band, read off the brackets: step curves, medians and confidence intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["Band", "axis_end", "band", "median", "wilson"]

_POINTS = 1200


@dataclass(frozen=True, eq=False)
class Band:
    """The two step curves of the band on common radii.

    Between two radii ``proved`` holds the value of the right one and ``not_broken`` that of the left one, so that
    thinning the radii can only widen the band. A bracket of zero width is proved before its radius and broken at it,
    so that radius stands there twice: just before, and at.

    Arguments:
        radius: ascending radii, from 0, shape (P,).
        proved: the fraction with lower ≥ radius and no witness within it, shape (P,).
        not_broken: the fraction with upper > radius, shape (P,).
    """

    radius: np.ndarray
    proved: np.ndarray
    not_broken: np.ndarray


def band(lower: np.ndarray, upper: np.ndarray, eps: tuple[float, ...] = (), end: float | None = None) -> Band:
    """The band of a set of brackets, exact at 0, at every eps and at (up to 1200) corners of its curves.

    Arguments:
        lower: certified radii, shape (N,).
        upper: distances of witnesses, shape (N,), possibly inf.
        eps: radii that must be among the corners.
        end: the last radius; by default where the last curve ends.

    Example:
        >>> one = band(np.array([0.0, 1.0]), np.array([2.0, np.inf]), eps=(1.5,))
        >>> one.radius.tolist(), one.proved.tolist(), one.not_broken.tolist()
        ([0.0, 1.0, 1.5, 2.0], [1.0, 0.5, 0.0, 0.0], [1.0, 1.0, 1.0, 0.5])
    """
    corners = np.unique(np.concatenate([lower, upper]))
    corners = corners[np.isfinite(corners)]
    if len(corners) > _POINTS:
        corners = corners[np.linspace(0, len(corners) - 1, _POINTS).round().astype(int)]
    last = float(corners.max(initial=0.0)) if end is None else end
    radius = np.unique(np.concatenate([corners, eps, [0.0, last]]))
    radius = radius[radius <= last]
    tight = np.sort(lower[lower == upper])
    radius = np.sort(np.concatenate([radius, np.intersect1d(tight[tight > 0], radius)]))
    just_before = np.append(np.diff(radius) == 0, False)
    reach = len(lower) - np.searchsorted(np.sort(lower), radius, side="left")
    at_once = np.searchsorted(tight, radius, side="right") - np.searchsorted(tight, radius, side="left")
    unbroken = len(upper) - np.searchsorted(np.sort(upper), radius, side="right")
    proved = reach - np.where(just_before, 0, at_once)
    return Band(radius, proved / len(lower), unbroken / len(upper))


def median(radii: np.ndarray) -> float:
    """The median radius; inf if half of them or more are infinite."""
    return float(np.median(radii))


def axis_end(lower: np.ndarray, upper: np.ndarray, eps: tuple[float, ...] = ()) -> float:
    """Where a radius axis ends: it shows every asked eps and all but the longest hundredth of the brackets.

    Example:
        >>> axis_end(np.array([0.5]), np.array([np.inf]), eps=(1.0,))
        1.25
    """
    finite = np.sort(np.concatenate([lower[np.isfinite(lower)], upper[np.isfinite(upper)]]))
    reach = float(finite[math.ceil(0.99 * (len(finite) - 1))]) if len(finite) else 0.0
    end = max(1.08 * reach, 1.25 * max(eps, default=0.0))
    # Six digits, as the charts have: a mark at the end must not land beyond it.
    return float(f"{end:.6g}") if end > 0 else 1.0


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % confidence interval of a fraction seen in a sample.

    Example:
        >>> [round(side, 3) for side in wilson(0, 10)], [round(side, 3) for side in wilson(50, 100)]
        ([0.0, 0.278], [0.404, 0.596])

    Reference:
        E. B. Wilson, Probable inference, the law of succession, and statistical inference, 1927.
    """
    z = 1.959963984540054
    p, scale = successes / trials, 1 + z * z / trials
    middle = (p + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    return max(0.0, middle - half), min(1.0, middle + half)
