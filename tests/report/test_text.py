from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from calipers.errors import BadInput
from calipers.report import side_by_side, table
from calipers.report.pairs import sign_test
from tests.report.factory import CHECKS, make_run

INF = float("inf")


def test_the_table_says_what_the_summary_says() -> None:
    run = make_run([0.0, 0.2, 0.05], [0.0, INF, 0.3], eps=(0.1, 0.02), checks=CHECKS)
    lines = [line.split() for line in table(run).splitlines()]
    assert lines[1] == ["norm", "eps", "proved", "not", "broken", "certified", "open", "attacked"]
    assert lines[2] == ["linf", "0.02", "66.6", "%", "66.7", "%", "2", "0", "1"]
    assert lines[3] == ["linf", "0.1", "33.3", "%", "66.7", "%", "1", "1", "1"]
    assert "lower 0.05, upper 0.3" in table(run)
    assert "1 passed, 1 failed, 1 not applicable" in table(run)


def test_the_table_without_eps_has_the_median_bracket_only() -> None:
    assert table(make_run([0.1], [INF], eps=())).splitlines()[1:] == [
        "median bracket: lower 0.1, upper none found",
        "checks: 0 passed, 0 failed",
    ]


def test_pairs_are_counted_on_the_common_examples() -> None:
    a = make_run([0.2, 0.2, 0.0, 0.0], [0.3, 0.3, 0.05, 0.3], eps=(0.1,), index=[0, 1, 2, 3])
    b = make_run([0.2, 0.0, 0.2, 0.0], [0.3, 0.05, 0.4, 0.05], eps=(0.1, 0.2), index=[0, 1, 2, 9])
    lines = side_by_side([a, b]).splitlines()
    assert "A and B on 3 common examples:" in lines
    assert [line.split() for line in lines[-4:-2]] == [
        ["0.1", "proved", "1", "1", "1", "0", "1"],
        ["0.1", "not", "broken", "1", "1", "1", "0", "1"],
    ]
    assert lines[-2] == "lower bound larger in A 1, in B 1, equal 1: p = 1"


def test_pairing_follows_the_index_and_not_the_order() -> None:
    a = make_run([0.2, 0.0], [0.3, 0.05], eps=(0.1,), index=[7, 8])
    b = make_run([0.0, 0.2], [0.05, 0.3], eps=(0.1,), index=[8, 7])
    assert side_by_side([a, b]).splitlines()[-4].split() == ["0.1", "proved", "1", "0", "0", "1", "1"]


def test_a_run_on_the_first_examples_is_paired_with_one_on_all() -> None:
    whole = {"whole_sha256": "ab"}
    rng = np.random.default_rng(0)
    lower = rng.random(60)
    a = make_run(lower, lower * 2, data={"name": "digits", "sha256": "60", **whole})
    b = make_run(lower[:20], lower[:20] * 3, data={"name": "digits", "sha256": "20", **whole})
    text = side_by_side([a, b])
    assert "A and B on 20 common examples:" in text
    assert "upper bound larger in A 0, in B 20, equal 0: p < 0.0001" in text


def test_an_uneven_split_has_the_p_value_of_the_binomial() -> None:
    for first, second in ((0, 7), (3, 12), (5, 5), (0, 0), (40, 2)):
        expected = binomtest(first, first + second).pvalue if first + second else 1.0
        assert sign_test(first, second) == pytest.approx(expected)
        assert sign_test(second, first) == pytest.approx(expected)


def test_labels_that_differ_are_not_the_same_examples() -> None:
    a, b = make_run(), make_run()
    b.examples["label"] = (b.examples["label"] + 1) % 10
    assert "not paired: their labels differ" in side_by_side([a, b])


def test_other_data_are_not_paired_and_other_eps_not_compared() -> None:
    a, b = make_run(eps=(0.1,)), make_run(eps=(0.1,), data={"name": "digits", "sha256": "00"})
    assert "not paired: their data are not known to be the same" in side_by_side([a, b])
    assert "common example" not in side_by_side([a, b])
    assert "share no norm and eps" in side_by_side([a, make_run(eps=(0.2,))])
    apart = make_run(eps=(0.1,), index=range(100, 160))
    assert "they share no example" in side_by_side([a, apart])


def test_one_run_cannot_be_compared() -> None:
    with pytest.raises(BadInput, match="at least 2, got 1"):
        side_by_side([make_run()])
