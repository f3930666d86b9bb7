"""The torch module computes what the scikit-learn estimator computes."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import (
    LogisticRegression,
    LogisticRegressionCV,
    Perceptron,
    RidgeClassifier,
    RidgeClassifierCV,
    SGDClassifier,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.svm import SVC, LinearSVC, NuSVC
from torch import nn

from calipers.errors import BadInput
from calipers.models import Normalize, OneVsOne, from_sklearn
from calipers.threats import Box

LINEAR = [
    LogisticRegression(),
    LogisticRegression(fit_intercept=False),
    LogisticRegressionCV(Cs=2, cv=3),
    RidgeClassifier(),
    RidgeClassifierCV(),
    SGDClassifier(random_state=0),
    Perceptron(random_state=0),
    LinearSVC(),
    LinearSVC(multi_class="crammer_singer", random_state=0),
    LinearSVC(fit_intercept=False),
    LinearDiscriminantAnalysis(),
    LinearDiscriminantAnalysis(solver="lsqr"),
]
SVMS = [
    SVC(kernel="linear"),
    SVC(kernel="linear", decision_function_shape="ovo"),
    SVC(kernel="linear", break_ties=True),
    NuSVC(kernel="linear", nu=0.3),
]
SCALERS = [
    StandardScaler(),
    StandardScaler(with_mean=False),
    StandardScaler(with_std=False),
    MinMaxScaler(),
    MinMaxScaler(feature_range=(-1, 3)),
    MaxAbsScaler(),
    RobustScaler(),
    RobustScaler(with_centering=False, with_scaling=False),
]


def quiet_fit(estimator, x, y):
    with warnings.catch_warnings():
        # How well it converges, or what scikit-learn will call it next year, is not the question here.
        warnings.simplefilter("ignore")
        return estimator.fit(x, y)


def points(n=90, d=5, classes=3, seed=0):
    """Overlapping clouds, off centre and of very different scales, with labels that are words."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = (rng.normal(size=(n, d)) + rng.normal(size=(classes, d))[y]) * 10.0 ** np.arange(-1, d - 1) * 0.1 + 2
    return x, np.array(["ash", "birch", "cedar", "dogwood", "elm"])[y]


def scores(model, x):
    with torch.no_grad():
        if isinstance(model.module[-1], OneVsOne):
            # What decision_function reports breaks ties, whatever predict does.
            return OneVsOne(model.classes).double()(model.module[:-1](torch.from_numpy(x))).numpy()
        logits = model(torch.from_numpy(x)).numpy()
    return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits


def assert_same(estimator, x, *, ovo=False):
    model = from_sklearn(estimator)
    expected = estimator.decision_function(x)
    if ovo:
        expected = OneVsOne(len(estimator.classes_)).double()(torch.from_numpy(expected)).numpy()
    np.testing.assert_allclose(scores(model, x), expected, rtol=1e-6, atol=1e-6)
    return model


def predicted(model, x):
    with torch.no_grad():
        return np.array(model.class_names)[model(torch.from_numpy(x)).argmax(1).numpy()]


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("estimator", LINEAR, ids=repr)
def test_linear_classifiers_are_one_affine_layer(estimator, classes):
    x, y = points(classes=classes)
    model = assert_same(quiet_fit(estimator, x, y), np.concatenate([x, 3 * x[::-1]]))
    assert [type(layer) for layer in model.module] == [nn.Flatten, nn.Linear]
    assert (model.shape, model.classes, model.dtype) == ((5,), classes, torch.float64)
    assert not model.box.bounded
    assert predicted(model, x).tolist() == estimator.predict(x).tolist()


def test_passive_aggressive_where_scikit_learn_has_it():
    linear_model = pytest.importorskip("sklearn.linear_model")
    if not hasattr(linear_model, "PassiveAggressiveClassifier"):
        pytest.skip("gone from this scikit-learn")
    x, y = points()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        estimator = linear_model.PassiveAggressiveClassifier(random_state=0).fit(x, y)
    assert_same(estimator, x)


@pytest.mark.parametrize("estimator", SVMS, ids=repr)
def test_binary_svms_are_affine(estimator):
    x, y = points(classes=2)
    x = (x - x.mean(0)) / x.std(0)
    model = assert_same(quiet_fit(estimator, x, y), x)
    assert [type(layer) for layer in model.module] == [nn.Flatten, nn.Linear]
    assert predicted(model, x).tolist() == estimator.predict(x).tolist()


@pytest.mark.parametrize("classes", [3, 5])
@pytest.mark.parametrize("estimator", SVMS, ids=repr)
def test_svms_of_many_classes_vote(estimator, classes):
    x, y = points(classes=classes)
    x = (x - x.mean(0)) / x.std(0)
    quiet_fit(estimator, x, y)
    wide = np.random.default_rng(1).uniform(x.min(0), x.max(0), (2000, x.shape[1]))
    model = assert_same(estimator, wide, ovo=estimator.decision_function_shape == "ovo")
    with torch.no_grad():
        votes = model(torch.from_numpy(wide)).round().sort(1).values
    untied = (votes[:, -1] > votes[:, -2]).numpy() | estimator.break_ties
    assert untied.mean() > 0.5
    assert predicted(model, wide)[untied].tolist() == estimator.predict(wide)[untied].tolist()


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
@pytest.mark.parametrize("hidden", [(), (7,), (6, 4)], ids=str)
def test_mlp_logits_are_what_the_softmax_is_applied_to(activation, classes, hidden):
    x, y = points(classes=classes)
    x = (x - x.mean(0)) / x.std(0)
    estimator = quiet_fit(MLPClassifier(hidden, activation=activation, max_iter=30, random_state=0), x, y)
    model = from_sklearn(estimator)
    with torch.no_grad():
        log_odds = model(torch.from_numpy(x)).log_softmax(1).numpy()
    np.testing.assert_allclose(log_odds, estimator.predict_log_proba(x), rtol=1e-6, atol=1e-6)
    assert predicted(model, x).tolist() == estimator.predict(x).tolist()


@pytest.mark.parametrize("scaler", SCALERS, ids=repr)
@pytest.mark.parametrize("final", [LogisticRegression(), SVC(kernel="linear")], ids=repr)
def test_a_scaler_is_a_normalize_inside_the_module(scaler, final):
    x, y = points()
    model = assert_same(quiet_fit(make_pipeline(scaler, final), x, y), x)
    assert isinstance(model.module[1], Normalize)
    assert model.shape == (5,)


def test_scalers_in_a_row_and_nested_pipelines_become_one_normalize():
    x, y = points()
    inner = make_pipeline(MinMaxScaler((1, 2)), "passthrough", RobustScaler())
    pipeline = make_pipeline(StandardScaler(), inner, make_pipeline(MaxAbsScaler(), LogisticRegression()))
    model = assert_same(quiet_fit(pipeline, x, y), x)
    assert [type(layer) for layer in model.module] == [nn.Flatten, Normalize, nn.Linear]


def test_the_single_score_of_two_classes_is_split_evenly():
    x, y = points(classes=2)
    estimator = quiet_fit(LogisticRegression(), x, y)
    layer = from_sklearn(estimator).module[-1]
    assert np.array_equal(layer.weight.detach()[1].numpy() * 2, estimator.coef_[0])
    assert torch.equal(layer.weight[0], -layer.weight[1])


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 7), st.integers(0, 10_000))
def test_votes_are_those_of_scikit_learn(classes, seed):
    from sklearn.utils.multiclass import _ovr_decision_function

    pairs = np.random.default_rng(seed).normal(size=(20, classes * (classes - 1) // 2))
    pairs[0, 0] = 0.0
    expected = _ovr_decision_function(pairs < 0, -pairs, classes)
    ours = OneVsOne(classes).double()(torch.from_numpy(pairs)).numpy()
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12)


def test_the_callers_random_numbers_box_and_names_are_respected():
    x, y = points()
    estimator = quiet_fit(LogisticRegression(), x, y)
    before, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    model = from_sklearn(estimator, box=(0, 20), name="trees", class_names=("a", "b", "c"))
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpys).all()  # noqa: NPY002
    assert (repr(model.box), model.name, model.class_names) == (repr(Box(0, 20)), "trees", ("a", "b", "c"))
    assert from_sklearn(estimator).class_names == ("ash", "birch", "cedar")
    assert not any(part.training for part in model.module.modules())


def test_data_frames_and_float32_fits_are_no_obstacle():
    pandas = pytest.importorskip("pandas")
    x, y = points()
    assert from_sklearn(quiet_fit(LogisticRegression(), pandas.DataFrame(x, columns=list("abcde")), y)).classes == 3
    estimator = quiet_fit(MLPClassifier((4,), max_iter=5, random_state=0), x.astype(np.float32), y)
    assert from_sklearn(estimator).dtype == torch.float64


class Louder(LogisticRegression):
    def decision_function(self, X):
        return 2 * super().decision_function(X)


class Renamed(LogisticRegression):
    pass


class Stranger(BaseEstimator):
    pass


def test_a_subclass_must_compute_what_its_parent_computes():
    x, y = points()
    assert from_sklearn(quiet_fit(Renamed(), x, y)).name == "Renamed"
    with pytest.raises(BadInput, match="Louder in torch: expected the function that the estimator computes"):
        from_sklearn(quiet_fit(Louder(), x, y))


def refused(case):
    x, y = points()
    many = np.eye(3, dtype=int)[np.arange(90) % 3]
    one_class = quiet_fit(LogisticRegression(), x, y)
    one_class.classes_ = one_class.classes_[:1]
    return {
        "stranger": Stranger,
        "scaler alone": lambda: StandardScaler().fit(x),
        "unfitted": LogisticRegression,
        "unfitted pipeline": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
        "sparse": lambda: quiet_fit(LogisticRegression(), x, y).sparsify(),
        "sparse svc": lambda: SVC(kernel="linear").fit(csr_array(x), y),
        "multi-label mlp": lambda: quiet_fit(MLPClassifier((3,), max_iter=2), x, many),
        "multi-label ridge": lambda: RidgeClassifier().fit(x, many),
        "one class": lambda: one_class,
        "clip": lambda: quiet_fit(make_pipeline(MinMaxScaler(clip=True), LogisticRegression()), x, y),
    }[case]()


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ("stranger", "got Stranger"),
        ("scaler alone", "got StandardScaler"),
        ("unfitted", "LogisticRegression: expected a fitted estimator"),
        ("unfitted pipeline", "expected a fitted estimator"),
        ("sparse", "weights of LogisticRegression: expected a dense array"),
        ("sparse svc", "weights of SVC: expected a dense array"),
        ("multi-label mlp", "labels of MLPClassifier: expected one label for each example"),
        ("multi-label ridge", "labels of RidgeClassifier: expected one label for each example"),
        ("one class", "classes of LogisticRegression: expected at least two, got 1"),
        ("clip", "MinMaxScaler: expected clip=False"),
    ],
)
def test_what_cannot_be_converted_is_named(case, sentence):
    with pytest.raises(BadInput, match=sentence):
        from_sklearn(refused(case))


def test_class_names_must_be_as_many_as_classes():
    x, y = points()
    with pytest.raises(BadInput, match="class names of LogisticRegression: expected 3 names, got 1"):
        from_sklearn(quiet_fit(LogisticRegression(), x, y), class_names=["only"])


@pytest.mark.parametrize("options", [{"kernel": "linear"}, {"kernel": "linear", "break_ties": True}, {}], ids=str)
def test_an_svc_answers_as_predict_does_also_where_votes_are_tied(options):
    x, y = load_digits(return_X_y=True)
    x = x / 16
    estimator = SVC(**options).fit(x[:180], y[:180])
    points = np.concatenate([x[180:], np.random.default_rng(0).random((2000, 64))])
    pairs = SVC(**options | {"decision_function_shape": "ovo", "break_ties": False}).fit(x[:180], y[:180])
    votes = np.stack([(pairs.decision_function(points)[:, mine] * side > 0).sum(1) for mine, side in sides(10)], 1)
    assert (np.sort(votes, 1)[:, -1] == np.sort(votes, 1)[:, -2]).any()
    assert (from_sklearn(estimator)(torch.from_numpy(points)).argmax(1).numpy() == estimator.predict(points)).all()


def sides(classes):
    """Which pairs a class is in, and with which sign their score speaks for it."""
    first, second = np.triu_indices(classes, 1)
    for k in range(classes):
        mine = np.flatnonzero((first == k) | (second == k))
        yield mine, np.where(first[mine] == k, 1, -1)


def test_the_gradient_of_a_vote_says_which_is_the_easiest_to_turn():
    scores = torch.tensor([[0.1, 5.0, -1.0]], dtype=torch.float64, requires_grad=True)
    logits = OneVsOne(3).double()(scores)
    (grad,) = torch.autograd.grad((logits[0, 1] + logits[0, 2] - 2 * logits[0, 0]), scores)
    assert grad[0, 0] < grad[0, 1] < 0


@pytest.mark.parametrize("trees", [20, 100])
def test_a_forest_answers_as_predict_does_also_where_votes_are_tied(trees):
    x, y = load_digits(return_X_y=True)
    estimator = RandomForestClassifier(trees, random_state=0).fit(x[:900], y[:900])
    points = np.concatenate([x[900:], np.random.default_rng(0).uniform(0, 16, (2000, 64))])
    assert (from_sklearn(estimator)(torch.from_numpy(points)).argmax(1).numpy() == estimator.predict(points)).all()


def test_a_neighbour_of_another_metric_or_without_one_class_is_called_as_it_is():
    x = np.random.default_rng(0).normal(size=(10, 2))
    y = np.arange(10) % 2
    weighed = {"metric": "minkowski", "p": 2, "metric_params": {"w": np.array([1.0, 1.15])}, "algorithm": "brute"}
    twice, both = np.concatenate([x, x[:1]]), np.append(y, 1 - y[0])
    for estimator in (KNeighborsClassifier(1, **weighed).fit(x, y), KNeighborsClassifier(1).fit(twice, both)):
        assert type(from_sklearn(estimator).module).__name__ == "EstimatorModel"
    same = from_sklearn(KNeighborsClassifier(1).fit(twice, np.append(y, y[0])))
    assert type(same.module[1]).__name__ == "NearestNeighbour"


@pytest.mark.parametrize("step", [PCA(5), PCA(5, whiten=True), TruncatedSVD(4)], ids=str)
@pytest.mark.parametrize("final", [LogisticRegression(max_iter=500), SVC(kernel="linear"), SVC()], ids=str)
def test_a_projection_is_a_matrix(step, final):
    x, y = load_digits(return_X_y=True)
    pipeline = quiet_fit(make_pipeline(StandardScaler(), step, MinMaxScaler(), final), x[:300], y[:300])
    model = from_sklearn(pipeline)
    assert model.shape == (64,)
    assert (model(torch.from_numpy(x[300:])).argmax(1).numpy() == pipeline.predict(x[300:])).all()
    if isinstance(final, LogisticRegression):
        np.testing.assert_allclose(scores(model, x), pipeline.decision_function(x), rtol=1e-6, atol=1e-6)
