import numpy as np
import pytest
import torch
from torch import Tensor, nn

from calipers.errors import BadInput
from calipers.theory import (
    adversarial_objective,
    basis_values,
    chebyshev_hardness,
    chebyshev_hardness_maxima,
    feature_layer,
    grid,
    hard_objective,
    optimal_objective,
    self_loss,
)


def small_network() -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return net


def test_cross_entropy_with_itself() -> None:
    logits = torch.tensor([[0.3, -1.0, 2.0], [5.0, 5.0, 5.0]], dtype=torch.float64)
    p = logits.softmax(1)
    assert torch.allclose(self_loss(logits), nn.functional.cross_entropy(logits, p, reduction="none"))
    assert self_loss(logits)[1].item() == pytest.approx(np.log(3))
    assert torch.allclose(self_loss(logits + 100), self_loss(logits))


def test_saturated_logits_give_no_nan() -> None:
    logits = torch.tensor([[0.0, -1e5]], requires_grad=True)
    loss = self_loss(logits).sum()
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(logits.grad).all()


def test_hinge_is_equation_11() -> None:
    h = torch.tensor([-2.0, -0.5, 0.0, 1.0])
    assert self_loss(h, "hinge").tolist() == [0.0, 0.75, 1.0, 0.0]


def test_objectives_are_differentiable_in_x() -> None:
    net = small_network()
    x = torch.tensor([[0.2, -0.4], [1.0, 0.3]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: adversarial_objective(net, z), (x,))
    assert torch.autograd.gradcheck(lambda z: hard_objective(feature_layer(net), z), (x,))


def test_adversarial_objective_is_largest_on_the_boundary_of_a_line() -> None:
    line = nn.Linear(1, 2)
    with torch.no_grad():
        line.weight.copy_(torch.tensor([[-1.0], [1.0]]))
        line.bias.zero_()
    x = torch.linspace(-1, 1, 101)[:, None]
    assert adversarial_objective(line, x).argmax().item() == 50


def test_the_feature_layer_is_the_network_without_its_last_layer() -> None:
    net, x = small_network(), torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(net[2](feature_layer(net)(x)), net(x))
    assert torch.equal(hard_objective(feature_layer(net), x), adversarial_objective(feature_layer(net), x))


def test_hard_objective_of_the_chebyshev_basis_is_equation_12() -> None:
    n, x = 7, torch.linspace(0, 1, 50, dtype=torch.float64)
    basis = [lambda z, i=i: torch.from_numpy(basis_values(z.numpy(), n, "chebyshev")[:, i]) for i in range(n + 1)]
    assert torch.allclose(hard_objective(basis, x, "hinge"), chebyshev_hardness(x, n), atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 10, 40])
def test_equation_12_in_closed_form(n: int) -> None:
    angle = np.linspace(0.01, np.pi - 0.01, 999)
    x = torch.from_numpy((1 + np.cos(angle)) / 2)
    closed = 0.5 - (0.5 + np.sin((2 * n + 1) * angle) / (2 * np.sin(angle))) / (2 * (n + 1))
    assert chebyshev_hardness(x, n).numpy() == pytest.approx(closed, abs=1e-10)
    nodes = torch.from_numpy(grid("chebyshev", n + 2))
    assert chebyshev_hardness(nodes, n).numpy() == pytest.approx([0, *[0.5] * n, 0], abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 10, 25])
def test_maxima_are_maxima_and_all_of_them(n: int) -> None:
    maxima = chebyshev_hardness_maxima(n)
    assert len(maxima) == n
    x = torch.from_numpy(maxima).requires_grad_()
    value = chebyshev_hardness(x, n)
    (slope,) = torch.autograd.grad(value.sum(), x)
    assert slope.abs().max().item() < 1e-7
    for shift in (-1e-5, 1e-5):
        assert (chebyshev_hardness(x + shift, n) < value).all()
    # The highest maximum is the outermost: putting every point there beats one point per maximum.
    assert value.max() - value[0] < 1e-12


def test_outermost_maximum_is_twice_as_far_from_the_end_as_the_outermost_node() -> None:
    n = 200
    ratio = chebyshev_hardness_maxima(n)[0] / grid("chebyshev", n + 2)[1]
    assert ratio == pytest.approx((4.493409 / np.pi) ** 2, rel=0.01)


def interpolate(x: Tensor, y: Tensor) -> object:
    """The learning rule of polynomial interpolation through all points."""
    powers = torch.arange(len(x))
    weights = torch.linalg.solve(x**powers, y)
    return lambda z: z**powers @ weights


def test_equation_8_vanishes_for_what_the_rule_learns_exactly() -> None:
    x = torch.tensor([[0.0], [0.4], [1.0]], dtype=torch.float64)
    assert optimal_objective([lambda z: 3 * z[:, 0] ** 2 - z[:, 0]], interpolate, x).item() == pytest.approx(
        0, abs=1e-12
    )


def test_equation_8_is_the_slope_of_the_error_at_the_nodes() -> None:
    """x³ interpolated at a, b, c leaves the error −(x − a)(x − b)(x − c), with known slopes."""
    a, b, c = 0.1, 0.4, 1.0
    x = torch.tensor([[a], [b], [c]], dtype=torch.float64, requires_grad=True)
    slopes = abs((a - b) * (a - c)) + abs((b - a) * (b - c)) + abs((c - a) * (c - b))
    value = optimal_objective([lambda z: z[:, 0] ** 3, lambda z: 0 * z[:, 0]], interpolate, x)
    assert value.item() == pytest.approx(slopes / 2)
    (pull,) = torch.autograd.grad(value, x)
    # d/db of (b − a)(c − a) + (b − a)(c − b) + (c − a)(c − b) is (c − a) + (c + a − 2b) − (c − a).
    assert pull[1].item() == pytest.approx((c + a - 2 * b) / 2)


def test_bad_input() -> None:
    with pytest.raises(BadInput, match="loss: expected 'ce' or 'hinge', got 'mse'"):
        self_loss(torch.zeros(1, 2), "mse")
    with pytest.raises(BadInput, match="K >= 2"):
        self_loss(torch.zeros(3))
    with pytest.raises(BadInput, match="hypotheses: expected at least one"):
        hard_objective([], torch.zeros(1))
    with pytest.raises(BadInput, match="linear layer after its features"):
        feature_layer(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(BadInput, match="degree"):
        chebyshev_hardness(torch.zeros(1), 0)
