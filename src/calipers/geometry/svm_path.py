"""The soft-margin linear SVM for a whole ladder of C in one call: hinge loss, unregularised bias, duality gap reported.

The dual is solved by an augmented Lagrangian (proximal) method with Newton steps. A step costs one Cholesky factor of
the size of the points near the margin, not of the data; every rung starts from the multipliers of the one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import cho_factor, cho_solve

from calipers.errors import BadInput
from calipers.geometry.labels import Floats, array, two_classes

__all__ = ["SvmPath", "svm_path"]

# The hinge is smoothed over this much of the margin in every proximal step; the limit is the hinge itself.
_WIDTH = 0.1


@dataclass(frozen=True, eq=False)
class SvmPath:
    """The optimum at every C, in the order they were asked for.

    Arguments:
        C: shape (L,).
        weight, bias: shapes (L, d) and (L,): the score is ``weight[i] @ x + bias[i]``.
        alpha: dual coefficients, shape (L, n): 0 ≤ α ≤ C, Σ αy = 0, weight = Σ αyx.
        objective: ½‖w‖² + C Σ hinge, shape (L,).
        gap: (objective − dual objective) / objective: an upper bound on the relative error of the objective.
        steps: Newton steps spent on each C.
    """

    C: Floats
    weight: Floats
    bias: Floats
    alpha: Floats
    objective: Floats
    gap: Floats
    steps: tuple[int, ...]


def svm_path(x: ArrayLike, y: ArrayLike, C: Sequence[float] | Floats, *, tolerance: float = 1e-4) -> SvmPath:
    r"""min over w, b of ½‖w‖² + C Σᵢ max(0, 1 − yᵢ(w·xᵢ + b)), for every C, to a relative duality gap.

    Where the optimal b is an interval (all α at 0 or C, as for tiny C), the middle is taken, as libsvm does.
    A constant feature gets weight 0. Where a weight of 0 is as good within the gap reached, and the gap leaves no
    direction sure, the weight is exactly 0, and :class:`Hyperplane` refuses it: there is no boundary (one example
    inside of a large class, say). Memory: four copies of the data at most.

    Arguments:
        x: inputs, shape (n, d). y: −1 or +1, shape (n,).
        C: positive numbers in any order; they are visited in ascending order.
        tolerance: the relative duality gap to reach at every C.

    Raises:
        BadInput: one class only, NaN, labels other than ±1, C not positive, or a gap that cannot be reached.

    Example:
        >>> path = svm_path([[0.0], [1.0], [3.0], [4.0]], [-1, -1, 1, 1], [0.01, 100.0], tolerance=1e-8)
        >>> path.weight[:, 0].round(4).tolist(), path.bias.round(4).tolist()
        ([0.06, 1.0], [-0.12, -2.0])
        >>> bool(path.gap.max() <= 1e-8)
        True
    """
    rows, labels = two_classes(x, y)
    ladder = array(C, "C")
    if ladder.ndim != 1 or not len(ladder) or not (np.isfinite(ladder) & (ladder > 0)).all():
        raise BadInput("C", expected="a list of finite numbers > 0", got=C)
    if not 0 < tolerance < 1:
        raise BadInput("tolerance", expected="a number in (0, 1)", got=tolerance)
    varies = np.ptp(rows, axis=0) > 0
    if not varies.any():
        raise BadInput("x", expected="a feature that varies", got="the same row every time")
    centre = rows[:, varies].mean(0)
    solver = _Solver(np.ascontiguousarray(rows[:, varies] - centre), labels)
    weight, alpha = np.zeros((len(ladder), rows.shape[1])), np.zeros((len(ladder), len(rows)))
    bias, objective, gap, steps = np.zeros((4, len(ladder)))
    for i in np.argsort(ladder):
        w, bias[i], objective[i], gap[i], alpha[i], steps[i] = solver.solve(float(ladder[i]), tolerance)
        weight[i, varies] = w
        bias[i] -= w @ centre
    return SvmPath(ladder, weight, bias, alpha, objective, gap, tuple(int(count) for count in steps))


class _Solver:
    """Centred data, and where the last rung ended."""

    def __init__(self, x: Floats, y: Floats) -> None:
        self.x, self.y, self.C = x, y, 0.0
        self.alpha, self.w, self.b = np.zeros(len(y)), np.zeros(x.shape[1]), 0.0
        self.spread = float((x * x).sum()) / len(y) ** 0.5

    def solve(self, C: float, tolerance: float) -> tuple[Floats, float, float, float, Floats, int]:
        """w, b, objective, gap, α, Newton steps."""
        if self.C:
            self.alpha[self.alpha >= self.C * (1 - 1e-9)] = C
        else:
            # As C tends to 0 the class with fewer points is all at C, and the other balances it.
            up = self.y > 0
            self.alpha = C * np.where(up, min(1.0, (~up).sum() / up.sum()), min(1.0, up.sum() / (~up).sum()))
            self.w = self.x.T @ (self.y * self.alpha)
        self.C, steps = C, 0
        # For tiny C all margins are nearly equal; the smoothing is narrow beside what n points of random signs spread.
        width = _WIDTH * min(1.0, C * self.spread)
        for tries in range(100):
            steps += self._proximal_step(self.alpha.max() / width, min(1e-5, tolerance / 10))
            w, b, alpha, value, gap = self._certify()
            if gap <= tolerance:
                return *self._zero_if_unsure(w, b, value, gap, tolerance), alpha, steps
            width /= 2 if tries % 8 == 7 else 1
        raise BadInput(f"SVM at C = {C:g}", expected=f"a relative duality gap <= {tolerance:g}", got=f"{gap:.2g}",
                       hint="scale the features, or raise the tolerance")  # fmt: skip

    def _proximal_step(self, sigma: float, enough: float) -> int:
        """Minimise ½‖w‖² + Σ max over 0 ≤ a ≤ C of a(1 − margin) − (a − α)²/2σ by Newton; then α is the best a."""
        scores = self.x @ self.w
        for step in range(50):
            z = self.alpha + sigma * (1 - self.y * (scores + self.b))
            best = np.clip(z, 0, self.C)
            gradient_w, gradient_b = self.w - self.x.T @ (self.y * best), -float(self.y @ best)
            error = np.linalg.norm(gradient_w) / max(float(np.linalg.norm(self.w)), 1e-300)
            error += abs(gradient_b) / max(best.sum(), 1e-300)
            # The first step of a rung is always taken; later ones only have to be as good as the duality gap needs.
            if error < (enough if step else enough / 100):
                break
            move_w, move_b = _newton(self.x[(z > 0) & (z < self.C)], gradient_w, gradient_b, sigma, best.sum())
            along = self.x @ move_w
            t = self._length(scores, move_w, self.y * (along + move_b), sigma)
            if t == 0:
                break
            self.w, self.b, scores = self.w + t * move_w, self.b + t * move_b, scores + t * along
        self.alpha = best
        return step

    def _length(self, scores: Floats, move: Floats, rise: Floats, sigma: float) -> float:
        """Where the slope along the step has (nearly) come to zero; the function is convex and piecewise quadratic."""
        start = self.alpha + sigma * (1 - self.y * (scores + self.b))
        linear, quadratic = float(self.w @ move), float(move @ move)

        def slope(t: float) -> float:
            return linear + t * quadratic - float(np.clip(start - t * sigma * rise, 0, self.C) @ rise)

        first = slope(0.0)
        # A slope that is rounding alone promises nothing, and following it would lead far away.
        if first >= -1e-18 * (float(self.w @ self.w) + float(np.clip(start, 0, self.C).sum())):
            return 0.0
        if abs(slope(1.0)) <= 0.1 * abs(first):
            return 1.0
        low, high = 0.0, 1.0
        while slope(high) < 0 and high < 1e6:
            low, high = high, 2 * high
        for _ in range(40):
            t = (low + high) / 2
            value = slope(t)
            if abs(value) < 0.05 * abs(first):
                break
            low, high = (t, high) if value < 0 else (low, t)
        return t

    def _certify(self) -> tuple[Floats, float, Floats, float, float]:
        """α made feasible, its w, the best b for that w, the objective, and the relative duality gap."""
        alpha, above = self.alpha.copy(), self.y > 0
        sums = alpha[above].sum(), alpha[~above].sum()
        least = min(sums)
        for side, total in zip((above, ~above), sums, strict=True):
            alpha[side] *= least / total if total > 0 else 0.0
        w = self.x.T @ (self.y * alpha)
        scores = self.x @ w
        b = _best_bias(scores, self.y)
        value = w @ w / 2 + self.C * np.maximum(0, 1 - self.y * (scores + b)).sum()
        gap = (value - (alpha.sum() - w @ w / 2)) / value
        return w, b, alpha, float(value), max(float(gap), 0.0)

    def _zero_if_unsure(
        self, w: Floats, b: float, value: float, gap: float, tolerance: float
    ) -> tuple[Floats, float, float, float]:
        """½‖w − w*‖² ≤ gap · value. If that leaves w* = 0 possible, and 0 is good enough, w is rounding: take 0."""
        flat = 2 * self.C * float(min((self.y > 0).sum(), (self.y < 0).sum()))
        flat_gap = max(1 - (1 - gap) * value / flat, 0.0)
        if w @ w > 2 * max(gap, 1e-14) * value or flat_gap > tolerance:
            return w, b, value, gap
        return 0 * w, _best_bias(0 * self.y, self.y), flat, flat_gap


def _newton(near: Floats, gradient_w: Floats, gradient_b: float, sigma: float, mass: float) -> tuple[Floats, float]:
    """Solve (I + σ NᵀN) for the step, b eliminated by centring; in n or in d dimensions, whichever are fewer."""
    if not len(near):
        # Flat in b: b goes first, alone, until points come near; with b in balance only w is left.
        return (0 * gradient_w, -gradient_b / sigma) if abs(gradient_b) > 1e-12 * mass else (-gradient_w, 0.0)
    mean = near.mean(0)
    centred, right = near - mean, mean * gradient_b - gradient_w
    if len(near) < near.shape[1]:
        system = centred @ centred.T
        system[np.diag_indices_from(system)] += 1 / sigma
        inner = cho_solve(cho_factor(system, overwrite_a=True, check_finite=False), centred @ right)
        move = right - centred.T @ inner
    else:
        system = centred.T @ centred
        system[np.diag_indices_from(system)] += 1 / sigma
        move = cho_solve(cho_factor(system, overwrite_a=True, check_finite=False), right / sigma)
    return move, -gradient_b / (sigma * len(near)) - float(mean @ move)


def _best_bias(scores: Floats, y: Floats) -> float:
    """The middle of the minimisers of Σ max(0, 1 − y(s + b)) over b: convex, with its corners at y − s."""
    corners = np.sort(y - scores)
    k = int((y > 0).sum()) - 1
    # After k + 1 corners as many points push up as push down: the slope is 0 until the next corner.
    return float((corners[k] + corners[k + 1]) / 2)
