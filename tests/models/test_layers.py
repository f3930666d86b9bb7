import pytest
import torch
from torch import nn

from calipers.errors import BadInput
from calipers.models import Classifier, Normalize, digest, linear


@pytest.mark.parametrize(("size", "shape"), [((), (5,)), ((3,), (3, 4, 7)), ((3, 4, 7), (3, 4, 7)), ((5,), (5,))])
def test_normalize_acts_per_channel_or_per_feature(size, shape):
    mean, std, x = torch.rand(size), torch.rand(size) + 0.5, torch.rand(2, *shape)
    out = Normalize(mean, std)(x)
    assert out.shape == x.shape
    where = tuple(0 for _ in shape)
    channel = where[: len(size)]
    assert torch.equal(out[(1, *where)], (x[(1, *where)] - mean[channel]) / std[channel])
    last = tuple(n - 1 for n in shape)
    assert torch.equal(out[(0, *last)], (x[(0, *last)] - mean[last[: len(size)]]) / std[last[: len(size)]])


def test_normalize_moves_with_its_module_and_is_saved_with_it():
    net = nn.Sequential(Normalize(torch.zeros(2), torch.ones(2))).double()
    assert list(net.state_dict()) == ["0.mean", "0.std"]
    assert net(torch.zeros(1, 2).double()).dtype == torch.float64


@pytest.mark.parametrize("std", [[0.0], [-1.0], [float("nan")], [float("inf")]])
def test_normalize_refuses_a_std_that_is_not_positive(std):
    with pytest.raises(BadInput, match="Normalize: expected finite means and standard deviations > 0"):
        Normalize(torch.zeros(1), torch.tensor(std))


def test_linear_draws_no_random_number_and_owns_its_weights():
    weight, before = torch.rand(2, 3), torch.get_rng_state()
    layer = linear(weight, torch.zeros(2))
    assert torch.equal(torch.get_rng_state(), before)
    weight.zero_()
    assert layer.weight.abs().sum() > 0
    assert layer.weight.requires_grad


def model_of(weight, *parts):
    return Classifier.of(nn.Sequential(linear(weight, torch.zeros(2)), *parts), shape=(2,))


def test_digest_sees_bytes_dtype_and_structure():
    eye = torch.eye(2)
    flipped = eye.clone()
    flipped[0, 1] = 1e-45  # one bit
    digests = {
        digest(model_of(eye)),
        digest(model_of(flipped)),
        digest(Classifier.of(nn.Sequential(nn.Linear(2, 2)).bfloat16(), shape=(2,))),
        digest(model_of(eye, nn.ReLU())),
        digest(model_of(eye, nn.Sigmoid())),
        digest(model_of(eye, Normalize(torch.zeros(2), torch.ones(2)))),
        digest(model_of(eye, Normalize(torch.zeros(2), 2 * torch.ones(2)))),
    }
    assert len(digests) == 7
    assert digest(model_of(eye)) in digests
