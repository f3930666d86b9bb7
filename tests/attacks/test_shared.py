"""Shared perturbations on models whose answer is known in closed form."""

import pytest
import torch

from calipers.attacks import along, transferred, universal
from calipers.errors import BadInput
from calipers.models import Classifier, linear
from calipers.threats import Threat, distance
from tests.attacks.conformance import examples, small_net
from tests.attacks.test_conformance import judged
from tests.attacks.test_ensemble import Opaque

W = torch.tensor([[1.0, -2.0, 0.5], [-1.0, 1.0, 0.0]], dtype=torch.float64)
PLANE = Classifier.of(linear(W, torch.zeros(2, dtype=torch.float64)).eval(), shape=(3,), box=(-9, 9))


def points() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x, PLANE(x).argmax(1)


def test_along_the_normal_a_plane_is_met_at_its_distance_and_away_from_it_never():
    x, y = points()
    normal = (W[0] - W[1]) * torch.where(y == 0, -1.0, 1.0)[:, None]
    exact = ((x @ (W[0] - W[1])).abs() / (W[0] - W[1]).norm()).double()
    toward = along(normal, PLANE, x, y, Threat("l2")).distance
    assert (toward >= exact * (1 - 1e-12)).all()
    assert (toward <= exact * (1 + 1e-4)).all()
    assert not along(-normal, PLANE, x, y, Threat("l2")).success.any()
    eps = float(exact.median())
    judged(along(normal, PLANE, x, y, Threat("l2", eps)), PLANE, x, y, "l2")
    assert torch.equal(along(normal, PLANE, x, y, Threat("l2", eps)).success, exact * (1 + 1e-4) < eps)


def test_a_universal_perturbation_is_one_for_all_and_as_strong_as_can_be_on_one_side_of_a_plane():
    x, y = points()
    x, y = x[y == 0], y[y == 0]
    exact = (x @ (W[0] - W[1])).abs() / (W[0] - W[1]).abs().sum()
    eps = float(exact.median()) * (1 + 1e-6)
    v, found = universal(PLANE, x, y, Threat("linf", eps), steps=50)
    assert v.abs().max() <= eps
    assert torch.allclose(found.adversarial[found.success], (x + v)[found.success], atol=1e-12)
    assert int(found.success.sum()) == int((exact < eps).sum())


def test_a_surrogate_that_is_the_model_itself_is_as_good_as_its_gradient_and_costs_it_none():
    net = small_net((1, 4, 4), 3, torch.float32)
    opaque = Classifier.of(Opaque(net.module).eval(), shape=(1, 4, 4))
    x, y = examples(net, 11)
    for norm, eps in (("linf", 0.1), ("l2", 0.4)):
        found = transferred(opaque, x, y, Threat(norm, eps), surrogate=net, steps=20)
        judged(found, opaque, x, y, norm)
        assert found.gradients.sum() == 0
        assert (
            found.success.sum()
            >= transferred(
                opaque, x, y, Threat(norm, eps), surrogate=small_net((1, 4, 4), 3, torch.float32, seed=9), steps=20
            ).success.sum()
        )
        assert (distance(x, found.adversarial, norm) <= eps).all()


def test_bad_input_is_a_sentence():
    x, y = points()
    with pytest.raises(BadInput, match="direction: expected finite numbers, not all of them zero"):
        along(torch.zeros(3), PLANE, x, y, Threat("l2"))
    with pytest.raises(BadInput, match=r"direction: expected shape \(3,\)"):
        along(torch.ones(4), PLANE, x, y, Threat("l2"))
    with pytest.raises(BadInput, match="surrogate small net: expected inputs of shape"):
        transferred(PLANE, x, y, Threat("l2", 1.0), surrogate=small_net((4,), 2, torch.float64))
    with pytest.raises(BadInput, match="threat of a universal perturbation"):
        universal(PLANE, x, y, Threat("l2"))
