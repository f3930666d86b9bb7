"""Lines that are lines, domains that are domains, and what backward bounds and branching make of them."""

import math

import pytest
import torch
from torch import Tensor, nn

from calipers.attacks import fmn
from calipers.certificates import activations, branch, crown, interval
from calipers.certificates.activations import Activation
from calipers.certificates.arithmetic import Arithmetic
from calipers.certificates.crown import Bounds, TooLarge, label_rows
from calipers.certificates.domain import Domain
from calipers.certificates.pooling import MaxPool
from calipers.certificates.reading import read
from calipers.certificates.relaxations import Picks, between, tangents
from calipers.models import Classifier, references
from calipers.threats import Box, Norm, Threat, cross, distance
from tests.certificates.networks import weights

LP: tuple[Norm, ...] = ("linf", "l2", "l1")
SMOOTH = [
    activations.tanh, activations.sigmoid, activations.gelu, activations.gelu_tanh, activations.silu,
    activations.softplus(1.0, 20.0), activations.softplus(3.0, 15.0),
]  # fmt: skip
EVERY = [*SMOOTH, activations.leaky_relu(), activations.leaky_relu(0.2), activations.leaky_relu(1.0)]
named = pytest.mark.parametrize("op", EVERY, ids=lambda op: op.name)


def intervals(n: int = 400) -> tuple[Tensor, Tensor]:
    """Intervals of every size, some of a single point, near the origin and far from it."""
    g = torch.Generator().manual_seed(0)
    middle = torch.randn(n, generator=g, dtype=torch.float64) * 10 ** (2 * torch.rand(n, generator=g) - 1)
    width = 10 ** (6 * torch.rand(n, generator=g, dtype=torch.float64) - 4)
    width[:5] = 0
    return middle - width / 2, middle + width / 2


@named
def test_an_activation_lies_between_its_lines_and_inside_its_interval(op: Activation):
    lo, hi = intervals()
    band = tangents(op, lo, hi)
    low, high = op.interval((lo, hi))
    for share in torch.linspace(0, 1, 501, dtype=torch.float64):
        t = (lo + (hi - lo) * share).clamp(lo, hi)
        value, tiny = op(t), 1e-12 * (1 + t.abs())
        assert (band.low * t + (0 if band.under is None else band.under) <= value + tiny).all()
        assert (band.high * t + band.over >= value - tiny).all()
        assert ((low <= value + tiny) & (value - tiny <= high)).all()


@pytest.mark.parametrize("op", SMOOTH, ids=lambda op: op.name)
def test_the_lines_of_smooth_functions_are_tight(op: Activation):
    """On a short interval the two lines are as far apart as curvature makes them: |f″|·w²/8, and not much more."""
    lo, hi = torch.tensor([0.4, -0.3], dtype=torch.float64), torch.tensor([0.5, -0.2], dtype=torch.float64)
    band = tangents(op, lo, hi)
    middle = (lo + hi) / 2
    gap = (band.high - band.low) * middle + band.over - band.under
    assert (gap <= 1.1 * op.curvature(torch.zeros(2).double()) * 0.1**2 / 8).all()


@pytest.mark.parametrize("op", SMOOTH, ids=lambda op: op.name)
def test_curvature_and_slope_bound_the_derivatives(op: Activation):
    t = torch.linspace(-30, 30, 60_001, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(op(t).sum(), t, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), t)
    bound = op.curvature(t.detach().abs())
    assert (second.abs() <= bound * (1 + 1e-9) + 1e-12).all()
    assert (first.abs() <= op.slope).all()
    outward = op.curvature(torch.linspace(0, 30, 3001, dtype=torch.float64))
    assert (outward.diff() <= 1e-15).all()


def test_the_largest_of_a_window_lies_between_its_lines():
    g = torch.Generator().manual_seed(1)
    pool = nn.MaxPool2d(3, 2, padding=1)
    net = nn.Sequential(pool, nn.Flatten(), nn.Linear(18, 2)).eval()
    op = read(Classifier.of(net, shape=(2, 5, 5))).nodes[0].op
    assert isinstance(op, MaxPool)
    lo = torch.randn(20, 2, 5, 5, generator=g, dtype=torch.float64)
    hi = lo + torch.rand(lo.shape, generator=g, dtype=torch.float64) * torch.rand(20, 1, 1, 1, generator=g).double() * 3
    lines = between(op, (lo, hi))
    assert isinstance(lines, Picks)
    for _ in range(200):
        x = lo + (hi - lo) * torch.rand(lo.shape, generator=g, dtype=torch.float64)
        value, flat = pool(x).flatten(1), x.flatten(1)
        assert (flat.gather(1, lines.least) <= value).all()
        assert (lines.slope * flat.gather(1, lines.most) + lines.over >= value - 1e-12).all()
    a = torch.randn(20, 3, 2, 3, 3, generator=g, dtype=torch.float64)
    back, constant = lines.back(a)
    assert ((a * pool(x)[:, None]).sum((2, 3, 4)) >= (back * x[:, None]).sum((2, 3, 4)) + constant - 1e-12).all()


@pytest.mark.parametrize("norm", LP)
@pytest.mark.parametrize("box", [Box(0, 1), Box(-math.inf, math.inf)], ids=["box", "everywhere"])
def test_the_least_value_on_a_domain_is_exact(norm, box):
    """The radius at which the gain is possible is the radius the domain was given."""
    g = torch.Generator().manual_seed(2)
    x = torch.rand(30, 12, generator=g, dtype=torch.float64)
    x[:, :5] = x[:, :5].round()
    a = torch.randn(30, 1, 12, generator=g, dtype=torch.float64)
    radius = 10 ** (2 * torch.rand(30, generator=g, dtype=torch.float64) - 1.5)
    gain = (a[:, 0] * x).sum(1) - Domain(x, radius, norm, box).lowest(a)[:, 0]
    needed, _ = cross(x, -a[:, 0], gain * (1 - 1e-9), norm, box)
    # Where the whole box is inside the ball the gain stops growing.
    assert ((needed - radius).abs()[needed < radius] <= 1e-3 * radius[needed < radius]).sum() >= 15
    most, _ = cross(x, -a[:, 0], gain * (1 + 1e-3), norm, box)
    assert (most >= radius * (1 - 1e-9)).all()


@pytest.mark.parametrize("norm", LP)
@pytest.mark.parametrize("act", [nn.ReLU(), nn.Tanh(), nn.GELU(), nn.Softplus()], ids=lambda a: type(a).__name__)
def test_backward_bounds_are_tighter_than_intervals_where_it_matters(norm, act):
    with torch.random.fork_rng():
        net = weights(nn.Sequential(nn.Linear(20, 24), act, nn.Linear(24, 16), act, nn.Linear(16, 4)), 0, 2.0)
    model = Classifier.of(net, shape=(20,))
    x = torch.rand(12, 20, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = model(x).argmax(1)
    upper = fmn(model, x, y, Threat(norm), steps=40).distance
    plain, backward = interval(model, x, y, norm).radius, crown(model, x, y, norm, upper=upper).radius
    assert (backward <= upper).all()
    assert (backward > plain).all()
    assert float((backward / plain).median()) > 1.5
    assert torch.allclose(backward, crown(model, x, y, norm).radius, rtol=5e-3)


def test_intervals_of_nodes_hold_what_the_network_computes():
    with torch.random.fork_rng():
        net = weights(nn.Sequential(nn.Conv2d(1, 3, 3), nn.SiLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 3)), 3)
    model = Classifier.of(net, shape=(1, 6, 6))
    g = torch.Generator().manual_seed(0)
    x = torch.rand(5, 1, 6, 6, generator=g)
    domain = Domain(x.double(), torch.full((5,), 0.1, dtype=torch.float64), "linf", model.box)
    bounds = Bounds(read(model), domain, Arithmetic.of(torch.float32))
    with torch.no_grad():
        for _ in range(50):
            z = domain.lo + (domain.hi - domain.lo) * torch.rand(x.shape, generator=g)
            value = z.float()
            for at, layer in enumerate(net, 1):
                value = layer(value)
                lo, hi = bounds.intervals[at]
                assert ((lo <= value.double()) & (value.double() <= hi)).all()


def test_what_does_not_fit_into_memory_falls_back_with_a_sentence():
    with torch.random.fork_rng():
        net = weights(
            nn.Sequential(nn.Linear(9, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)), 0, 2.0
        )
    model = Classifier.of(net, shape=(9,))
    x = torch.rand(3, 9, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = model(x).argmax(1)
    full = crown(model, x, y, "linf").radius
    with pytest.warns(TooLarge, match=r"node 3 would take .* interval bounds are used"):
        less = crown(model, x, y, "linf", memory=5e3).radius
    assert ((less > 0) & (less <= full)).all()


@pytest.mark.parametrize("norm", LP)
def test_the_minimiser_lies_in_the_domain_and_reaches_the_least_value(norm):
    g = torch.Generator().manual_seed(1)
    for box in (Box(0, 1), Box(-5, 5)):
        x = torch.rand(7, 6, generator=g, dtype=torch.float64)
        radius = torch.rand(7, generator=g, dtype=torch.float64)
        domain, a = Domain(x, radius, norm, box), torch.randn(7, 4, 6, generator=g, dtype=torch.float64)
        a[:, 0] = 0
        z = domain.minimiser(a)
        for row in range(4):
            assert (distance(x, z[:, row], norm) <= radius * (1 + 1e-12)).all()
            assert (z[:, row] == box.clamp(z[:, row])).all()
        value, least = (a * z).sum(2), domain.lowest(a)
        assert (value >= least).all()
        assert torch.allclose(value, least, rtol=1e-3, atol=1e-9)


def test_branching_does_not_search_beyond_a_wrong_answer_it_has_met():
    """The attack is ten times too far: hardly any of the cases may go where there is nothing to be proved."""
    ball = next(r for r in references() if r.classifier.name == "linf-ball")
    exact = ball.radius["linf"]
    radius = branch(ball.classifier, ball.x, ball.y, "linf", upper=10 * exact, cases=300).radius
    assert ((0.95 * exact < radius) & (radius <= exact)).all()


@pytest.mark.parametrize("norm", LP)
def test_branching_meets_the_exact_radius_of_relu_networks(norm):
    for reference in references():
        model, x, y, exact = reference.classifier, reference.x, reference.y, reference.radius[norm]
        if reference.classifier.name not in ("linf-ball", "l1-ball"):
            continue
        radius = branch(model, x, y, norm, upper=exact, cases=2000).radius
        assert (radius <= exact).all()
        assert (radius >= 0.985 * exact).all()


@pytest.mark.parametrize("act", [nn.ReLU(), nn.Tanh(), nn.LeakyReLU(0.1)], ids=lambda a: type(a).__name__)
def test_branching_is_above_crown_and_below_every_attack(act):
    with torch.random.fork_rng():
        net = weights(nn.Sequential(nn.Linear(6, 10), act, nn.Linear(10, 10), act, nn.Linear(10, 3)), 5, 2.5)
    model = Classifier.of(net, shape=(6,), box=(-5.0, 5.0))
    x = torch.rand(4, 6, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        y = model(x).argmax(1)
    upper = fmn(model, x, y, Threat("l2"), steps=200).distance
    lower = crown(model, x, y, "l2", upper=upper).radius
    radius = branch(model, x, y, "l2", upper=upper, cases=150).radius
    assert ((lower <= radius) & (radius <= upper)).all()
    assert float((radius / upper).median()) > 1.02 * float((lower / upper).median())


def test_branching_keeps_what_is_known_already():
    ball = references()[5]
    upper = ball.radius["linf"]
    known = 0.9 * upper
    assert (
        branch(ball.classifier, ball.x, ball.y, "linf", upper=upper, lower=known, seconds=0.0).radius == known
    ).all()


def test_rows_of_a_label_leave_the_label_out():
    rows = label_rows(torch.tensor([0, 2]), 3)
    assert rows.tolist() == [[[1, -1, 0], [1, 0, -1]], [[-1, 0, 1], [0, -1, 1]]]
