import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from calipers.errors import BadInput
from calipers.theory import FiniteDistribution, GaussianPair, optimal_robust
from calipers.threats import Norm


def linear_robust_error(pair: GaussianPair, w: np.ndarray, offset: float, eps: float, norm: Norm) -> float:
    """The adversarial error of ⟨w, x⟩ + offset ≥ 0, by hand."""
    reach = eps * np.linalg.norm(w, ord=2 if norm == "l2" else 1)
    up = (w @ np.asarray(pair.mean1) + offset - reach) / (pair.sigma * np.linalg.norm(w))
    down = (-(w @ np.asarray(pair.mean0)) - offset - reach) / (pair.sigma * np.linalg.norm(w))
    return float(ndtr(-up) + ndtr(-down)) / 2


def test_check_values() -> None:
    pair = GaussianPair.apart(4.0, d=7)
    assert pair.bayes_error == pytest.approx(0.0227501, abs=5e-8)
    assert pair.robust_error(1.0) == pytest.approx(0.158655, abs=5e-7)


@given(st.integers(1, 6), st.floats(0.1, 3.0), st.floats(0.0, 2.0), st.sampled_from(["l2", "linf"]), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_its_classifier_reaches_the_error_and_no_linear_one_is_better(
    d: int, sigma: float, eps: float, norm: Norm, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    pair = GaussianPair(rng.normal(size=d), rng.normal(size=d), sigma)
    best = pair.robust_error(eps, norm)
    layer = pair.network(eps, norm)
    w = (layer.weight[1] - layer.weight[0]).numpy()
    offset = float(layer.bias[1] - layer.bias[0])
    if eps < pair.largest_useful_eps(norm) - 1e-6:
        assert linear_robust_error(pair, w, offset, eps, norm) == pytest.approx(best, rel=1e-9)
        assert best < 0.5
    else:
        assert best == pytest.approx(0.5)
    for _ in range(20):
        other, shift = rng.normal(size=d), float(rng.normal())
        assert linear_robust_error(pair, other, shift, eps, norm) >= best - 1e-12


@pytest.mark.parametrize("eps", [0.0, 0.45, 0.95])
def test_no_classifier_at_all_is_better_in_one_dimension(eps: float) -> None:
    """Theorem 2 without its assumption: the exact optimum over every labelling of a fine grid."""
    x = np.linspace(-6, 6, 241)
    mass = np.stack([np.exp(-((x + 1) ** 2) / 2), np.exp(-((x - 1) ** 2) / 2)], 1)
    cut = FiniteDistribution(x[:, None], mass / mass.sum())
    # Grid points stand for cells 0.05 wide, hence the tolerance.
    found = optimal_robust(cut, 2, eps, adversary="space", relaxed=True).error
    assert found == pytest.approx(GaussianPair([-1.0], [1.0]).robust_error(eps), abs=0.012)


def test_only_the_distance_in_units_of_sigma_counts() -> None:
    a = GaussianPair([0.0, 0.0], [3.0, 4.0], sigma=2.0)
    b = GaussianPair([7.0, -7.0], [7.0, -4.5], sigma=1.0)
    assert a.robust_error(1.0) == pytest.approx(b.robust_error(0.5), rel=1e-12)


def test_too_large_an_eps_is_a_coin_never_worse() -> None:
    pair = GaussianPair.apart(2.0, d=4)
    assert pair.robust_error(pair.largest_useful_eps()) == 0.5 == pair.robust_error(9.0)
    assert pair.largest_useful_eps() == pytest.approx(1.0)
    assert pair.largest_useful_eps("linf") == pytest.approx(0.5)
    x = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert len(set(pair.network(9.0)(x).argmax(1).tolist())) == 1


def test_the_logarithm_survives_where_the_error_underflows() -> None:
    pair = GaussianPair.apart(200.0)
    assert pair.bayes_error == 0.0
    assert pair.log_robust_error() == pytest.approx(-5000 - math.log(100 * math.sqrt(2 * math.pi)), abs=1e-3)


def test_bad_input() -> None:
    with pytest.raises(BadInput, match="sigma of the Gaussian pair: expected a finite number > 0, got 0"):
        GaussianPair([0.0], [1.0], 0.0)
    with pytest.raises(BadInput, match="two different finite vectors"):
        GaussianPair([1.0], [1.0])
    with pytest.raises(BadInput, match=r"shapes \(1,\) and \(2,\)"):
        GaussianPair([1.0], [1.0, 2.0])
    with pytest.raises(BadInput, match="eps: expected a finite number >= 0, got -1"):
        GaussianPair.apart(1.0).robust_error(-1.0)
    with pytest.raises(BadInput, match="expected l2 or linf, got 'l1'"):
        GaussianPair.apart(1.0).robust_error(0.1, "l1")
