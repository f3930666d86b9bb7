"""The robust-accuracy band, read off the brackets: step curves, medians and confidence intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["Band", "axis_end", "band", "binomial_interval", "median"]

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


def binomial_interval(
    successes: np.ndarray | float, trials: int, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """The exact interval of a fraction seen in a sample: it misses on either side with half of 1 − confidence.

    Reference:
        C. J. Clopper and E. S. Pearson, The use of confidence or fiducial limits illustrated in the case of the
        binomial, 1934.

    Example:
        >>> [[round(float(side), 4) for side in binomial_interval(k, 10)] for k in (0, 5)]
        [[0.0, 0.3085], [0.1871, 0.8129]]
    """
    from scipy.special import betaincinv

    k, miss = np.asarray(successes, dtype=np.float64), (1 - confidence) / 2
    # At the ends the beta distribution is degenerate: nothing seen leaves 0 possible, all seen leaves 1.
    low = np.where(k > 0, betaincinv(np.maximum(k, 1), trials - np.maximum(k, 1) + 1, miss), 0.0)
    high = np.where(
        k < trials, betaincinv(np.minimum(k, trials - 1) + 1, trials - np.minimum(k, trials - 1), 1 - miss), 1.0
    )
    return low, high
