"""Theorems 4–9: the claim, its constant, and that dropping an assumption breaks it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from sklearn.svm import SVC

from calipers.errors import BadInput
from calipers.geometry import (
    Hyperplane,
    common_subset,
    enough,
    fools_linear,
    fools_multiclass,
    max_margin,
    pair_direction,
)

seeds = st.integers(0, 10_000)


def _separable(seed: int, bias: bool = True):
    """S and a random separator of it that is not max-margin: the plane that labelled it."""
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(4, 40)), int(rng.integers(1, 12))
    x = rng.normal(size=(n, d))
    w, b = rng.normal(size=d), float(rng.normal()) * bias * 0.3
    score = x @ w + b
    order = np.sort(score)
    if bias and (score > 0).all() | (score < 0).all():
        b -= float((order[0] + order[-1]) / 2)
        score = x @ w + b
    keep = np.abs(score) > 0.05 * np.linalg.norm(w)
    return x[keep], np.sign(score[keep]), Hyperplane(w, b)


def _usable(seed: int):
    x, y, plane = _separable(seed)
    return None if len(np.unique(y)) < 2 else (x, y, plane)


def _vertex(x, y, rng) -> Hyperplane:
    """Another separator: a vertex of {y(w·x + b) ≥ 1}, far from the max margin."""
    n, d = x.shape
    found = linprog(rng.normal(size=d + 1), A_ub=-y[:, None] * np.c_[x, np.ones(n)], b_ub=-np.ones(n),
                    bounds=[(-1e4, 1e4)] * (d + 1))  # fmt: skip
    return Hyperplane(found.x[:-1], found.x[-1])


@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_max_margin_is_optimal(seed: int) -> None:
    case = _usable(seed)
    if case is None:
        return
    x, y, _ = case
    found = max_margin(x, y)
    margins = y * (x @ found.weight + found.bias)
    assert margins.min() == pytest.approx(1, abs=1e-7)
    assert found.alpha.min() >= 0
    assert y @ found.alpha == pytest.approx(0, abs=1e-7 * found.alpha.sum())
    assert (y * found.alpha) @ x == pytest.approx(found.weight, rel=1e-7, abs=1e-9)
    assert (found.alpha * (margins - 1)).sum() == pytest.approx(0, abs=1e-6 * found.alpha.sum())
    assert found.alpha.sum() == pytest.approx(found.weight @ found.weight, rel=1e-7)
    assert found.margin**2 == pytest.approx(found.length, rel=1e-7)


def test_max_margin_agrees_with_libsvm() -> None:
    x, y, _ = _usable(12)  # type: ignore[misc]
    theirs = SVC(kernel="linear", C=1e9, tol=1e-9).fit(x, y)
    ours = max_margin(x, y)
    assert ours.weight == pytest.approx(theirs.coef_[0], rel=1e-4)
    assert ours.bias == pytest.approx(theirs.intercept_[0], rel=1e-4, abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_theorems_4_5_and_corollary_6(seed: int) -> None:
    case = _usable(seed)
    if case is None:
        return
    x, y, plane = case
    best = max_margin(x, y)
    for h in (plane, _vertex(x, y, np.random.default_rng(seed))):
        margin = float((y * h.score(x)).min())
        if margin <= 1e-9:
            continue
        reached = fools_linear(best.weight, h, x, y)
        assert np.isfinite(reached).all()
        promised = enough(best, h, x, y, margin=margin)
        assert (reached <= promised * (1 + 1e-7)).all()
        moved = x - 1.0001 * promised[:, None] * y[:, None] * best.weight
        assert (y * h.score(moved) < 0).all()
        least = int((y * h.score(x)).argmin())
        assert promised[least] == pytest.approx(best.length)
        outside = x + 1.0
        right = y * h.score(outside) > 0
        lengths = enough(best, h, outside, y, margin=margin)
        moved = outside - 1.0001 * lengths[:, None] * y[:, None] * best.weight
        assert (y * h.score(moved) < 0)[right].all()


def test_theorem_5_is_tight_and_strict_for_the_max_margin_classifier_itself() -> None:
    x, y = np.array([[0.0, 0.0], [2.0, 0.0]]), np.array([-1, 1])
    best = max_margin(x, y)
    h = Hyperplane(best.weight, best.bias)
    promised = enough(best, h, x, y, margin=1.0)
    assert promised == pytest.approx(best.length)
    assert fools_linear(best.weight, h, x, y) == pytest.approx(promised)
    assert h.score(x - promised[:, None] * y[:, None] * best.weight) == pytest.approx(0)


def test_no_single_length_works_for_every_example_of_s() -> None:
    # The sentence after Corollary 6: h may pass close to one example while another is as far as one likes.
    x, y = np.array([[-1.0, 0.0], [1.0, 0.0], [1.0, 5.0]]), np.array([-1, 1, 1])
    best = max_margin(x, y)
    needed = []
    for tilt in (0.0, 10.0, 1000.0):
        h = Hyperplane([1.0, tilt], 0.0)
        assert (y * h.score(x) > 0).all()
        needed.append(fools_linear(best.weight, h, x, y).max())
    assert needed[0] < 2 < 50 < needed[1] < 5000 < needed[2]


def test_a_direction_need_not_fool_a_classifier_that_does_not_separate_s() -> None:
    x, y = np.array([[-1.0, 0.0], [1.0, 0.0]]), np.array([-1, 1])
    best, h = max_margin(x, y), Hyperplane([-1.0, 10.0], 20.0)
    assert h.score([[0.0, 0.0]]) > 0
    assert not np.isfinite(fools_linear(best.weight, h, [[0.0, 0.0]], [1]))[0]
    on_boundary = Hyperplane([0.0, 1.0], 0.0)  # γ_h = 0: nothing is promised, and nothing happens.
    with pytest.raises(BadInput, match="margin"):
        enough(best, on_boundary, x, y, margin=0.0)


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_theorem_7_direction_transfers_on_the_common_subset(seed: int) -> None:
    rng = np.random.default_rng(seed)
    d, n = int(rng.integers(2, 8)), int(rng.integers(10, 60))
    centre = rng.normal(size=d)
    sets = []
    for _ in range(2):
        y = rng.choice([-1.0, 1.0], n)
        sets.append((rng.normal(size=(n, d)) + y[:, None] * centre, y))
    planes = [np.linalg.lstsq(x, y, rcond=None)[0] for x, y in sets]
    found = common_subset(*sets, *planes)
    for (x, y), keep, size in zip(sets, found.keep, found.sizes, strict=True):
        assert size == keep.sum() >= found.guaranteed
        for w in planes:
            assert (y * (x @ w) > 0)[keep].all()
            if keep.any():
                assert np.isfinite(fools_linear(found.direction.weight, Hyperplane(w, 0.0), x[keep], y[keep])).all()


def test_theorem_7_size_is_met_by_independent_samples_and_is_not_empty() -> None:
    rng, n = np.random.default_rng(0), 20_000
    sets = []
    for _ in range(2):
        y = rng.choice([-1.0, 1.0], n)
        x = np.clip(np.c_[y + 0.1 * rng.normal(size=n), 0.1 * rng.normal(size=n)], -1, 1) * [1, 1]
        sets.append((x, y))
    w = [np.array([1.6, 0.2]), np.array([1.6, -0.2])]
    sizes = []
    for (x, y), v in zip(sets, w, strict=True):
        assert (y * (x @ v) >= 1).mean() > 0.9
        sizes.append(n)
    small = [(x[:400], y[:400]) for x, y in sets]
    rho = max((y * (x @ v) < 1).mean() for (x, y), v in zip(sets, w, strict=True))
    reach = max(map(np.linalg.norm, w)) * max(np.linalg.norm(x, axis=1).max() for x, _ in sets)
    promised = (1 - 2 * rho) * n - 2 * reach * n**0.5 - 4 * (n * np.log(n)) ** 0.5
    assert promised > 0.7 * n
    assert all(min((y * (x @ v) > 0).sum() for v in w) >= promised for x, y in sets)
    assert common_subset(*small, *w).guaranteed < 400


def _multiclass(seed: int):
    rng = np.random.default_rng(seed)
    K, d = int(rng.integers(3, 6)), int(rng.integers(2, 8))
    W, b = rng.normal(size=(K, d)), 0.3 * rng.normal(size=K)
    x = rng.normal(size=(200, d)) * 2
    logits = np.sort(x @ W.T + b, 1)
    keep = logits[:, -1] - logits[:, -2] > 0.1
    return x[keep], (x @ W.T + b).argmax(1)[keep], W, b


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_theorems_8_and_9_every_pair(seed: int) -> None:
    x, y, W, b = _multiclass(seed)
    labels = np.unique(y)
    if len(labels) < 2:
        return
    k, other = (int(v) for v in labels[:2])
    found = pair_direction(x, y, k, other)
    for label, sign in ((k, -1), (other, 1)):
        rows = x[y == label]
        lengths = fools_multiclass(sign * found.weight, W, b, rows)
        assert np.isfinite(lengths).all()
        moved = rows + sign * (1.001 * lengths + 1e-6)[:, None] * found.weight
        assert ((moved @ W.T + b).argmax(1) != label).all()
    # Theorem 9 is Theorem 7 for w_k − w_l.
    pair = np.isin(y, (k, other))
    signs, difference = np.where(y[pair] == k, 1.0, -1.0), W[k] - W[other]
    half = len(signs) // 2
    shifted = np.c_[x[pair], np.ones(pair.sum())]
    w = np.append(difference, b[k] - b[other])
    sets = [(shifted[:half], signs[:half]), (shifted[half : 2 * half], signs[half : 2 * half])]
    if half:
        both = common_subset(*sets, w, w)
        assert both.sizes == (half, half)
        assert float(both.direction.weight @ w) > 0


def test_one_sign_does_not_fit_both_classes() -> None:
    x, y = np.array([[-1.0], [1.0]]), np.array([0, 1])
    v = pair_direction(x, y, 1, 0).weight
    W, b = np.array([[-1.0], [1.0]]), np.zeros(2)
    assert np.isfinite(fools_multiclass(v, W, b, x)).tolist() == [True, False]
    assert np.isfinite(fools_multiclass(-v, W, b, x)).tolist() == [False, True]


@pytest.mark.parametrize(("make", "message"), [
    (lambda: max_margin([[0.0], [1.0], [2.0]], [1, -1, 1]), "classes that a hyperplane separates"),
    (lambda: max_margin([[0.0], [0.0]], [1, -1]), "classes that a hyperplane separates"),
    (lambda: max_margin([[0.0], [1.0]], [1, 1]), "none with label -1"),
    (lambda: max_margin([[0.0], [np.nan]], [1, -1]), "finite numbers"),
    (lambda: pair_direction([[0.0], [1.0]], [0, 1], 1, 1), "two different"),
    (lambda: pair_direction([[0.0], [1.0]], [0, 1], 1, 2), "class: expected one that occurs, got 2"),
    (lambda: fools_linear([0.0], Hyperplane([1.0], 0.0), [[1.0]], [1]), "direction"),
    (lambda: common_subset(([[1.0]], [1]), ([[1.0], [2.0]], [1, 1]), [1.0], [1.0]), "the same size"),
    (lambda: common_subset(([[1.0]], [1]), ([[1.0]], [1]), [1.0], [-1.0]), "both classifiers have right"),
])  # fmt: skip
def test_bad_input(make, message) -> None:
    with pytest.raises(BadInput, match=message):
        make()


def test_duplicates_and_classes_of_very_different_size() -> None:
    rng = np.random.default_rng(0)
    x = np.r_[rng.normal(size=(300, 3)) + 6, [[-6.0, -6, -6]]]
    y = np.r_[np.ones(300), -1]
    once, twice = max_margin(x, y), max_margin(np.r_[x, x], np.r_[y, y])
    assert once.weight == pytest.approx(twice.weight, rel=1e-8)
