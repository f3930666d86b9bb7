import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import bdtr, ndtr

from calipers.data.synthetic import is_synthetic, synthetic
from calipers.errors import BadInput
from calipers.theory import BernoulliPair


@given(st.integers(1, 30), st.floats(0.5, 8), st.floats(0.2, 3), st.floats(0, 3), st.sampled_from(["l2", "linf"]))
@settings(max_examples=40, deadline=None)
def test_gaussian_answers_are_the_normal_tails(d: int, distance: float, sigma: float, eps: float, norm: str) -> None:
    data = synthetic(f"gaussian:d={d},distance={distance},sigma={sigma},eps={eps},norm={norm},n=2")
    # Along the diagonal an L∞ step of eps in every coordinate is an L2 step of eps·√d.
    step = eps if norm == "l2" else eps * math.sqrt(d)
    bayes, robust = (float(ndtr(-max(0.0, distance / 2 - s) / sigma)) for s in (0.0, step))
    assert float(data.provenance["bayes_error"]) == pytest.approx(bayes, rel=1e-9)
    assert float(data.provenance["robust_error"]) == pytest.approx(robust, rel=1e-9)


def least_error(k: int, t: float, flips: int) -> float:
    """The best threshold on the number of differing coordinates, or a constant answer, which errs half the time."""
    s = np.arange(k)
    far = sum(bdtr(np.minimum(most, k), k, 0.5 + t) for most in (s + flips, k - s + flips - 1))
    return min(0.5, float(np.min(far)) / 2)


@given(st.integers(1, 60), st.floats(0.02, 0.48), st.floats(0, 30), st.sampled_from(["l0", "linf"]))
@settings(max_examples=40, deadline=None)
def test_bernoulli_answers_are_the_binomial_tails(k: int, t: float, eps: float, norm: str) -> None:
    data = synthetic(f"bernoulli:k={k},t={t},eps={eps},norm={norm},n=2")
    bayes = least_error(k, t, 0)
    robust = least_error(k, t, math.floor(eps)) if norm == "l0" else (bayes if eps < 1 else 0.5)
    assert float(data.provenance["bayes_error"]) == pytest.approx(bayes, rel=1e-9)
    assert float(data.provenance["robust_error"]) == pytest.approx(robust, rel=1e-9)


def test_the_gaussian_sample_has_its_moments() -> None:
    data = synthetic("gaussian:d=4,distance=6,sigma=0.5,n=40000")
    x, y = data.x.double(), data.y
    assert data.x.dtype == torch.float32
    assert y.double().mean().item() == pytest.approx(0.5, abs=0.01)
    for label, side in ((0, -1.5), (1, 1.5)):
        part = x[y == label]
        assert part.mean(0).tolist() == pytest.approx([side] * 4, abs=0.02)
        assert torch.cov(part.T).flatten().tolist() == pytest.approx((0.25 * torch.eye(4)).flatten().tolist(), abs=0.01)


def test_the_bernoulli_sample_has_its_frequencies() -> None:
    data = synthetic("bernoulli:k=3,d=5,t=0.2,n=40000")
    assert set(data.x.unique().tolist()) == {-1.0, 1.0}
    for label, sides in ((0, [-1, -1, -1, 1, 1]), (1, [1] * 5)):
        part = data.x[data.y == label].double()
        assert part.mean(0).tolist() == pytest.approx([0.4 * side for side in sides], abs=0.03)
        off = torch.cov(part.T) - torch.diag(torch.cov(part.T).diag())
        assert off.abs().max().item() < 0.03


def test_the_optimal_rule_errs_as_often_as_the_provenance_says() -> None:
    data = synthetic("bernoulli:k=51,t=0.1,n=40000")
    wrong = BernoulliPair.of(51, 0.1).network()(data.x.double()).argmax(1) != data.y
    rate = float(data.provenance["bayes_error"])
    assert wrong.double().mean().item() == pytest.approx(rate, abs=4 * math.sqrt(rate / 40000))


@pytest.mark.parametrize("spec", ["gaussian", "gaussian:d=3,n=50", "bernoulli:k=4,n=50,seed=7"])
def test_a_spec_is_a_data_set(spec: str) -> None:
    data = synthetic(spec)
    assert bool(data.box.contains(data.x).all())
    assert torch.equal(data.x, synthetic(spec).x)
    assert not torch.equal(data.x, synthetic(spec, "train").x)
    assert data.class_names == ("0", "1")
    assert set(data.y.tolist()) == {0, 1}
    assert data.provenance["model"] == spec.partition(":")[0]
    assert data.name == spec
    assert len(data.take(5)) == 5


def test_another_seed_is_another_sample_and_the_callers_generator_stays() -> None:
    before = torch.get_rng_state()
    assert not torch.equal(synthetic("gaussian:seed=1").x, synthetic("gaussian:seed=2").x)
    assert torch.equal(before, torch.get_rng_state())


def test_is_synthetic() -> None:
    assert is_synthetic("bernoulli")
    assert not is_synthetic("digits")
    assert not is_synthetic("gaussian.npz")


@pytest.mark.parametrize(("spec", "sentence"), [
    ("gausian:d=2", "did you mean 'gaussian'"),
    ("gaussian:dd=2", "'dd' in gaussian:dd=2: expected key=value; did you mean 'd'"),
    ("gaussian:d", "expected key=value"),
    ("gaussian:d=2,d=3", "d of gaussian:d=2,d=3: expected one value"),
    ("gaussian:d=2.5", "expected a whole number, got '2.5'"),
    ("gaussian:d=0", "expected at least 1, got 0"),
    ("gaussian:n=0", "expected at least 1, got 0"),
    ("gaussian:eps=-1", "expected at least 0, got -1"),
    ("gaussian:sigma=nan", "expected a finite number, got 'nan'"),
    ("gaussian:sigma=0", "expected numbers > 0"),
    ("gaussian:norm=l0", "norm of gaussian:norm=l0: expected l2 or linf, got 'l0'"),
    ("bernoulli:t=0.5", "t of bernoulli:t=0.5: expected a number strictly between 0 and 0.5, got 0.5"),
    ("bernoulli:t=0", "strictly between 0 and 0.5"),
    ("bernoulli:k=9,d=3", "d of bernoulli:k=9,d=3: expected at least k = 9, got 3"),
])  # fmt: skip
def test_bad_specs(spec: str, sentence: str) -> None:
    with pytest.raises(BadInput) as caught:
        synthetic(spec)
    assert sentence in str(caught.value)


def test_bad_split() -> None:
    with pytest.raises(BadInput, match="did you mean 'train'"):
        synthetic("gaussian", "trian")  # type: ignore[arg-type]
