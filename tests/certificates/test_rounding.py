"""The certificate is about the program, not about the formula: float32 as executed, in any order of summation."""

import pytest
import torch
from torch import Tensor, nn

from calipers.certificates import CERTIFICATES, crown, interval
from calipers.certificates.arithmetic import Arithmetic
from calipers.certificates.crown import Bounds
from calipers.certificates.domain import Domain
from calipers.certificates.reading import read
from calipers.models import Classifier
from calipers.models.layers import linear
from calipers.threats import Box, Norm
from tests.certificates.networks import weights

LP: tuple[Norm, ...] = ("linf", "l2", "l1")


def cancelling(dtype: torch.dtype) -> Classifier:
    """x → (x + 2²⁷ − 2²⁷, x) and a margin of 0.5 everywhere; in float32 the first is 0 and the label flips at 0.5."""
    big = 2.0**27
    net = nn.Sequential(
        linear(torch.tensor([[1.0], [1.0]]), torch.tensor([big, 0.0])), nn.ReLU(),
        linear(torch.eye(2), torch.tensor([-big, 0.0])), nn.ReLU(),
        linear(torch.eye(2), torch.tensor([0.5, 0.0])),
    )  # fmt: skip
    return Classifier.of(net.to(dtype).eval(), shape=(1,), box=Box(0.03, 0.93))


@pytest.mark.parametrize("name", [n for n in CERTIFICATES if n not in ("affine", "shallow")])
@pytest.mark.parametrize("norm", LP)
def test_catastrophic_cancellation_is_not_certified_beyond_the_executed_boundary(name, norm):
    x, y = torch.tensor([[0.1], [0.4], [0.48]]), torch.zeros(3, dtype=torch.int64)
    model = cancelling(torch.float32)
    with torch.no_grad():
        executed = model(torch.tensor([[0.4], [0.6]]))
    assert executed.argmax(1).tolist() == [0, 1]
    # The formula's margin is 0.5 on the whole box; the program's is 0.5 − x.
    assert (CERTIFICATES[name](model, x, y, norm).radius <= 0.5 - x[:, 0].double()).all()


def test_the_same_network_is_certified_where_nothing_cancels():
    x, y = torch.tensor([[0.1], [0.4], [0.48]]).double(), torch.zeros(3, dtype=torch.int64)
    model = cancelling(torch.float64)
    with torch.no_grad():
        assert (model(torch.linspace(0.03, 0.93, 50).double()[:, None]).argmax(1) == 0).all()
    assert (crown(model, x, y, "linf").radius > 0.5 - x[:, 0] + 0.01).all()


def orders(w: Tensor, b: Tensor, x: Tensor, g: torch.Generator) -> Tensor:
    """Wx + b in float32, summed one by one in a random order."""
    total = b.expand(len(x), -1).clone()
    for k in torch.randperm(w.shape[1], generator=g).tolist():
        total = total + x[:, k : k + 1] * w[:, k]
    return total


@pytest.mark.parametrize("seed", range(3))
def test_every_order_of_summation_stays_inside_the_bounds(seed):
    with torch.random.fork_rng():
        net = weights(
            nn.Sequential(nn.Linear(200, 40), nn.ReLU(), nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 3)), seed, 2.0
        )
    model = Classifier.of(net, shape=(200,))
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(4, 200, generator=g)
    graph = read(model)
    domain = Domain(x.double(), torch.zeros(4, dtype=torch.float64), "linf", model.box)
    bounds = Bounds(graph, domain, Arithmetic.of(torch.float32))
    eye = torch.eye(3, dtype=torch.float64).expand(4, 3, 3)
    low, high = bounds.lowest(graph.last, eye), -bounds.lowest(graph.last, -eye)
    moved = 0.0
    with torch.no_grad():
        for _ in range(10):
            z = x
            for layer in net:
                z = orders(layer.weight, layer.bias, z, g) if isinstance(layer, nn.Linear) else layer(z)
            assert ((z.double() >= low) & (z.double() <= high)).all()
            moved = max(moved, float((z.double() - graph(x)).abs().max()))
    # The law is not idle: executions differ from real arithmetic, by less than is allowed but not by nothing.
    assert 0 < moved < float((high - low).max()) < 1e-2


def test_rounding_costs_little():
    with torch.random.fork_rng():
        net = weights(nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 5)), 1)
    x = torch.rand(9, 64, generator=torch.Generator().manual_seed(1))
    single = Classifier.of(net, shape=(64,))
    with torch.no_grad():
        y = single(x).argmax(1)
    executed = crown(single, x, y, "linf").radius
    real = crown(Classifier.of(net.double(), shape=(64,)), x.double(), y, "linf").radius
    assert (executed <= real * (1 + 1e-3)).all()
    assert ((executed / real) > 0.99).all()


@pytest.mark.parametrize("certificate", [interval, crown])
def test_overflow_proves_nothing(certificate):
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)).eval()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.full_like(p, 2.0**100))
        net[2].bias.copy_(torch.tensor([2.0**100, 0.0]))
        net[2].weight.zero_()
        net[2].weight[1, 1] = -(2.0**60)
    model = Classifier.of(net, shape=(2,))
    x, y = torch.full((1, 2), 0.5), torch.tensor([0])
    # −2⁶⁰ · 2¹⁰⁰ overflows float32, so the margin is infinite there; what is certified must not rest on it.
    assert not (certificate(model, x, y, "linf").radius > 0).any()
