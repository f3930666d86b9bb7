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
    fools_any,
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
    if lengths.max() < 1e5:
        assert fools_any(v, net, inside) == pytest.approx(lengths, rel=1e-6, abs=1e-9)
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


@settings(max_examples=40, deadline=None)
@given(seed=seeds, family=st.sampled_from(["R", "R'"]))
def test_corollary_17_one_direction_for_networks_and_separators_of_the_same_set(seed: int, family: str) -> None:
    net, x = _network(seed, family)
    labels = net(x)
    if len(np.unique(labels)) < 2:
        return
    # One +1 example outside of a convex region and any within it can be separated.
    s = np.r_[x[labels == 1][:1], x[labels == -1][:20]]
    y = np.r_[1.0, -np.ones(len(s) - 1)]
    best, v = max_margin(s, y), convex_direction(s, y)
    negative = x[labels == -1]
    assert np.isfinite(net.fools(v, negative)).all()
    linear = Hyperplane(best.weight, best.bias)
    mine = x[linear.score(x) < 0]
    assert np.isfinite(fools_linear(v, linear, mine, -np.ones(len(mine)))).all()


def test_corollary_17_is_for_label_minus_one() -> None:
    # The network says -1 on the strip |x2| <= 1; from a +1 example below it, away from v is away from the strip.
    net = ReluClassifier([[0.0, 1.0], [0.0, -1.0]], [-1.0, -1.0], "R")
    v = convex_direction([[0.0, 0.0], [0.0, 2.0]], [-1, 1])
    assert net([[0.0, -3.0]])[0] == 1
    assert np.isinf(fools_any(-v, net, [[0.0, -3.0]]))[0]


@pytest.mark.parametrize("family", ["R", "R'", "R''"])
def test_theorems_10_15_16_need_a_network_that_is_right_on_s(family) -> None:
    # The network has both examples in its convex region {x1 <= 0} or {x1 > 0}; v runs along the edge of it.
    inside = -1.0 if family != "R''" else 1.0
    net = ReluClassifier([[1.0, 0.0]], [0.0], family, *([[1.0], 0.5] if family == "R'" else []))
    x = np.array([[inside, 0.0], [inside, 1.0]])
    v = convex_direction(x, [net.convex_label, -net.convex_label], label=net.convex_label)
    assert (net(x) == net.convex_label).all()
    assert np.isinf(net.fools(v, x[:1])).all()


def test_theorem_16_is_for_label_plus_one() -> None:
    net = ReluClassifier([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0], "R''")  # +1 on the open quadrant, -1 is not convex.
    x, y = np.array([[1.0, 1.0], [1.0, -1.0]]), [1, -1]
    assert net(x).tolist() == y
    assert np.isinf(net.fools(-convex_direction(x, y, label=1), [[2.0, 2.0]])).all()
    assert np.isinf(fools_any(convex_direction(x, y), net, [[-1.0, -1.0]])).all()


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_theorem_12_whatever_h_is_inside_of_the_convex_set(seed: int) -> None:
    outer, x = _network(seed, "R")  # C_h is where it says -1; inside, h has holes of +1.
    rng = np.random.default_rng(seed)
    wave, shift = rng.normal(size=x.shape[1]) * 3, rng.normal()

    def h(z):
        return np.where((outer(z) == -1) & (np.sin(z @ wave + shift) > -0.5), -1, 1)

    said = h(x)
    alpha, beta = x[said == -1], x[outer(x) == 1]
    if not len(alpha) or not len(beta):
        return
    v = convex_direction(np.stack([alpha[0], beta[0]]), [-1, 1])
    leaves = outer.fools(v, alpha)
    assert np.isfinite(leaves).all()
    assert (h(alpha + (1.001 * leaves + 1e-6)[:, None] * v) == 1).all()
    # The first hole may come earlier, and what is reported was seen.
    found = fools_any(v, h, alpha)
    near = leaves < 1e5
    assert (found[near] <= leaves[near] * (1 + 1e-6) + 1e-9).all()
    assert (h(alpha + np.where(near, found, 0)[:, None] * v) == 1)[near].all()


def test_theorem_11_on_a_ball_and_an_ellipsoid() -> None:
    rng = np.random.default_rng(0)
    for axes in (np.ones(4), np.array([0.1, 1.0, 3.0, 10.0])):

        def inside(z, axes=axes):
            return np.where(((z / axes) ** 2).sum(1) <= 1, -1, 1)

        x = rng.normal(size=(400, 4)) * axes
        y = inside(x)
        lengths = fools_any(convex_direction(x, y), inside, x[y < 0])
        assert np.isfinite(lengths).all()


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
    (lambda: ReluClassifier([[1.0, 0.0]], [0.0])([[1.0]]), "x: expected 2 features, got 1"),
    (lambda: ReluClassifier([[1.0, 0.0]], [0.0]).fools([1.0], [[1.0, 0.0]]), "direction: expected 2 numbers"),
    (lambda: fools_any([1.0], lambda z: z, [[1.0]]), "predict: expected 1 labels"),
    (lambda: fools_any([1.0], lambda z: z[:, 0], [[1.0]], longest=np.inf), "longest: expected"),
])  # fmt: skip
def test_bad_input(make, message) -> None:
    with pytest.raises(BadInput, match=message):
        make()
