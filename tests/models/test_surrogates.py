"""Stand-ins answer what the model answers, follow its gradient where it has one, and leave everything as it was."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from calipers.models import Alone, Expected, StraightThrough

X = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))


class Around(nn.Module):
    def __init__(self, before=lambda x: x, after=lambda z: z) -> None:
        super().__init__()
        weight = torch.randn(3, 16, generator=torch.Generator().manual_seed(1))
        self.net = nn.Sequential(nn.Flatten(), nn.utils.skip_init(nn.Linear, 16, 3))
        self.net[1].weight.data, self.net[1].bias.data = weight, torch.zeros(3)
        self.before, self.after = before, after

    def forward(self, x):
        return self.after(self.net(self.before(x)))


def gradient(module: nn.Module, x: torch.Tensor = X) -> torch.Tensor:
    z = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(module(z)[:, 0].sum(), z)
    return grad


def cut(x):
    with torch.no_grad():
        return (8 * x).round() / 8


BLOCKED = {
    "round": lambda x: (8 * x).round() / 8,
    "round in place": lambda x: (8 * x).round_() / 8,
    "floor": lambda x: torch.floor(8 * x) / 8,
    "floor division": lambda x: x // 0.125 * 0.125,
    "whole numbers": lambda x: (8 * x).to(torch.uint8).float() / 8,
    "a comparison": lambda x: (x > 0.5).float(),
    "detach": lambda x: x.detach(),
    "data": lambda x: x.data,
    "no_grad": cut,
    "NumPy": lambda x: torch.from_numpy(x.detach().numpy().round(1)),
    "a list": lambda x: torch.tensor(x.tolist()),
}


@pytest.mark.parametrize("name", BLOCKED)
def test_the_answer_is_the_models_and_the_gradient_passes_as_through_the_identity(name):
    blocked = Around(BLOCKED[name])
    bridged = StraightThrough(blocked)
    assert torch.equal(bridged(X.clone().requires_grad_()), blocked(X.clone().requires_grad_()))
    assert torch.allclose(gradient(bridged), gradient(Around()), atol=1e-6)
    assert sum(bridged.met.values()) >= 1, "what was bridged is named"


HONEST = {
    "affine": Around(),
    "relu": Around(after=lambda z: z.relu()),
    "convolution and pooling": nn.Sequential(
        nn.utils.skip_init(nn.Conv2d, 1, 2, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()
    ),
    "clamp and where": Around(lambda x: torch.where(x > 0.5, x.clamp(0, 0.9), 2 * x)),
}
for parameter in HONEST["convolution and pooling"].parameters():
    parameter.data = torch.linspace(-1, 1, parameter.numel()).view_as(parameter)


@pytest.mark.parametrize("name", HONEST)
def test_nothing_changes_on_an_honest_model(name):
    bridged = StraightThrough(HONEST[name])
    assert torch.equal(gradient(bridged), gradient(HONEST[name]))
    assert not any(bridged.met.values())


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_the_scores_before_a_softmax(scale):
    bridged = StraightThrough(Around(after=lambda z: (scale * z).softmax(1)))
    assert torch.equal(bridged(X), scale * Around()(X))
    assert torch.equal(bridged(X.clone().requires_grad_()), bridged(X)), "with a gradient and without"
    assert (gradient(bridged) != 0).any()


def test_the_scores_before_a_sigmoid():
    assert torch.equal(StraightThrough(Around(after=lambda z: (1e4 * z).sigmoid()))(X), 1e4 * Around()(X))


def test_probabilities_by_hand_are_taken_as_logarithms():
    def by_hand(z):
        return z.exp() / z.exp().sum(1, keepdim=True)

    scores = StraightThrough(Around(after=by_hand))(X)
    assert torch.allclose(scores, Around()(X).log_softmax(1), atol=1e-5)


def test_a_sigmoid_never_saturates():
    steep = Around(after=lambda z: 2 * (1e4 * z).sigmoid() - 1)
    assert (gradient(steep) == 0).all()
    assert (gradient(StraightThrough(steep)).flatten(1).abs().amax(1) > 0).all()


def test_a_model_cannot_see_that_a_gradient_is_wanted():
    watching = Around(lambda x: 0 * x if x.requires_grad else x)
    assert torch.equal(StraightThrough(watching)(X.clone().requires_grad_()), Around()(X))


class Quantised(nn.Module):
    """Rounded weights, which are no step on the way from the input."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-3, 3, 48).view(3, 16))

    def forward(self, x):
        return x.flatten(1) @ (4 * self.weight).round().T / 4


def test_what_does_not_depend_on_the_input_is_let_be():
    module = Quantised()
    bridged = StraightThrough(module)
    assert torch.equal(gradient(bridged), gradient(module))
    assert not any(bridged.met.values())
    assert module.weight.requires_grad


def test_torchs_own_looks_for_a_gradient_are_answered():
    """A transformer layer asks whether a gradient is wanted, and takes a fast path without one if not."""
    with torch.random.fork_rng():
        layer = nn.TransformerEncoderLayer(4, 2, dim_feedforward=8, batch_first=True).eval()
    module = Around(lambda x: layer(x[:, 0])).eval()
    module.layer = layer
    bridged = StraightThrough(module)
    assert torch.allclose(gradient(bridged), gradient(module), atol=1e-6)
    assert not any(bridged.met.values())


def test_modes_and_hooks_are_as_before_also_after_an_error():
    def fails(x):
        raise RuntimeError("no")

    module = Around(fails).eval()
    module.net.train()
    bridged = StraightThrough(module)
    with pytest.raises(RuntimeError, match="no"):
        bridged(X.clone().requires_grad_())
    assert (module.training, module.net.training) == (False, True)
    assert all(not part._forward_hooks and not part._forward_pre_hooks for part in module.modules())
    assert torch.is_grad_enabled()


def test_without_a_gradient_nothing_is_kept():
    with torch.no_grad():
        assert not StraightThrough(Around(BLOCKED["round"]))(X).requires_grad


class Noisy(nn.Module):
    """Noise from all three generators that a model may draw from unasked."""

    def forward(self, x):
        noise = torch.randn_like(x) + random.gauss(0, 1) + np.random.normal()  # noqa: NPY002 that is the point
        return (x + noise).flatten(1)


def test_the_expectation_is_a_function_and_the_generators_are_put_back():
    before = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    mean = Expected(Noisy(), draws=8)
    assert torch.equal(mean(X), mean(X))
    assert not torch.equal(mean(X), Expected(Noisy(), draws=8, seed=1)(X))
    after = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1]  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1] == after[1]
    assert (before[2] == after[2]).all()


def test_the_expectation_converges():
    far = (Expected(Noisy(), draws=4000)(X) - X.flatten(1)).abs().max()
    assert far < 5 * (3 / 4000) ** 0.5


@pytest.mark.parametrize(
    "module",
    [
        Around(lambda x: x - x.mean(0)),
        Around(lambda x: x if float(x.sum()) > 8 else 2 * x),
        Around(lambda x: x * len(x)),
    ],
    ids=["mean", "a branch on a value", "the batch size"],
)
def test_alone_is_one_call_an_input(module):
    assert torch.allclose(Alone(module)(X), torch.cat([module(one) for one in X.split(1)]), atol=1e-6)
