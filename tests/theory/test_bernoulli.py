import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calipers.errors import BadInput
from calipers.theory import BernoulliPair, FiniteDistribution, effective_dimensions, optimal_robust


def corners(k: int) -> np.ndarray:
    return np.array(list(itertools.product((-1.0, 1.0), repeat=k)))


def masses(pair: BernoulliPair, x: np.ndarray) -> np.ndarray:
    """D(x, y) from Definition 7, coordinate by coordinate, shape (N, 2)."""
    sides = [np.prod(np.where(x == np.asarray(theta), 0.5 + pair.t, 0.5 - pair.t), axis=1)
             for theta in (pair.theta0, pair.theta1)]  # fmt: skip
    return np.stack(sides, 1) / 2


def test_check_values() -> None:
    assert BernoulliPair.of(50, 0.30).bayes_error == pytest.approx(1.29363e-06, rel=5e-6)
    assert BernoulliPair.of(51, 0.10).bayes_error == pytest.approx(0.0735292, abs=5e-8)


@pytest.mark.parametrize("k", range(1, 10))
def test_bayes_error_is_the_sum_over_every_point_and_its_rule_reaches_it(k: int) -> None:
    pair = BernoulliPair.of(k, 0.17, d=k + 1)
    x = corners(k + 1)
    mass = masses(pair, x)
    assert mass.sum() == pytest.approx(1)
    assert pair.bayes_error == pytest.approx(mass.min(1).sum(), rel=1e-12)
    rule = pair.network()(torch.from_numpy(x)).argmax(1).numpy()
    assert mass[np.arange(len(x)), 1 - rule].sum() == pytest.approx(pair.bayes_error, rel=1e-12)


@pytest.mark.parametrize("k", [2, 3, 7, 50, 51])
def test_bayes_error_is_equation_9_or_10(k: int) -> None:
    t = Fraction(3, 10)
    term = [math.comb(k, i) * (Fraction(1, 2) + t) ** i * (Fraction(1, 2) - t) ** (k - i) for i in range(k + 1)]
    exact = sum(term[: k // 2 + 1]) - (term[k // 2] / 2 if k % 2 == 0 else 0)
    assert BernoulliPair.of(k, 0.3).bayes_error == pytest.approx(float(exact), rel=1e-11)


@pytest.mark.parametrize("k", [9999, 10_000])
def test_log_space_is_exact_for_ten_thousand_dimensions(k: int) -> None:
    """With t = 3/10 the error is a ratio of whole numbers, Σ C(k, i)·4^i / 5^k."""
    terms = [1]
    for i in range(1, k // 2 + 1):
        terms.append(terms[-1] * 4 * (k - i + 1) // i)
    twice = 2 * sum(terms) - (terms[-1] if k % 2 == 0 else 0)
    exact = math.log(twice) - math.log(2) - k * math.log(5)
    assert BernoulliPair.of(k, 0.3).log_bayes_error == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("eps", range(6))
@pytest.mark.parametrize("threshold", range(-1, 6))
def test_threshold_error_is_what_an_exhaustive_adversary_does(threshold: int, eps: int) -> None:
    pair = BernoulliPair.of(5, 0.2)
    x = corners(5)
    label = pair.network(threshold)(torch.from_numpy(x)).argmax(1).numpy()
    reach = (x[:, None] != x[None]).sum(-1) <= eps
    wrong = np.stack([(reach & (label[None] != y)).any(1) for y in (0, 1)], 1)
    assert pair.threshold_error(threshold, eps) == pytest.approx((masses(pair, x) * wrong).sum(), rel=1e-12)


@pytest.mark.parametrize(("k", "t"), [(3, 0.05), (4, 0.3), (6, 0.2), (7, 0.45)])
def test_the_best_threshold_is_best_among_all_labellings(k: int, t: float) -> None:
    """Theorem 4 without Assumption 1: the exact optimum over 2^(2^k) rules."""
    pair, x = BernoulliPair.of(k, t), corners(k)
    for eps in range(k + 1):
        optimum = optimal_robust(FiniteDistribution(x, masses(pair, x)), 0, eps, relaxed=True)
        assert pair.robust_error(eps) == pytest.approx(optimum.error, abs=1e-9)


def test_equation_12_as_printed_exceeds_chance_and_ours_does_not() -> None:
    pair = BernoulliPair.of(50, 0.3)
    assert pair.threshold_error(50, eps=49) == 0.5 == pair.threshold_error(-1, eps=49)
    assert pair.threshold_error(0, eps=49) > 0.99
    assert pair.robust_error(49) == 0.5
    assert pair.l0_optimum(16).threshold == -1
    assert pair.l0_optimum(15).error == pytest.approx(0.48635, abs=1e-5)


@given(st.integers(1, 40), st.floats(0.01, 0.49), st.integers(0, 40))
def test_more_budget_never_helps_the_classifier(k: int, t: float, eps: int) -> None:
    pair = BernoulliPair.of(k, t)
    assert pair.bayes_error <= pair.robust_error(eps) * (1 + 1e-12) <= pair.robust_error(eps + 1) * (1 + 2e-12)
    assert pair.robust_error(eps + 1) <= 0.5
    assert pair.robust_error(eps + 0.7) == pair.robust_error(eps)
    useful = pair.largest_useful_eps("l0")
    assert pair.l0_optimum(useful + 1).error == 0.5
    assert pair.bayes_error >= 0.5 - 1e-9 or pair.l0_optimum(useful).error < 0.5


def test_linf_rounding_undoes_every_move_below_one_and_none_from_one_on() -> None:
    pair = BernoulliPair.of(51, 0.1)
    assert pair.robust_error(0.999, "linf") == pair.bayes_error
    assert pair.robust_error(1.0, "linf") == 0.5
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, 2, (500, 51), generator=generator).double() * 2 - 1
    moved = x + 0.999 * (2 * torch.rand(x.shape, generator=generator, dtype=torch.float64) - 1)
    assert torch.equal(pair.network()(x), pair.network()(moved))
    # At eps = 1 the rounding rule is worse than chance: a 0 counts as +1, so every 0-labelled point can be turned.
    assert (pair.network()(x - x.clamp(-1, 0)).argmax(1) == 1).all()
    assert (pair.network()(-0.1 * x).argmax(1) != pair.network()(x).argmax(1)).all()


def test_only_effective_dimensions_count() -> None:
    theta = np.array([1.0, -1, 1, -1, 1])
    flipped = theta * [1, -1, 1, -1, -1]
    pair = BernoulliPair(theta, flipped, 0.2)
    assert pair.k == 3
    assert effective_dimensions(theta, flipped).tolist() == [1, 3, 4]
    assert pair.bayes_error == BernoulliPair.of(3, 0.2).bayes_error
    x = corners(5)
    assert pair.bayes_error == pytest.approx(masses(pair, x).min(1).sum())


@pytest.mark.parametrize("t", [0.0, 0.5, -0.1, 0.6, math.nan])
def test_t_outside_its_interval(t: float) -> None:
    with pytest.raises(BadInput, match=r"t of the Bernoulli pair: expected a number strictly between 0 and 0\.5"):
        BernoulliPair.of(5, t)


def test_bad_input() -> None:
    with pytest.raises(BadInput, match="eps: expected a finite number >= 0, got -1"):
        BernoulliPair.of(5, 0.1).l0_optimum(-1)
    with pytest.raises(BadInput, match="entries -1 and 1"):
        BernoulliPair([0.0], [1.0], 0.1)
    with pytest.raises(BadInput, match="differ somewhere"):
        BernoulliPair([1.0], [1.0], 0.1)
    with pytest.raises(BadInput, match=r"threshold: expected -1…5, got 6"):
        BernoulliPair.of(5, 0.1).threshold_error(6)
    with pytest.raises(BadInput, match="expected l0 or linf, got 'l2'"):
        BernoulliPair.of(5, 0.1).robust_error(1, "l2")
