"""The landscape's numbers against closed forms, and the pictures against what they are pictures of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from calipers.audit import audit, open_inputs
from calipers.diagnostics import (
    agreement,
    bulge,
    foreground,
    gini,
    interpolated,
    jump,
    landscape_views,
    plane,
    roughness,
    saliency,
    weights_between,
)
from calipers.diagnostics.views import shuffled
from calipers.errors import BadInput
from calipers.models import Classifier
from calipers.records import Run
from calipers.runner import Draws
from calipers.threats import NORMS, norm

finite = st.floats(-5, 5, width=32)


def seeded(*parts: nn.Module) -> nn.Sequential:
    """A network with weights of its own, in train mode, the caller's generator left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(3)
        net = nn.Sequential(*parts)
        for parameter in net.parameters():
            nn.init.normal_(parameter)
    return net


def some_net() -> Classifier:
    with torch.random.fork_rng(devices=[]):
        net = seeded(nn.Flatten(), nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
    return Classifier.of(net.eval(), shape=(1, 2, 3))


def cross_entropy(model: Classifier, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return nn.functional.cross_entropy(model(x).double(), y, reduction="none")


X = torch.linspace(0.1, 0.9, 24).view(4, 1, 2, 3)
Y = torch.tensor([0, 1, 2, 0])


def test_every_point_of_a_plane_is_the_loss_there_inside_the_box() -> None:
    model = some_net()
    first, second = torch.full((1, 2, 3), 0.4), torch.linspace(-0.5, 0.5, 6).view(1, 2, 3)
    seen = plane(model, X[0], Y[0], first, second, toward=(-1, 1), aside=(0, 2), points=5, batch_size=7)
    for i, s in enumerate(seen.aside.tolist()):
        for j, t in enumerate(seen.toward.tolist()):
            z = (X[0] + t * first + s * second).clamp(0, 1)
            assert seen.loss[i, j] == pytest.approx(float(cross_entropy(model, z[None], Y[:1])), rel=1e-4)
    whole = plane(model, X[0], Y[0], first, second, toward=(-1, 1), aside=(0, 2), points=5)
    torch.testing.assert_close(whole.loss, seen.loss, rtol=1e-5, atol=1e-6)


def test_saliency_is_the_derivative_of_the_loss() -> None:
    model = some_net()
    wide = Classifier.of(model.module.double(), shape=model.shape)
    found, step = saliency(wide, X.double(), Y), 1e-6
    for at in range(6):
        bump = torch.zeros(6, dtype=torch.float64)
        bump[at] = step
        ahead, behind = (cross_entropy(wide, X.double() + sign * bump.view(1, 2, 3), Y) for sign in (1, -1))
        torch.testing.assert_close(found.flatten(1)[:, at], (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-8)


def test_the_caller_finds_everything_as_it_was() -> None:
    model = some_net()
    model.module.requires_grad_(False)
    model.module[2].requires_grad_(True)
    before = {key: value.clone() for key, value in model.module.state_dict().items()}
    wants, state = [p.requires_grad for p in model.module.parameters()], torch.get_rng_state()
    x = X.clone()
    saliency(model, x, Y)
    plane(model, x[0], Y[0], x[0], x[1], points=3)
    other = {key: value + 1 for key, value in before.items()}
    interpolated(model, before, other, x, Y, [0.0, 0.5], lambda there, x, y: x - saliency(there, x, y).sign() / 20)
    assert wants == [p.requires_grad for p in model.module.parameters()]
    assert all(p.grad is None for p in model.module.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.module.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(x, X)
    assert not x.requires_grad
    assert not any(part.training for part in model.module.modules())


def test_the_ends_of_a_line_between_weights_are_the_two_networks() -> None:
    model = some_net()
    end = some_net()
    with torch.no_grad():
        for parameter in end.module.parameters():
            parameter.mul_(-0.5)

    def ascend(there: Classifier, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x + 0.1 * saliency(there, x, y).sign()).clamp(0, 1)

    weights = model.module.state_dict(), end.module.state_dict()
    for perturb in (ascend, lambda there, x, y: x):
        found = interpolated(model, *weights, X, Y, [0.0, 0.3, 1.0], perturb)
        for loss, net in ((found[0], model), (found[2], end)):
            assert float(loss) == pytest.approx(float(cross_entropy(net, perturb(net, X, Y), Y).mean()), rel=1e-5)
    middle = weights_between(model, *weights, 0.3).eval()
    blended = {key: torch.lerp(a, b, 0.3) if a.is_floating_point() else b
               for (key, a), b in zip(weights[0].items(), weights[1].values(), strict=True)}  # fmt: skip
    model.module.load_state_dict(blended)
    torch.testing.assert_close(middle(X), model.module(X))


def test_weights_of_another_network_are_refused() -> None:
    model = some_net()
    own = model.module.state_dict()
    with pytest.raises(BadInput, match=r"end weights of model: expected the names and shapes.*at 4\.bias"):
        weights_between(model, own, {key: value for key, value in own.items() if key != "4.bias"}, 0.5)
    with pytest.raises(BadInput, match=r"start weights.*at 1\.weight"):
        weights_between(model, own | {"1.weight": torch.zeros(2, 2)}, own, 0.5)


@given(st.lists(finite, min_size=3, max_size=30), st.floats(0.1, 100), finite)
def test_numbers_of_a_line_do_not_see_scale_or_shift(values: list[float], a: float, b: float) -> None:
    line = torch.tensor(values, dtype=torch.float64)
    if float(line.max() - line.min()) < 1e-3:
        return
    for number in (jump, roughness, bulge):
        assert number(a * line + b) == pytest.approx(number(line), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("n", [51, 101, 401])
def test_refining_tells_slopes_from_cliffs(n: int) -> None:
    t = torch.linspace(-1, 1, n, dtype=torch.float64)
    assert jump(t) == pytest.approx(1 / (n - 1))
    assert roughness(t) == pytest.approx(0, abs=1e-9)
    assert roughness(t**2) == pytest.approx(8, rel=0.1)
    assert roughness(t.abs()) == pytest.approx(4, rel=0.05)
    assert jump((t > 0.3).double()) == 1
    assert roughness((t > 0.3).double()) == 2 * (n - 1)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30), finite)
def test_a_convex_curve_has_no_bulge(slopes: list[float], start: float) -> None:
    curve = torch.tensor([start, *sorted(slopes)], dtype=torch.float64).cumsum(0)
    assert bulge(curve) == pytest.approx(0, abs=1e-9)


@given(st.lists(finite, min_size=3, max_size=12))
def test_the_bulge_is_the_largest_height_over_any_chord(values: list[float]) -> None:
    y = np.array(values, dtype=np.float64)
    span = y.max() - y.min()
    expected = 0.0
    if span:
        for k in range(len(y)):
            for i in range(k):
                for j in range(k + 1, len(y)):
                    expected = max(expected, (y[k] - y[i] - (y[j] - y[i]) * (k - i) / (j - i)) / span)
        assert bulge(torch.tensor(y)) == pytest.approx(expected, abs=1e-9)


@given(st.lists(finite, min_size=1, max_size=20), st.randoms())
def test_gini_is_half_the_mean_difference_over_the_mean(values: list[float], random: object) -> None:
    v = np.abs(np.array(values))
    shuffled_too = values.copy()
    random.shuffle(shuffled_too)  # type: ignore[attr-defined]
    found = gini(torch.tensor([values, shuffled_too], dtype=torch.float64))
    expected = np.abs(v[:, None] - v[None]).mean() / (2 * v.mean()) if v.sum() > 1e-250 else 0.0
    assert found.tolist() == pytest.approx([expected, expected], abs=1e-9)


def test_nothing_has_no_sparsity_no_foreground_and_no_agreement() -> None:
    zero = torch.zeros(2, 1, 4, 4)
    for number in (gini(zero), foreground(zero, zero + 1), agreement(zero, zero + 1)):
        assert number.tolist() == [0.0, 0.0]


@given(st.lists(st.tuples(st.sampled_from([-1.0, 1.0]), st.sampled_from([-1.0, 1.0])), min_size=1, max_size=20))
def test_agreement_of_signs_is_the_share_alike_less_the_share_apart(pairs: list[tuple[float, float]]) -> None:
    u, v = (torch.tensor([side]) for side in zip(*pairs, strict=True))
    assert float(agreement(u, v)) == pytest.approx(2 * float((u == v).double().mean()) - 1)


def test_a_shuffled_move_is_as_long_in_every_norm() -> None:
    move = torch.linspace(-1, 2, 30).view(1, 5, 6).clamp_min(0)
    other = shuffled(move, Draws(1, torch.tensor([4]), step=0))
    assert other.shape == move.shape
    assert not torch.equal(other.abs(), move.abs())
    for name in NORMS:
        torch.testing.assert_close(norm(other[None], name), norm(move[None], name))


@pytest.fixture(scope="module")
def audited() -> tuple[Classifier, Run]:
    inputs = open_inputs("digits-mlp", "digits", examples=200)
    return inputs.model, audit(inputs, norm="linf", eps=[0.1], budget="quick", seed=5)


def test_views_show_the_nearest_and_the_farthest_witness_and_cost_little(audited: tuple[Classifier, Run]) -> None:
    model, run = audited
    calls = 0

    def count(module: nn.Module, given: tuple[torch.Tensor], logits: torch.Tensor) -> None:
        nonlocal calls
        calls += len(given[0])

    hook = model.module.register_forward_hook(count)
    again = landscape_views(model, run, seed=5)
    hook.remove()
    assert 0 < calls <= 0.05 * run.summary.forwards
    assert again.keys() == run.landscape.keys()
    assert all(np.array_equal(again[key], run.landscape[key]) for key in again)
    upper = run.examples.set_index("index")["upper"]
    upper = upper[run.witnesses["index"]]
    assert [int(again["index"][at]) for at in (0, -1)] == [upper.idxmin(), upper.idxmax()]


def test_views_pass_through_the_example_and_its_witness(audited: tuple[Classifier, Run]) -> None:
    model, run = audited
    seen, rows = run.landscape, run.examples.set_index("index")
    centre, at_x, at_z = (int(np.abs(seen[axis] - value).argmin())
                          for axis, value in (("aside", 0), ("toward", 0), ("toward", 1)))  # fmt: skip
    for at, index in enumerate(seen["index"]):
        row = int(np.flatnonzero(run.witnesses["index"] == index)[0])
        label = torch.tensor([int(rows.loc[index, "label"])])
        for name, column in (("clean", at_x), ("adversarial", at_z)):
            there = cross_entropy(model, torch.from_numpy(run.witnesses[name][[row]]), label)
            assert seen["loss"][at, centre, column] == pytest.approx(float(there), rel=1e-3, abs=1e-5)
        assert seen["loss"][at, centre, at_z] > seen["loss"][at, centre, at_x]


def test_without_a_witness_or_a_budget_there_is_no_view(audited: tuple[Classifier, Run]) -> None:
    model, run = audited
    cheap = replace(run, summary=run.summary.model_copy(update={"forwards": 100}))
    assert landscape_views(model, cheap) == {}
    assert landscape_views(model, replace(run, witnesses={})) == {}
