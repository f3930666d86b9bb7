"""Brackets against truths: exact radii, refusals, two classes, L0, and a planted lie that must be found out."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from calipers import data
from calipers.audit import Brackets, Inputs, SandwichBroken, audit, close_brackets, find_budget, open_inputs
from calipers.certificates import CERTIFICATES, Certified
from calipers.errors import BadInput
from calipers.models import Classifier, from_sklearn
from calipers.threats import Box, Threat


@pytest.fixture(scope="module")
def iris(tmp_path_factory):
    """A LogisticRegression saved with skops, and the flowers as .npz: without end, and in a box they fill."""
    import skops.io
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    folder, flowers = tmp_path_factory.mktemp("iris"), load_iris()
    x, y = flowers.data, flowers.target
    skops.io.dump(LogisticRegression(max_iter=1000).fit(x, y), folder / "model.skops")
    np.savez(folder / "free.npz", x=x, y=y, lo=-np.inf, hi=np.inf)
    np.savez(folder / "boxed.npz", x=x, y=y, lo=x.min(0), hi=x.max(0))
    return folder, x, y


def closed_form(folder, x, y, norm) -> np.ndarray:
    """min over j of (f_y − f_j) / ‖w_y − w_j‖_q, by NumPy alone; 0 where the answer is wrong."""
    import skops.io

    fitted = skops.io.load(folder / "model.skops")
    scores = x @ fitted.coef_.T + fitted.intercept_
    order = {"linf": 1, "l2": 2, "l1": np.inf}[norm]
    radii = np.full((len(x), 3), np.inf)
    for i, label in enumerate(y):
        for j in set(range(3)) - {int(label)}:
            difference = fitted.coef_[label] - fitted.coef_[j]
            radii[i, j] = (scores[i, label] - scores[i, j]) / np.linalg.norm(difference, order)
    return np.maximum(radii.min(1), 0.0)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_logistic_regression_without_a_box_is_exact_everywhere(iris, norm):
    folder, x, y = iris
    inputs = open_inputs(str(folder / "model.skops"), str(folder / "free.npz"))
    rows = audit(inputs, norm=norm, eps=[0.1], budget="quick").examples
    exact = closed_form(folder, x, y, norm)
    right = exact > 0
    assert right.sum() > 140
    np.testing.assert_allclose(rows["lower"][right], rows["upper"][right], rtol=1e-6)
    np.testing.assert_allclose(rows["upper"], exact, rtol=1e-6)
    assert (rows["upper"] >= exact).all()
    assert (rows["lower"] <= exact).all()
    assert set(rows["certificate"][right]) == {"affine"}


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_logistic_regression_in_a_box_is_exact_where_the_box_does_not_bind(iris, norm):
    folder, x, y = iris
    inputs = open_inputs(str(folder / "model.skops"), str(folder / "boxed.npz"))
    run = audit(inputs, norm=norm, budget="quick")
    rows, exact = run.examples, closed_form(folder, x, y, norm)
    free = np.isclose(rows["upper"], exact, rtol=1e-6) & (exact > 0)
    assert free.sum() > 20, "the box must not bind everywhere, or nothing is tested"
    np.testing.assert_allclose(rows["lower"][free], rows["upper"][free], rtol=1e-6)
    bound = ~free & (exact > 0)
    assert (rows["upper"][bound] > exact[bound]).all(), "a box can only help the defender"
    inside = run.witnesses["adversarial"]
    assert (inside >= x.min(0)).all()
    assert (inside <= x.max(0)).all()


def test_logistic_regression_on_digits_closes_every_bracket(tmp_path):
    import skops.io
    from sklearn.linear_model import LogisticRegression

    train, test = data.load("digits", split="train"), data.load("digits")
    fitted = LogisticRegression(max_iter=300, C=0.1).fit(train.x.flatten(1).numpy(), train.y.numpy())
    skops.io.dump(fitted, tmp_path / "model.skops")
    rows = audit(open_inputs(str(tmp_path / "model.skops"), "digits"), norm="l2", eps=[0.5], budget="quick").examples
    right = rows["predicted"] == rows["label"]
    assert right.mean() > 0.9
    np.testing.assert_allclose(rows["lower"][right], rows["upper"][right], rtol=1e-6)
    assert len(rows) == len(test)


class Planted:
    """A certificate that claims twice what it may."""

    def __call__(self, model, x, y, norm):
        return Certified(torch.full((len(x),), 9.0, dtype=torch.float64), norm, "planted", "float32", "")


def test_a_false_certificate_is_found_out(digits_mlp, monkeypatch, tmp_path):
    monkeypatch.setitem(CERTIFICATES, "planted", Planted())
    with pytest.raises(SandwichBroken, match=r"example \d+: planted certifies 9.0, but fmn found a witness at 0\."):
        audit(digits_mlp, norm="linf", eps=[0.1], budget="quick", out=tmp_path / "run")
    assert not (tmp_path / "run" / "summary.json").exists()


def test_brackets_take_only_what_is_better():
    n = 4
    brackets = Brackets(
        index=torch.arange(n), label=torch.zeros(n, dtype=torch.int64),
        predicted=torch.tensor([0, 0, 0, 1]), lower=torch.tensor([0.0, 0.2, 0.0, 0.0], dtype=torch.float64),
        certificate=np.array(["", "old", "", ""], dtype=object),
        upper=torch.tensor([1.0, 1.0, 0.05, 0.0], dtype=torch.float64),
        attack=np.array(["fmn", "fmn", "fmn", "clean"], dtype=object), adversarial=torch.zeros(n, 2),
        fooled=torch.ones(n, dtype=torch.int64), forwards=torch.ones(n, dtype=torch.int64),
        gradients=torch.zeros(n, dtype=torch.int64), refused={},
    )  # fmt: skip
    radius = torch.tensor([0.1, 0.1, 0.05, 5.0], dtype=torch.float64)
    brackets.raise_lower(Certified(radius, "l2", "new", "float32", ""))
    assert brackets.lower.tolist() == [0.1, 0.2, 0.05, 0.0]
    assert brackets.certificate.tolist() == ["new", "old", "new", ""]
    groups = {eps: some.tolist() for some, eps in brackets.open_at((0.15, 0.3, 0.9))}
    assert groups == {(0.15, 0.3, 0.9): [0], (0.3, 0.9): [1]}
    assert brackets.open_at((0.1, 1.0)) == [], "lower = eps and upper = eps are decided"


class Custom(nn.Module):
    """A forward that no certificate reads."""

    def __init__(self, k: int, d: int = 6) -> None:
        super().__init__()
        weight = torch.randn(k, d, generator=torch.Generator().manual_seed(k))
        self.weight = nn.Parameter(weight - weight.mean(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.flatten(1) - 0.5).pow(3).mul(4) @ self.weight.T


def custom(k: int, n: int = 30, shape: tuple[int, ...] = (6,)) -> Inputs:
    module = Custom(k).eval()
    model = Classifier.of(module, shape=shape, name="custom")
    x = torch.rand(n, *shape, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    return Inputs(model, data.DataSet("some", x, y, tuple(str(i) for i in range(k))), n)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
def test_a_model_that_no_certificate_reads_has_brackets_with_lower_0(norm):
    eps = {"linf": 0.1, "l2": 0.2, "l1": 0.3, "l0": 1.0}[norm]
    run = audit(custom(3), norm=norm, eps=[eps], budget="quick")
    assert (run.examples["lower"] == 0).all()
    assert (run.examples["certificate"] == "").all()
    assert np.isfinite(run.examples["upper"]).mean() > 0.8
    (threat,) = run.summary.threats
    assert (threat.proved, threat.certified) == (0.0, 0)
    assert threat.attacked > 0


@pytest.mark.parametrize("k", [2, 3, 40])
@pytest.mark.parametrize("shape", [(6,), (1, 2, 3), (6, 1)])
def test_any_number_of_classes_and_any_shape(k, shape):
    run = audit(custom(k, shape=shape), norm="l2", eps=[0.1, 0.3], budget="quick")
    assert np.isfinite(run.examples["upper"]).mean() > 0.8
    assert run.witnesses["adversarial"].shape[1:] == shape


def test_l0_counts_changed_coordinates(digits_mlp):
    few = Inputs(digits_mlp.model, digits_mlp.data.take(12), 360)
    run = audit(few, norm="l0", eps=[1, 4, 16], budget="quick")
    upper = run.examples["upper"].to_numpy()
    assert (upper == np.round(upper)).all()
    changed = (run.witnesses["adversarial"] != run.witnesses["clean"]).reshape(len(run.witnesses["index"]), -1).sum(1)
    assert changed.tolist() == upper[(upper > 0) & np.isfinite(upper)].tolist()
    broken = [threat.attacked for threat in run.summary.threats]
    assert broken == sorted(broken)
    assert broken[-1] > broken[0]


def test_l0_on_an_affine_model_is_exact():
    inputs = open_inputs("digits-linear", "digits", examples=20)
    rows = audit(inputs, norm="l0", eps=[1, 3], budget="quick").examples
    right = rows["upper"] > 0
    # k − 1 coordinates do not suffice, k do: the certificate is one below the attack.
    assert (rows["upper"][right] - rows["lower"][right] <= 1).all()


def test_minimal_distortion_alone_when_no_eps_is_asked(digits_mlp):
    run = audit(digits_mlp, norm="linf", budget="quick")
    right = run.examples["predicted"] == run.examples["label"]
    assert np.isfinite(run.examples["upper"]).all()
    assert (run.examples["lower"][right] > 0).all()
    assert run.summary.threats == ()
    assert set(run.examples["attack"][right]) == {"fmn"}


def test_more_budget_never_opens_a_bracket(digits_mlp):
    few = Inputs(digits_mlp.model, digits_mlp.data.take(15), 360)
    runs = [audit(few, norm="linf", eps=[0.05, 0.1], budget=name) for name in ("quick", "standard", "thorough")]
    for less, more in itertools.pairwise(runs):
        assert (more.examples["upper"] <= less.examples["upper"] * 1.05).all()
        # The search for a radius ends within 1e-3 of it, and begins where the attack is.
        assert (more.examples["lower"] >= less.examples["lower"] * (1 - 2e-3)).all()
        for a, b in zip(less.summary.threats, more.summary.threats, strict=True):
            assert b.open <= a.open


def test_certificates_that_are_told_the_attack_close_more(digits_mlp):
    few = Inputs(digits_mlp.model, digits_mlp.data.take(12), 360)
    quick, thorough = (audit(few, norm="linf", eps=[0.1], budget=name).examples for name in ("quick", "thorough"))
    assert "crown" in set(quick["certificate"])
    assert set(thorough["certificate"]) & {"crown", "branch"}
    right = quick["upper"] > 0
    assert (quick["lower"] / quick["upper"])[right].median() > 0.7
    assert (thorough["lower"] <= thorough["upper"]).all()


def test_what_is_wrong_already_costs_one_look_and_is_attacked_at_every_eps():
    inputs = custom(3)
    wrong = replace(inputs.data, y=(inputs.data.y + 1) % 3)
    run = audit(Inputs(inputs.model, wrong, 30), norm="l2", eps=[1e-9, 1.0], budget="quick")
    assert (run.examples["upper"] == 0).all()
    assert (run.examples["forwards"] == 1).all()
    assert run.summary.clean_accuracy == 0
    assert [threat.attacked for threat in run.summary.threats] == [30, 30]
    assert run.witnesses["adversarial"].shape == (0, 6)
    assert not run.summary.trusted


def test_certified_examples_are_not_attacked_further_and_attacked_ones_only_as_far_as_needed(digits_mlp):
    alone = audit(digits_mlp, norm="linf", budget="quick").examples
    tiny = audit(digits_mlp, norm="linf", eps=[1e-6], budget="quick").examples
    right = tiny["lower"] >= 1e-6
    assert right.sum() > 30
    assert (tiny["forwards"][right] == alone["forwards"][right]).all()


def test_inputs_made_by_hand_are_looked_at_before_anything_is_written(tmp_path):
    inputs = custom(3)
    for wrong, sentence in (
        (replace(inputs.data, x=inputs.data.x[:, :4]), r"expected examples of shape \(6,\), got shape \(4,\)"),
        (replace(inputs.data, x=inputs.data.x + 1), r"input of example 0: expected values inside \[0, 1\]"),
        (replace(inputs.data, y=inputs.data.y + 1), r"label of example \d+: expected 0…2"),
    ):
        with pytest.raises(BadInput, match=sentence):
            audit(Inputs(inputs.model, wrong, 30), norm="l2", budget="quick", out=tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_progress_adds_up_to_the_examples(digits_mlp):
    for eps in ((), (0.02, 0.05, 0.3)):
        told: list[float] = []
        model, some = digits_mlp.model, digits_mlp.data
        threat = Threat("linf", eps or None)
        close_brackets(model, some.x, some.y, threat, find_budget("quick"), progress=told.append)
        assert sum(told) == pytest.approx(len(some))
        assert min(told) >= 0


def test_a_float64_model_is_audited_in_float64(iris):
    folder, x, y = iris
    import skops.io

    model = from_sklearn(skops.io.load(folder / "model.skops"), box=Box(0, 10))
    flowers = data.DataSet("iris", torch.from_numpy(x), torch.from_numpy(y), ("a", "b", "c"), Box(0, 10))
    run = audit(Inputs(model, flowers, 150), norm="l2", budget="quick")
    assert run.witnesses["adversarial"].dtype == np.float64


@pytest.mark.mnist
def test_real_mnist():
    try:
        inputs = open_inputs("tests.factories:mnist_cnn", "mnist", examples=40)
    except ValueError as error:
        pytest.skip(str(error))
    run = audit(inputs, norm="linf", eps=[0.05, 0.2], budget="quick")
    assert run.summary.clean_accuracy > 0.9
    near, far = run.summary.threats
    assert near.not_broken >= far.not_broken
    assert far.not_broken < 0.3, "an undefended network does not stand eps = 0.2"
    assert run.summary.trusted
