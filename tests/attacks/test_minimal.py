"""What single minimal-norm attacks promise beyond the laws: legs to several classes, small budgets, flat networks."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from calipers.attacks import apgd, cw, ddn, ead, fab, fmn, superdeepfool
from calipers.certificates.exact import exact
from calipers.models import Classifier
from calipers.threats import Threat
from tests.attacks.test_conformance import judged

INFINITE = (-math.inf, math.inf)


def affine(weight, bias) -> Classifier:
    net = nn.Linear(len(weight[0]), len(weight)).double().eval()
    with torch.no_grad():
        net.weight.copy_(torch.tensor(weight))
        net.bias.copy_(torch.tensor(bias))
    return Classifier.of(net, shape=(len(weight[0]),), box=INFINITE)


def test_fmn_finds_the_nearest_class_where_the_likeliest_is_farther():
    # From 0: class 1 is 0.1 below at a slope of 0.1, so at distance 1; class 2 is 1 below at a slope of 2.
    model = affine([[0.0, 0.0], [0.1, 0.0], [0.0, 2.0]], [1.0, 0.9, 0.0])
    x, y = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([0])
    for norm in ("linf", "l2", "l1"):
        assert fmn(model, x, y, Threat(norm), steps=50).distance.item() == pytest.approx(0.5, rel=0.01)
        assert fmn(model, x, y, Threat(norm), steps=50, legs=1).distance.item() > 0.9


def test_the_nearest_witness_is_the_exact_optimum_of_a_small_network():
    """Two hidden layers with large weights: the nearest of three attacks is, in the median, what HiGHS proves."""
    with torch.random.fork_rng():
        torch.random.manual_seed(3)
        net = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 4)).eval()
        with torch.no_grad():
            for layer in net[::2]:
                layer.weight.mul_(3)
        x = torch.rand(30, 8)
    model, threat = Classifier.of(net, shape=(8,)), Threat("linf")
    with torch.no_grad():
        y = model(x).argmax(1)
    attacks = (partial(fmn, restarts=4), partial(fab, targets=3), partial(apgd, targets=3, restarts=4))
    nearest = torch.stack([attack(model, x, y, threat).distance for attack in attacks]).amin(0)
    ratio = nearest / exact(model, x, y, "linf", upper=nearest).radius
    assert (ratio > 1 - 1e-6).all()
    assert float(ratio.median()) <= 1.01


@pytest.mark.parametrize("legs", [1, 2, 3])
def test_legs_share_the_steps(legs):
    model = affine([[0.0, 0.0], [0.1, 0.0], [0.0, 2.0]], [1.0, 0.9, 0.0])
    x, y = torch.zeros(2, 2, dtype=torch.float64), torch.tensor([0, 0])
    assert fmn(model, x, y, Threat("l2"), steps=20, legs=legs).gradients.tolist() == [20, 20]


@pytest.mark.parametrize("box", [(0.0, 1.0), INFINITE], ids=["box", "no box"])
@pytest.mark.parametrize("squash", [nn.ReLU(), nn.Hardtanh(-1e-3, 1e-3)], ids=["dead", "saturated"])
def test_where_the_gradient_vanishes_restarts_end_in_no_nan(squash, box):
    g = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), squash, nn.Linear(8, 4)).eval()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=g))
        net[0].bias.sub_(3.0)
    model = Classifier.of(net, shape=(6,), box=box)
    x = torch.rand(5, 6, generator=g)
    with torch.no_grad():
        y = model(x).argmax(1)
    for attack, norms in ((fmn, ("linf", "l2", "l1", "l0")), (fab, ("linf", "l2", "l1")), (superdeepfool, ("l2",)),
                          (ddn, ("l2",)), (cw, ("l2",)), (ead, ("l1",))):  # fmt: skip
        for norm in norms:
            judged(attack(model, x, y, Threat(norm), steps=20, restarts=3), model, x, y, norm)


def test_cw_is_not_silly_at_a_hundred_gradients():
    g = torch.Generator().manual_seed(1)
    model = affine(torch.randn(10, 100, generator=g, dtype=torch.float64).tolist(), [0.0] * 10)
    x = torch.rand(8, 100, generator=g, dtype=torch.float64)
    with torch.no_grad():
        logits = model(x)
    y = logits.argmax(1)
    weight = model.module.weight.detach()
    gap = logits.gather(1, y[:, None]) - logits
    exact = (gap / (weight[y][:, None] - weight).norm(dim=2)).masked_fill(gap == 0, math.inf).amin(1)
    assert (cw(model, x, y, Threat("l2"), steps=100).distance / exact).median() < 1.25
