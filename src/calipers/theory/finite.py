"""The exact optimal robust classifier of a finite distribution, by mixed-integer programming."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from calipers.errors import BadInput
from calipers.theory.checks import check_eps

__all__ = ["FiniteDistribution", "RobustOptimum", "optimal_robust", "pairwise_distance", "robust_mass"]

Adversary = Literal["support", "space"]

# Distances that equal eps in exact arithmetic (Lemma 1 builds such points) must count as reachable.
SLACK = 1e-9


@dataclass(frozen=True, eq=False)
class FiniteDistribution:
    r"""P(x = points_i, y = j) = mass_ij, a joint distribution of n points and K labels.

    Arguments:
        points: shape (n, d).
        mass: shape (n, K), non-negative, sums to 1.

    Raises:
        BadInput: for NaN, negative mass, a sum other than 1, or shapes that do not fit.

    Example:
        >>> FiniteDistribution([[0.0], [1.0]], [[0.5, 0.0], [0.0, 0.4]])
        Traceback (most recent call last):
            ...
        calipers.errors.BadInput: mass of the distribution: expected a sum of 1, got 0.9
    """

    points: ArrayLike
    mass: ArrayLike

    def __post_init__(self) -> None:
        points, mass = np.asarray(self.points, dtype=np.float64), np.asarray(self.mass, dtype=np.float64)
        if points.ndim != 2 or mass.ndim != 2 or len(points) != len(mass) or not mass.size:
            raise BadInput("finite distribution", expected="points (n, d) and mass (n, K)",
                           got=f"shapes {points.shape} and {mass.shape}")  # fmt: skip
        if not np.isfinite(points).all() or not np.isfinite(mass).all() or (mass < 0).any():
            raise BadInput("finite distribution", expected="finite points and mass >= 0")
        if abs(mass.sum() - 1) > 1e-9:
            raise BadInput("mass of the distribution", expected="a sum of 1", got=f"{mass.sum():.9g}")
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "mass", mass)


@dataclass(frozen=True, eq=False)
class RobustOptimum:
    """A (p, eps)-optimal robust classifier of a finite distribution.

    Arguments:
        labels: its label at every support point, shape (n,).
        robust: which (point, label) pairs no adversary can get wrong, bool, shape (n, K).
        error: its adversarial error; no classifier has less.

    Example:
        >>> one_sure = FiniteDistribution([[0.0], [1.0]], [[0.7, 0.0], [0.0, 0.3]])
        >>> optimum = optimal_robust(one_sure, p=2, eps=1.0)
        >>> optimum.labels, optimum.robust.tolist(), round(optimum.error, 9)
        (array([0, 0]), [[True, False], [False, False]], 0.3)
    """

    labels: NDArray[np.int64]
    robust: NDArray[np.bool_]
    error: float


def pairwise_distance(points: ArrayLike, p: float) -> NDArray[np.float64]:
    r"""‖x_i − x_j‖_p for any p ≥ 0, shape (n, n); p = 0 counts differing coordinates, p = inf takes the largest.

    Example:
        >>> pairwise_distance([[0.0, 0.0], [3.0, 4.0]], 2)[0]
        array([0., 5.])
    """
    if not p >= 0:
        raise BadInput("p", expected="a number >= 0 or inf", got=p)
    x = np.asarray(points, dtype=np.float64)
    gap = np.abs(x[:, None] - x[None])
    if p == 0:
        return np.asarray((gap > 0).sum(-1), dtype=np.float64)
    largest = gap.max(-1, initial=0.0)
    if np.isinf(p):
        return np.asarray(largest)
    # Dividing by the largest difference keeps the powers from overflowing.
    share = gap / np.where(largest > 0, largest, 1.0)[..., None]
    return np.asarray(largest * (share**p).sum(-1) ** (1 / p))


def _reach(points: NDArray[np.float64], p: float, eps: float, adversary: Adversary) -> NDArray[np.bool_]:
    """Which pairs of points have an attackable point in common, bool (n, n)."""
    if adversary == "support":
        near = (pairwise_distance(points, p) <= eps * (1 + SLACK)).astype(np.int64)
        return np.asarray(near @ near > 0)
    if adversary != "space":
        raise BadInput("adversary", expected="'support' or 'space'", got=repr(adversary))
    if 0 < p < 1:
        raise BadInput("p for an adversary in the whole space", expected="0 or at least 1", got=p,
                       hint="below 1 the balls are not convex and no closed form is known here")  # fmt: skip
    # A norm has midpoints; an L0 adversary changes at most floor(eps) of the coordinates from either side.
    radius = np.floor(eps) if p == 0 else eps
    return pairwise_distance(points, p) <= 2 * radius * (1 + SLACK)


def robust_mass(labels: ArrayLike, distribution: FiniteDistribution, p: float, eps: float) -> float:
    """1 − the adversarial error (5) of a classifier given by its labels on the support, adversary in the support.

    Example:
        >>> pair = FiniteDistribution([[0.0], [1.0]], [[0.5, 0.0], [0.0, 0.5]])
        >>> robust_mass([0, 1], pair, p=2, eps=0.9), robust_mass([0, 1], pair, p=2, eps=1.0)
        (1.0, 0.0)
    """
    check_eps(eps)
    y, mass = np.asarray(labels), np.asarray(distribution.mass)
    near = pairwise_distance(distribution.points, p) <= eps * (1 + SLACK)
    constant = ~(near & (y[:, None] != y[None])).any(1)
    return float(mass[np.arange(len(y)), y][constant].sum())


def optimal_robust(distribution: FiniteDistribution, p: float, eps: float, *,
                   adversary: Adversary = "support", relaxed: bool = False) -> RobustOptimum:  # fmt: skip
    r"""The classifier with the least adversarial error on a finite distribution: Theorem 1's problem, solved exactly.

        maximise Σ D(x, y)·z_{x,y}  subject to  z_{x,y} + z_{x',y'} ≤ 1 whenever y ≠ y' and both adversaries can
        reach a common point,

    because a set of pairs (x, y) can be made robust at once exactly if no such point would need two labels. So it is
    a maximum-weight independent set: NP-hard in general, but with two labels its graph is bipartite, the linear
    relaxation is already integral and the problem is easy.

    Arguments:
        distribution: the joint distribution of x and y.
        p: the order of the adversary's norm, any p ≥ 0 or inf.
        eps: its radius ≥ 0.
        adversary: ``"support"`` moves only to points of the support, ``"space"`` to any point of R^d (p = 0 or ≥ 1).
        relaxed: drop integrality; exact for two labels, otherwise a lower bound on the error and ``robust`` means
            z > ½.

    Raises:
        BadInput: for p < 0, eps < 0, an unknown adversary, or 0 < p < 1 in the whole space.

    Source:
        Shaeiri, Nobahari and Rohban, Towards Deep Learning Models Resistant to Large Perturbations, 2020,
        Definitions 3–5 and Theorem 1; two labels: Bhagoji, Cullina and Mittal, 2019.

    Example:
        >>> pair = FiniteDistribution([[0.0], [1.0]], [[0.5, 0.0], [0.0, 0.5]])
        >>> [optimal_robust(pair, 2, eps, adversary="space").error for eps in (0.4, 0.5)]
        [0.0, 0.5]
    """
    check_eps(eps)
    points, mass = np.asarray(distribution.points), np.asarray(distribution.mass)
    meets = _reach(points, p, eps, adversary)
    where, label = np.nonzero(mass)
    weight = mass[where, label]
    clash = np.triu(meets[where][:, where] & (label[:, None] != label[None]), 1)
    chosen = _heaviest_independent(clash, weight, relaxed)
    robust = np.zeros(mass.shape, dtype=np.bool_)
    robust[where, label] = chosen > 0.5
    near = pairwise_distance(points, p) <= eps * (1 + SLACK)
    # A point in reach of a robust pair takes that pair's label; where nothing is at stake, the likelier label.
    claim = near.astype(np.int64) @ robust.astype(np.int64)
    labels = np.where(claim.any(1), claim.argmax(1), mass.argmax(1)).astype(np.int64)
    return RobustOptimum(labels, robust, max(0.0, 1.0 - float(weight @ chosen)))


def _heaviest_independent(clash: NDArray[np.bool_], weight: NDArray[np.float64], relaxed: bool) -> NDArray[np.float64]:
    """argmax ⟨weight, z⟩ over z in {0, 1}^m (or [0, 1]^m) with z_a + z_b ≤ 1 on every clash."""
    a, b = np.nonzero(clash)
    if not len(a):
        return np.ones(len(weight))
    row = np.arange(len(a))
    pairs = coo_array((np.ones(2 * len(a)), (np.r_[row, row], np.r_[a, b])), shape=(len(a), len(weight)))
    # HiGHS stops at an absolute 1e-7 in the objective's units; larger units lose less of the small masses.
    found = milp(
        -weight * (1e4 / weight.max()),
        constraints=LinearConstraint(pairs.tocsr(), -np.inf, np.ones(len(a))),
        bounds=Bounds(0, 1),
        integrality=np.full(len(weight), 0 if relaxed else 1),
        options={"mip_rel_gap": 0.0},
    )
    if not found.success:
        raise RuntimeError(f"HiGHS did not solve the mixed-integer program: {found.message}")
    return np.asarray(found.x if relaxed else np.round(found.x), dtype=np.float64)
