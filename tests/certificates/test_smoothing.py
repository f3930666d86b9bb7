"""Randomised smoothing: the stated confidence is kept, and nothing of it is a proof."""

import math

import pytest
import torch
from scipy.stats import binom, norm
from torch import nn

from calipers.certificates import CERTIFICATES, Certified, Probabilistic, smooth_predict, smoothing
from calipers.certificates.smoothing import lower_confidence
from calipers.errors import BadInput
from calipers.models import Classifier, linear
from calipers.threats import Box


def halfspace(d: int = 2) -> Classifier:
    """Answers 0 where x_0 < 0.5: the smoothed classifier's radius is |0.5 − x_0| whatever the noise."""
    weight = torch.zeros(2, d, dtype=torch.float64)
    weight[0, 0], weight[1, 0] = -1.0, 1.0
    net = nn.Sequential(linear(weight, torch.tensor([0.5, -0.5], dtype=torch.float64))).eval()
    return Classifier.of(net, shape=(d,), box=Box(0, 1))


def test_the_radius_covers_the_truth_as_often_as_it_says():
    """500 independent certificates at alpha = 0.1: at most a tenth may exceed the known radius of the half-space."""
    model, n = halfspace(), 500
    x = torch.full((n, 2), 0.3, dtype=torch.float64)
    found = smoothing(model, x, torch.zeros(n, dtype=torch.int64), sigma=0.3, n=200, alpha=0.1)
    above = int((found.radius > 0.2).sum())
    assert above <= binom.ppf(0.9999, n, 0.1)
    # And not because it says nothing: Clopper and Pearson is wrong nearly as often as it may be.
    assert above >= binom.ppf(0.0001, n, 0.03)
    assert float(found.radius.median()) > 0.12


def test_more_draws_come_closer_to_the_known_radius():
    x = torch.tensor([[0.3, 0.9]], dtype=torch.float64)
    few, many = (float(smoothing(halfspace(), x, n=n).radius) for n in (500, 50_000))
    assert 0.12 < few < many <= 0.2 + 0.01
    assert many > 0.19


def test_clopper_and_pearson_against_its_definition():
    for hits, n, alpha in ((90, 100, 0.01), (1, 7, 0.05), (999, 1000, 0.001), (50, 50, 0.1)):
        p = lower_confidence(hits, n, alpha)
        assert binom.sf(hits - 1, n, p) == pytest.approx(alpha, rel=1e-9)
    assert lower_confidence(0, 10, 0.05) == 0


def test_it_abstains_on_the_boundary_and_where_the_label_is_another():
    x = torch.tensor([[0.5, 0.0], [0.0, 0.0]], dtype=torch.float64)
    found = smoothing(halfspace(), x, torch.tensor([0, 1]), n=1000)
    assert found.predicted.tolist() == [-1, 0]
    assert found.radius.tolist() == [0.0, 0.0]
    assert smoothing(halfspace(), x, n=1000).radius[1] > 0
    assert smooth_predict(halfspace(), x).tolist() == [-1, 0]


def test_perfect_agreement_gives_the_largest_radius_that_n_draws_can_give():
    net = nn.Sequential(linear(torch.zeros(2, 1), torch.tensor([1.0, 0.0]))).eval()
    found = smoothing(Classifier.of(net, shape=(1,)), torch.zeros(1, 1), sigma=2.0, n=1000, alpha=0.001)
    assert float(found.radius) == pytest.approx(2.0 * norm.ppf(0.001 ** (1 / 1000)), rel=1e-9)


def test_draws_belong_to_the_example_not_to_the_batch():
    model = halfspace(3)
    x = torch.rand(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    state = torch.get_rng_state()
    together = smoothing(model, x, n=300)
    assert torch.equal(state, torch.get_rng_state())
    alone = smoothing(model, x[3:4], n=300, index=torch.tensor([3]))
    small = smoothing(model, x, n=300, batch_size=7)
    assert torch.equal(together.radius, small.radius)
    assert torch.equal(alone.radius, together.radius[3:4])


def test_it_is_no_proof_and_no_certificate_of_the_model():
    found = smoothing(halfspace(), torch.zeros(1, 2, dtype=torch.float64), n=100)
    assert isinstance(found, Probabilistic)
    assert not isinstance(found, Certified)
    assert (found.confidence, found.norm, found.by) == (0.999, "l2", "smoothing")
    assert "smoothing" not in CERTIFICATES
    assert "smoothed classifier" in found.assumes


def test_nan_is_an_answer_of_no_class():
    class Nan(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.where(x > 0.5, torch.nan, torch.cat([x, 1 - x], 1))

    found = smoothing(Classifier.of(Nan().eval(), shape=(1,), box=Box(0, 0.4)), torch.tensor([[0.4]]), sigma=0.5)
    # More than half of the noisy copies say class 1 only below 0.5, and some of those above say nothing.
    assert float(found.radius) <= 0.5 * norm.ppf(norm.cdf((0.5 - 0.4) / 0.5)) + 0.01


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"sigma": 0.0}, "sigma of the smoothing: expected a finite number > 0, got 0.0"),
        ({"sigma": math.inf}, "sigma"),
        ({"alpha": 1.0}, "alpha of the smoothing: expected a number between 0 and 1"),
        ({"n": 0}, "draws of the smoothing: expected at least 1, got 0"),
    ],
)
def test_settings_that_make_no_sense(options, sentence):
    with pytest.raises(BadInput, match=sentence):
        smoothing(halfspace(), torch.zeros(1, 2, dtype=torch.float64), **options)
