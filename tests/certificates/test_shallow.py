"""Trees, neighbours and kernels: never above the truth, exact where they say so, and nothing else is read."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from torch import nn

from calipers.attacks import fmn
from calipers.certificates import Certified, NotApplicable, kernel, nearest, shallow, trees
from calipers.certificates.polyhedron import distance_below, multipliers
from calipers.models import Classifier, OneVsOne, RbfScores, Trees, from_sklearn, linear
from calipers.runner.draws import Draws
from calipers.threats import Box, Threat, distance, sample

LP = ("linf", "l2", "l1")


def digits(classes: int, n: int = 300):
    x, y = load_digits(return_X_y=True)
    some = y < classes
    return x[some][:n] / 16, y[some][:n], torch.from_numpy(x[some][n : n + 12] / 16)


def fitted(estimator, classes: int):
    x, y, z = digits(classes)
    model = from_sklearn(estimator.fit(x, y), box=(0, 1))
    return model, z, model(z).argmax(1)


MODELS = {
    "tree": lambda: DecisionTreeClassifier(random_state=0),
    "forest": lambda: RandomForestClassifier(9, max_depth=5, random_state=0),
    "neighbour": lambda: KNeighborsClassifier(1),
    "kernel": lambda: SVC(gamma=0.2),
}


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("name", MODELS)
def test_the_module_says_what_scikit_learn_says(name, classes):
    x, y, z = digits(classes)
    estimator = MODELS[name]().fit(x, y)
    ours = from_sklearn(estimator, box=(0, 1))(z).argmax(1).numpy()
    assert (ours == estimator.predict(z.numpy())).all()


@pytest.mark.parametrize("norm", LP)
@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("name", MODELS)
def test_no_point_of_the_ball_is_answered_differently(name, classes, norm):
    model, z, y = fitted(MODELS[name](), classes)
    found = shallow(model, z, y, norm)
    assert isinstance(found, Certified)
    assert (found.radius > 0).sum() >= 8
    for step in range(20):
        draws = Draws(0, torch.arange(len(z)), step)
        inside = sample(z, found.radius.clamp_max(8), norm, model.box, draws)
        assert ((model(inside).argmax(1) == y) | (distance(z, inside, norm) > found.radius)).all()
    if name in ("neighbour", "kernel"):
        assert (found.radius <= fmn(model, z, y, Threat(norm), steps=40).distance).all()


@pytest.mark.parametrize("norm", [*LP, "l0"])
def test_a_tree_is_exact(norm):
    """Moving just into the nearest other leaf, found by brute force over the leaves, changes the answer."""
    x = np.random.default_rng(0).random((80, 3))
    y = (x[:, 0] > x[:, 1]).astype(int) + (x[:, 2] > 0.7)
    tree = DecisionTreeClassifier(random_state=0).fit(x, y)
    model = from_sklearn(tree, box=(0, 1))
    z = torch.from_numpy(np.random.default_rng(1).random((15, 3)))
    label = model(z).argmax(1)
    radius = trees(model, z, label, norm).radius
    # Every cell of the grid that all thresholds make, a point just inside each end of it.
    cuts = [sorted({0.0, 1.0, *tree.tree_.threshold[tree.tree_.feature == i]}) for i in range(3)]
    for row, own, r in zip(z, label, radius, strict=True):
        sides = []
        for value, cut in zip(row.tolist(), cuts, strict=True):
            near = [min(max(value, lo + 2e-7), hi - 2e-7) for lo, hi in pairwise(cut)]
            sides.append(torch.tensor(near, dtype=torch.float64))
        grid = torch.cartesian_prod(*sides)
        other = grid[model(grid).argmax(1) != own]
        exact = distance(row.expand_as(other), other, norm).min()
        # In L0 the radius is one coordinate less than the smallest number that suffices.
        assert float(r) == pytest.approx(float(exact) - (1 if norm == "l0" else 0), abs=2e-6)


@pytest.mark.parametrize("norm", LP)
def test_a_neighbour_is_exact_between_two_points_and_close_to_the_truth_among_many(norm):
    points, labels = np.array([[0.0, 0.0], [1.0, 0.5]]), [0, 1]
    model = from_sklearn(KNeighborsClassifier(1).fit(points, labels))
    z = torch.tensor([[0.1, 0.2]], dtype=torch.float64)
    # ⟨p, δ⟩ must reach half the difference of the squared distances.
    gap = ((z - torch.tensor(points[1])).square().sum() - z.square().sum()) / 2
    size = {"linf": 1.5, "l2": math.hypot(1, 0.5), "l1": 1.0}[norm]
    assert float(nearest(model, z, torch.tensor([0]), norm).radius) == pytest.approx(float(gap) / size, rel=1e-9)
    model, z, y = fitted(KNeighborsClassifier(1), 10)
    radius, upper = nearest(model, z, y, norm).radius, fmn(model, z, y, Threat(norm), steps=300).distance
    assert (radius <= upper).all()
    if norm == "l2":
        assert float((radius / upper).median()) > 0.97


def test_multipliers_meet_the_primal():
    generator = np.random.default_rng(0)
    for _ in range(5):
        rows, gap = generator.normal(size=(6, 3)), generator.normal(size=6) + 0.5
        found = distance_below(rows, gap, multipliers(rows, gap, "l2"), "l2")
        primal = minimize(
            lambda v: v @ v, np.ones(3), jac=lambda v: 2 * v,
            constraints={"type": "ineq", "fun": lambda v, a=rows, b=gap: a @ v - b}, options={"ftol": 1e-14},
        )  # fmt: skip
        if primal.success:
            assert found == pytest.approx(math.sqrt(primal.fun), rel=1e-4, abs=1e-6)
            for norm in LP:
                # Any multipliers prove something; nothing they prove is above a feasible point.
                loose = distance_below(rows, gap, generator.random(6), norm)
                tight = distance_below(rows, gap, multipliers(rows, gap, norm), norm)
                size = np.linalg.norm(primal.x, {"linf": np.inf, "l2": 2, "l1": 1}[norm])
                assert loose <= tight + 1e-9
                assert tight <= size * (1 + 1e-6)


def test_a_kernel_far_from_everything_keeps_its_answer_for_ever():
    model = from_sklearn(SVC(gamma=1.0).fit([[0.0], [1.0], [1.1]], [0, 1, 1]), box=Box(-100, 100))
    z = torch.tensor([[50.0]], dtype=torch.float64)
    radius = kernel(model, z, model(z).argmax(1), "linf").radius
    assert 10 < float(radius) < 50


def test_wrong_labels_ties_and_other_models():
    model, z, y = fitted(MODELS["tree"](), 10)
    assert (shallow(model, z, (y + 1) % 10, "l2").radius == 0).all()
    for name, norm in (("neighbour", "l0"), ("kernel", "l0")):
        other, points, labels = fitted(MODELS[name](), 2)
        with pytest.raises(NotApplicable, match="l0"):
            shallow(other, points, labels, norm)
    x, y, z = digits(2)
    scaled = from_sklearn(make_pipeline(StandardScaler(), KNeighborsClassifier(1)).fit(x, y))
    with pytest.raises(NotApplicable, match="Normalize"):
        shallow(scaled, z, torch.zeros(len(z), dtype=torch.int64), "l2")
    network = Classifier.of(nn.Flatten(), shape=(64,))
    with pytest.raises(NotApplicable, match="trees, one nearest neighbour, a Gaussian kernel machine or votes"):
        shallow(network, z, torch.zeros(len(z), dtype=torch.int64), "l2")
    three = from_sklearn(KNeighborsClassifier(3).fit(x, y))
    with pytest.raises(NotApplicable, match="got EstimatorModel"):
        shallow(three, z, torch.zeros(len(z), dtype=torch.int64), "l2")


def test_what_follows_a_kernel_must_be_the_vote_that_is_known():
    vectors, x, y = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).double(), torch.tensor([[0.1, 0.1]]), torch.tensor([1])
    one = RbfScores(vectors, torch.tensor([[1.0, 0.0]]).double(), torch.tensor([0.5]).double(), 1.0)
    two = RbfScores(vectors, torch.tensor([[2.0, 0.0], [1.0, 0.0]]).double(), torch.tensor([0.5, 0.5]).double(), 1.0)
    half = torch.tensor([[-0.5], [0.5]]).double()
    shifted = linear(half, torch.tensor([5.0, 0.0]).double())
    for net in (nn.Sequential(one, shifted), two, nn.Sequential(one, OneVsOne(2).double())):
        with pytest.raises(NotApplicable, match="with the vote of"):
            kernel(Classifier.of(net.eval(), shape=(2,)), x.double(), y, "l2")
    plain = linear(half, torch.zeros(2).double())
    assert kernel(Classifier.of(nn.Sequential(one, plain).eval(), shape=(2,)), x.double(), y, "l2").radius > 0


def test_a_forest_in_float32_is_one_whose_votes_can_be_rounded_together():
    """0.1 + 0.2 is 0.3 in float32, so that the first class wins where the sum says that the second one does."""
    feature = torch.tensor([[0, -1, -1], [-1, -1, -1], [-1, -1, -1]])
    left, right = torch.tensor([[1, 1, 2], [0, 0, 0], [0, 0, 0]]), torch.tensor([[2, 1, 2], [0, 0, 0], [0, 0, 0]])
    value = torch.zeros(3, 3, 2)
    value[0, 1], value[0, 2], value[1, 0] = torch.tensor([0.1, 0.3]), torch.tensor([0.0, 1.0]), torch.tensor([0.2, 0.0])
    model = Classifier.of(Trees(feature, torch.zeros(3, 3), left, right, value), shape=(1,), box=(-1.0, 1.0))
    x = torch.tensor([[0.5], [-0.5]])
    assert model(x).argmax(1).tolist() == [1, 0]
    assert trees(model, x[:1], torch.tensor([1]), "linf").radius <= 0.5


SCALED = {
    "pairs": lambda: SVC(kernel="linear"),
    "pairs scaled": lambda: make_pipeline(StandardScaler(), SVC(kernel="linear")),
    "kernel scaled": lambda: make_pipeline(StandardScaler(), SVC(gamma=0.002)),
    "trees scaled": lambda: make_pipeline(StandardScaler(), RandomForestClassifier(9, max_depth=5, random_state=0)),
}


@pytest.mark.parametrize("norm", LP)
@pytest.mark.parametrize("name", SCALED)
def test_behind_a_scaler_and_before_a_vote_no_point_of_the_ball_is_answered_differently(name, norm):
    x, y, z = digits(10)
    estimator = SCALED[name]().fit(x, y)
    model = from_sklearn(estimator, box=(0, 1))
    label = torch.from_numpy(estimator.predict(z.numpy()))
    found = shallow(model, z, label, norm)
    assert found.by == name.split()[0]
    assert (found.radius > 0).sum() >= 8
    for step in range(20):
        inside = sample(z, found.radius.clamp_max(8), norm, model.box, Draws(0, torch.arange(len(z)), step))
        same = torch.from_numpy(estimator.predict(inside.numpy())) == label
        assert (same | (distance(z, inside, norm) > found.radius)).all()
    if "trees" not in name:
        assert (found.radius <= fmn(model, z, label, Threat(norm), steps=40).distance).all()


def test_between_two_classes_of_a_linear_svc_the_radius_is_the_distance_to_their_plane():
    x, y, z = digits(10)
    estimator = SVC(kernel="linear").fit(x, y)
    model = from_sklearn(estimator)
    label = torch.from_numpy(estimator.predict(z.numpy()))
    first, second = np.triu_indices(10, 1)
    scores = z.numpy() @ estimator.coef_.T + estimator.intercept_
    for norm, order in (("l2", 2), ("linf", 1), ("l1", np.inf)):
        away = np.abs(scores) / np.linalg.norm(estimator.coef_, order, axis=1)
        mine = (first == label.numpy()[:, None]) | (second == label.numpy()[:, None])
        lost = np.where(first == label.numpy()[:, None], scores < 0, scores > 0) & mine
        exact = np.where(lost.any(1), 0.0, np.where(mine, away, np.inf).min(1))
        np.testing.assert_allclose(shallow(model, z, label, norm).radius.numpy(), exact, rtol=1e-9)
