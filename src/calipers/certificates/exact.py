"""The minimal distortion of small ReLU networks by mixed-integer programming: an oracle, to a solver's tolerance."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, hstack, vstack
from torch import Tensor

from calipers.certificates.certificate import NotApplicable, Numerical
from calipers.certificates.chain import Chain, chain
from calipers.certificates.reading import read
from calipers.models import Classifier, public
from calipers.threats import Norm

__all__ = ["exact"]

# HiGHS takes a constraint for satisfied within its feasibility tolerance, and 1e-6 is its default.
_TOLERANCE = 1e-6


@public
def exact(
    model: Classifier, x: Tensor, y: Tensor, norm: Norm, *, upper: Tensor | None = None, seconds: float = 60.0
) -> Numerical:
    r"""min over j ≠ y of min {‖δ‖_p : f_j(x + δ) ≥ f_y(x + δ), x + δ in the box}, by HiGHS.

    Every ReLU that can switch within the box (or within ``upper``) gets a binary variable and the usual four
    inequalities. L∞ and L1 are linear; in L2 the squares are cut from below, 2aδ − a² ≤ δ², at the solutions found so
    far, until the last solution is as short as the bound says. What is returned is the solver's lower bound; NaN where
    the time ran out, and nothing is known.

    Arguments:
        model: a chain of linear layers and ReLUs with a bounded box; some tens of ReLUs that can switch.
        x: inputs in the box, shape (N, \*shape).
        y: labels, shape (N,).
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        upper: distances of known adversarials, shape (N,): nothing beyond is looked at.
        seconds: time for each example.

    Raises:
        NotApplicable: for L0, other activations, branches, and an infinite box without ``upper``.

    Source: "Evaluating Robustness of Neural Networks with Mixed Integer Programming" (Tjeng, Xiao & Tedrake 2019),
    Section 4; the cuts are Kelley's.

    Example:
        >>> from calipers.models import references
        >>> r = next(r for r in references() if r.classifier.name == "l1-ball")
        >>> found = exact(r.classifier, r.x[:2], r.y[:2], "l2").radius
        >>> bool((found - r.radius["l2"][:2]).abs().max() < 1e-4)
        True
    """
    if norm == "l0":
        raise NotApplicable("norm of the exact radius", expected="linf, l2 or l1", got="'l0'")
    x, y = model.check(x, y)
    parts = chain(read(model), x)
    if any(activation.kink != 0 for activation in parts.activations):
        names = ", ".join(sorted({a.name for a in parts.activations}))
        raise NotApplicable("exact radius", expected="a network of ReLUs", got=names)
    if upper is None and not model.box.bounded:
        raise NotApplicable("exact radius", expected="a bounded box, or upper=", got=repr(model.box))
    lo, hi = (side.expand(model.shape).reshape(-1).numpy(force=True) for side in model.box.sides(x.double()))
    reach = torch.full((len(x),), math.inf) if upper is None else upper.double()
    radius = [
        _nearest(parts, centre, label, lo, hi, norm, far, time.monotonic() + seconds)
        for centre, label, far in zip(
            x.double().flatten(1).numpy(force=True), y.tolist(), reach.tolist(), strict=True
        )
    ]  # fmt: skip
    found = torch.tensor(radius, dtype=torch.float64, device=x.device)
    return Numerical(found, norm, "exact", "real", f"HiGHS' feasibility tolerance, {_TOLERANCE:g}", model.box)


def _nearest(
    parts: Chain, x: np.ndarray, label: int, lo: np.ndarray, hi: np.ndarray, norm: Norm, upper: float, until: float
) -> float:
    """The nearest of all other classes; a farther one than the nearest so far is not solved to the end."""
    logits = x
    for depth, stage in enumerate(parts.stages):
        logits = stage.weight.numpy(force=True) @ logits + stage.bias.numpy(force=True)
        logits = np.maximum(logits, 0) if depth + 1 < len(parts.stages) else logits
    gaps = logits[label] - logits
    gaps[label] = np.inf
    if (gaps <= 0).any():
        return 0.0
    # A little beyond what is known, so that rounding does not cut the witness off.
    best = upper * (1 + 1e-6) + 1e-9
    problem = _encode(parts, x, lo, hi, best)
    for other in np.argsort(gaps)[:-1]:
        best = min(best, problem.solve(label, int(other), norm, best, until))
    return math.nan if problem.stopped else float(best)


@dataclass(eq=False)
class _Problem:
    """The network's constraints rows·v between low and high, over v = (δ, hidden…, switches…), all but the norm."""

    d: int
    low: list[float]
    high: list[float]
    whole: list[int]
    rows: list[dict[int, float]] = field(default_factory=list)
    least: list[float] = field(default_factory=list)
    stopped: bool = False
    logits: list[tuple[dict[int, float], float]] = field(default_factory=list)

    def add(self, row: dict[int, float], least: float) -> None:
        """Require row·v ≥ least."""
        self.rows.append(row)
        self.least.append(least)

    def variable(self, low: float, high: float, whole: bool = False) -> int:
        """A new variable, and its number."""
        self.low.append(low)
        self.high.append(high)
        self.whole.append(int(whole))
        return len(self.low) - 1

    def solve(self, label: int, other: int, norm: Norm, best: float, until: float) -> float:
        """The solver's lower bound of the distance to where ``other`` leads, or ``best`` if it is not nearer."""
        (mine, a), (theirs, b) = self.logits[label], self.logits[other]
        lead = {v: theirs.get(v, 0.0) - mine.get(v, 0.0) for v in mine.keys() | theirs.keys()}
        network, least = _matrix([*self.rows, lead], len(self.low)), [*self.least, a - b]
        if norm != "l2":
            found, _ = self._minimise(network, least, _length(norm, self.d), best, until)
            return found
        return self._nearest_l2(network, least, best, until)

    def _nearest_l2(self, network: csr_array, least: list[float], best: float, until: float) -> float:
        """Squares cut from below by tangents; each round adds those where the last solution touched."""
        below, step = self._minimise(network, least, _length("linf", self.d), best, until)
        if step is None:
            return min(below, best)
        # In units of the first solution's length, so that the solver's tolerance is relative.
        unit = shortest = max(float(np.linalg.norm(step)), 1e-12)
        points = [np.zeros(self.d), step, step * (below / unit)]
        while shortest > below * (1 + 1e-4) and below < best and not self.stopped:
            most = (min(best, shortest) / unit) ** 2 * (1 + 1e-6)
            square, step = self._minimise(network, least, _squares(points, unit), most, until)
            below = max(below, unit * math.sqrt(max(square, 0.0)))
            if step is None:
                break
            shortest = min(shortest, float(np.linalg.norm(step)))
            points += [step, step * (below / np.linalg.norm(step))]
        return min(below, best, shortest)

    def _minimise(
        self, network: csr_array, least: list[float], size: tuple[csr_array, np.ndarray, int], most: float, until: float
    ) -> tuple[float, np.ndarray | None]:
        """Minimise the sum of the extra variables; the bound, and δ where a solution was found."""
        more, floor, extra = size
        n = network.shape[1]
        left = csr_array((network.shape[0], extra))
        middle = csr_array((more.shape[0], n - self.d))
        rows = vstack([hstack([network, left]), hstack([more[:, : self.d], middle, more[:, self.d :]])])
        cost = np.concatenate([np.zeros(n), np.ones(extra)])
        limits = Bounds([*self.low, *[0.0] * extra], [*self.high, *[most] * extra])
        answer = milp(
            cost, bounds=limits, constraints=LinearConstraint(rows, np.concatenate([least, floor]), np.inf),
            integrality=np.array([*self.whole, *[0] * extra]),
            options={"time_limit": max(until - time.monotonic(), 0.1), "mip_rel_gap": 1e-6},
        )  # fmt: skip
        self.stopped |= answer.status == 1
        if answer.status == 2:  # infeasible: not nearer than most
            return most, None
        bound = answer.fun if answer.mip_dual_bound is None else answer.mip_dual_bound
        if bound is None or not np.isfinite(bound):
            return 0.0, None
        return min(float(bound), most), None if answer.x is None else answer.x[: self.d]


def _encode(parts: Chain, x: np.ndarray, lo: np.ndarray, hi: np.ndarray, reach: float) -> _Problem:
    """Variables and inequalities of every layer, over the part of the box within ``reach`` (‖·‖_∞ ≤ ‖·‖_p)."""
    low, high = np.maximum(lo - x, -reach), np.minimum(hi - x, reach)
    problem = _Problem(len(x), list(low), list(high), [0] * len(x))
    values: list[tuple[dict[int, float], float]] = [({i: 1.0}, float(v)) for i, v in enumerate(x)]
    ends = np.stack([x + low, x + high])
    for depth, stage in enumerate(parts.stages):
        weight, bias = stage.weight.numpy(force=True), stage.bias.numpy(force=True)
        middle, half = weight @ ends.mean(0) + bias, np.abs(weight) @ (ends[1] - ends[0]) / 2
        sums = [_combined(row, shift, values) for row, shift in zip(weight, bias, strict=True)]
        if depth + 1 == len(parts.stages):
            problem.logits = sums
            break
        ends = np.stack([middle - half, middle + half])
        values = [_relu(problem, *one, *end) for one, end in zip(sums, ends.T, strict=True)]
        ends = np.maximum(ends, 0)
    return problem


def _combined(
    row: np.ndarray, shift: float, values: list[tuple[dict[int, float], float]]
) -> tuple[dict[int, float], float]:
    """Σ w_i (terms_i + constant_i) + shift."""
    terms: dict[int, float] = {}
    for w, (part, constant) in zip(row.tolist(), values, strict=True):
        shift += w * constant
        for v, c in part.items():
            terms[v] = terms.get(v, 0.0) + w * c
    return terms, float(shift)


def _relu(
    problem: _Problem, terms: dict[int, float], shift: float, low: float, high: float
) -> tuple[dict[int, float], float]:
    """h = max(a, 0), a = terms + shift in [low, high]: h ≥ 0, h ≥ a, h ≤ high·s, h ≤ a − low·(1 − s), s in {0, 1}."""
    if high <= 0:
        return {}, 0.0
    if low >= 0:
        return terms, shift
    h, s = problem.variable(0.0, high), problem.variable(0.0, 1.0, whole=True)
    negated = {v: -c for v, c in terms.items()}
    problem.add({**negated, h: 1.0}, shift)
    problem.add({h: -1.0, s: high}, 0.0)
    problem.add({**terms, h: -1.0, s: low}, low - shift)
    return {h: 1.0}, 0.0


def _matrix(rows: list[dict[int, float]], columns: int) -> csr_array:
    # Of shape (entries, 3) also where every ReLU is off, and there are none.
    at = np.array([(i, v, c) for i, row in enumerate(rows) for v, c in row.items()], dtype=float).reshape(-1, 3)
    return csr_array((at[:, 2], (at[:, 0].astype(int), at[:, 1].astype(int))), shape=(len(rows), columns))


def _length(norm: Norm, d: int) -> tuple[csr_array, np.ndarray, int]:
    """Rows over (δ, t): t ≥ ±δ, one t in L∞, one for each coordinate in L1."""
    square = csr_array(np.eye(d))
    t = csr_array(np.ones((d, 1))) if norm == "linf" else square
    return csr_array(vstack([hstack([-square, t]), hstack([square, t])])), np.zeros(2 * d), t.shape[1]


def _squares(points: list[np.ndarray], unit: float) -> tuple[csr_array, np.ndarray, int]:
    """Rows over (δ, s): s_i ≥ (2a_iδ_i − a_i²) / unit² for every point a."""
    d = len(points[0])
    square = csr_array(np.eye(d))
    rows = [hstack([csr_array(np.diag(-2 * a / unit**2)), square]) for a in points]
    return csr_array(vstack(rows)), np.concatenate([-((a / unit) ** 2) for a in points]), d
