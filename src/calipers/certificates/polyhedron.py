"""How far a polyhedron is from the origin, in any norm: a proof from below for whatever multipliers a solver found."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog, nnls

from calipers.threats import Norm, dual, norm_of

__all__ = ["distance_below", "multipliers"]


def distance_below(rows: np.ndarray, gap: np.ndarray, weights: np.ndarray, norm: Norm) -> float:
    r"""max(0, ⟨λ, b⟩) / ‖Aᵀλ‖_q ≤ min {‖δ‖_p : Aδ ≥ b} for every λ ≥ 0, rounded down.

    Arguments:
        rows: A, shape (m, d).
        gap: b, shape (m,).
        weights: λ ≥ 0, shape (m,), from anywhere.

    Example:
        >>> rows, gap = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([3.0, 4.0])
        >>> round(distance_below(rows, gap, np.array([3.0, 4.0]), "l2"), 6)
        5.0
    """
    weights = np.maximum(weights, 0)
    unit = 2.0**-53 * (len(gap) + rows.shape[1] + 8)
    gained = weights @ gap - unit * (weights @ np.abs(gap))
    # Entries that cancel are known to a few roundings of what was added up.
    direction = np.abs(rows.T @ weights) + unit * (np.abs(rows.T) @ weights)
    size = float(np.linalg.norm(direction, norm_of(dual(norm)))) * (1 + unit)
    if gained <= 0:
        return 0.0
    return float(gained / size * (1 - 1e-14)) if size > 0 else float("inf")


def multipliers(rows: np.ndarray, gap: np.ndarray, norm: Norm) -> np.ndarray:
    r"""The λ of :func:`distance_below` at the optimum, up to the solver's tolerance: shape (m,).

    In L2 this is least distance programming ("Solving Least Squares Problems", Lawson & Hanson 1974, Chapter 23):
    min ‖[A b]ᵀλ − e‖² over λ ≥ 0, e the last unit vector. In L∞ and L1 it is a linear program, max ⟨λ, b⟩ subject to
    ‖Aᵀλ‖_q ≤ 1.

    Example:
        >>> rows, gap = np.array([[1.0, 1.0]]), np.array([1.0])
        >>> [round(distance_below(rows, gap, multipliers(rows, gap, p), p), 3) for p in ("linf", "l2", "l1")]
        [0.5, 0.707, 1.0]
    """
    scale = np.linalg.norm(rows, axis=1).max(initial=0) or 1.0
    a, b = rows / scale, gap / scale
    m, d = a.shape
    if norm == "l2":
        try:
            return np.asarray(nnls(np.vstack([a.T, b[None]]), np.eye(d + 1)[d])[0])
        except RuntimeError:  # too many iterations: nothing found, nothing claimed
            return np.zeros(m)
    if norm == "l1":
        # |Aᵀλ| ≤ 1, coordinate by coordinate.
        found = linprog(-b, A_ub=np.vstack([a.T, -a.T]), b_ub=np.ones(2 * d), bounds=(0, None))
    else:
        # Σ t ≤ 1 with |Aᵀλ| ≤ t.
        square = np.eye(d)
        upper = np.block([[a.T, -square], [-a.T, -square], [np.zeros((1, m)), np.ones((1, d))]])
        cost = np.concatenate([-b, np.zeros(d)])
        found = linprog(cost, A_ub=upper, b_ub=np.append(np.zeros(2 * d), 1.0), bounds=(0, None))
    return np.asarray(found.x[:m]) if found.x is not None else np.zeros(m)
