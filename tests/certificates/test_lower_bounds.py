"""Equations (1), (2), (3), their constants, CLEVER and the exact radius: each against what must be true."""

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

from calipers.attacks import fmn
from calipers.certificates import (
    CERTIFICATES,
    Certified,
    Estimate,
    NotApplicable,
    Numerical,
    affine,
    affine_form,
    clever,
    crown,
    exact,
    interval,
    lipschitz,
    local_lipschitz,
    margin_constants,
)
from calipers.certificates.chain import chain
from calipers.certificates.gradients import gradient_interval
from calipers.certificates.operator_norms import convolution_norm, matrix_norm
from calipers.certificates.reading import read
from calipers.certificates.slopes import slope_range, slopes_over
from calipers.certificates.support import largest_loss
from calipers.errors import BadInput
from calipers.models import Classifier, linear, references
from calipers.runner.draws import Draws
from calipers.threats import Box, Norm, Threat, distance, dual, norm, sample
from tests.certificates.networks import weights

LP: tuple[Norm, ...] = ("linf", "l2", "l1")
ACTIVATIONS = [nn.ReLU(), nn.LeakyReLU(0.2), nn.Tanh(), nn.Sigmoid(), nn.Softplus(), nn.GELU(), nn.SiLU()]


def mlp(activation: nn.Module, seed: int = 0, d: int = 4, gain: float = 1.5, box: Box | None = None) -> Classifier:
    net = nn.Sequential(nn.Linear(d, 6), activation, nn.Linear(6, 5), activation, nn.Linear(5, 3))
    return Classifier.of(weights(net, seed, gain).double(), shape=(d,), box=box)


def cnn(seed: int = 0) -> Classifier:
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 2), nn.Tanh(), nn.Flatten(),
        nn.Linear(4, 3),
    )  # fmt: skip
    return Classifier.of(weights(net, seed, 1.5).double(), shape=(1, 4, 4))


def points(model: Classifier, n: int) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, *model.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x, model(x).argmax(1)


def differences(classes: int) -> Tensor:
    one = torch.eye(classes, dtype=torch.float64)
    return (one[:, None] - one).flatten(0, 1)


def jacobian(model: Classifier, z: Tensor, rows: Tensor) -> Tensor:
    """∇⟨u_p, f⟩ at every z: (N, P, d)."""
    z = z.clone().requires_grad_()
    logits = model(z)
    parts = [torch.autograd.grad((logits @ row).sum(), z, retain_graph=True)[0].flatten(1) for row in rows]
    return torch.stack(parts, 1)


def jacobian_of(function: nn.Module, t: Tensor) -> Tensor:
    t = t.clone().requires_grad_()
    return torch.autograd.grad(function(t).sum(), t)[0]


@pytest.mark.parametrize("name", LP)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: type(a).__name__)
def test_no_constant_is_below_a_gradient_that_is_met(activation, name):
    model = mlp(activation)
    graph, rows = read(model), differences(3)
    far = 4 * torch.randn(2000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    met = norm(jacobian(model, far, rows).flatten(0, 1), dual(name)).view(len(far), -1).amax(0).view(3, 3)
    tables = {kind: margin_constants(graph, name, kind) for kind in ("product", "partial", "sdp")}
    for table in tables.values():
        assert (table >= met).all()
    assert (tables["sdp"] <= tables["partial"]).all()
    assert (tables["partial"] <= tables["product"]).all()
    if type(activation) is nn.ReLU:
        # Partial products gain something on every network, semidefinite programming in L2 and L∞ again.
        assert tables["partial"][0, 1] < 0.9 * tables["product"][0, 1]
        assert name == "l1" or tables["sdp"][0, 1] < 0.95 * tables["partial"][0, 1]


def test_every_activation_s_slopes_lie_in_their_ranges():
    t = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    for module in ACTIVATIONS:
        op = next(node.op for _, node in read(mlp(module)) if not node.op.linear)
        slope = jacobian_of(module, t)
        bottom, top = slope_range(op)
        assert ((slope >= bottom) & (slope <= top)).all(), module
        for width in (0, 1, 40, 400):
            lo, hi = t[: len(t) - width], t[width:]
            least, most = slopes_over(op, (lo, hi))
            for at in (0, width // 2, width):
                inside = slope[at : len(t) - width + at]
                assert ((least <= inside) & (inside <= most)).all(), (module, width)
    relu = next(node.op for _, node in read(mlp(nn.ReLU())) if not node.op.linear)
    ends = torch.tensor([0.0, -1.0, 0.0]), torch.tensor([1.0, 0.0, 0.0])
    assert [side.tolist() for side in slopes_over(relu, ends)] == [[0, 0, 0], [1, 1, 1]]


def test_collapsed_matrices_are_the_network():
    model = next(r.classifier for r in references() if r.classifier.name == "convolution-in-box")
    first, second = chain(read(model), torch.zeros(())).stages
    x, _ = points(model, 3)
    hidden = (x.flatten(1) @ first.weight.T + first.bias).relu()
    assert torch.allclose(hidden @ second.weight.T + second.bias, model(x), atol=1e-12)
    with pytest.raises(NotApplicable, match="MaxPool"):
        chain(read(cnn()), torch.zeros(()))
    with pytest.raises(NotApplicable, match="at most 10 entries"):
        chain(read(model), torch.zeros(()), largest=10)


@pytest.mark.parametrize("name", LP)
@pytest.mark.parametrize("make", [lambda: mlp(nn.ReLU()), lambda: mlp(nn.GELU()), cnn], ids=["relu", "gelu", "cnn"])
def test_gradients_that_are_met_lie_in_their_interval(make, name):
    from calipers.certificates.arithmetic import arithmetic_of
    from calipers.certificates.crown import Bounds
    from calipers.certificates.domain import Domain

    model = make()
    x, _ = points(model, 4)
    rows, graph = differences(3), read(model)
    for radius in (0.0, 0.05, 0.3):
        r = torch.full((4,), radius, dtype=torch.float64)
        bounds = Bounds(graph, Domain(x, r, name, model.box), arithmetic_of(model)).intervals
        lo, hi = (side.flatten(2) for side in gradient_interval(graph, bounds, rows.expand(4, -1, -1)))
        for step in range(20):
            z = x if radius == 0 else sample(x, radius, name, model.box, Draws(0, torch.arange(4), step))
            met = jacobian(model, z, rows)
            assert ((lo <= met + 1e-12) & (met <= hi + 1e-12)).all()


@pytest.mark.parametrize("name", LP)
def test_the_largest_loss_is_one(name):
    """Against random steps in ball ∩ box, and against the closed form for a known gradient far from the box."""
    g = torch.Generator().manual_seed(0)
    lo = torch.randn(5, 2, 7, generator=g, dtype=torch.float64)
    hi = lo + torch.rand(5, 2, 7, generator=g, dtype=torch.float64)
    x, r = torch.rand(5, 7, generator=g, dtype=torch.float64), torch.full((5,), 0.6, dtype=torch.float64)
    bound = largest_loss(lo, hi, x, r, name, Box(0, 1))
    for step in range(200):
        delta = (sample(x, 0.6, name, Box(0, 1), Draws(0, torch.arange(5), step)) - x)[:, None]
        assert (torch.maximum(-lo * delta, -hi * delta).sum(2) <= bound).all()
    free = largest_loss(lo, lo, x, r, name, Box(-math.inf, math.inf))
    closed = 0.6 * norm(lo.flatten(0, 1), dual(name)).view(5, 2)
    assert torch.allclose(free, closed, rtol=1e-8)
    # A box that binds makes it smaller.
    assert (largest_loss(lo, lo, x, r, name, Box(0, 1)) < closed).any()


@pytest.mark.parametrize("name", LP)
def test_local_bounds_are_below_the_exact_radius_and_shells_help(name):
    worse = better = 0.0
    for seed in range(2):
        model = mlp(nn.ReLU(), seed, gain=2.0)
        x, y = points(model, 3)
        truth = exact(model, x, y, name, seconds=5).radius * (1 + 1e-4) + 1e-6
        one, many = (local_lipschitz(model, x, y, name, shells=shells).radius for shells in (1, 12))
        for radius in (one, many, lipschitz(model, x, y, name, constants="sdp").radius):
            assert (radius > 0).all()
            assert ((radius <= truth) | (radius.isinf() & (truth > 1e9))).all()
        finite = many.isfinite() & one.isfinite()
        worse, better = worse + float(one[finite].sum()), better + float(many[finite].sum())
    assert better > worse


@pytest.mark.parametrize("name", LP)
@pytest.mark.parametrize("activation", ACTIVATIONS[1:], ids=lambda a: type(a).__name__)
def test_local_bounds_are_never_above_an_attack(activation, name):
    for model in (mlp(activation, 1, gain=2.5), cnn(1)):
        x, y = points(model, 5)
        found = local_lipschitz(model, x, y, name)
        assert isinstance(found, Certified)
        assert (found.radius > 0).all()
        assert (found.radius <= fmn(model, x, y, Threat(name), steps=60).distance).all()


@pytest.mark.parametrize("name", LP)
def test_equality_on_affine_models(name):
    net = weights(nn.Sequential(nn.Linear(6, 4)), 0).double()
    model = Classifier.of(net, shape=(6,), box=Box(-50, 50))
    x, y = points(model, 7)
    truth = affine(model, x, y, name).radius
    for kind in ("product", "partial", "sdp"):
        assert torch.allclose(lipschitz(model, x, y, name, constants=kind).radius, truth, rtol=1e-6)
    assert torch.allclose(local_lipschitz(model, x, y, name).radius, truth, rtol=1e-6)
    assert torch.allclose(clever(model, x, y, name, batches=3, samples=2, radius=100).radius, truth, rtol=1e-9)
    assert torch.allclose(exact(model, x, y, name).radius, truth, rtol=2e-4)


@pytest.mark.parametrize("name", LP)
def test_the_exact_radius_meets_the_references(name):
    for reference in references():
        model = reference.classifier
        if model.classes > 100 or not model.box.bounded:
            continue
        truth = reference.radius[name]
        found = exact(model, reference.x, reference.y, name, seconds=20)
        assert isinstance(found, Numerical)
        assert not isinstance(found, Certified)
        assert torch.allclose(found.radius, truth, rtol=2e-4, atol=1e-5), model.name


def test_what_is_known_already_makes_the_exact_search_smaller_and_never_wrong():
    model = mlp(nn.ReLU(), 2)
    x, y = points(model, 4)
    upper = fmn(model, x, y, Threat("linf"), steps=200).distance
    alone, helped = exact(model, x, y, "linf").radius, exact(model, x, y, "linf", upper=upper).radius
    assert torch.allclose(alone, helped, rtol=1e-4)
    assert (helped <= upper * (1 + 1e-5) + 1e-8).all()
    with pytest.raises(NotApplicable, match="ReLUs, got tanh"):
        exact(mlp(nn.Tanh()), x, y, "linf")
    with pytest.raises(NotApplicable, match="bounded box"):
        exact(mlp(nn.ReLU(), box=Box(-math.inf, math.inf)), x, y, "linf")


def test_clever_is_an_estimate_and_overstates():
    """On a network whose steepest slope is rare, sampled maxima miss it: the estimate exceeds a witness."""
    net = nn.Sequential(nn.Linear(300, 1), nn.ReLU(), nn.Linear(1, 2)).double()
    state = {
        "0.weight": torch.full((1, 300), 20.0), "0.bias": torch.tensor([-5820.0]),
        "2.weight": torch.tensor([[0.0], [1.0]]), "2.bias": torch.tensor([0.5, 0.0]),
    }  # fmt: skip
    net.load_state_dict(state)
    model = Classifier.of(net.eval(), shape=(300,))
    x = torch.full((1, 300), 0.9, dtype=torch.float64)
    y = model(x).argmax(1)
    found = clever(model, x, y, "linf", batches=5, samples=20, radius=0.5)
    witness = torch.ones_like(x)
    assert model(witness).argmax(1) != y
    assert float(found.radius) > float(distance(x, witness, "linf"))
    assert isinstance(found, Estimate)
    assert not isinstance(found, Certified)
    assert clever not in CERTIFICATES.values()
    again = clever(model, x, y, "linf", batches=5, samples=20, radius=0.5)
    assert torch.equal(found.radius, again.radius)
    with pytest.raises(BadInput, match="at least 3 batches"):
        clever(model, x, y, "linf", batches=2)


@pytest.mark.parametrize("method", [local_lipschitz, clever, exact, lipschitz])
def test_l0_is_refused(method):
    model = mlp(nn.ReLU())
    x, y = points(model, 1)
    with pytest.raises(NotApplicable, match="l0"):
        method(model, x, y, "l0")


def narrow(weight, bias, box) -> Classifier:
    """An affine classifier of one coordinate in float64."""
    both = torch.tensor(weight, dtype=torch.float64), torch.tensor(bias, dtype=torch.float64)
    return Classifier.of(nn.Sequential(linear(*both)).eval(), shape=(1,), box=box)


ORIGIN, FIRST = torch.zeros(1, 1, dtype=torch.float64), torch.tensor([0])


def test_the_width_of_a_box_is_rounded_up():
    """0.7 is less in float32: a label lost between the two numbers is lost inside the box."""
    model = narrow([[-1.0], [0.0]], [0.699999995, 0.0], Box(0.0, 0.7))
    for certificate in (lipschitz, interval, crown, local_lipschitz, affine):
        radius = float(certificate(model, ORIGIN, FIRST, "linf").radius)
        assert 0.5 < radius <= 0.699999995
    for k in range(1, 100):
        lo, hi = Box(k / 100, 2.0).sides(ORIGIN)
        assert Fraction(Box(k / 100, 2.0).width) >= Fraction(float(hi)) - Fraction(float(lo))
        for name, power in (("linf", 0), ("l2", 1), ("l1", 2)):
            assert Fraction(Box(0, k / 100).reach(name, k)) ** 2 >= Fraction(k / 100) ** 2 * k**power


def test_weights_far_smaller_than_the_biases_are_read_as_they_are():
    weight = 1.2344e-6
    model = narrow([[-weight], [0.0]], [1e6 + 1, 1e6], Box(-math.inf, math.inf))
    radius = float(affine(model, ORIGIN, FIRST, "linf").radius)
    assert radius <= 1 / weight
    assert radius == pytest.approx(1 / weight, rel=1e-2)
    assert affine_form(model)[0].tolist() == [[-weight], [0.0]]


def test_squares_of_small_weights_do_not_vanish():
    inner = linear(torch.full((2, 1), 1e-170, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    shift = torch.tensor([5e-171, 0.0], dtype=torch.float64)
    outer = linear(torch.tensor([[-1.0, 0.0], [0.0, 0.0]]).double(), shift)
    model = Classifier.of(nn.Sequential(inner, nn.ReLU(), outer).eval(), shape=(1,))
    assert model(torch.ones(1, 1).double()).argmax(1) == 1
    assert float(lipschitz(model, ORIGIN, FIRST, "l2").radius) <= 0.5
    assert matrix_norm(torch.full((2, 2), 1e-170, dtype=torch.float64), "l2") == pytest.approx(2e-170)
    kernel = torch.full((1, 1, 2, 2), 1e170, dtype=torch.float64)
    assert convolution_norm(kernel, "l2") == pytest.approx(4e170, rel=0.1)


def test_a_matrix_on_the_last_axis_has_a_ball_before_it_too():
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(15, 2)).eval()
        x = torch.rand(4, 5, 4)
    model = Classifier.of(net, shape=(5, 4))
    y = model(x).argmax(1)
    for name in ("l2", "l1"):
        radius = interval(model, x, y, name).radius
        assert (radius > 0).all()
        assert (radius <= fmn(model, x, y, Threat(name)).distance).all()


def test_a_network_whose_relus_are_all_off_has_an_exact_radius():
    inner = linear(torch.ones(2, 1).double(), torch.full((2,), -5.0).double())
    outer = linear(torch.tensor([[1.0, 1.0], [2.0, 1.0]]).double(), torch.tensor([1.0, 0.0]).double())
    model = Classifier.of(nn.Sequential(inner, nn.ReLU(), outer).eval(), shape=(1,))
    assert exact(model, ORIGIN, FIRST, "linf").radius.isinf().all()


def test_backward_bounds_are_never_far_below_intervals():
    """Saturated functions: lines far apart lose more on the way back than intervals do on the way there."""
    with torch.random.fork_rng():
        torch.random.manual_seed(1)
        net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)).double().eval()
        x = torch.rand(20, 3, dtype=torch.float64)
        with torch.no_grad():
            for layer in (net[0], net[2]):
                layer.weight.mul_(100)
    model = Classifier.of(net, shape=(3,))
    y = model(x).argmax(1)
    plain, backward = interval(model, x, y, "linf").radius, crown(model, x, y, "linf").radius
    assert (backward >= 0.97 * plain).all()
