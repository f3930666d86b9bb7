"""Theorems 10–17 and Section 6: random networks with the stated signs, and what breaks without them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calipers.errors import BadInput
from calipers.geometry import (
    Hyperplane,
    ReluClassifier,
    convex_direction,
    fools_linear,
    max_margin,
    section6,
)

seeds = st.integers(0, 10_000)


def _network(seed: int, family: str) -> tuple[ReluClassifier, np.ndarray]:
    rng = np.random.default_rng(seed)
    L, d = int(rng.integers(1, 8)), int(rng.integers(1, 6))
    W, b = rng.normal(size=(L, d)), rng.normal(size=L)
    if family == "R":
        net = ReluClassifier(W, b - 1, "R")
    elif family == "R'":
        v, a = np.maximum(rng.normal(size=L), 0), float(rng.uniform(0.1, 2))
        net = ReluClassifier(W, b, "R'", v, a, bool(rng.integers(2)))
    else:
        net = ReluClassifier(W, b + 1, "R''")
    return net, rng.normal(size=(300, d)) * 3


@settings(max_examples=90, deadline=None)
@given(seed=seeds, family=st.sampled_from(["R", "R'", "R''"]))
def test_theorems_10_15_16_at_every_point_of_the_region(seed: int, family: str) -> None:
    net, x = _network(seed, family)
    labels = net(x)
    if len(np.unique(labels)) < 2:
        return
    seen = np.zeros(len(x), dtype=bool)
    seen[[np.flatnonzero(labels == 1)[0], np.flatnonzero(labels == -1)[0]]] = True
    seen[:20] = True
    v = convex_direction(x[seen], labels[seen], label=net.convex_label)
    inside = x[labels == net.convex_label]  # In S or not.
    lengths = net.fools(v, inside)
    assert np.isfinite(lengths).all()
    for factor, same in ((0.999, True), (1.001, False)):
        moved = inside + (factor * lengths + (0 if same else 1e-6))[:, None] * v
        assert ((net(moved) == net.convex_label) == same).all()


@settings(max_examples=60, deadline=None)
@given(seed=seeds, family=st.sampled_from(["R", "R'", "R''"]))
def test_lemmas_13_and_14_the_region_is_convex(seed: int, family: str) -> None:
    net, x = _network(seed, family)
    inside = x[net(x) == net.convex_label]
    mixed = (inside[:-1] + inside[1:]) / 2
    assert len(mixed) == 0 or (net(mixed) == net.convex_label).all()


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_corollary_17_also_every_linear_separator(seed: int) -> None:
    rng = np.random.default_rng(seed)
    d = int(rng.integers(1, 8))
    h, x = Hyperplane(rng.normal(size=d), 0.1), rng.normal(size=(40, d))
    y = np.sign(h.score(x))
    if len(np.unique(y)) < 2:
        return
    v = convex_direction(x, y)
    everywhere = rng.normal(size=(50, d)) * 10
    negative = everywhere[h.score(everywhere) < 0]
    assert len(negative) == 0 or np.isfinite(fools_linear(v, h, negative, -np.ones(len(negative)))).all()


def test_a_negative_output_weight_breaks_theorem_15() -> None:
    with pytest.raises(BadInput, match="output weights >= 0"):
        ReluClassifier([[1.0]], [0.0], "R'", [-1.0], 1.0)
    # f = σ(x) − σ(x − 1) − ... : +1 only on a band, −1 on both sides of it, which is not convex.

    def band(z):
        return np.where(np.maximum(z, 0) - 2 * np.maximum(z - 1, 0) > 0.5, 1, -1)

    x, y = np.array([0.0, 1.0]), np.array([-1, 1])
    assert (band(x) == y).all()
    v = convex_direction(x[:, None], y)[0]
    other = 3.0
    assert band(np.array([other]))[0] == -1
    assert (band(other + np.linspace(0, 1e6, 10_000) * v) == -1).all()


def test_theorem_11_needs_a_closed_or_an_open_region() -> None:
    def inside(p):
        return (p[..., 1] > 0) | (p == 0).all(-1)

    rng = np.random.default_rng(0)
    points = np.r_[rng.normal(size=(200, 2)) * [5, 1], [[0.0, 0.0]]]
    points = points[inside(points)]
    assert inside((points[:, None] + points) / 2).all()  # Convex.
    x_alpha, x_beta, x = np.array([0.0, 0]), np.array([1.0, 0]), np.array([0.0, 1])
    assert inside(x_alpha) and not inside(x_beta) and inside(x)
    v = convex_direction(np.stack([x_alpha, x_beta]), [-1, 1])
    assert inside(x + np.linspace(0, 1e6, 1000)[:, None] * v).all()


def test_theorem_12_needs_x_beta_outside_of_the_convex_set() -> None:
    # C_h = R^2: its complement is empty, so every h is allowed, for instance one that is −1 but for one point.
    def h(p):
        return np.where((p == (1.0, 0.0)).all(-1), 1, -1)

    s = np.array([[0.0, 0.0], [1.0, 0.0]])
    assert h(s).tolist() == [-1, 1]
    ray = np.array([0.0, 1.0]) + np.linspace(0, 1e6, 1001)[:, None] * convex_direction(s, h(s))
    assert (h(ray) == -1).all()


@pytest.mark.parametrize(("dimension", "gap"), [(2, 2.0), (2, 0.01), (7, 30.0)])
def test_section_6(dimension: int, gap: float) -> None:
    found = section6(dimension, gap)
    assert (found.network(found.x) == found.y).all()
    best = max_margin(found.x, found.y)
    assert best.margin == pytest.approx(gap / 2)
    assert found.max_margin_direction == pytest.approx(best.weight, rel=1e-9, abs=1e-9)
    negative = found.x[found.y < 0]
    assert np.isinf(found.network.fools(found.max_margin_direction, negative)).all()
    far = negative + np.linspace(0, 1e6, 1000)[:, None] * found.max_margin_direction
    assert (found.network(far) == -1).all()
    assert np.isfinite(found.network.fools(found.convex_direction, negative)).all()
    linear = Hyperplane(best.weight, best.bias)
    for v in (found.max_margin_direction, found.convex_direction):
        assert np.isfinite(fools_linear(v, linear, negative, [-1])).all()


@pytest.mark.parametrize(("make", "message"), [
    (lambda: convex_direction([[0.0], [0.0]], [-1, 1]), "one that has both"),
    (lambda: convex_direction([[0.0], [1.0]], [1, 1]), "none with label -1"),
    (lambda: convex_direction([[0.0], [1.0]], [-1, 1], label=0), "label: expected"),
    (lambda: ReluClassifier([[1.0]], [0.0], "R'''"), "did you mean"),  # type: ignore[arg-type]
    (lambda: ReluClassifier([[1.0]], [0.0, 1.0], "R"), "1 finite numbers each"),
    (lambda: ReluClassifier([[1.0]], [0.0], "R", threshold=1.0), "no threshold"),
    (lambda: ReluClassifier([[1.0]], [0.0], "R'", [1.0], 0.0), "threshold > 0"),
    (lambda: section6(1), "dimension >= 2"),
])  # fmt: skip
def test_bad_input(make, message) -> None:
    with pytest.raises(BadInput, match=message):
        make()
