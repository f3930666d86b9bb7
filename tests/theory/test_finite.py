import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calipers.errors import BadInput
from calipers.theory import (
    FiniteDistribution,
    classifier_of_set,
    distribution_of_graph,
    graph,
    graph_distance,
    optimal_robust,
    pairwise_distance,
    robust_mass,
    set_of_classifier,
)


def random_distribution(seed: int, n: int, classes: int) -> FiniteDistribution:
    rng = np.random.default_rng(seed)
    mass = rng.random((n, classes)) * (rng.random((n, classes)) < 0.7) + np.eye(n, classes) * 0.01
    return FiniteDistribution(rng.integers(0, 4, (n, 2)).astype(float), mass / mass.sum())


@given(st.integers(0, 999), st.integers(1, 6), st.integers(2, 3), st.sampled_from([0, 0.5, 1, 2, math.inf]),
       st.sampled_from([0.0, 1.0, 1.5, 2.0]))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_no_labelling_does_better(seed: int, n: int, classes: int, p: float, eps: float) -> None:
    dist = random_distribution(seed, n, classes)
    best = optimal_robust(dist, p, eps)
    # Two support points may coincide: a classifier must give them the same label.
    same = pairwise_distance(dist.points, 0) == 0
    labellings = (np.array(h) for h in itertools.product(range(classes), repeat=n))
    legal = [h for h in labellings if (~same | (h[:, None] == h)).all()]
    errors = [1 - robust_mass(h, dist, p, eps) for h in legal]
    assert best.error == pytest.approx(min(errors), abs=1e-9)
    assert 1 - robust_mass(best.labels, dist, p, eps) == pytest.approx(best.error, abs=1e-9)


@given(st.integers(0, 999), st.sampled_from([0, 1, 2, math.inf]), st.sampled_from([0.5, 1.0, 1.5]))
@settings(max_examples=40, deadline=None)
def test_two_labels_are_easy_and_freedom_only_hurts(seed: int, p: float, eps: float) -> None:
    dist = random_distribution(seed, 12, 2)
    exact = optimal_robust(dist, p, eps).error
    assert optimal_robust(dist, p, eps, relaxed=True).error == pytest.approx(exact, abs=1e-9)
    assert optimal_robust(dist, p, eps, adversary="space").error >= exact - 1e-9


def test_the_papers_two_points() -> None:
    pair = FiniteDistribution([[0.0, 0.0], [1.0, 1.0]], [[0.5, 0.0], [0.0, 0.5]])
    for p, gap in ((0, 2.0), (1, 2.0), (2, math.sqrt(2)), (math.inf, 1.0), (0.5, 4.0)):
        assert optimal_robust(pair, p, gap * 0.999).error == 0.0
        assert optimal_robust(pair, p, gap).error == 0.5
        if p >= 1:
            assert optimal_robust(pair, p, gap / 2, adversary="space").error == 0.5


def canonical_graphs(k: int) -> list[np.ndarray]:
    """One adjacency matrix for each graph on k vertices up to isomorphism."""
    pairs = list(itertools.combinations(range(k), 2))
    bit = {pair: 1 << i for i, pair in enumerate(pairs)}
    moves = [[bit[min(s[i], s[j]), max(s[i], s[j])] for i, j in pairs] for s in itertools.permutations(range(k))]
    seen, found = np.zeros(1 << len(pairs), dtype=bool), []
    for code in range(1 << len(pairs)):
        if not seen[code]:
            on = [i for i in range(len(pairs)) if code >> i & 1]
            seen[[sum(move[i] for i in on) for move in moves]] = True
            found.append(graph(k, [pairs[i] for i in on]))
    return found


def largest(adjacency: np.ndarray, apart: int) -> int:
    """The size of a largest set with pairwise graph distance at least ``apart``, by brute force."""
    k, length = len(adjacency), graph_distance(adjacency)
    near = [sum(1 << j for j in range(k) if j != i and length[i, j] < apart) for i in range(k)]
    best = 0
    for s in range(1 << k):
        if s.bit_count() > best and all(not s & near[i] for i in range(k) if s >> i & 1):
            best = s.bit_count()
    return best


def check_reduction(adjacency: np.ndarray, p: float) -> None:
    k = len(adjacency)
    eps = k * (k - 1) / 2 - 1 if p == 0 else 1.7
    dist = distribution_of_graph(adjacency, p, eps)
    best = optimal_robust(dist, p, eps)
    assert round(k * (1 - best.error), 6) == largest(adjacency, 3)
    # The classifier yields a set of that size, and the set yields a classifier of that accuracy.
    chosen = set_of_classifier(best.labels, dist, p, eps)
    assert len(chosen) == largest(adjacency, 3)
    back = classifier_of_set(chosen, adjacency)
    assert robust_mass(back, dist, p, eps) == pytest.approx(len(chosen) / k)


def test_there_are_as_many_graphs_as_there_should_be() -> None:
    assert [len(canonical_graphs(k)) for k in (3, 4, 5)] == [4, 11, 34]


@pytest.mark.parametrize("p", [0, 0.5, 1, 2, math.inf])
@pytest.mark.parametrize("k", [3, 4, 5])
def test_reduction_on_all_small_graphs(k: int, p: float) -> None:
    for adjacency in canonical_graphs(k):
        check_reduction(adjacency, p)


def test_reduction_on_all_graphs_of_six_vertices() -> None:
    graphs = canonical_graphs(6)
    assert len(graphs) == 156
    for adjacency in graphs:
        check_reduction(adjacency, 2)


@given(st.integers(7, 10), st.floats(0.05, 0.6), st.integers(0, 99), st.sampled_from([0, 1, 2, 3.5, math.inf]))
@settings(max_examples=15, deadline=None)
def test_reduction_on_random_graphs(k: int, density: float, seed: int, p: float) -> None:
    rng = np.random.default_rng(seed)
    edges = [edge for edge in itertools.combinations(range(k), 2) if rng.random() < density]
    check_reduction(graph(k, edges), p)


@pytest.mark.parametrize("p", [0.5, 1, 2, 7, math.inf])
def test_joined_points_are_eps_apart_and_others_further(p: float) -> None:
    adjacency = graph(5, [(0, 1), (1, 2), (3, 4)])
    gap = pairwise_distance(distribution_of_graph(adjacency, p, 0.3).points, p)
    off = ~np.eye(5, dtype=bool)
    assert gap[adjacency] == pytest.approx(0.3)
    further = 2.0 if math.isinf(p) else (1 + 2**p / 6) ** (1 / p)
    assert gap[off & ~adjacency] == pytest.approx(0.3 * further)


@pytest.mark.parametrize("p", [0, 1, 2, math.inf])
@pytest.mark.parametrize("k", [3, 4, 5])
def test_in_the_whole_space_the_reduction_says_nothing_about_the_graph(k: int, p: float) -> None:
    eps = k * (k - 1) / 2 - 1 if p == 0 else 1.0
    for adjacency in canonical_graphs(k):
        space = optimal_robust(distribution_of_graph(adjacency, p, eps), p, eps, adversary="space")
        assert space.error == pytest.approx(1 - 1 / k)


@pytest.mark.parametrize("p", [1, 2, math.inf])
@pytest.mark.parametrize("k", [3, 4, 5])
def test_with_half_the_radius_the_whole_space_solves_independent_set(k: int, p: float) -> None:
    for adjacency in canonical_graphs(k):
        space = optimal_robust(distribution_of_graph(adjacency, p, 1.0), p, 0.5, adversary="space")
        assert round(k * (1 - space.error), 6) == largest(adjacency, 2)


def test_bad_input() -> None:
    with pytest.raises(BadInput, match=r"expected a sum of 1, got 0\.9"):
        FiniteDistribution([[0.0]], [[0.9]])
    with pytest.raises(BadInput, match="mass >= 0"):
        FiniteDistribution([[0.0]], [[1.5, -0.5]])
    with pytest.raises(BadInput, match="a loop"):
        graph(3, [(1, 1)])
    with pytest.raises(BadInput, match="no loops, got one at 2"):
        distribution_of_graph(np.diag([0, 0, 1]).astype(bool), 2)
    with pytest.raises(BadInput, match=r"edge \(0, 3\): expected vertices 0…2"):
        graph(3, [(0, 3)])
    with pytest.raises(BadInput, match="at least 3 vertices, got 2; equation"):
        distribution_of_graph(graph(2, []), 2)
    with pytest.raises(BadInput, match="vertices 0 and 2: expected distance at least 3, got 2"):
        classifier_of_set([0, 2], graph(3, [(0, 1), (1, 2)]))
    one = FiniteDistribution([[0.0]], [[1.0]])
    with pytest.raises(BadInput, match="eps: expected a finite number >= 0, got -1"):
        optimal_robust(one, 2, -1.0)
    with pytest.raises(BadInput, match="p: expected a number >= 0 or inf, got -2"):
        optimal_robust(one, -2, 1.0)
    with pytest.raises(BadInput, match=r"whole space: expected 0 or at least 1, got 0\.5"):
        optimal_robust(one, 0.5, 1.0, adversary="space")
