"""The contract of the Classifier: what it finds out, what it refuses, and how it leaves a module."""

import math

import pytest
import torch
from torch import nn

from calipers.attacks import fmn
from calipers.certificates import interval
from calipers.errors import BadInput
from calipers.models import Classifier, ModelInTrainMode, as_they_were, linear, two_classes
from calipers.threats import Box


def model_of(shape=(4,), box=None):
    size = torch.Size(shape).numel()
    net = nn.Sequential(nn.Flatten(), linear(torch.ones(3, size), torch.zeros(3))).eval()
    return Classifier.of(net, shape=shape, box=box, name="net")


@pytest.mark.parametrize("shape", [(4,), (1, 2, 2), (3, 5, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_finds_classes_and_dtype(shape, dtype):
    size = torch.Size(shape).numel()
    model = Classifier.of(nn.Sequential(nn.Flatten(), nn.Linear(size, 7)).to(dtype), shape=shape)
    assert (model.classes, model.dtype, model.shape) == (7, dtype, shape)
    x = torch.rand(2, *shape, dtype=dtype)
    assert torch.equal(model(x), model.module(x))


@pytest.mark.parametrize("box", [(0, 1), (-math.inf, math.inf), (5, 6), (-math.inf, 0)])
def test_the_probe_is_a_finite_input_whatever_the_box(box):
    seen = []
    net = nn.Sequential(nn.Linear(2, 2))
    net.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    Classifier.of(net, shape=(2,), box=box)
    assert seen[0].isfinite().all()


@pytest.mark.parametrize(
    ("net", "got"),
    [
        (nn.Linear(4, 1), r"got \(2, 1\)"),
        (nn.Flatten(0), r"got \(8,\)"),
        (nn.GRU(4, 2), "got tuple"),
    ],
)
def test_what_is_not_logits_is_refused(net, got):
    with pytest.raises(BadInput, match=rf"output of model: expected logits of shape \(N, K\) with K >= 2, {got}"):
        Classifier.of(net, shape=(4,))


def test_a_shape_the_module_cannot_take_is_named():
    with pytest.raises(BadInput, match=r"model cannot take inputs of shape \(5,\) \(dtype float32\)"):
        Classifier.of(nn.Linear(4, 2), shape=(5,))


def nested():
    net = nn.Sequential(nn.BatchNorm1d(4), nn.Sequential(nn.Dropout(), nn.Linear(4, 2)))
    net.train()
    net[1].eval()
    net[1][0].train()
    return net


def test_frozen_evaluates_and_restores_every_part_also_after_an_error():
    net = nested()
    modes = [part.training for part in net.modules()]
    statistics = {name: buffer.clone() for name, buffer in net.named_buffers()}
    model = Classifier.of(net, shape=(4,))
    before = torch.get_rng_state()
    with pytest.raises(KeyError), pytest.warns(ModelInTrainMode, match="model was in train mode"), model.frozen():
        assert not any(part.training for part in net.modules())
        model(torch.rand(3, 4))
        raise KeyError
    assert [part.training for part in net.modules()] == modes
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in net.named_buffers())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_in_eval_mode_is_no_reason_to_warn():
    model = model_of()
    with model.frozen(), as_they_were(model.module):
        model(torch.zeros(1, 4))


def test_check_moves_examples_to_the_models_dtype():
    x, y = model_of().check(torch.rand(5, 4).double(), torch.tensor([0, 1, 2, 0, 1], dtype=torch.int32))
    assert (x.dtype, x.shape, y.tolist()) == (torch.float32, (5, 4), [0, 1, 2, 0, 1])


GOOD_X, GOOD_Y = torch.full((3, 4), 0.5), torch.tensor([0, 1, 2])


def spoilt(value, row=1):
    x = GOOD_X.clone()
    x[row, 2] = value
    return x


@pytest.mark.parametrize(
    ("x", "y", "sentence"),
    [
        (GOOD_X[:0], GOOD_Y[:0], "examples: expected at least one, got 0"),
        (torch.zeros(3, 5), GOOD_Y, r"inputs for net: expected examples of shape \(4,\), got shape \(5,\)"),
        (GOOD_X, GOOD_Y[:2], "labels: expected 3 integers"),
        (GOOD_X, GOOD_Y.float(), "labels: expected 3 integers"),
        (GOOD_X, torch.tensor([0, 1, 3]), r"label of example 2: expected 0…2 \(net has 3 classes\), got 3"),
        (GOOD_X, torch.tensor([0, -1, 0]), "label of example 1: expected 0…2"),
        (spoilt(math.nan), GOOD_Y, "input of example 1: expected finite numbers"),
        (spoilt(math.inf, 2), GOOD_Y, "input of example 2: expected finite numbers"),
        (spoilt(1.5), GOOD_Y, r"input of example 1: expected values inside \[0, 1\], got 0.5…1.5"),
        (spoilt(-0.1, 0), GOOD_Y, "input of example 0: expected values inside"),
    ],
)
def test_examples_that_do_not_fit_are_named(x, y, sentence):
    with pytest.raises(BadInput, match=sentence):
        model_of().check(x, y)


def test_a_box_may_differ_from_coordinate_to_coordinate():
    box = Box(torch.zeros(4), torch.tensor([1.0, 1, 2, 1]))
    model = model_of(box=box)
    model.check(spoilt(1.5), GOOD_Y)
    with pytest.raises(BadInput, match="input of example 1: expected values inside"):
        model.check(spoilt(2.5), GOOD_Y)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_attacked_as_it_is_executed(dtype):
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    weight = torch.tensor([[1.0, 0.5, -1.0, 0.25], [-1.0, 1.0, 0.5, 0.5], [0.25, -1.0, 1.0, 1.0]])
    net.load_state_dict({"1.weight": weight, "1.bias": torch.zeros(3)})
    net = net.to(dtype)
    x = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    y = net(x.to(dtype)).argmax(1)
    found = fmn(net, x, y, "linf")
    assert found.success.all() and (found.distance > 0).all()
    assert (net(found.adversarial.to(dtype)).argmax(1) != y).all(), "the user's own call is fooled"
    assert (found.distance < 1.05 * fmn(net.float(), x, y, "linf").distance + 0.01).all()


def test_one_logit_is_told_what_to_append():
    one = nn.Sequential(nn.Linear(2, 1)).eval()
    with pytest.raises(BadInput, match=r"append calipers\.models\.two_classes\(\)"):
        Classifier.of(one, shape=(2,))
    model = Classifier.of(nn.Sequential(one, two_classes()), shape=(2,))
    x = torch.rand(9, 2, generator=torch.Generator().manual_seed(0))
    y = (one(x)[:, 0] > 0).long()
    assert torch.equal(model(x).argmax(1), y)
    lower, upper = interval(model, x, y, "linf").radius, fmn(model, x, y, "linf").distance
    assert (lower <= upper).all() and (lower > 0).any()
