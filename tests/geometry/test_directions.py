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
        promised = enough(best, h, x, y)
        assert (reached <= promised * (1 + 1e-7)).all()
        moved = x - 1.0001 * promised[:, None] * y[:, None] * best.weight
        assert (y * h.score(moved) < 0).all()
        least = int((y * h.score(x)).argmin())
        assert promised[least] == pytest.approx(best.length)
        outside = x + 1.0
        lengths = enough(best, h, outside, y)
        right = y * h.score(outside) > 0
        assert (np.isfinite(lengths) == right).all()
        moved = outside - 1.0001 * np.where(right, lengths, 0)[:, None] * y[:, None] * best.weight
        assert (y * h.score(moved) < 0).all()


def test_theorem_5_is_tight_and_strict_for_the_max_margin_classifier_itself() -> None:
    x, y = np.array([[0.0, 0.0], [2.0, 0.0]]), np.array([-1, 1])
    best = max_margin(x, y)
    h = Hyperplane(best.weight, best.bias)
    promised = enough(best, h, x, y)
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
    assert np.isinf(fools_linear(best.weight, on_boundary, [[0.0, 1.0]], [1]))
    with pytest.raises(BadInput, match="one that separates S"):
        enough(best, on_boundary, x, y)


def test_corollary_6_needs_a_classifier_that_separates_s() -> None:
    x, y = np.array([[-1.0, 0.0], [1.0, 0.0]]), np.array([-1, 1])
    best, wrong_way = max_margin(x, y), Hyperplane([-1.0, 0.0], 2.0)  # Calls both +1.
    lengths = fools_linear(best.weight, wrong_way, x, y)
    assert np.isnan(lengths[0]) and np.isinf(lengths[1])
    with pytest.raises(BadInput, match="one that separates S"):
        enough(best, wrong_way, x, y)


def test_theorem_5_without_a_bias_holds_for_homogeneous_classifiers_only() -> None:
    x, y = np.array([[1.0, 0.0], [3.0, 1.0]]), np.array([1, 1])
    best = max_margin(x, y, bias=False)
    lengths = enough(best, Hyperplane([1.0, 0.5], 0.0), x, y)
    assert (lengths >= fools_linear(best.weight, Hyperplane([1.0, 0.5], 0.0), x, y)).all()
    with pytest.raises(BadInput, match="a bias of 0"):
        enough(best, Hyperplane([1.0, 0.0], 100.0), x, y)


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


def _clouds(n: int, rng: np.random.Generator, flipped: bool = False):
    """Labels ±1 at x₁ = ±1, a little noise, ‖x‖ ≤ √2; flipped, the labels are the other way round."""
    y = rng.choice([-1.0, 1.0], n)
    x = np.clip(np.c_[y + 0.1 * rng.normal(size=n), 0.1 * rng.normal(size=n)], -1, 1)
    return x, -y if flipped else y


def test_theorem_7_size_and_its_constant() -> None:
    rng, n = np.random.default_rng(0), 20_000
    sets, w = [_clouds(n, rng) for _ in range(2)], [np.array([1.6, 0.2]), np.array([1.6, -0.2])]
    found = common_subset(*sets, *w)
    rho = max((y * (x @ v) < 1).mean() for (x, y), v in zip(sets, w, strict=True))
    reach = max(map(np.linalg.norm, w)) * max(np.linalg.norm(x, axis=1).max() for x, _ in sets)
    assert found.guaranteed == (1 - 2 * rho) * n - 2 * reach * n**0.5 - 4 * (n * np.log(n)) ** 0.5
    assert min(found.sizes) >= found.guaranteed > 0.7 * n  # The promise is not empty.


def test_theorem_7_needs_one_distribution() -> None:
    rng, n = np.random.default_rng(0), 20_000
    sets = [_clouds(n, rng), _clouds(n, rng, flipped=True)]
    with pytest.raises(BadInput, match="an example that both classifiers have right"):
        common_subset(*sets, [1.6, 0.2], [-1.6, 0.2])


def test_theorem_7_needs_a_score_of_one_and_not_only_the_right_sign() -> None:
    # Each knows its own sample by heart and says nothing of other inputs; scaled down, B is as small as one likes.
    rng, n, d = np.random.default_rng(0), 600, 3000
    truth, sets, w = rng.choice([-1.0, 1.0], d), [], []
    for _ in range(2):
        seen = rng.integers(d, size=n)
        sets.append((np.eye(d)[seen], truth[seen]))
        w.append(np.where(np.isin(np.arange(d), seen), 1e-9 * truth, 0))
    found = common_subset(*sets, *w)
    by_sign_alone = n - 4 * (n * np.log(n)) ** 0.5  # With ρ = 0, and 2BR√n is next to nothing.
    assert found.guaranteed < 0 < max(found.sizes) < by_sign_alone


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
def test_theorem_8_every_pair(seed: int) -> None:
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


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_theorem_9_two_models_of_two_samples(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, K, d = 60, 3, int(rng.integers(3, 8))
    centres, samples, models = 2 * rng.normal(size=(K, d)), [], []
    for _ in range(2):
        y = np.repeat(np.arange(K), n // 2)
        x = centres[y] + rng.normal(size=(len(y), d))
        samples.append((x, y))
        models.append(np.linalg.lstsq(x, np.eye(K)[y] * 4 - 2, rcond=None)[0].T)
    k, other = 1, 2
    pairs = [(x[y > 0], np.where(y[y > 0] == k, 1.0, -1.0)) for x, y in samples]
    found = common_subset(*pairs, *(W[k] - W[other] for W in models))
    # B3's rho, and the printed constant 4BR, promise at most what is promised here.
    share, reach = [], 0.0
    for (x, y), W in zip(samples, models, strict=True):
        scores, own = x[y > 0] @ W.T, y[y > 0]
        confident = np.abs(scores[:, k] - scores[:, other]) > 1
        share.append(((scores.argmax(1) == own) & confident).mean())
        reach = max(reach, np.linalg.norm(W, axis=1).max())
    R = max(np.linalg.norm(x, axis=1).max() for x, _ in pairs)
    printed = (2 * min(share) - 1) * n - 4 * reach * R * n**0.5 - 4 * (n * np.log(n)) ** 0.5
    assert printed <= found.guaranteed <= min(found.sizes)
    for W in models:
        for (x, sign), keep in zip(pairs, found.keep, strict=True):
            for label, side in ((k, 1), (other, -1)):
                rows = x[keep & (sign == side)]
                rows = rows[(rows @ W.T).argmax(1) == label]  # Condition 2: where h_j(x) = y.
                if len(rows):
                    assert np.isfinite(fools_multiclass(-side * found.direction.weight, W, np.zeros(K), rows)).all()


def test_theorem_9_says_nothing_where_a_third_class_wins() -> None:
    # w₁ − w₂ has x right, but h says 0 there, and says 0 all along the direction.
    W, x = np.array([[0.0, 9.0], [1.0, 0.0], [-1.0, 0.0]]), np.array([[1.0, 9.0], [-1.0, 9.0]])
    found = common_subset((x, [1, -1]), (x, [1, -1]), W[1] - W[2], W[1] - W[2])
    assert found.sizes == (2, 2)
    ray = x[0] - np.linspace(0, 50, 100)[:, None] * found.direction.weight
    assert ((ray @ W.T).argmax(1) == 0).all()


def test_theorem_8_need_not_lead_to_the_other_class_of_the_pair() -> None:
    x, y, W, b = np.array([[1.0], [-1.0]]), [0, 1], np.array([[1.0], [-1.0], [-2.0]]), np.array([0.0, 0.0, -1.5])
    w = pair_direction(x, y, 0, 1).weight
    assert (x @ W.T + b).argmax(1).tolist() == y
    assert np.isfinite(fools_multiclass(-w, W, b, x[:1])).all()
    assert ((x[:1] - 50 * w) @ W.T + b).argmax() == 2


def test_theorem_8_needs_a_classifier_that_is_right_on_s() -> None:
    x, y, W, b = np.array([[1.0], [3.0], [-1.0]]), [0, 0, 1], np.array([[-1.0], [1.0]]), np.array([2.0, -2.0])
    assert ((x @ W.T + b).argmax(1) == y).tolist() == [True, False, False]
    assert np.isinf(fools_multiclass(-pair_direction(x, y, 0, 1).weight, W, b, x[:1])).all()


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
    (lambda: fools_linear([0.0], Hyperplane([1.0], 0.0), [[1.0]], [1]), "direction: expected finite numbers, not all"),
    (lambda: fools_linear([1.0], Hyperplane([1.0], 0.0), [[1.0]], [0]), "expected -1 or \\+1, got 0"),
    (lambda: fools_multiclass([1.0], [[1.0], [2.0]], [0.0], [[1.0]]), "a finite bias for each"),
    (lambda: fools_multiclass([1.0], [[1.0, 0.0], [2.0, 0.0]], [0.0, 0.0], [[1.0]]), "weight: expected 1 features"),
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
