"""The path against its optimality conditions, libsvm, and closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.svm import SVC

from calipers.errors import BadInput
from calipers.geometry import Hyperplane, svm_path


def _data(seed: int, n: int, d: int, share: float, shift: float):
    rng = np.random.default_rng(seed)
    y = np.where(rng.random(n) < share, 1.0, -1.0)
    y[:2] = 1, -1
    return rng.normal(size=(n, d)) + shift * y[:, None] * (np.arange(d) == 0), y


def _objective(x, y, C, w, b):
    return w @ w / 2 + C * np.maximum(0, 1 - y * (x @ w + b)).sum()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(4, 90), d=st.integers(1, 30), share=st.floats(0.1, 0.9),
       shift=st.floats(0, 2), doubled=st.booleans())  # fmt: skip
def test_optimal_feasible_and_never_above_libsvm(seed, n, d, share, shift, doubled) -> None:
    x, y = _data(seed, n, d, share, shift)
    if doubled:
        x, y = np.r_[x, x], np.r_[y, y]
    ladder = 10.0 ** np.arange(-5, 3)
    path = svm_path(x, y, ladder, tolerance=1e-5)
    for i, C in enumerate(ladder):
        alpha, value = path.alpha[i], _objective(x, y, C, path.weight[i], path.bias[i])
        dual = alpha.sum() - ((y * alpha) @ x) @ ((y * alpha) @ x) / 2
        assert alpha.min() >= 0
        assert alpha.max() <= C * (1 + 1e-12)
        assert abs(y @ alpha) <= 1e-9 * alpha.sum()
        assert value == pytest.approx(path.objective[i], rel=1e-9)
        # The certificate is recomputed here from nothing but alpha: weak duality holds for any feasible alpha.
        assert value - dual <= 1.001e-5 * value
    other = SVC(kernel="linear", C=float(ladder[4]), tol=1e-6).fit(x, y)
    theirs = _objective(x, y, ladder[4], other.coef_[0], other.intercept_[0])
    assert path.objective[4] <= theirs * (1 + 2e-5)


def test_two_points_in_closed_form() -> None:
    # min w²/2 + 2C max(0, 1 − w): w = min(2C, 1), b = 0.
    ladder = np.array([0.1, 0.3, 0.5, 5.0])
    path = svm_path([[-1.0], [1.0]], [-1, 1], ladder, tolerance=1e-7)
    assert path.weight[:, 0] == pytest.approx(np.minimum(2 * ladder, 1), abs=1e-4)
    assert path.bias == pytest.approx(0, abs=1e-4)


def test_all_bounded_is_the_difference_of_sums_and_the_middle_of_the_interval() -> None:
    x, y = np.array([[0.0], [1.0], [2.0], [5.0]]), np.array([-1, -1, 1, 1])
    path = svm_path(x, y, [1e-4], tolerance=1e-9)
    w = 1e-4 * 6
    # Every hinge is active where -1 <= b <= 1 - 5w: the ends are the points furthest out.
    assert path.weight[0, 0] == pytest.approx(w)
    assert path.bias[0] == pytest.approx(((1 - 5 * w) + (-1 - 0 * w)) / 2)


def test_the_order_of_the_ladder_does_not_matter_and_a_constant_feature_gets_no_weight() -> None:
    x, y = _data(1, 60, 5, 0.5, 0.5)
    x[:, 3] = 7.0
    up, down = svm_path(x, y, [0.01, 0.1, 1.0]), svm_path(x, y, [1.0, 0.01, 0.1])
    assert np.array_equal(up.weight, down.weight[[1, 2, 0]])
    assert (up.weight[:, 3] == 0).all()


def test_moving_the_data_moves_only_the_bias() -> None:
    x, y = _data(2, 80, 6, 0.3, 0.7)
    here, there = (svm_path(z, y, [0.01, 1.0], tolerance=1e-6) for z in (x, x + 10))
    assert here.weight == pytest.approx(there.weight, abs=1e-3)
    assert here.bias == pytest.approx(there.bias + 10 * there.weight.sum(1), abs=1e-2)


@pytest.mark.parametrize(("x", "y", "C", "message"), [
    ([[0.0], [1.0]], [1, 1], [1.0], "none with label -1"),
    ([[0.0], [np.nan]], [1, -1], [1.0], "row 1 of x: expected finite"),
    ([[0.0], [1.0]], [0, 1], [1.0], "expected -1 or \\+1, got 0"),
    ([[0.0], [1.0]], [-1, 1], [0.0], "C: expected"),
    ([[0.0], [1.0]], [-1, 1], [], "C: expected"),
    ([0.0, 1.0], [-1, 1], [1.0], "matrix of shape"),
    ([[0.0], [1.0]], [-1, 1], 1.0, "C: expected a list"),
    ([[0.0], [1.0]], [-1, 1], "a", "C: expected real numbers"),
])  # fmt: skip
def test_bad_input(x, y, C, message) -> None:
    with pytest.raises(BadInput, match=message):
        svm_path(x, y, C)


def test_one_example_inside_of_a_large_class_has_no_direction_rather_than_one_of_rounding() -> None:
    rng = np.random.default_rng(0)
    x = np.r_[rng.normal(size=(79, 4)), np.zeros((1, 4))]
    path = svm_path(x, np.r_[np.ones(79), -1], [0.1, 1.0])
    assert (path.weight == 0).all()
    assert path.objective == pytest.approx([0.2, 2.0])
    assert path.gap.max() <= 1e-4
    with pytest.raises(BadInput, match="there is no boundary"):
        Hyperplane(path.weight[0], path.bias[0])
    # Where it is outside of the class, five thousand to one, there is a direction.
    x, y = np.r_[rng.normal(size=(5000, 2)), [[-9.0, 0.0]]], np.r_[np.ones(5000), -1]
    path = svm_path(x, y, [100.0])
    assert (y * Hyperplane(path.weight[0], path.bias[0]).score(x)).min() > 0


def test_data_that_says_nothing() -> None:
    with pytest.raises(BadInput, match="a feature that varies"):
        svm_path(np.ones((4, 2)), [-1, 1, 1, 1], [1.0])
    x = [[0.0], [0.0], [0.0], [1.0], [1.0], [1.0]]
    path = svm_path(x, [-1, 1, 1, -1, 1, 1], [1e-3, 1.0, 1e3])
    assert path.weight == pytest.approx(0, abs=1e-6)
    assert path.bias == pytest.approx(1)  # The majority, at its margin.
