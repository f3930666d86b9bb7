"""Lemma 1: the maximum distance-3 independent set of a graph is an optimal robust classifier, and back."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calipers.errors import BadInput
from calipers.theory.checks import check_eps
from calipers.theory.finite import FiniteDistribution, pairwise_distance

__all__ = ["classifier_of_set", "distribution_of_graph", "graph", "graph_distance", "set_of_classifier"]


def graph(vertices: int, edges: Iterable[tuple[int, int]]) -> NDArray[np.bool_]:
    """The adjacency matrix of an undirected graph on 0 … vertices − 1, shape (k, k).

    Raises:
        BadInput: for loops, for edges to vertices that do not exist, for no vertices.

    Example:
        >>> graph(3, [(0, 0)])
        Traceback (most recent call last):
            ...
        calipers.errors.BadInput: edge (0, 0): expected two different vertices, got a loop
    """
    if vertices < 1:
        raise BadInput("graph", expected="at least one vertex", got=vertices)
    adjacency = np.zeros((vertices, vertices), dtype=np.bool_)
    for i, j in edges:
        if i == j:
            raise BadInput(f"edge ({i}, {j})", expected="two different vertices", got="a loop")
        if not (0 <= i < vertices and 0 <= j < vertices):
            raise BadInput(f"edge ({i}, {j})", expected=f"vertices 0…{vertices - 1}")
        adjacency[i, j] = adjacency[j, i] = True
    return adjacency


def graph_distance(adjacency: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Length of the shortest path between every two vertices, inf where there is none, shape (k, k).

    Example:
        >>> graph_distance(graph(4, [(0, 1), (1, 2)]))[0].tolist()
        [0.0, 1.0, 2.0, inf]
    """
    k = len(adjacency)
    length = np.where(adjacency, 1.0, np.inf)
    np.fill_diagonal(length, 0.0)
    for via in range(k):
        length = np.minimum(length, length[:, [via]] + length[[via]])
    return length


def distribution_of_graph(adjacency: NDArray[np.bool_], p: float, eps: float = 1.0) -> FiniteDistribution:
    r"""One point and one label per vertex, such that ‖x_i − x_j‖_p ≤ eps exactly if i and j are joined: (15)–(17).

    The points are the rows of M' in d = k(k − 1)/2 dimensions, one per pair of vertices. With k ≥ 3 and p < ∞,
    λ = eps/(2k − 4)^{1/p}: joined rows are eps apart, others eps·(1 + 2^p/(2k − 4))^{1/p}. For p = ∞, λ = eps: eps and
    2·eps. For p = 0 (Remark 1) eps is d − 1 and joined rows differ in d − 1 coordinates, others in all d.

    With the adversary restricted to the support, the optimal robust accuracy is |U|/k for a maximum distance-3
    independent set U, and its robust points are such a set: two pairs (x_i, i), (x_j, j) are robust together exactly
    if no support point is within eps of both, that is, if no vertex is equal or next to both.

    **It does not hold when the adversary may move anywhere in R^d.** Then i and j are robust together exactly if
    ‖x_i − x_j‖_p > 2·eps. But for k ≥ 3 and every p ≥ 1 even points that are not joined are at most 2·eps apart
    (1 + 2^p/(2k − 4) ≤ 2^p), so all balls overlap, and the answer is 1/k whatever the graph. The smallest example is
    three vertices without an edge: the set has 3 elements, yet only one point can be robust. L0 fails likewise:
    d ≤ 2(d − 1) for d ≥ 2.

    **Theorem 1 is still true in R^d, by another reduction:** give the adversary eps/2 on the same points. Two balls of
    radius eps/2 meet exactly if the points are joined, so the robust points are a maximum *independent set* (distance
    2), which is NP-hard too. It needs as many labels as vertices; with two labels the problem is easy (see
    ``optimal_robust``).

    Arguments:
        adjacency: symmetric, without loops, shape (k, k); see ``graph``.
        p: the order of the norm, any p > 0, inf, or 0.
        eps: the adversary's radius > 0; ignored for p = 0, which fixes it to d − 1.

    Raises:
        BadInput: for loops, an asymmetric matrix, fewer than three vertices (λ divides by 2k − 4), or eps = 0.

    Source:
        Shaeiri, Nobahari and Rohban, Towards Deep Learning Models Resistant to Large Perturbations, 2020,
        Lemma 1, equations (15)–(21), and Remark 1. The remark on R^d is ours.

    Example:
        >>> from calipers.theory.finite import optimal_robust
        >>> three = distribution_of_graph(graph(3, []), p=2, eps=1.0)
        >>> {a: round(optimal_robust(three, 2, 1.0, adversary=a).error, 6) for a in ("support", "space")}
        {'support': 0.0, 'space': 0.666667}
        >>> round(optimal_robust(three, 2, 0.5, adversary="space").error, 6)
        0.0
    """
    joined = _checked(adjacency)
    check_eps(eps)
    k = len(joined)
    if k < 3:
        raise BadInput("graph for the reduction", expected="at least 3 vertices", got=k,
                       hint="equation (16) divides by 2k - 4")  # fmt: skip
    if eps == 0 or not p >= 0:
        raise BadInput("eps and p of the reduction", expected="eps > 0 and p >= 0", got=f"eps={eps}, p={p}")
    low, high = np.triu_indices(k, 1)
    column = np.arange(len(low))
    if p == 0:
        points = np.arange(k)[:, None] * float(len(low)) + np.arange(len(low))
        smaller = np.minimum(points[low, column], points[high, column])
        on = joined[low, high]
        points[low[on], column[on]] = points[high[on], column[on]] = smaller[on]
    else:
        scale = eps if math.isinf(p) else eps / (2 * k - 4) ** (1 / p)
        points = np.zeros((k, len(low)))
        points[high, column] = scale
        points[low, column] = np.where(joined[low, high], scale, -scale)
    return FiniteDistribution(points, np.eye(k) / k)


def _checked(adjacency: ArrayLike) -> NDArray[np.bool_]:
    """The adjacency matrix as booleans; a sentence for loops and asymmetry."""
    joined = np.asarray(adjacency, dtype=np.bool_)
    if joined.ndim != 2 or joined.shape[0] != joined.shape[1] or (joined != joined.T).any():
        raise BadInput("adjacency matrix", expected="square and symmetric", got=f"shape {joined.shape}")
    if joined.diagonal().any():
        raise BadInput("adjacency matrix", expected="no loops", got=f"one at {int(joined.diagonal().argmax())}")
    return joined


def classifier_of_set(chosen: Iterable[int], adjacency: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Labels that are robust at every vertex of a distance-3 independent set: i on i and on all its neighbours.

    Raises:
        BadInput: if two of the vertices are closer than 3.

    Example:
        >>> classifier_of_set([0, 3], graph(4, [(0, 1), (1, 2), (2, 3)]))
        array([0, 0, 3, 3])
    """
    joined, labels = _checked(adjacency), np.zeros(len(adjacency), dtype=np.int64)
    length, members = graph_distance(joined), sorted(set(chosen))
    for n, i in enumerate(members):
        for j in members[n + 1 :]:
            if length[i, j] < 3:
                raise BadInput(f"vertices {i} and {j}", expected="distance at least 3", got=f"{length[i, j]:g}")
    for i in members:
        labels[i] = i
        labels[joined[i]] = i
    return labels


def set_of_classifier(labels: ArrayLike, distribution: FiniteDistribution, p: float, eps: float) -> list[int]:
    """The vertices whose own label holds at every support point within eps: always a distance-3 independent set.

    Example:
        >>> path = distribution_of_graph(graph(4, [(0, 1), (1, 2), (2, 3)]), p=2)
        >>> set_of_classifier([0, 0, 3, 3], path, p=2, eps=1.0)
        [0, 3]
    """
    y = np.asarray(labels)
    near = pairwise_distance(distribution.points, p) <= eps * (1 + 1e-9)
    return [i for i in range(len(y)) if (y[near[i]] == i).all()]
