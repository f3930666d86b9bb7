from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from calipers.report.facts import facts_of
from calipers.report.words import at_least, at_most, sentences
from tests.report.factory import CHECKS, make_run


@given(st.integers(0, 10_000), st.integers(1, 10_000))
def test_percentages_never_overstate(successes: int, trials: int) -> None:
    fraction = min(successes, trials) / trials
    low, high = (float(text.removesuffix(" %")) / 100 for text in (at_least(fraction), at_most(fraction)))
    assert low <= fraction + 1e-9
    assert high >= fraction - 1e-9
    assert high - low <= 0.001 + 1e-9


def test_the_sentences_carry_the_numbers() -> None:
    run = make_run([0.0, 0.06, 0.2, 0.2], [0.0, 0.08, 0.3, float("inf")], eps=(0.07, 0.1), checks=CHECKS[:1])
    run.about["data"]["size"] = 1797
    asked, found, trusted = sentences(run, facts_of(run))
    assert "4 examples of digits (out of 1,797)" in asked
    assert "75.0 %" in asked
    assert "L∞" in asked
    assert "At eps 0.07, at least 50.0 % and at most 75.0 %" in found
    assert "; at eps 0.1, 50.0 %." in found, "nothing is open, so the truth is one number"
    assert trusted.startswith("1 check passed, none failed")


def test_a_failed_check_is_said_first_and_by_name() -> None:
    run = make_run(checks=CHECKS)
    assert sentences(run, facts_of(run))[-1].startswith("1 of 3 checks failed (random-noise-is-weaker): do not rely")


def test_no_check_vouches_for_nothing_and_distrust_is_repeated() -> None:
    run = make_run()
    assert "No check was made" in sentences(run, facts_of(run))[-1]
    doubted = make_run(checks=CHECKS[:1])
    doubted = replace(doubted, summary=doubted.summary.model_copy(update={"trusted": False}))
    assert "does not call its numbers trusted" in sentences(doubted, facts_of(doubted))[-1]


def test_without_eps_the_median_is_told() -> None:
    run = make_run([0.1, 0.2, 0.3], [0.2, 0.25, 0.3], eps=())
    assert (
        "half of the examples are proved safe up to 0.2, and half are broken at 0.25 or nearer"
        in sentences(run, facts_of(run))[1]
    )
    unbroken = make_run([0.1], [float("inf")], eps=())
    assert "half or more have no witness" in sentences(unbroken, facts_of(unbroken))[1]
