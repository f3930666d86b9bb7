"""scikit-learn's classifiers: those that can be written down as the same function in torch, others as they are."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from calipers.errors import BadInput
from calipers.models.blackbox import EstimatorModel
from calipers.models.classifier import Classifier
from calipers.models.layers import Normalize, OneVsOne, linear
from calipers.models.shallow import NearestNeighbour, RbfScores, Trees
from calipers.threats import Box

__all__ = ["from_sklearn"]


def from_sklearn(
    estimator: Any,
    *,
    box: Box | tuple[float, float] | None = None,
    name: str | None = None,
    class_names: Sequence[str] | None = None,
) -> Classifier:
    r"""A fitted scikit-learn classifier as the same function in float64 torch.

    Supported are the linear classifiers (LogisticRegression, RidgeClassifier, SGDClassifier, Perceptron,
    PassiveAggressiveClassifier, LinearSVC, LinearDiscriminantAnalysis and their CV forms), SVC and NuSVC with a
    linear or Gaussian kernel, MLPClassifier, decision trees and forests, one nearest neighbour, and pipelines of these
    behind StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler, PCA and TruncatedSVD. The module is
    ``Sequential(Flatten, [Normalize], Linear)`` for affine models; more ``Linear`` and activations follow for an MLP.
    Scalers in a row are one ``Normalize``; PCA and SVD are a ``Linear``.

    With two classes scikit-learn has one score f, and the logits are (−f/2, f/2): their difference is f, halving is
    exact in floating point, and both rows being short keeps bounds from operator norms tight. An MLP's logits are
    what its softmax or logistic function is applied to. With K ≥ 3 classes an SVC votes over pairs of classes, and
    :class:`OneVsOne` answers as its ``predict`` does, with and without ``break_ties``.

    The result is compared with the estimator on a few points before it is handed out.

    Every other classifier (boosting, other kernels and neighbours, other pipelines) is called as it is: its
    decision function, else its probabilities, else its labels, without gradients, see :class:`EstimatorModel`.

    Arguments:
        estimator: a fitted classifier, or a pipeline that ends in one.
        box: the values an input may take; (−∞, ∞) unless given.
        name: what to call it; the estimator's type unless given.
        class_names: K names; ``estimator.classes_`` as text unless given. Labels are positions in ``classes_``.

    Returns:
        a Classifier of inputs of shape (n_features_in_,), dtype float64.

    Raises:
        BadInput: for an estimator that is no classifier, not fitted, multi-label, of one class, or sparse.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> fitted = LogisticRegression().fit([[0.0], [1.0]], ["no", "yes"])
        >>> model = from_sklearn(fitted)
        >>> model.shape, model.class_names, model.module
        ((1,), ('no', 'yes'), Sequential(
          (0): Flatten(start_dim=1, end_dim=-1)
          (1): Linear(in_features=1, out_features=2, bias=True)
        ))
    """
    *scalers, final = list(_parts(estimator)) or [estimator]
    if isinstance(final, type) or not hasattr(final, "predict"):
        got = f"the class {final.__name__}, not a fitted one" if isinstance(final, type) else type(final).__name__
        raise BadInput("scikit-learn model", expected="a classifier", got=got)
    for part in (*scalers, final):
        _check_fitted(part)
    if not hasattr(final, "classes_"):
        raise BadInput("scikit-learn model", expected="a classifier", got=type(final).__name__)
    names = _class_names(final, class_names)
    if not _has_torch_form(scalers, final):
        return _as_it_is(estimator, box, name, names)
    head = _HEADS[str(_known(final, _HEADS))](final, len(names))
    module = nn.Sequential(nn.Flatten(), *_preprocessing(scalers), *head).double().eval()
    _check_same_function(module, estimator, final, _features(scalers, final))
    return Classifier.of(
        module,
        shape=(_features(scalers, final),),
        box=box if box is not None else Box(-torch.inf, torch.inf),
        name=name or type(final).__name__,
        class_names=names,
        origin="scikit-learn: " + " → ".join(type(part).__name__ for part in (*scalers, final)),
    )


def _has_torch_form(scalers: Sequence[Any], final: Any) -> bool:
    """Whether every part is one of those that this file writes in torch."""
    kernel = getattr(final, "kernel", "linear") in ("linear", "rbf")
    neighbour = type(final).__name__ != "KNeighborsClassifier" or _is_one_euclidean_neighbour(final)
    return (
        bool(_known(final, _HEADS))
        and kernel
        and neighbour
        and all(_known(part, _SCALERS | _MATRICES) for part in scalers)
    )


def _is_one_euclidean_neighbour(final: Any) -> bool:
    """Whether it is the class of the nearest point, and there is one: equal points with two classes have none."""
    metric, more = final.effective_metric_, final.effective_metric_params_
    euclidean = metric == "euclidean" or (metric == "minkowski" and more.get("p") == 2)
    if final.n_neighbors != 1 or not euclidean or more.get("w") is not None or not isinstance(final._fit_X, np.ndarray):
        return False
    known: dict[bytes, int] = {}
    # Adding 0 makes −0 the same bytes as 0.
    rows = zip(final._fit_X + 0.0, final._y.tolist(), strict=True)
    return all(known.setdefault(row.tobytes(), label) == label for row, label in rows)


def _as_it_is(
    estimator: Any, box: Box | tuple[float, float] | None, name: str | None, names: tuple[str, ...]
) -> Classifier:
    """The estimator called as the user calls it, in float64, without gradients."""
    model = Classifier.of(
        EstimatorModel(estimator).eval(),
        shape=(int(estimator.n_features_in_),),
        box=box if box is not None else Box(-torch.inf, torch.inf),
        name=name or type(estimator).__name__,
        class_names=names,
        origin=f"scikit-learn: {type(estimator).__name__}, called as it is",
    )
    return replace(model, dtype=torch.float64)


def _parts(estimator: Any) -> Iterator[Any]:
    """The steps of a pipeline of pipelines, in order, without those that do nothing."""
    if type(estimator).__name__ != "Pipeline" or not hasattr(estimator, "steps"):
        yield estimator
        return
    for _, step in estimator.steps:
        if step is not None and step != "passthrough":
            yield from _parts(step)


def _known(part: Any, known: dict[str, Any]) -> str | None:
    """The scikit-learn type that ``part`` is, or descends from; its behaviour is checked later."""
    for kind in type(part).__mro__:
        if kind.__name__ in known and kind.__module__.startswith("sklearn."):
            return kind.__name__
    return None


def _check_fitted(part: Any) -> None:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(part)
    except NotFittedError:
        name = type(part).__name__
        raise BadInput(name, expected="a fitted estimator", got="one that is not fitted", hint="fit it first") from None


def _class_names(final: Any, given: Sequence[str] | None) -> tuple[str, ...]:
    name = type(final).__name__
    binarizer = getattr(final, "_label_binarizer", None)
    if isinstance(final.classes_, list) or getattr(binarizer, "y_type_", "").startswith("multilabel"):
        raise BadInput(f"labels of {name}", expected="one label for each example", got="a multi-label model")
    classes = tuple(str(label) for label in final.classes_)
    if len(classes) < 2:
        raise BadInput(f"classes of {name}", expected="at least two", got=len(classes))
    if given is not None and len(given) != len(classes):
        raise BadInput(f"class names of {name}", expected=f"{len(classes)} names", got=len(given))
    return tuple(given) if given is not None else classes


def _tensor(array: Any) -> Tensor:
    return torch.as_tensor(np.array(array, dtype=np.float64))


def _features(scalers: Sequence[Any], final: Any) -> int:
    """How many numbers the first of them takes."""
    return int([*scalers, final][0].n_features_in_)


def _preprocessing(steps: Sequence[Any]) -> list[nn.Module]:
    """A Normalize for all scalers in a row, a Linear for a matrix."""
    modules: list[nn.Module] = []
    for scales, group in itertools.groupby(steps, lambda step: _known(step, _MATRICES) is None):
        parts = list(group)
        modules += [_normalize(parts)] if scales else [_MATRICES[str(_known(part, _MATRICES))](part) for part in parts]
    return modules


def _normalize(scalers: Sequence[Any]) -> Normalize:
    """All as one: ((x − m₁)/s₁ − m₂)/s₂ = (x − (m₁ + m₂s₁)) / (s₁s₂)."""
    size = int(scalers[0].n_features_in_)
    mean, std = torch.zeros(size, dtype=torch.float64), torch.ones(size, dtype=torch.float64)
    for scaler in scalers:
        kind = str(_known(scaler, _SCALERS))
        if getattr(scaler, "clip", False):
            raise BadInput(kind, expected="clip=False", got="clip=True", hint="state the box instead of clipping")
        shift, scale = (_tensor(part).expand(size) for part in _SCALERS[kind](scaler))
        mean, std = mean + shift * std, std * scale
    return Normalize(mean, std)


def _pca(step: Any) -> nn.Module:
    """x → (x − mean) @ componentsᵀ, divided by the components' deviations where they are whitened."""
    rows = _tensor(step.components_)
    if step.whiten:
        rows = rows / _tensor(step.explained_variance_).sqrt().clamp_min(np.finfo(np.float64).eps)[:, None]
    return linear(rows, -(rows @ _tensor(step.mean_)))


# Steps that are a matrix, as a Linear.
_MATRICES: dict[str, Callable[[Any], nn.Module]] = {
    "PCA": _pca,
    "TruncatedSVD": lambda s: linear(_tensor(s.components_), torch.zeros(len(s.components_), dtype=torch.float64)),
}

# What each scaler does, as (mean, std): x → (x − mean) / std.
_SCALERS: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "StandardScaler": lambda s: (s.mean_ if s.with_mean else 0.0, s.scale_ if s.with_std else 1.0),
    "MinMaxScaler": lambda s: (-s.min_ / s.scale_, 1.0 / s.scale_),
    "MaxAbsScaler": lambda s: (0.0, s.scale_),
    "RobustScaler": lambda s: (s.center_ if s.with_centering else 0.0, s.scale_ if s.with_scaling else 1.0),
}


def _scores(weight: Any, bias: Any, name: str) -> nn.Linear:
    """x → Wx + b, one row a score; a single score f becomes the two logits (−f/2, f/2)."""
    if not isinstance(weight, np.ndarray):
        raise BadInput(f"weights of {name}", expected="a dense array", got=type(weight).__name__,
                       hint="call .densify(), or fit it on dense data")  # fmt: skip
    rows = torch.atleast_2d(_tensor(weight))
    shift = torch.atleast_1d(_tensor(bias)).expand(len(rows))
    if len(rows) == 1:
        half = torch.tensor([[-0.5], [0.5]], dtype=torch.float64)
        rows, shift = half * rows, half[:, 0] * shift
    return linear(rows, shift)


def _affine(final: Any, classes: int) -> list[nn.Module]:
    layer = _scores(final.coef_, final.intercept_, type(final).__name__)
    if layer.out_features != classes:
        raise BadInput(f"weights of {type(final).__name__}", expected=f"{classes} rows", got=layer.out_features)
    return [layer]


def _svc(final: Any, classes: int) -> list[nn.Module]:
    if final.kernel == "rbf":
        scores = _rbf(final, classes)
        # One score f becomes (−f/2, f/2), as for affine models.
        return [scores, _vote(final, classes) if classes > 2 else _scores(np.eye(1), np.zeros(1), "rbf")]
    pairs = _scores(final.coef_, final.intercept_, type(final).__name__)
    return [pairs] if classes == 2 else [pairs, _vote(final, classes)]


def _vote(final: Any, classes: int) -> OneVsOne:
    return OneVsOne(classes, break_ties=bool(final.break_ties))


def _rbf(final: Any, classes: int) -> RbfScores:
    """One row of coefficients a pair of classes, from libsvm's table: a vector of class i meets every other class."""
    if not isinstance(final.dual_coef_, np.ndarray):
        raise BadInput(f"support vectors of {type(final).__name__}", expected="a dense array", got="a sparse one")
    if classes == 2:
        rows = final.dual_coef_
    else:
        ends = np.cumsum(final.n_support_)
        mine = [slice(end - count, end) for end, count in zip(ends, final.n_support_, strict=True)]
        rows = np.zeros((classes * (classes - 1) // 2, ends[-1]))
        for row, (i, j) in zip(rows, itertools.combinations(range(classes), 2), strict=True):
            row[mine[i]], row[mine[j]] = final.dual_coef_[j - 1, mine[i]], final.dual_coef_[i, mine[j]]
    return RbfScores(_tensor(final.support_vectors_), _tensor(rows), _tensor(final.intercept_), float(final._gamma))


def _trees(final: Any, classes: int) -> list[nn.Module]:
    """A tree, or a forest: the mean of the class shares in the leaves."""
    trees = [one.tree_ for one in getattr(final, "estimators_", [final])]
    most = max(tree.node_count for tree in trees)

    def stacked(arrays: list[Any]) -> Tensor:
        return torch.stack([_tensor(np.pad(a, [(0, most - len(a))] + [(0, 0)] * (a.ndim - 1))) for a in arrays])

    feature = stacked([np.where(tree.children_left < 0, -1, tree.feature) for tree in trees]).long()
    left, right = (stacked([getattr(tree, f"children_{side}") for tree in trees]).long() for side in ("left", "right"))
    threshold, shares = stacked([tree.threshold for tree in trees]), stacked([tree.value[:, 0] for tree in trees])
    return [Trees(feature, threshold, left, right, shares)]


def _neighbour(final: Any, classes: int) -> list[nn.Module]:
    return [NearestNeighbour(_tensor(final._fit_X), torch.as_tensor(final._y).long())]


_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "logistic": nn.Sigmoid}


def _mlp(final: Any, classes: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for depth, (weight, bias) in enumerate(zip(final.coefs_, final.intercepts_, strict=True), 1):
        if depth == len(final.coefs_):
            layers.append(_scores(weight.T, bias, type(final).__name__))
        else:
            layers.append(linear(_tensor(weight.T), _tensor(bias)))
            layers += [_ACTIVATIONS[final.activation]()] if final.activation != "identity" else []
    return layers


_HEADS: dict[str, Callable[[Any, int], list[nn.Module]]] = {
    "LogisticRegression": _affine,
    "LogisticRegressionCV": _affine,
    "RidgeClassifier": _affine,
    "RidgeClassifierCV": _affine,
    "SGDClassifier": _affine,
    "Perceptron": _affine,
    "PassiveAggressiveClassifier": _affine,
    "LinearSVC": _affine,
    "LinearDiscriminantAnalysis": _affine,
    "SVC": _svc,
    "NuSVC": _svc,
    "MLPClassifier": _mlp,
    "DecisionTreeClassifier": _trees,
    "ExtraTreeClassifier": _trees,
    "RandomForestClassifier": _trees,
    "ExtraTreesClassifier": _trees,
    "KNeighborsClassifier": _neighbour,
}


def _check_same_function(module: nn.Sequential, estimator: Any, final: Any, features: int) -> None:
    """Stop here, rather than measure another model, if the module does not say what the estimator says."""
    x = np.random.default_rng(0).normal(size=(16, features))
    if len(module) > 1 and isinstance(module[1], Normalize):
        x = x * module[1].std.numpy() + module[1].mean.numpy()
    with torch.no_grad(), warnings.catch_warnings():
        # An estimator fitted on a data frame warns about plain arrays.
        warnings.filterwarnings("ignore", message=".*feature names")
        logits = module(torch.from_numpy(x))
        answers, sure = logits.argmax(1), logits.topk(2, dim=1).values.diff(dim=1)[:, 0].abs() > 1e-9
        said = np.searchsorted(final.classes_, estimator.predict(x))
        if hasattr(final, "decision_function"):
            ours = _as_sklearn(logits)
            if isinstance(module[-1], OneVsOne):
                # The scores that are reported are those that break ties, also where predict has another rule.
                ours = OneVsOne(logits.shape[1]).double()(module[:-1](torch.from_numpy(x)))
            theirs = _as_sklearn(_pairwise_to_classes(final, _tensor(estimator.decision_function(x))))
        else:
            ours, theirs = _as_probabilities(module, logits), _tensor(estimator.predict_proba(x))
    gap = ((ours - theirs).abs() / theirs.abs().clamp_min(1)).max().item() if ours.shape == theirs.shape else torch.inf
    if (answers.numpy() != said)[sure.numpy()].any():
        gap = torch.inf
    if not gap <= 1e-6:
        raise BadInput(
            f"{type(final).__name__} in torch",
            expected="the function that the estimator computes, to 1e-6",
            got=f"a difference of {gap:.2g}",
            hint="a subclass that changes decision_function cannot be converted; write a factory",
        )


def _as_probabilities(module: nn.Sequential, logits: Tensor) -> Tensor:
    """What predict_proba says: leaves hold probabilities, a neighbour is certain, all else goes through a softmax."""
    if isinstance(module[-1], Trees):
        return logits
    if isinstance(module[-1], NearestNeighbour):
        return nn.functional.one_hot(logits.argmax(1), logits.shape[1]).double()
    return logits.softmax(1)


def _as_sklearn(logits: Tensor) -> Tensor:
    """Two logits as the one score that scikit-learn has for two classes."""
    return logits[:, 1] - logits[:, 0] if logits.dim() == 2 and logits.shape[1] == 2 else logits


def _pairwise_to_classes(final: Any, scores: Tensor) -> Tensor:
    """An SVC of shape "ovo" reports its pairs; with three or more classes they are brought together here too."""
    if getattr(final, "decision_function_shape", "ovr") == "ovo" and scores.dim() == 2:
        aggregated: Tensor = OneVsOne(len(final.classes_)).double()(scores)
        return aggregated
    return scores
