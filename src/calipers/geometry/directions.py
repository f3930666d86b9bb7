"""Directions that fool every classifier of a class, on linear classifiers: each with the check of what it claims.

Source: A Geometric Perspective on the Transferability of Adversarial Directions (Z. Charles, H. Rosenberg and
D. Papailiopoulos, 2019), Theorems 4–9. "Fools" is
meant for moves of any length: v is an adversarial direction for h at x if h(x + cv) ≠ h(x) for some c > 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls

from calipers.errors import BadInput
from calipers.geometry.affine import Hyperplane
from calipers.geometry.labels import Floats, array, matrix, signs, two_classes, vector

__all__ = ["CommonSubset", "MaxMargin", "common_subset", "enough", "fools_linear", "fools_multiclass", "max_margin",
           "pair_direction"]  # fmt: skip

_TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class MaxMargin:
    """The hard-margin SVM, scaled so that the nearest points have score ±1 (Lemma 3).

    Arguments:
        weight: w* = Σ αyx, shape (d,). bias: b*. alpha: α ≥ 0 with Σ αy = 0 (with a bias), shape (n,).
        margin: γ* = 1/‖w*‖, in the units of x; and Σα = ‖w*‖².
        x, y: the set S itself, shapes (n, d) and (n,).
    """

    weight: Floats
    bias: float
    alpha: Floats
    margin: float
    x: Floats
    y: Floats

    @property
    def length(self) -> float:
        """1/Σα, Corollary 6's c; as a distance, c‖w*‖ = γ*."""
        return float(1 / self.alpha.sum())


def max_margin(x: ArrayLike, y: ArrayLike, *, bias: bool = True) -> MaxMargin:
    """w* and its support coefficients, exact to rounding: min ‖w‖² with y(w·x + b) ≥ 1.

    Theorem 4: for every h with y(w·x + b) > 0 on S and every (x, y) in S, −y w* is an adversarial direction at x. It is
    Σ αᵢyᵢ(w·xᵢ + b) = ⟨w, w*⟩ ≥ γ_h Σα > 0, so γ_h > 0 is what is needed: an h that calls a point on its own boundary
    correct by the sign of 0 is not covered.

    Arguments:
        x, y: S, shape (n, d), labels ±1; both present if there is a bias. bias: False for homogeneous classifiers.

    Raises:
        BadInput: one class only, NaN, or data that no hyperplane separates.

    Example:
        >>> found = max_margin([[0.0, 0.0], [2.0, 5.0], [2.0, -5.0]], [-1, 1, 1])
        >>> found.weight.round(9).tolist()[0], found.alpha.round(9).tolist(), round(found.margin, 9)
        (1.0, [0.5, 0.25, 0.25], 1.0)
    """
    rows, labels = two_classes(x, y) if bias else _signed(x, y)
    centre = rows.mean(0) if bias else np.zeros(rows.shape[1])
    scale = float(np.abs(rows - centre).max()) or 1.0
    signed = labels[:, None] * (rows - centre) / scale
    columns = np.column_stack([signed, labels]) if bias else signed
    # Least-distance programming (Lawson and Hanson 1974): the residual of one NNLS problem is the solution's direction.
    right = np.zeros(columns.shape[1] + 1)
    right[-1] = 1
    multipliers, residual = nnls(np.vstack([columns.T, np.ones(len(rows))]), right, maxiter=30 * len(rows) + 100)
    if residual <= 1e-7:
        raise BadInput("data", expected="classes that a hyperplane separates", got="none that does",
                       hint="use svm_path for the soft margin")  # fmt: skip
    alpha, offset = _polish(signed, labels, multipliers, bias)
    w = signed.T @ alpha
    if (signed @ w + labels * offset).min() < 1 - 1e-6:
        raise BadInput("data", expected="classes that a hyperplane separates", got="a margin lost in rounding",
                       hint="remove duplicates, or scale the features")  # fmt: skip
    alpha, w = alpha / scale**2, w / scale
    return MaxMargin(w, offset - float(w @ centre), alpha, float(1 / np.linalg.norm(w)), rows, labels)


def _signed(x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    """Inputs and labels ±1, of which one may be missing."""
    rows = matrix(x)
    return rows, signs(y, len(rows))


def _polish(signed: Floats, labels: Floats, start: Floats, bias: bool) -> tuple[Floats, float]:
    """From NNLS's guess (which also penalises b) to the exact α: solve for the support, exchange, repeat."""
    active = start > 0
    for _ in range(20 * len(labels) + 20):
        on = np.flatnonzero(active)
        gram, alpha, offset = signed[on] @ signed[on].T, np.zeros(len(labels)), 0.0
        if bias:
            side = labels[on][:, None]
            system = np.block([[gram, side], [side.T, np.zeros((1, 1))]])
            solved = np.linalg.lstsq(system, np.append(np.ones(len(on)), 0.0), rcond=1e-13)[0]
            alpha[on], offset = solved[:-1], float(solved[-1])
        else:
            alpha[on] = np.linalg.lstsq(gram, np.ones(len(on)), rcond=1e-13)[0]
        if alpha.min() < -_TOLERANCE * np.abs(alpha).max():
            active[alpha.argmin()] = False
            continue
        margins = signed @ (signed.T @ alpha) + labels * offset
        if margins.min() >= 1 - _TOLERANCE:
            break
        active[margins.argmin()] = True
    return np.maximum(alpha, 0), offset


def fools_linear(direction: ArrayLike, plane: Hyperplane, x: ArrayLike, y: ArrayLike) -> Floats:
    """For each example: the length c beyond which x − c·y·v is on the other side; inf where no length does.

    An adversarial direction has c < inf; the boundary itself lies at c, so the change is for all lengths > c. Examples
    that the plane has wrong have no adversarial direction: nan.

    Arguments:
        direction: v, shape (d,). plane: h. x, y: examples (n, d), labels ±1.

    Example:
        >>> fools_linear([1.0, 0.0], Hyperplane([2.0, 1.0], 0.0), [[1.0, 0.0], [-3.0, 0.0]], [1, -1]).tolist()
        [1.0, 3.0]
    """
    rows, labels = _signed(x, y)
    v = vector(direction, rows.shape[1])
    scores, fall = labels * plane.score(rows), float(plane.weight @ v)
    lengths = scores / fall if fall > 0 else np.full(len(rows), np.inf)
    return np.where(scores > 0, lengths, np.nan)


def enough(found: MaxMargin, plane: Hyperplane, x: ArrayLike, y: ArrayLike) -> Floats:
    """Theorem 5: y(w·x + b) / (γ_h Σα): every c above it gives h(x − c·y·w*) ≠ y, for each example; shape (n,).

    γ_h is the least y(w·x + b) over S. x need not be in S; an example that h has wrong gets nan. Corollary 6: at the
    example of S with the least margin this is 1/Σα, so that a move of length γ* fools h somewhere. The source's
    sentence after it, that one c_S works for *any* (x, y) of S, does not hold: the ratio y(w·x + b)/γ_h is not bounded
    over h (a test has a counter-example). What holds is one c_S for all h at one example of each h, or for one h the
    largest ratio over S.

    Arguments:
        found: from :func:`max_margin` of S. plane: any h that separates S. x, y: examples (n, d), labels ±1.

    Raises:
        BadInput: if h does not separate S with a positive margin; or has a bias while ``found`` has none.

    Example:
        >>> s, labels = [[0.0, 0.0], [2.0, 0.0]], [-1, 1]
        >>> enough(max_margin(s, labels), Hyperplane([1.0, 1.0], -1.0), s, labels).round(9).tolist()
        [1.0, 1.0]
    """
    margin = float((found.y * plane.score(found.x)).min())
    if margin <= 0:
        raise BadInput("plane", expected="one that separates S", got=f"a least y(w·x + b) of {margin:g} on S")
    if plane.bias and abs(found.y @ found.alpha) > 1e-6 * found.alpha.sum():
        raise BadInput("plane", expected="a bias of 0, as the max-margin classifier has", got=plane.bias)
    rows, labels = _signed(x, y)
    scores = labels * plane.score(rows)
    return np.where(scores > 0, scores / (margin * found.alpha.sum()), np.nan)


@dataclass(frozen=True, eq=False)
class CommonSubset:
    """S of Theorem 7 or 9, and what the theorem promises of its size.

    Arguments:
        keep: which examples of S⁽¹⁾ and of S⁽²⁾ are in S, two bool arrays.
        sizes: how many those are. guaranteed: the promised size of each, with probability 1 − 4n⁻²; may be negative.
        direction: w*_S; −y w*_S is adversarial for both classifiers on S.
    """

    keep: tuple[NDArray[np.bool_], NDArray[np.bool_]]
    sizes: tuple[int, int]
    guaranteed: float
    direction: MaxMargin


def common_subset(
    first: tuple[ArrayLike, ArrayLike], second: tuple[ArrayLike, ArrayLike], w1: ArrayLike, w2: ArrayLike
) -> CommonSubset:
    """Theorem 7: the examples of two training sets that both homogeneous classifiers have right, and their direction.

    Guaranteed size: (1 − 2ρ)n − 2BR√n − 4√(n ln n), with B the larger ‖w‖, R the larger ‖x‖ and ρ the larger fraction
    with y w·x < 1. The text's last term can also be read 4√n ln n; that promises less for n ≥ 3. For a pair (k, l) of a
    multi-class model (Theorem 9) hand over w_k − w_l and the examples of both classes as ±1: there B bounds each row
    and the constant is 4BR√n; as ‖w_k − w_l‖ ≤ 2B, the number given here is the same or better.
    The direction needs only that both are right on S. The number is a promise about independent samples; for
    classifiers that have seen both sets it says nothing.

    Arguments:
        first, second: (x, y) of S⁽¹⁾ and S⁽²⁾, the same number n of each, labels ±1.
        w1, w2: the classifiers, shape (d,), trained on the one and the other.

    Raises:
        BadInput: sizes that differ, or nothing that both have right.

    Example:
        >>> s = ([[2.0, 0.0], [-2.0, 1.0]], [1, -1])
        >>> found = common_subset(s, s, [1.0, 0.0], [1.0, -1.0])
        >>> found.sizes, found.direction.weight.round(9).tolist()
        ((2, 2), [0.5, 0.0])
    """
    sets = [_signed(*first), _signed(*second)]
    n = len(sets[0][0])
    if len(sets[1][0]) != n:
        raise BadInput("training sets", expected="the same size", got=f"{n} and {len(sets[1][0])}")
    weights = [vector(w, sets[0][0].shape[1], "classifier") for w in (w1, w2)]
    right = [np.all([y * (x @ w) > 0 for w in weights], axis=0) for x, y in sets]
    if not any(part.any() for part in right):
        raise BadInput("training sets", expected="an example that both classifiers have right", got="none")
    rho = max(float((y * (x @ w) < 1).mean()) for (x, y), w in zip(sets, weights, strict=True))
    reach = max(np.linalg.norm(w) for w in weights) * max(np.linalg.norm(x, axis=1).max() for x, _ in sets)
    promised = (1 - 2 * rho) * n - 2 * reach * n**0.5 - 4 * (n * np.log(n)) ** 0.5
    both = [np.concatenate([part[keep] for part, keep in zip(parts, right, strict=True)])
            for parts in zip(*sets, strict=True)]  # fmt: skip
    sizes = int(right[0].sum()), int(right[1].sum())
    return CommonSubset((right[0], right[1]), sizes, float(promised), max_margin(both[0], both[1], bias=False))


def pair_direction(x: ArrayLike, y: ArrayLike, k: int, l: int) -> MaxMargin:  # noqa: E741 - the source's letters
    """Theorem 8: w*_{k,l}, the max-margin direction from class l to class k.

    For every multi-class linear h that is right on S, v*_k = −w*_{k,l} (any l) is adversarial on S[k], and +w*_{k,l} on
    S[l]. One vector for both classes, as a sentence of the source has it, needs that sign. h(x + cv) is not k for large
    c; it need not be l. Ties count as wrong: h is right where the largest logit is unique.

    Arguments:
        x, y: S, labels 0…K−1. k, l: two different labels, both present.

    Raises:
        BadInput: k = l, a label that is missing, or classes that no hyperplane separates.

    Example:
        >>> pair_direction([[0.0], [2.0], [9.0]], [0, 1, 2], 1, 0).weight.round(9).tolist()
        [1.0]
    """
    rows, labels = matrix(x), np.asarray(y)
    if k == l:
        raise BadInput("classes", expected="two different ones", got=f"{k} twice")
    if labels.shape != (len(rows),):
        raise BadInput("labels", expected=f"{len(rows)} of them", got=f"shape {labels.shape}")
    for label in (k, l):
        if not (labels == label).any():
            raise BadInput("class", expected="one that occurs", got=label)
    chosen = (labels == k) | (labels == l)
    return max_margin(rows[chosen], np.where(labels[chosen] == k, 1, -1))


def fools_multiclass(direction: ArrayLike, weight: ArrayLike, bias: ArrayLike, x: ArrayLike) -> Floats:
    """The length c beyond which the class of x + cv is no longer the one at x, for good; inf where it stays.

    Arguments:
        direction: v, shape (d,). weight, bias: h's logits are Wx + b, shapes (K, d) and (K,). x: inputs (n, d).

    Example:
        >>> fools_multiclass([-1.0], [[1.0], [-1.0]], [0.0, 0.0], [[3.0], [-1.0]]).tolist()
        [3.0, inf]
    """
    rows = matrix(x)
    W, b, v = matrix(weight, "weight", rows.shape[1]), array(bias, "bias"), vector(direction, rows.shape[1])
    if len(W) < 2 or b.shape != (len(W),) or not np.isfinite(b).all():
        raise BadInput("weight and bias", expected="two rows or more, a finite bias for each",
                       got=f"{W.shape} and {b.shape}")  # fmt: skip
    logits, slope = rows @ W.T + b, W @ v
    top = logits.argmax(1)
    behind, gain = logits.max(1, keepdims=True) - logits, slope - slope[top][:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        lengths: Floats = np.where(gain > 0, behind / gain, np.inf).min(1)
    return lengths
