"""Points made without the model's gradient, against closed forms."""

import pytest
import torch
from torch import nn

from calipers.attacks import linear
from calipers.diagnostics import from_other, from_substitute, toward_others
from calipers.models import Classifier
from calipers.threats import Box, Threat


def linear_model(d: int = 5, k: int = 3) -> Classifier:
    generator = torch.Generator().manual_seed(0)
    net = nn.utils.skip_init(nn.Linear, d, k)
    net.weight.data = torch.randn(k, d, generator=generator)
    net.bias.data = -net.weight.data.sum(1) / 2
    return Classifier.of(net.eval(), shape=(d,))


def inputs(n: int = 400, d: int = 5) -> torch.Tensor:
    return torch.rand(n, d, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
def test_points_are_witnesses_in_the_ball_and_the_box(norm):
    model, x = linear_model(), inputs(40)
    y, threat = model(x).argmax(1), Threat(norm, {"linf": 0.2, "l2": 0.4, "l1": 0.6, "l0": 2.0}[norm])
    for attack in (from_substitute(model, inputs()), from_other(model), toward_others(x, y, model.box)):
        found = attack(model, x, y, threat)
        assert (found.distance[found.success] <= threat.ladder[-1]).all()
        assert model.box.contains(found.adversarial).all()
        assert (model(found.adversarial).argmax(1) != y)[found.success].all()


@pytest.mark.parametrize("count", [400, 3], ids=["more inputs than coordinates", "fewer"])
def test_a_substitute_of_a_linear_model_breaks_what_its_own_gradient_breaks(count):
    """Never more than the exact attack; with enough inputs to learn from, nearly as much."""
    model, x = linear_model(), inputs(100)
    y, threat = model(x).argmax(1), Threat("linf", 0.15)
    exact = linear(model, x, y, Threat("linf")).distance <= 0.15 * (1 + 1e-6)
    found = from_substitute(model, inputs(count))(model, x, y, threat).success
    assert not (found & ~exact).any()
    assert found.sum() >= (0.9 if count > 5 else 0.1) * exact.sum()


def test_two_inputs_of_different_classes_share_their_midpoint():
    model = linear_model(2, 2)
    x = inputs(60, 2)
    y = model(x).argmax(1)
    far = torch.cdist(x, x, p=torch.inf).masked_fill(y[:, None] == y, torch.inf)
    pairs = (far <= 2 * 0.1).nonzero()
    found = toward_others(x, y, Box(0, 1))(model, x, y, Threat("linf", 0.1)).success
    nearest = far.argmin(1)
    mutual = [(i, j) for i, j in pairs.tolist() if nearest[i] == j and nearest[j] == i]
    assert mutual
    assert all(found[i] or found[j] for i, j in mutual)
