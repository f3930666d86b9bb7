"""Audits of models without gradients, and the budgets that are ensembles."""

import json

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from calipers import data
from calipers.audit import Inputs, audit, open_inputs
from calipers.cli.app import run as command
from calipers.models import from_sklearn
from calipers.models.loading import load
from tests.models.test_blackbox import onnx_file


@pytest.fixture(scope="module")
def digits():
    train = data.load("digits", split="train")
    return train.x.flatten(1).numpy().astype(np.float64), train.y.numpy()


@pytest.fixture(scope="module")
def onnx_digits(digits, tmp_path_factory):
    """A linear network for the digits as an ONNX file, and its weights."""
    weight = LogisticRegression(max_iter=300, fit_intercept=False).fit(*digits).coef_.T
    return onnx_file(tmp_path_factory.mktemp("onnx") / "digits.onnx", weight, shape=(1, 8, 8)), torch.from_numpy(weight)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
def test_an_onnx_file_is_bracketed_from_above_without_a_gradient(onnx_digits, norm):
    path, weight = onnx_digits
    inputs = open_inputs(path, "digits", examples=8)
    run = audit(inputs, norm=norm, eps=[2 if norm == "l0" else 0.2], budget="quick")
    assert run.summary.gradients == 0
    assert np.isfinite(run.examples["upper"]).all()
    if norm == "l2":
        x, y = inputs.data.x.double().flatten(1), inputs.data.y
        gaps = (x @ weight).gather(1, y[:, None]) - x @ weight
        slopes = (weight[:, y].T[:, :, None] - weight).norm(dim=1)
        exact = (gaps / slopes).scatter(1, y[:, None], torch.inf).amin(1).clamp_min(0).numpy()
        assert (run.examples["upper"] >= exact * (1 - 1e-5)).all()


def test_a_forest_is_audited_as_it_is(digits):
    model = from_sklearn(RandomForestClassifier(10, random_state=0).fit(*digits), box=(0, 1))
    some = data.load("digits").take(6)
    from calipers.data import DataSet

    flat = DataSet(some.name, some.x.flatten(1), some.y, some.class_names, some.box, some.provenance)
    run = audit(Inputs(model, flat, 6), norm="linf", eps=[0.1], budget="quick")
    rows = run.examples
    assert (rows["lower"] == 0).all()
    assert np.isfinite(rows["upper"]).all()
    assert set(rows["attack"]) <= {"clean", "hopskipjump", "square", "noise"}


def test_from_the_command_line(onnx_digits, tmp_path):
    path, _ = onnx_digits
    words = ["audit", path, "--data", "digits", "--eps", "0.1", "--examples", "5", "--budget", "quick", "--quiet"]
    assert command([*words, "--out", str(tmp_path / "run")]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["examples"] == 5
    assert summary["gradients"] == 0


@pytest.mark.parametrize("budget", ["auto", "reference"])
def test_ensemble_budgets_name_the_attack_of_every_witness_and_say_why_they_ended(budget):
    run = audit(open_inputs("digits-mlp", "digits", examples=4), norm="linf", eps=[0.05], budget=budget)
    usual = audit(open_inputs("digits-mlp", "digits", examples=4), norm="linf", eps=[0.05], budget="quick")
    assert run.summary.threats[0].not_broken <= usual.summary.threats[0].not_broken
    assert "auto" not in set(run.examples["attack"])
    assert all(said.startswith(budget) for said in run.about["ended"])


def test_a_file_that_is_not_there_is_said_first():
    with pytest.raises(ValueError, match="nothing there"):
        load("no/such.onnx", shape=(4,))
