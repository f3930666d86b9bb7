"""Every attack and every certificate takes what its users hold, and answers as for a Classifier and tensors."""

import inspect

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from calipers import attacks, certificates
from calipers.attacks import AttackResult, fmn, pgd
from calipers.certificates import interval
from calipers.errors import BadInput
from calipers.models import Classifier, linear, understood
from calipers.threats import Threat

# Functions of (model, x, y, threat) or (model, x, y, norm): those that a user may call with what he has.
CALLED = {
    name: function
    for room in (attacks, certificates)
    for name, function in vars(room).items()
    if inspect.isfunction(function)
    and list(inspect.signature(function).parameters)[:3] == ["model", "x", "y"]
    and name in room.__all__
}
MORE = {"climb": {"steps": 2}, "transferred": {"surrogate": None}, "branch": {"upper": torch.ones(2)}}
NET = nn.Sequential(
    linear(torch.tensor([[2.0, -1.0], [-1.0, 1.5], [0.5, 0.5]]), torch.zeros(3)),
    nn.ReLU(),
    linear(torch.tensor([[1.0, -1.0, 0.5], [-1.0, 1.0, -0.5]]), torch.zeros(2)),
).eval()
X, Y = torch.tensor([[0.75, 0.25], [0.25, 0.75]]), torch.tensor([0, 1])


def test_all_are_here():
    assert {"fmn", "apgd", "square", "auto", "interval", "crown", "exact", "smoothing"} <= set(CALLED)
    assert len(CALLED) > 30


@pytest.mark.parametrize("name", CALLED)
def test_an_unknown_keyword_is_named_beside_the_known(name):
    with pytest.raises(BadInput, match=rf"{name}: expected (options it knows|no options), got 'sede'"):
        CALLED[name](NET, X, Y, "linf", sede=1)


@pytest.mark.parametrize("name", CALLED)
def test_what_is_no_model_is_refused_in_a_sentence(name):
    more = [] if name == "smoothing" else ["linf"]
    with pytest.raises(BadInput, match=r"model: expected a Classifier, an nn\.Module or .*, got function"):
        CALLED[name](lambda x: x, X, Y, *more, **MORE.get(name, {}))


def test_the_same_whatever_it_is_called_with():
    model = Classifier.of(NET, shape=(2,))
    upper, lower = fmn(model, X, Y, Threat("l2")).distance, interval(model, X, Y, "l2").radius
    backwards = X.numpy()[:, ::-1].copy()[:, ::-1]
    for x, y in (
        (X.numpy(), Y.numpy()),
        (X.tolist(), Y.tolist()),
        (backwards, Y.numpy()),
        (X, Y.int()),
        (X.numpy(), Y.numpy().astype("u1")),
    ):
        for net in (model, NET):
            assert torch.equal(fmn(net, x, y, "L_2").distance, upper)
            assert torch.equal(interval(net, x, y, Threat("l2", 0.1)).radius, lower)
    assert isinstance(fmn(NET, X, Y, threat="l2"), AttackResult)


def test_an_estimator_with_its_own_labels():
    y = np.array(["no", "yes"])[Y.numpy()]
    fitted = LogisticRegression().fit(X.numpy(), y)
    found, radius = fmn(fitted, X.numpy(), y, "l2").distance, interval(fitted, X.numpy(), y, "l2").radius
    assert ((radius <= found) & (found <= radius * 1.01) & (radius > 0.1)).all()
    with pytest.raises(BadInput, match="members of classes_ of LogisticRegression, got 0"):
        fmn(fitted, X.numpy(), [0, 1], "l2")


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: fmn(NET, X, Y), r"fmn: expected fmn\(model, x, y, threat\), got missing .*'threat'"),
        (lambda: fmn(NET, X, Y, 0.1), r"threat of fmn: expected a Threat or a norm, got float; such as Threat\('linf'"),
        (lambda: fmn(NET, X, Y, "l3"), "norm: expected linf, l2, l1 or l0"),
        (lambda: pgd(NET, X, Y, "linf", epochs=3), "known: .*restarts, seed.*steps"),
        (lambda: fmn(NET, 3 * X, Y, "linf"), r"values inside \[0, 1\].*Classifier\.of\(…, box="),
        (lambda: fmn(NET, [["a", "b"]], [0], "linf"), "inputs: expected numbers"),
        (lambda: fmn(NET, X, ["a", "b"], "linf"), "labels: expected numbers"),
        (lambda: fmn(NET, X[:, :1], Y, "linf"), r"Sequential cannot take inputs of shape \(1,\)"),
        (lambda: understood(Classifier.of(NET, shape=(2,)), X, Y, (0, 2)), r"box: expected \[0, 1\], the classifier's"),
    ],
)
def test_sentences(call, sentence):
    with pytest.raises(BadInput, match=sentence):
        call()


def test_a_classifier_may_be_told_its_own_box_again():
    model = Classifier.of(NET, shape=(2,))
    assert understood(model, X, Y, (0, 1))[0] is model
