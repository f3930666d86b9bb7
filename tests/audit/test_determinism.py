"""Rows are a function of what was asked: not of the moment, the batch, the workers, a kill or an order."""

import os

import numpy as np
import pytest
import torch

from calipers.audit import audit, open_inputs
from calipers.errors import BadInput
from calipers.records import status

EPS = (0.02, 0.05, 0.1)


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of 16, so that 40 examples are three of them."""
    monkeypatch.setitem(audit.__globals__, "SHARD", 16)


def ask(inputs, out=None, **options):
    asked = {"norm": "linf", "eps": EPS, "budget": "quick"} | options
    return audit(inputs, out=out, **asked)


def test_the_same_question_has_the_same_rows_byte_by_byte(digits_mlp, tmp_path, rows):
    ask(digits_mlp, tmp_path / "a")
    torch.rand(7)  # the caller's generator goes on in between
    ask(digits_mlp, tmp_path / "b")
    assert rows(tmp_path / "a") == rows(tmp_path / "b")
    witnesses = "adversarials.safetensors"
    assert (tmp_path / "a" / witnesses).read_bytes() == (tmp_path / "b" / witnesses).read_bytes()


def test_the_callers_generator_is_left_alone(digits_mlp):
    before = torch.random.get_rng_state()
    audit_of(digits_mlp, 5, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_another_batch_size_gives_the_same_statuses(digits_mlp, norm, batch_size):
    eps = {"linf": EPS, "l2": (0.1, 0.4), "l1": (0.3, 1.5)}[norm]
    few = audit_of(digits_mlp, 12, norm=norm, eps=eps, batch_size=batch_size)
    many = audit_of(digits_mlp, 12, norm=norm, eps=eps, batch_size=128)
    for radius in eps:
        here, there = (status(run.examples["lower"], run.examples["upper"], radius) for run in (few, many))
        assert here.tolist() == there.tolist()
    np.testing.assert_allclose(few.examples["lower"], many.examples["lower"], rtol=1e-4)
    np.testing.assert_allclose(few.examples["upper"], many.examples["upper"], rtol=1e-2)


def audit_of(inputs, count, **options):
    return ask(type(inputs)(inputs.model, inputs.data.take(count), inputs.size), **options)


def test_the_first_examples_have_the_same_rows_in_a_longer_audit(digits_mlp, small_shards):
    longer, shorter = audit_of(digits_mlp, 40), audit_of(digits_mlp, 20)
    names = ["index", "label", "predicted", "certificate", "attack"]
    assert longer.examples[names][:20].equals(shorter.examples[names])
    np.testing.assert_allclose(longer.examples["upper"][:20], shorter.examples["upper"], rtol=1e-2)


def test_a_run_resumed_after_any_part_ends_with_the_same_rows(digits_mlp, tmp_path, rows, monkeypatch, small_shards):
    ask(digits_mlp, tmp_path / "whole")
    for parts in (1, 2, 3):
        folder = tmp_path / f"after-{parts}"
        real, written = os.replace, []

        def stop(source, target, *, enough=parts, real=real, written=written):
            real(source, target)
            written.append(target)
            if len(written) > enough:
                raise KeyboardInterrupt

        with monkeypatch.context() as killed:
            killed.setattr("calipers.runner.files.Path.replace", lambda source, target, stop=stop: stop(source, target))
            with pytest.raises(KeyboardInterrupt):
                ask(digits_mlp, folder)
        assert len(list((folder / "parts").iterdir())) == parts
        told: list[float] = []
        ask(digits_mlp, folder, resume=True, progress=told.append, batch_size=128)
        assert sum(told) == pytest.approx(40)
        assert rows(folder) == rows(tmp_path / "whole")


def test_a_finished_run_is_read_back_at_once(digits_mlp, tmp_path, monkeypatch):
    first = ask(digits_mlp, tmp_path / "run")
    monkeypatch.setattr(type(digits_mlp.model), "__call__", lambda *_: pytest.fail("the model was called again"))
    again = ask(digits_mlp, tmp_path / "run", resume=True)
    assert again.examples.equals(first.examples)
    assert again.summary == first.summary
    assert again.checks == first.checks
    assert again.about == first.about
    assert all(np.array_equal(again.witnesses[name], first.witnesses[name]) for name in first.witnesses)


@pytest.mark.parametrize("name", ["examples.parquet", "adversarials.safetensors", "checks.json", "summary.json"])
def test_a_finished_run_with_a_damaged_file_is_done_again(digits_mlp, tmp_path, name):
    first = audit_of(digits_mlp, 10, out=tmp_path / "run")
    (tmp_path / "run" / name).write_bytes(b"PAR1 and nothing more")
    again = audit_of(digits_mlp, 10, out=tmp_path / "run", resume=True)
    assert again.examples.equals(first.examples)
    assert again.checks == first.checks


def test_other_weights_or_other_data_are_another_run(digits_mlp, tmp_path):
    audit_of(digits_mlp, 10, out=tmp_path / "run")
    with pytest.raises(BadInput, match="got examples: 10 then, 11 now; choose"):
        audit_of(digits_mlp, 11, out=tmp_path / "run", resume=True)
    other = open_inputs("digits-linear", "digits", examples=10)
    with pytest.raises(BadInput, match="got model: digits-mlp then, digits-linear now; choose"):
        ask(other, tmp_path / "run", resume=True)
    # The batch size and the workers determine no row, so they may change.
    ask(type(digits_mlp)(digits_mlp.model, digits_mlp.data.take(10), 360), tmp_path / "run", resume=True, batch_size=3)
