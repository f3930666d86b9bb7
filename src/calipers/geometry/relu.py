"""One direction for every classifier with a convex region: two-layer ReLU networks, Theorems 10–17 and Section 6.

Source: A Geometric Perspective on the Transferability of Adversarial Directions (Z. Charles, H. Rosenberg and
D. Papailiopoulos, 2019).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calipers.errors import BadInput, nearest
from calipers.geometry.labels import Floats, array, matrix, two_classes, vector

__all__ = ["Family", "ReluClassifier", "Section6", "convex_direction", "fools_any", "section6"]

Family = Literal["R", "R'", "R''"]


@dataclass(frozen=True, eq=False)
class ReluClassifier:
    """h(x) = +1 or −1 from σ(Wx + b), of one of the source's three classes.

    ``"R"``: +1 if Σ σ(wᵢ·x + bᵢ) > 0. ``"R'"``: +1 if vᵀσ(Wx + b) > a (or ≥ a), with v ≥ 0 and a > 0. ``"R''"``: +1 if
    every σ(wᵢ·x + bᵢ) > 0. For R and R' the region of −1 is convex (Lemmas 13 and 14), for R'' the region of +1. R
    itself is R' with v = 1 and a = 0, which the source's a > 0 leaves out; its Section 6 allows it.

    Arguments:
        weight, bias: W, b, shapes (L, d) and (L,). family: which class. output: v, shape (L,), for R' alone.
        threshold: a, for R' alone. closed: ≥ a instead of > a, for R' alone.

    Raises:
        BadInput: for a negative v, with which the region need not be convex; for a threshold that is not positive.

    Example:
        >>> h = ReluClassifier([[1.0], [-1.0]], [-1.0, -1.0], "R")
        >>> h([[0.0], [1.0], [1.5], [-2.0]]).tolist()
        [-1, -1, 1, 1]
    """

    weight: Floats
    bias: Floats
    family: Family = "R"
    output: Floats | None = None
    threshold: float = 0.0
    closed: bool = False

    def __post_init__(self) -> None:
        W, b = matrix(self.weight, "weight"), array(self.bias, "bias")
        if self.family not in get_args(Family):
            raise BadInput("family", got=repr(self.family), hint=nearest(str(self.family), get_args(Family)))
        v = np.ones(len(W)) if self.output is None else array(self.output, "output")
        if b.shape != (len(W),) or v.shape != (len(W),) or not np.isfinite([b, v]).all():
            raise BadInput("bias and output", expected=f"{len(W)} finite numbers each", got=f"{b.shape} and {v.shape}")
        if self.family == "R'" and ((v < 0).any() or not self.threshold > 0):
            raise BadInput("R'", expected="output weights >= 0 and a threshold > 0",
                           got=f"least weight {v.min():g}, threshold {self.threshold:g}")  # fmt: skip
        if self.family != "R'" and (self.output is not None or self.threshold or self.closed):
            raise BadInput(self.family, expected="no output weights and no threshold", got="some")
        for name, value in (("weight", W), ("bias", b), ("output", v)):
            object.__setattr__(self, name, value)

    @property
    def convex_label(self) -> int:
        """The label whose region is convex: −1 for R and R', +1 for R''."""
        return 1 if self.family == "R''" else -1

    def __call__(self, x: ArrayLike) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        """Labels −1 or +1, shape (n,)."""
        hidden = np.maximum(matrix(x, features=self.weight.shape[1]) @ self.weight.T + self.bias, 0)
        if self.family == "R''":
            positive = (hidden > 0).all(1)
        else:
            total = hidden @ self.output
            positive = total >= self.threshold if self.closed else total > self.threshold
        return np.where(positive, 1, -1)

    def fools(self, direction: ArrayLike, x: ArrayLike) -> Floats:
        """The length c beyond which x + cv has left the convex region; inf if it never does; nan outside of the region.

        Exact: along the ray every unit's input is linear, so the output is piecewise linear with L corners.

        Arguments:
            direction: v, shape (d,). x: inputs (n, d).
        """
        rows = matrix(x, features=self.weight.shape[1])
        v = vector(direction, rows.shape[1])
        starts, slope = rows @ self.weight.T + self.bias, self.weight @ v
        slope[np.abs(slope) <= 1e-14 * np.linalg.norm(self.weight, axis=1) * np.linalg.norm(v)] = 0  # Rounding.
        if self.family != "R'":
            # The region is a polyhedron: left through the first half-space that ends along the way.
            towards = -slope if self.family == "R''" else slope
            ends = np.abs(starts) / np.where(towards > 0, towards, 1)
            lengths = np.where(towards > 0, ends, np.inf).min(1)
        else:
            lengths = np.array([self._crossing(start, slope) for start in starts])
        return np.where(self(rows) == self.convex_label, lengths, np.nan)

    def _crossing(self, start: Floats, slope: Floats) -> float:
        """The largest c with vᵀσ(start + c·slope) ≤ a: a convex function, so it crosses a once on its way up."""
        weighted = np.asarray(self.output)
        with np.errstate(divide="ignore", invalid="ignore"):
            corners = -start / slope
        corners = np.unique(corners[np.isfinite(corners) & (corners > 0)])
        places = np.concatenate([[0.0], corners])
        values = np.maximum(start + places[:, None] * slope, 0) @ weighted
        last = np.flatnonzero(values <= self.threshold)[-1] if (values <= self.threshold).any() else 0
        end = places[last + 1] if last + 1 < len(places) else places[last] + 1
        rise = float(np.maximum(start + end * slope, 0) @ weighted - values[last]) / (end - places[last])
        return float(places[last] + (self.threshold - values[last]) / rise) if rise > 0 else np.inf


def convex_direction(x: ArrayLike, y: ArrayLike, *, label: int = -1) -> Floats:
    """v = x_β − x_α for the nearest pair of examples with labels β ≠ α = ``label``.

    Theorem 11, as it holds: let A = {h = α} be convex, and closed or open, with x_α in A and x_β not. Then no ray
    {x + cv : c ≥ 0} from any x in A stays in A. (A closed or an open convex set has the same directions of recession at
    all its points; from x_α the move v itself leaves.) The source asks for a *continuous* h: a label-valued continuous
    function is constant, so nothing would be left. For an A that is neither open nor closed it fails unless x_α is a
    relative interior point: A = {x₂ > 0} ∪ {0}, x_α = 0, x_β = (1, 0), x = (0, 1). Theorem 12, where A need only lie in
    a convex set C_h, also needs x_β outside of C_h, which the source does not say: with C_h = R^d it is false.

    So v fools, at every x of A, in or out of S: R and R' with α = −1 (Theorems 10 and 15), R'' with α = +1 (Theorem 16,
    whose printed R_S is R''_S), every linear h for either label (Corollary 17). S need not be separable for R.

    Arguments:
        x, y: S, shape (n, d), labels ±1, both present. label: α, the label of the convex region.

    Raises:
        BadInput: one class only, a label other than ±1, NaN, or an example that has both labels.

    Example:
        >>> convex_direction([[0.0, 0.0], [1.0, 2.0], [4.0, 0.0]], [-1, 1, 1]).tolist()
        [1.0, 2.0]
    """
    rows, labels = two_classes(x, y)
    if label not in (-1, 1):
        raise BadInput("label", expected="-1 or +1", got=label)
    inner, outer = rows[labels == label], rows[labels != label]
    squared = (inner**2).sum(1)[:, None] + (outer**2).sum(1) - 2 * inner @ outer.T
    i, j = np.unravel_index(squared.argmin(), squared.shape)
    direction: Floats = outer[j] - inner[i]
    if not direction.any():
        raise BadInput("data", expected="no example with both labels", got="one that has both")
    return direction


def fools_any(
    direction: ArrayLike, predict: Callable[[Floats], ArrayLike], x: ArrayLike, *, longest: float = 1e6
) -> Floats:
    """For each example a length c at which any classifier answers x + cv otherwise than x; inf if none was found.

    Lengths are doubled up to ``longest`` and the first change is bisected. The answer at c has been seen to differ. If
    the region of the answer at x is convex, c is where the ray leaves it, to rounding, and inf says that it stays as
    far as ``longest``; of another region a detour between two lengths may be missed.

    Arguments:
        direction: v, shape (d,). predict: inputs (n, d) to n labels, such as an estimator's ``predict``.
        x: inputs (n, d). longest: c at most, > 0.

    Example:
        >>> def ball(z):
        ...     return (z**2).sum(1) <= 1
        >>> fools_any([2.0, 0.0], ball, [[0.0, 0.0], [0.0, 3.0]]).round(9).tolist()
        [0.5, inf]
    """
    rows = matrix(x)
    v = vector(direction, rows.shape[1])
    if not 0 < longest < np.inf:
        raise BadInput("longest", expected="a finite number > 0", got=longest)
    label = np.asarray(predict(rows))
    if label.shape != (len(rows),):
        raise BadInput("predict", expected=f"{len(rows)} labels", got=f"shape {label.shape}")

    def other(lengths: Floats) -> NDArray[np.bool_]:
        changed: NDArray[np.bool_] = np.asarray(predict(rows + lengths[:, None] * v)) != label
        return changed

    low, high = np.zeros(len(rows)), np.full(len(rows), np.inf)
    for length in longest * 0.5 ** np.arange(60.0, -1, -1):
        open_ = np.isinf(high)
        changed = other(np.full(len(rows), length))
        low, high = np.where(open_ & ~changed, length, low), np.where(open_ & changed, length, high)
    for _ in range(60):
        middle = (low + np.where(np.isinf(high), low, high)) / 2
        changed = other(middle)
        low, high = np.where(changed, low, middle), np.where(changed, middle, high)
    return high


@dataclass(frozen=True, eq=False)
class Section6:
    """The counter-example: linearly separable S, an S-accurate network in R, and a max-margin direction that fails.

    Arguments:
        x, y: S. network: of class R, right on S. max_margin_direction: w*; from label −1 the move of Theorem 4 is +w*.
        convex_direction: v, which fools the network and every linear separator (Corollary 17).
    """

    x: Floats
    y: Floats
    network: ReluClassifier
    max_margin_direction: Floats
    convex_direction: Floats


def section6(dimension: int = 2, gap: float = 2.0) -> Section6:
    """S = {(0, 0), −1} ∪ {(g, ±2), +1}: w* points along the first axis, and the network's −1 region is |x₂| ≤ 1.

    The nearest points of the two hulls are 0 and (g, 0), so w* = (2/g, 0); the network σ(x₂ − 1) + σ(−x₂ − 1) is blind
    to it, and moving a −1 example along w* never changes the answer. Further coordinates are 0.

    Arguments:
        dimension: d ≥ 2. gap: g > 0, twice the margin.

    Raises:
        BadInput: for d < 2 (on a line two convex regions leave no room) or g ≤ 0.

    Example:
        >>> found = section6()
        >>> found.network(found.x).tolist(), found.network.fools(found.max_margin_direction, found.x[:1]).tolist()
        ([-1, 1, 1], [inf])
    """
    if dimension < 2 or not 0 < gap < np.inf:
        raise BadInput("section6", expected="dimension >= 2 and gap > 0", got=f"{dimension} and {gap}")
    x = np.zeros((3, dimension))
    x[1:, 0], x[1:, 1] = gap, (2, -2)
    y = np.array([-1.0, 1.0, 1.0])
    weight = np.zeros((2, dimension))
    weight[:, 1] = (1, -1)
    network = ReluClassifier(weight, np.array([-1.0, -1.0]), "R")
    direction = np.zeros(dimension)
    direction[0] = 2 / gap
    return Section6(x, y, network, direction, convex_direction(x, y))
