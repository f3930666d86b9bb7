"""Identities of the tilting paper, on random data; bad input."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from calipers.errors import BadInput
from calipers.geometry import (
    Hyperplane,
    local_linear,
    nearest_centroid,
    scaled_loss,
    tilt,
    tilting_plane,
)
from calipers.models import Classifier, linear


def _random(seed: int, n: int = 30, d: int = 5, share: float = 0.5):
    rng = np.random.default_rng(seed)
    y = np.where(np.arange(n) < share * n, -1.0, 1.0)
    return rng.normal(size=(n, d)) + 0.5 * y[:, None], y, Hyperplane(rng.normal(size=d), float(rng.normal()))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.sampled_from([0.2, 0.5, 0.9]))
def test_identity_holds_for_balanced_classes_and_class_balanced_means(seed: int, share: float) -> None:
    x, y, plane = _random(seed, share=share)
    found = tilt(plane, x, y)
    assert found.identity == pytest.approx(found.half * np.cos(found.theta), abs=1e-12)
    assert plane.adversarial_distance(x, y, balanced=True) == pytest.approx(found.identity, abs=1e-12)
    ni, nj = (y < 0).sum(), (y > 0).sum()
    i, j = x[y < 0].mean(0), x[y > 0].mean(0)
    general = (plane.unit @ (nj * j - ni * i) + plane.bias / plane.norm * (nj - ni)) / len(y)
    assert found.adversarial_distance == pytest.approx(general, abs=1e-12)
    assert (abs(found.adversarial_distance - found.identity) < 1e-12) == (share == 0.5)
    assert found.half >= found.identity


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_projection_and_mirror(seed: int) -> None:
    x, _, plane = _random(seed)
    assert plane.score(x) == pytest.approx(plane.norm * plane.distance(x))
    assert plane.score(plane.project(x)) == pytest.approx(0, abs=1e-10)
    assert plane.score(plane.mirror(x)) == pytest.approx(-plane.score(x), abs=1e-10)
    assert plane.mirror(plane.mirror(x)) == pytest.approx(x, abs=1e-10)
    assert np.linalg.norm(x - plane.project(x), axis=1) == pytest.approx(np.abs(plane.distance(x)), abs=1e-10)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_tilting_plane_is_orthonormal_and_contains_w(seed: int) -> None:
    x, y, plane = _random(seed)
    found = tilting_plane(plane, x, y)
    basis = np.stack([found.z, found.n])
    assert basis @ basis.T == pytest.approx(np.eye(2), abs=1e-12)
    assert plane.weight @ basis.T @ basis == pytest.approx(plane.weight, abs=1e-10)
    a, b, c = found.boundary
    flat = found.project(x)
    assert flat @ (a, b) + c == pytest.approx(plane.score(x), abs=1e-10)


def test_a_plane_that_is_not_tilted() -> None:
    x, y, _ = _random(0)
    centroid = nearest_centroid(x, y)
    same = Hyperplane(3 * centroid.weight, 1.0)
    assert tilt(same, x, y).theta < 1e-15
    found = tilting_plane(same, x, y)
    assert abs(found.n @ found.z) < 1e-12
    assert found.boundary[1] == pytest.approx(0, abs=1e-12)
    assert centroid.score(np.stack([x[y < 0].mean(0), x[y > 0].mean(0)])) == pytest.approx(
        np.array([-1, 1]) * centroid.norm**2 / 2
    )


@pytest.mark.parametrize("loss", ["hinge", "softplus"])
def test_the_two_limits_of_the_scaled_losses(loss) -> None:
    x, y, plane = _random(3)
    z = y * plane.distance(x)
    alpha, beta = {"hinge": (1.0, 1.0), "softplus": (np.log(2), 0.5)}[loss]
    for scale in (1e4, 1e6):
        assert scaled_loss(loss, z, scale).mean() / scale == pytest.approx(plane.error_distance(x, y), abs=2 / scale)
    for scale in (1e-3, 1e-5):
        assert ((alpha - scaled_loss(loss, z, scale)) / scale).mean() == pytest.approx(
            beta * plane.adversarial_distance(x, y), abs=20 * scale
        )


def test_zero_one_does_not_depend_on_the_scale_and_counts_the_boundary() -> None:
    z = np.array([-1.0, 0.0, 2.0])
    assert scaled_loss("zero-one", z, 1e-6).tolist() == scaled_loss("zero-one", z, 1e6).tolist() == [1, 1, 0]
    assert np.isfinite(scaled_loss("softplus", z, 1e6)).all()


def test_all_data_on_the_boundary_has_no_error_distance_and_every_error() -> None:
    found = tilt(Hyperplane([0.0, 1.0], 0.0), [[0.0, 0.0], [1.0, 0.0]], [-1, 1])
    assert (found.error_distance, found.error) == (0, 1)


@pytest.mark.parametrize("estimator", [
    LogisticRegression(), LinearSVC(), SGDClassifier(random_state=0), RidgeClassifier(), LinearDiscriminantAnalysis(),
    make_pipeline(StandardScaler(), LogisticRegression()), make_pipeline(MinMaxScaler(), LinearSVC()),
], ids=lambda made: type(made).__name__ if not hasattr(made, "steps") else made.steps[0][0])  # fmt: skip
def test_any_linear_estimator_and_any_two_of_its_classes(estimator) -> None:
    x, y, _ = _random(5)
    plane = Hyperplane.of(estimator.fit(x, y))
    assert plane.score(x) == pytest.approx(estimator.decision_function(x), abs=1e-9)
    scores = estimator.fit(x, np.arange(30) % 3).decision_function(x)
    plane = Hyperplane.of(estimator, (2, 0))
    assert plane.score(x) == pytest.approx(scores[:, 0] - scores[:, 2], abs=1e-9)


def test_a_linear_svc_of_two_classes_is_affine_and_votes_over_pairs_are_not() -> None:
    x, y, _ = _random(5)
    estimator = SVC(kernel="linear").fit(x, y)
    assert Hyperplane.of(estimator).score(x) == pytest.approx(estimator.decision_function(x), abs=1e-9)
    with pytest.raises(BadInput, match="expected an affine classifier"):
        Hyperplane.of(SVC(kernel="linear").fit(x, np.arange(30) % 3), (0, 1))


def test_not_affine_is_refused() -> None:
    x, y, _ = _random(6, n=60)
    with pytest.raises(BadInput, match="expected an affine classifier"):
        Hyperplane.of(MLPClassifier(4, max_iter=2000, tol=1e-2, random_state=0).fit(x, y))
    with pytest.raises(BadInput, match="SVC: expected an affine classifier"):
        Hyperplane.of(SVC(kernel="rbf").fit(x, y))
    with pytest.raises(BadInput, match="weights cannot be read"):
        Hyperplane.of(DecisionTreeClassifier().fit(x, y))
    three = LogisticRegression().fit(x, np.arange(60) % 3)
    with pytest.raises(BadInput, match=r"two classes, got 3; classes=\(k, l\)"):
        Hyperplane.of(three)
    with pytest.raises(BadInput, match="two different ones of 0…2, got 0 and 3"):
        Hyperplane.of(three, (0, 3))
    with pytest.raises(BadInput, match="expected a Classifier, got Linear"):
        Hyperplane.of(torch.nn.Linear(5, 2))
    with pytest.raises(BadInput, match="the class LinearSVC"):
        Hyperplane.of(LinearSVC)


def test_a_network_whose_corners_are_far_from_the_origin_is_not_affine() -> None:
    # On [-3, 3] every unit is on: nothing tried there would tell it from an affine classifier.
    net = torch.nn.Sequential(linear(torch.eye(2), torch.full((2,), 1e6)), torch.nn.ReLU(), torch.nn.Linear(2, 2))
    with pytest.raises(BadInput, match="expected an affine classifier"):
        Hyperplane.of(Classifier.of(net.eval(), shape=(2,), box=(-torch.inf, torch.inf)))


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Hyperplane([0.0, 0.0], 1.0), "no boundary"),
    (lambda: Hyperplane([np.nan, 0.0], 1.0), "finite weight"),
    (lambda: Hyperplane([[1.0, 0.0]], [1.0]), "of coef_ and intercept_ take row 0"),
    (lambda: Hyperplane([1e-200, 0.0], 1.0), "1e-150"),
    (lambda: Hyperplane(["a"], 1.0), "weight: expected real numbers"),
    (lambda: Hyperplane([1.0, 0.0], 1.0).score([[1.0]]), "expected 2 features, got 1"),
    (lambda: tilt(Hyperplane([1.0, 0.0], 0.0), [[1.0], [2.0]], [-1, 1]), "expected 2 features, got 1"),
    (lambda: tilting_plane(Hyperplane([1.0, 0.0], 0.0), [[1.0], [2.0]], [-1, 1]), "expected 2 features, got 1"),
    (lambda: tilt(Hyperplane([1.0], 0.0), csr_matrix([[1.0], [2.0]]), [-1, 1]), "call .toarray()"),
    (lambda: tilt(Hyperplane([1.0], 0.0), [[1.0], [2.0, 3.0]], [-1, 1]), "the same count in every row"),
    (lambda: tilt(Hyperplane([1.0], 0.0), [[1.0], [2.0]], ["a", "b"]), "labels: expected -1 or \\+1, got a"),
    (lambda: nearest_centroid([[1.0], [1.0]], [-1, 1]), "two different centroids"),
    (lambda: nearest_centroid([[1.0], [2.0]], [1, 1]), "none with label -1"),
    (lambda: tilt(Hyperplane([1.0], 0.0), [[1.0], [np.inf]], [-1, 1]), "row 1 of x"),
    (lambda: tilting_plane(Hyperplane([1.0], 0.0), [[1.0], [2.0]], [-1, 1]), "two features"),
    (lambda: scaled_loss("hing", [0.0]), "did you mean 'hinge'"),  # type: ignore[arg-type]
    (lambda: scaled_loss("hinge", [0.0], 0.0), "scale: expected"),
])  # fmt: skip
def test_bad_input(make, message) -> None:
    with pytest.raises(BadInput, match=message):
        make()


def test_local_linear_is_exact_on_affine_models_and_multi_class() -> None:
    generator = torch.Generator().manual_seed(0)
    W, b = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((4, 6), (4,)))
    model = Classifier.of(torch.nn.Sequential(linear(W, b)).eval(), shape=(6,))
    x = torch.rand(20, 6, generator=generator, dtype=torch.float64)
    found, logits = local_linear(model, x), model(x).detach()
    top = logits.argmax(1)
    every = (logits.max(1).values[:, None] - logits) / (W[top][:, None] - W).norm(dim=2)
    every[torch.arange(20), top] = torch.inf
    assert torch.allclose(found.distance, every.min(1).values)
    assert torch.equal(found.rival, every.argmin(1))
    assert torch.allclose(found.score, found.gradient.norm(dim=1) * found.distance)
    for i, c, j in zip(range(20), top.tolist(), found.rival.tolist(), strict=True):
        same = Hyperplane.of(model, (j, c))
        assert found.plane(i).weight == pytest.approx(same.weight)
        assert found.plane(i).bias == pytest.approx(same.bias)
    with pytest.raises(BadInput, match="examples of shape"):
        local_linear(model, x[:, :3])
    with pytest.raises(BadInput, match="expected a Classifier, got Sequential"):
        local_linear(model.module, x)  # type: ignore[arg-type]


def test_local_linear_of_a_relu_network_is_exact_inside_its_region_and_honest_where_flat() -> None:
    same = linear(torch.eye(2).double(), torch.zeros(2).double())
    net = torch.nn.Sequential(same, torch.nn.ReLU(), same)
    model = Classifier.of(net.eval(), shape=(2,), box=(-2.0, 2.0))
    found = local_linear(model, torch.tensor([[1.0, 0.5], [-1.0, -1.0]], dtype=torch.float64), torch.tensor([0, 0]))
    assert found.distance.tolist() == pytest.approx([0.5 / 2**0.5, 0.0])
    assert found.plane(0).project([[1.0, 0.5]])[0] == pytest.approx([0.75, 0.75])
    with pytest.raises(BadInput, match="there is no boundary"):
        found.plane(1)
