"""What broke attacks once: masked classes, ties, flat logits, layers with a forward of their own, in-place forwards."""

import pytest
import torch
from torch import nn

from calipers import attacks
from calipers.attacks import apgd, fmn, linear, noise, pgd
from calipers.attacks.linear import affine_map
from calipers.attacks.method import spread
from calipers.errors import BadInput
from calipers.models import Classifier, faster
from calipers.models import linear as layer
from calipers.threats import Box, Threat, distance, project

X, Y = torch.tensor([[0.6, 0.5], [0.9, 0.1]]), torch.tensor([0, 0])
# Of X where the larger coordinate wins, in L∞; and as long as that in L2.
EXACT = torch.tensor([0.05, 0.4]).double()


class Calls(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def calls(function, d=2, box=None) -> Classifier:
    return Classifier.of(Calls(function).eval(), shape=(d,), box=box)


@pytest.mark.parametrize("fill", [-1.0, -1e4, -1e9, torch.finfo(torch.float32).min])
@pytest.mark.parametrize(
    "name", ["fmn", "pgd", "apgd", "fab", "deepfool", "square", "cw", "ddn", "auto", "hopskipjump", "linear"]
)
def test_a_class_that_is_masked_out_hides_nothing(name, fill):
    model = calls(lambda x: torch.cat([x, x.new_full((len(x), 1), fill)], 1))
    norm, longer = ("l2", 2**0.5) if name in ("cw", "ddn") else ("linf", 1.0)
    found = getattr(attacks, name)(model, X, Y, Threat(norm, 0.45 * longer))
    assert found.success.all()
    if name not in ("pgd", "apgd", "square", "auto"):
        torch.testing.assert_close(found.distance, EXACT * longer, rtol=0.03, atol=0)


def test_the_spread_is_that_of_the_logits_that_matter():
    logits = torch.tensor([[3.0, 1.0, -1.0], [3.0, 1.0, -1e9], [0.0, 0.0, 0.0], [1e3, 1e3, 1e3]])
    assert spread(logits, torch.zeros(4, dtype=torch.int64))[:3].tolist() == [4.0, 2.0, 1.0]
    assert 0 < spread(logits, torch.zeros(4, dtype=torch.int64))[3] < 0.1
    assert torch.equal(spread(logits[:1] * 1e4, Y[:1]), 1e4 * spread(logits[:1], Y[:1]))


@pytest.mark.parametrize(("name", "norm"), [("linear", "linf"), ("fmn", "linf"), ("cw", "l2"), ("ead", "l1"),
                                             ("deepfool", "linf")])  # fmt: skip
def test_at_a_tie_nothing_is_far(name, norm):
    model = Classifier.of(nn.Sequential(layer(torch.eye(3), torch.zeros(3))).eval(), shape=(3,))
    for eps in (0.2, None):
        found = getattr(attacks, name)(model, torch.tensor([[0.5, 0.5, 0.1]]), Y[:1], Threat(norm, eps))
        assert float(found.distance) < 1e-4


@pytest.mark.parametrize(("name", "norm"), [("cw", "l2"), ("ead", "l1"), ("fmn", "linf"), ("fab", "linf"),
                                             ("sigma_zero", "l0"), ("mifgsm", "linf")])  # fmt: skip
def test_where_all_logits_are_equal_an_example_is_like_any_other(name, norm):
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        model = Classifier.of(nn.Linear(4, 3, bias=False).eval(), shape=(4,), box=(-1.0, 1.0))
    x = torch.stack([torch.zeros(4), torch.tensor([0.5, -0.2, 0.1, 0.3])])
    found = getattr(attacks, name)(model, x, model(x).argmax(1), Threat(norm, 2.0 if norm == "l0" else 1.0))
    assert found.success.all()


def test_a_forward_of_a_layers_own_is_what_is_attacked():
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        conv = nn.Conv2d(1, 4, 3)
        net = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval()
        x = torch.rand(8, 1, 8, 8)
    original = conv.forward
    conv.forward = lambda x: original(1 - x)
    model = Classifier.of(net, shape=(1, 8, 8))
    assert torch.equal(faster(model)(x), model(x))
    hook = nn.modules.module.register_module_forward_hook(lambda part, given, out: out + 1)
    try:
        del conv.forward
        assert faster(model) is model
    finally:
        hook.remove()


def test_a_network_with_kinks_is_not_affine_however_few_examples_there_are():
    for seed in range(8):
        with torch.random.fork_rng():
            torch.random.manual_seed(seed)
            net = nn.Sequential(nn.Linear(4, 16, bias=False), nn.ReLU(), nn.Linear(16, 3, bias=False)).eval()
        x = torch.rand(1, 4, generator=torch.Generator().manual_seed(1))
        assert affine_map(Classifier.of(net, shape=(4,)), x) is None


@pytest.mark.parametrize("name", ["square", "hopskipjump", "spsa", "noise", "pgd", "fmn"])
def test_a_forward_that_works_in_place_changes_nobodys_numbers(name):
    def in_place(x):
        x.sub_(0.5).mul_(2)
        return torch.stack([x[:, 0], -x[:, 0]], 1)

    x = torch.tensor([[0.6, 0.5], [0.7, 0.2]])
    found = getattr(attacks, name)(calls(in_place), x, Y, Threat("linf", 0.3))
    assert found.success.all()
    assert (found.distance >= torch.tensor([0.1, 0.2]) - 1e-6).all()
    assert torch.equal(x, torch.tensor([[0.6, 0.5], [0.7, 0.2]]))


def test_one_large_coordinate_does_not_freeze_the_others():
    wide, z, x = Box(-1e9, 1e9), torch.tensor([[0.05, 1e6]]), torch.tensor([[0.0, 1e6]])
    for norm in ("linf", "l2", "l1"):
        assert torch.equal(project(z, x, 0.1, norm, wide), z)
    model = calls(lambda x: torch.stack([x.new_full((len(x),), 0.05), x[:, 0]], 1), box=wide)
    for attack in (pgd, fmn):
        assert attack(model, x, Y[:1], Threat("linf", 0.1)).success.all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_projection_uses_nearly_all_of_the_radius(norm, dtype):
    draw = torch.Generator().manual_seed(0)
    x, z = (torch.rand(2, 20_000, generator=draw, dtype=dtype) for _ in range(2))
    eps = {"linf": 0.1, "l2": 3.0, "l1": 12.0}[norm]
    far = distance(x, project(z, x, eps, norm, Box(0, 1)), norm) / eps
    assert (far <= 1).all()
    assert (far > (0.999 if dtype == torch.float32 else 1 - 1e-7)).all()


@pytest.mark.parametrize(("name", "norm"), [("ddn", "l2"), ("square", "linf"), ("square", "l2"), ("fmn", "linf")])
def test_torchs_default_dtype_is_no_matter(name, norm):
    model = Classifier.of(nn.Sequential(layer(torch.eye(2), torch.zeros(2))).eval(), shape=(2,))
    plain = getattr(attacks, name)(model, X, Y, Threat(norm, 0.7)).distance
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(getattr(attacks, name)(model, X, Y, Threat(norm, 0.7)).distance, plain)
    finally:
        torch.set_default_dtype(torch.float32)


def test_without_an_eps_nothing_is_too_near_to_be_asked_for():
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        model, x = Classifier.of(nn.Linear(3072, 10).eval(), shape=(3072,)), torch.rand(8, 3072)
    y = model(x).argmax(1)
    exact = linear(model, x, y, Threat("l1")).distance
    assert (apgd(model, x, y, Threat("l1"), steps=20).distance <= 1.5 * exact).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [({"steps": 1, "restarts": 5000}, "at most 4096"), ({"step_size": -1.0}, "a finite number > 0, got -1"),
     ({"step_size": float("nan")}, "step_size of PGD"), ({"seed": None}, "seed: expected a whole number"),
     ({"seed": 1.5}, "seed"), ({"restarts": 1.5}, "restarts: expected a whole number"), ({"batch_size": "8"}, "'8'"),
     ({"index": torch.arange(3)}, "index: expected 2 whole numbers"), ({"steps": 2.5}, "steps: expected a whole"),
     ({"targets": -1}, "targets: expected a whole number of at least 0")],
)  # fmt: skip
def test_options_that_cannot_be_meant(options, said):
    with pytest.raises(BadInput, match=said):
        pgd(calls(lambda x: x), X, Y, Threat("linf", 0.1), **options)


def test_in_inference_mode_there_are_gradients_all_the_same():
    model = calls(lambda x: x)
    with torch.inference_mode():
        assert torch.equal(fmn(model, X + 0, Y, Threat("linf")).success, torch.tensor([True, True]))
    assert noise(model, X, Y, Threat("linf", 0.45)).success[0]
