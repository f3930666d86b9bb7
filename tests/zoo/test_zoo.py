"""Every broken defence is found out: the battery names the cause, and the audit ends where the bare network is."""

import pytest
import torch

from calipers.attacks import pgd
from calipers.audit import audit
from calipers.threats import Threat
from tests.zoo.defences import ZOO, digits, inputs_of


@pytest.fixture(autouse=True)
def generator():
    """Random defences draw from the global generator: the same draws in whatever order the tests run."""
    with torch.random.fork_rng():
        torch.random.set_rng_state(torch.Generator().manual_seed(0).get_state())
        yield


@pytest.fixture(scope="module")
def bare():
    """The audit of the network on digits without a defence, at every eps that a defence of it is compared at."""
    eps = sorted({defence.eps for defence in ZOO.values() if defence.bare is None})
    run = audit(digits(), norm="linf", eps=eps, budget="quick")
    assert [check.id for check in run.checks if not check.passed] == [], "the honest network"
    return {band.eps: band.not_broken for band in run.summary.threats}


@pytest.mark.parametrize("name", ZOO)
def test_the_cause_is_named_and_the_defence_gains_nothing(name, bare):
    defence = ZOO[name]
    run = audit(inputs_of(defence.make()), norm="linf", eps=[defence.eps], budget="quick")
    assert defence.cause in {check.id for check in run.checks if not check.passed}
    assert not run.summary.trusted
    (band,) = run.summary.threats
    truth = bare[defence.eps] if defence.bare is None else _audited(defence)
    assert abs(band.not_broken - truth) <= 0.02, "within two points"
    reaction = run.summary.reaction
    if defence.cause == "cross-entropy-has-a-gradient":
        assert reaction is None, "the margin was climbed from the start"
    else:
        assert defence.cause in reaction.causes
        assert reaction.actions
        assert reaction.after == (band.not_broken,)
        assert reaction.upper_median_after == band.radius.upper_median


def _audited(defence):
    run = audit(inputs_of(defence.bare()), norm="linf", eps=[defence.eps], budget="quick")
    assert [check.id for check in run.checks if not check.passed] == [], "the honest network"
    return run.summary.threats[0].not_broken


@pytest.mark.parametrize("name", ["logits × 1000", "4-bit quantisation", "hidden detector", "saturated sigmoids"])
def test_the_attack_that_most_libraries_run_believes_the_defence(name):
    """Or the zoo would test nothing: PGD on the plain cross-entropy leaves more than it should."""
    given = inputs_of(ZOO[name].make())
    eps = ZOO[name].eps
    fooled = pgd(given.model, given.data.x, given.data.y, Threat("linf", eps), steps=20, loss="ce-raw").success
    assert float((~fooled).double().mean()) > 0.8


def test_every_witness_of_the_second_pass_fools_the_defended_model():
    given = inputs_of(ZOO["4-bit quantisation"].make())
    run = audit(given, norm="linf", eps=[0.125], budget="quick")
    assert run.examples["attack"].str.startswith("bpda/").any()
    with torch.no_grad():
        answer = given.model(torch.from_numpy(run.witnesses["adversarial"])).argmax(1)
    assert answer.tolist() == run.witnesses["predicted"].tolist()
    labels = run.examples.set_index("index").loc[run.witnesses["index"], "label"]
    assert (answer.numpy() != labels.to_numpy()).all()


def test_a_defended_model_is_audited_again_in_the_same_way(tmp_path):
    given = inputs_of(ZOO["additive noise"].make())
    few = type(given)(given.model, given.data.take(10), given.size)
    runs = [audit(few, norm="linf", eps=[0.1], budget="quick", out=tmp_path / name) for name in ("a", "b")]
    assert runs[0].examples.equals(runs[1].examples)
    assert runs[0].summary.reaction == runs[1].summary.reaction
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        "run.json", "examples.parquet", "adversarials.safetensors", "checks.json", "summary.json",
    }  # fmt: skip
