"""The laws every certificate must pass. A new certificate is one more name in CERTIFICATES."""

import math

import pytest
import torch
from torch import Tensor, nn

from calipers.attacks import apgd, fmn, linear, noise
from calipers.certificates import CERTIFICATES, Certified, NotApplicable, UnknownOperator, affine, interval, lipschitz
from calipers.certificates.arithmetic import Arithmetic
from calipers.certificates.interval import ball_interval, margins
from calipers.certificates.reading import read
from calipers.errors import BadInput
from calipers.models import Classifier, Normalize, references
from calipers.runner.draws import Draws
from calipers.threats import NORMS, Box, Norm, Threat, sample
from tests.certificates.networks import weights

# "shallow" reads no network; its laws are in test_shallow.py.
every = pytest.mark.parametrize("name", [name for name in CERTIFICATES if name != "shallow"])
LP: tuple[Norm, ...] = ("linf", "l2", "l1")


def nets() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    with torch.random.fork_rng():
        mean, std = torch.tensor([0.4, 0.6]), torch.tensor([0.3, 0.5])
        return {
            "affine": (nn.Sequential(nn.Linear(11, 4)), (11,)),
            "mlp": (nn.Sequential(nn.Flatten(), nn.Linear(18, 16), nn.ReLU(), nn.Linear(16, 3)), (2, 3, 3)),
            "deep": (
                nn.Sequential(
                    nn.Linear(7, 9), nn.LeakyReLU(0.1), nn.Sequential(nn.Linear(9, 8), nn.Tanh()), nn.Dropout(),
                    nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 5),
                ),
                (7,),
            ),
            "conv": (
                nn.Sequential(
                    Normalize(mean, std), nn.Conv2d(2, 6, 3, padding=1, stride=2), nn.BatchNorm2d(6), nn.ReLU(),
                    nn.MaxPool2d(2), nn.Conv2d(6, 4, 2, groups=2, bias=False), nn.AvgPool2d(1), nn.Flatten(),
                    nn.Linear(4, 3),
                ),
                (2, 7, 7),
            ),
            "dilated": (
                nn.Sequential(
                    nn.Conv2d(1, 3, 2, dilation=2), nn.ReLU(), nn.AvgPool2d(2, 1), nn.Flatten(), nn.Linear(12, 2)
                ),
                (1, 5, 5),
            ),
        }  # fmt: skip


def model_of(name: str, dtype: torch.dtype, seed: int, box: Box | None = None) -> Classifier:
    net, shape = nets()[name]
    return Classifier.of(weights(net, seed).to(dtype), shape=shape, box=box, name=name)


def inputs(model: Classifier, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(n, *model.shape, generator=g, dtype=torch.float64)
    x = torch.where(torch.rand(x.shape, generator=g) < 0.2, x.round(), x).to(model.dtype)
    with torch.no_grad():
        return x, model(x).argmax(1)


def bound(name: str, model: Classifier, x: Tensor, y: Tensor, norm: Norm) -> Tensor | None:
    """The radius, or None where the certificate does not apply."""
    try:
        return CERTIFICATES[name](model, x, y, norm).radius
    except NotApplicable:
        return None


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
def test_never_above_the_exact_radius(name, dtype):
    for reference in references(dtype):
        for norm in NORMS:
            radius = bound(name, reference.classifier, reference.x, reference.y, norm)
            if radius is not None:
                assert (radius <= reference.radius[norm]).all(), (reference.classifier.name, norm)


@pytest.mark.parametrize("norm", NORMS)
def test_the_affine_certificate_is_exact_with_and_without_the_box(norm):
    seen = 0
    for reference in references():
        radius = bound("affine", reference.classifier, reference.x, reference.y, norm)
        if radius is None:
            continue
        seen += 1
        exact = reference.radius[norm]
        if norm == "l0":
            exact = (exact - 1).clamp_min(0)
        assert torch.allclose(radius, exact, rtol=1e-9, atol=1e-12), reference.classifier.name
    assert seen >= 4


@pytest.mark.parametrize("name", ["lipschitz", "interval", "crown"])
@pytest.mark.parametrize("norm", LP)
def test_equality_on_affine_models_where_the_box_does_not_bind(name, norm):
    model = model_of("affine", torch.float64, 3, Box(-100, 100))
    x, y = inputs(model, 13)
    exact = affine(model, x, y, norm).radius
    assert torch.allclose(
        CERTIFICATES[name](model, x, y, norm).radius, exact, rtol=1e-6 if name == "lipschitz" else 1e-3
    )


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
@pytest.mark.parametrize("net", sorted(nets()))
@pytest.mark.parametrize("norm", LP)
def test_the_sandwich_never_above_any_attack(name, net, norm, dtype):
    for seed in range(2):
        model = model_of(net, dtype, seed)
        x, y = inputs(model, 9, seed)
        radius = bound(name, model, x, y, norm)
        if radius is None:
            assert name == "affine"
            continue
        assert (radius > 0).all()
        upper = fmn(model, x, y, Threat(norm), steps=60).distance
        assert (radius <= upper).all()
        # An infinite radius is a label proved on the whole box.
        largest = float(radius.clamp_max(model.box.reach(norm, x[0].numel())).max())
        for inside in (
            apgd(model, x, y, Threat(norm, largest), steps=30, loss="margin"),
            noise(model, x, y, Threat(norm, largest), steps=30),
        ):
            assert ((inside.distance > radius) | inside.distance.isinf()).all()
        if net == "affine" and name == "affine":
            exact = linear(model, x, y, Threat(norm)).distance
            assert (radius <= exact).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
@pytest.mark.parametrize("net", sorted(nets()))
@pytest.mark.parametrize("norm", LP)
def test_executed_outputs_lie_inside_the_bounds_also_at_radius_zero(net, norm, dtype):
    """The float32 lesson: a network's own output lay outside its bounds at tiny eps in most libraries."""
    model = model_of(net, dtype, 1)
    x, y = inputs(model, 17)
    graph, arithmetic = read(model), Arithmetic.of(dtype)
    for radius in (0.0, 1e-7, 1e-3, 0.1):
        r = torch.full((len(x),), radius, dtype=torch.float64)
        lowest = margins(graph, x.double(), y, r, norm, model.box, arithmetic)
        for step in range(5):
            z = x if radius == 0 else sample(x, radius, norm, model.box, Draws(0, torch.arange(len(x)), step))
            with torch.no_grad():
                logits = model(z).double()
            own = logits.gather(1, y[:, None])[:, 0]
            others = logits.scatter(1, y[:, None], -math.inf).amax(1)
            assert (own - others >= lowest).all()


@pytest.mark.parametrize("net", sorted(nets()))
def test_the_rounding_bound_covers_what_float32_really_does_and_is_not_idle(net):
    single, double = model_of(net, torch.float32, 2), model_of(net, torch.float32, 2)
    double.module.double()
    x, _ = inputs(single, 29)
    with torch.no_grad():
        gap = (single(x).double() - double(x.double())).abs()
    allowed = read(single).rounding(x.double(), x.double(), Arithmetic.of(torch.float32))
    assert (gap <= allowed).all()
    assert (gap > 0).any()
    assert float(allowed.max()) < 1e-3


@pytest.mark.parametrize("name", ["interval"])
@pytest.mark.parametrize("norm", LP)
def test_margins_fall_with_the_radius(name, norm):
    model = model_of("conv", torch.float64, 0)
    x, y = inputs(model, 5)
    graph = read(model)
    last = torch.full((5,), math.inf, dtype=torch.float64)
    for radius in torch.linspace(0, 0.5, 12, dtype=torch.float64):
        now = margins(graph, x, y, radius.expand(5), norm, model.box, Arithmetic.of(torch.float64))
        assert (now <= last + 1e-12).all()
        last = now


@every
@pytest.mark.parametrize("norm", LP)
def test_a_certificate_does_not_depend_on_batch_mates_nor_promise_the_infinite(name, norm):
    model = model_of("affine", torch.float32, 0, Box(-math.inf, math.inf))
    x, y = inputs(model, 5)
    far = torch.cat([x, 50 * x[:1]])
    with torch.no_grad():
        labels = model(far).argmax(1)
    together, apart = CERTIFICATES[name](model, far, labels, norm).radius, CERTIFICATES[name](model, x, y, norm).radius
    assert torch.allclose(together[:5], apart, rtol=1e-3 if name in ("interval", "crown") else 1e-12)
    # A network that ignores its input in real arithmetic may still lose its label to rounding, far enough away.
    with torch.no_grad():
        model.module[0].weight.copy_(model.module[0].weight[:1].expand(4, 11))
        model.module[0].bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    zeros = torch.zeros(5, dtype=torch.int64)
    assert CERTIFICATES[name](model, x, zeros, norm).radius.isfinite().all()


@every
def test_wrong_examples_have_radius_zero(name):
    model = model_of("affine", torch.float64, 0)
    x, y = inputs(model, 6)
    assert (CERTIFICATES[name](model, x, (y + 1) % 4, "linf").radius == 0).all()


@every
def test_a_certificate_says_what_it_is(name):
    model = model_of("affine", torch.float32, 0)
    x, y = inputs(model, 2)
    result = CERTIFICATES[name](model, x, y, "l2")
    assert isinstance(result, Certified)
    assert (result.norm, result.by, result.execution) == ("l2", name, "float32")
    assert "Winograd" in result.assumes
    result.check("l2", model.box, "float32")
    for other in (("linf", model.box, "float32"), ("l2", Box(0, 2), "float32"), ("l2", model.box, "float64")):
        with pytest.raises(BadInput, match="expected the attack's"):
            result.check(*other)


@every
@pytest.mark.parametrize(
    ("net", "named"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 3)), "layer_norm"),
        (nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)), "softmax"),
        (nn.Sequential(nn.Linear(4, 3), nn.LeakyReLU(-1.0)), "negative_slope"),
    ],
    ids=["layer-norm", "softmax", "leaky"],
)
def test_an_unknown_operator_is_refused_by_name(name, net, named):
    model = Classifier.of(net.eval(), shape=(4,))
    with pytest.raises(UnknownOperator, match=named):
        CERTIFICATES[name](model, torch.zeros(1, 4), torch.tensor([0]), "linf")


def test_l0_is_refused_by_the_bounds_that_do_not_know_it():
    model = model_of("affine", torch.float64, 0)
    x, y = inputs(model, 2)
    for certificate in (lipschitz, interval):
        with pytest.raises(NotApplicable, match="l0"):
            certificate(model, x, y, "l0")
    with pytest.raises(BadInput, match="at least one"):
        affine(model, x[:0], y[:0], "l0")


def test_the_ball_interval_is_rounded_outward():
    x = torch.tensor([[0.1, 0.9, 0.5]], dtype=torch.float64)
    lo, hi = ball_interval(x, torch.tensor([0.3], dtype=torch.float64), Box(0, 1))
    assert lo[0, 0] == 0
    assert hi[0, 1] == 1
    assert lo[0, 2] < 0.5 - 0.3
    assert hi[0, 2] > 0.5 + 0.3
