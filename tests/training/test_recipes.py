"""What each recipe trains on: the ball, the box, closed forms, and nothing touched on the way."""

import math

import pytest
import torch
from torch import nn

from calipers.attacks import climb, pgd
from calipers.errors import BadInput
from calipers.models import Classifier
from calipers.runner import Draws
from calipers.theory import feature_layer, self_loss
from calipers.threats import Threat, inside
from calipers.training import RECIPES, Ascent, Batch, fresh
from calipers.training.augment import crop_and_flip
from calipers.training.recipes import hard, noise, standard, trades

N = 13


def examples(shape=(1, 8, 8)):
    x = Draws(1, torch.arange(N), 0).uniform(math.prod(shape)).view(N, *shape)
    return x, torch.arange(N) % 10


def batch(eps=0.1, model=None, **changes):
    model = model or fresh("digits-mlp", seed=3)
    x, y = examples(model.shape)
    settings = {"net": model.module, "model": model, "x": x, "y": y, "index": torch.arange(N), "eps": eps, "seed": 5,
                "ascent": Ascent("linf", steps=3)}  # fmt: skip
    return Batch(**(settings | changes))


def seen(recipe, **changes):
    """Everything the network is called with while gradients flow into its weights."""
    model = changes.pop("model", None) or fresh("digits-mlp", seed=3)
    inputs = []

    def net(x):
        inputs.append(x.detach())
        return model.module(x)

    recipe(batch(model=model, net=net, **changes))
    return torch.cat(inputs)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
@pytest.mark.parametrize("raw", [False, True])
def test_climb_stays_in_ball_and_box(norm, raw):
    model, (x, y) = fresh("digits-mlp"), examples()
    eps = 3.0 if norm == "l0" else 0.3
    z = climb(model, x, y, Threat(norm, eps), steps=4, step_size=0.5, raw=raw)
    assert inside(z, x, eps, norm, model.box).all()
    assert not torch.equal(z, x)


def test_climb_reaches_the_maximum_on_affine_models():
    # Two classes: the loss is monotone in w·z, so its maximum over the ball is at x + eps·sign(w_1 − w_0).
    net = nn.Linear(6, 2)
    x, y = torch.full((5, 6), 0.5), torch.zeros(5, dtype=torch.int64)
    model = Classifier.of(net, shape=(6,))
    worst = x + 0.2 * (net.weight[1] - net.weight[0]).sign()
    z = climb(model, x, y, Threat("linf", 0.2), steps=10)
    assert torch.allclose(z, worst.detach(), atol=1e-6)


def test_climb_takes_the_attacks_steps():
    """The attack's witness, found after j steps, is where an ascent of j such steps ends."""
    model, (x, _) = fresh("digits-mlp", seed=3), examples()
    with torch.no_grad():
        y = model(x).argmax(1)
    same = {"step_size": 0.01, "loss": "ce-raw", "seed": 9}
    found = pgd(model, x, y, Threat("linf", 0.1), steps=20, **same)
    steps = found.forwards - 3  # the clean look, one look more than there are steps, and the judgement
    assert len(set(steps[found.success].tolist()) - {0}) > 1
    for j in sorted(set(steps[found.success].tolist()) - {0}):
        z = climb(model, x, y, Threat("linf", 0.1), steps=j, **same)
        rows = found.success & (steps == j)
        assert torch.equal(found.adversarial[rows], z[rows])


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
def test_climb_ends_where_no_gradient_is_left(norm):
    """A dead network is looked at once: where the gradient is exactly 0 for all, later steps would stand still."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
    model, (x, y), looks = Classifier.of(net, shape=(1, 8, 8)), examples(), []
    net.register_forward_hook(lambda *_: looks.append(1))
    eps = 3.0 if norm == "l0" else 0.3
    climb(model, x, y, Threat(norm, eps), steps=7)
    assert len(looks) == 7
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].bias.fill_(-1.0)
    looks.clear()
    z = climb(model, x, y, Threat(norm, eps), steps=7)
    assert len(looks) == 1
    assert torch.allclose(z, climb(model, x, y, Threat(norm, eps), steps=1, start=z), atol=1e-6)
    # One example that still has a gradient is enough to go on for all.
    with torch.no_grad():
        net[1].weight[0] = 100.0 * x[0].flatten()
        net[1].bias[0] = -100.0 * float(x[0].flatten() @ x[0].flatten()) + 1.0
    looks.clear()
    climb(model, x, y, Threat(norm, eps), steps=7, random_start=False)
    assert len(looks) > 1


def test_climb_asks_for_one_radius():
    model, (x, y) = fresh("digits-mlp"), examples()
    with pytest.raises(BadInput, match="eps to climb to: expected one radius"):
        climb(model, x, y, Threat("linf", (0.1, 0.2)), steps=1)


@pytest.mark.parametrize("name", sorted(set(RECIPES) - {"hard"}))
def test_batch_statistics_see_the_training_examples_only(name):
    """The attack inside runs in eval mode: the statistics are those of the one or two batches that are trained on."""
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10), nn.Dropout(0.5)).train()
    model = Classifier.of(net, shape=(1, 8, 8))
    state = torch.get_rng_state()
    asked = batch(model=model, net=lambda x: net[2](x.flatten(1)))
    RECIPES[name](asked)
    assert torch.equal(state, torch.get_rng_state())
    assert int(net[1].num_batches_tracked) == 0
    assert all(part.training for part in net.modules())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_without_a_radius_every_recipe_is_the_standard_one(name):
    assert torch.equal(RECIPES[name](batch(eps=0.0)), standard(batch(eps=0.0)))


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_an_example_gets_the_same_loss_in_any_batch(name):
    whole, rows = batch(), torch.tensor([11, 2, 7])
    part = batch(x=whole.x[rows], y=whole.y[rows], index=rows)
    assert torch.allclose(RECIPES[name](whole)[rows], RECIPES[name](part), atol=1e-5)


@pytest.mark.parametrize("name", ["pgd", "fast", "trades", "hard"])
def test_what_is_trained_on_lies_in_the_ball(name):
    x, _ = examples()
    inputs = seen(RECIPES[name])
    moved = inputs[-N:]
    assert inside(moved, x, 0.1, "linf", fresh("digits-mlp").box).all()
    assert ((moved - x).abs().amax((1, 2, 3)) > 0.01).all()
    assert len(inputs) == (2 * N if name in ("trades", "hard") else N)


def test_the_adversarial_loss_is_above_the_clean_one():
    clean, moved = standard(batch()), RECIPES["pgd"](batch())
    assert (moved > clean).all()
    assert RECIPES["pgd"](batch(ascent=Ascent(steps=10))).mean() >= RECIPES["fast"](batch()).mean() - 1e-3


def test_trades_without_its_robust_term_is_the_standard_recipe():
    assert torch.allclose(trades(batch(ascent=Ascent(steps=3, beta=0.0))), standard(batch()), atol=1e-6)
    assert (trades(batch()) >= standard(batch()) - 1e-6).all()  # a divergence is never negative


def test_hard_points_are_harder():
    model, (x, _) = fresh("digits-mlp", seed=3), examples()
    inputs = seen(hard, model=model, eps=1.0, ascent=Ascent("l2", steps=5))
    assert torch.equal(inputs[:N], x)
    features = feature_layer(model.module)
    assert (self_loss(features(inputs[N:])) > self_loss(features(x))).double().mean() > 0.9


def test_noise_has_the_asked_deviation_and_is_not_clipped():
    x, _ = examples()
    added = seen(noise, eps=0.5) - x
    assert added.std().item() == pytest.approx(0.5, rel=0.1)
    assert added.mean().item() == pytest.approx(0.0, abs=0.1)
    assert (x + added).amin() < 0


def test_steps_follow_from_eps_and_step_size():
    paper = Ascent("linf", step_size=0.05)
    assert [paper.plan(eps)[0] for eps in (0.01, 0.1, 0.3, 0.35, 0.4, 0.5)] == [1, 5, 15, 18, 20, 25]
    assert Ascent("linf", steps=7).plan(0.7) == (7, pytest.approx(0.25))


def test_crops_move_and_mirror_whole_images():
    x = torch.zeros(64, 2, 6, 6)
    x[:, :, 2, 2] = torch.tensor([1.0, 2.0])
    moved = crop_and_flip(x, Draws(0, torch.arange(64), 0), pad=2)
    assert torch.equal(moved.sum((2, 3)), torch.tensor([1.0, 2.0]).expand(64, 2))  # nothing is lost or mixed
    places = {tuple(place.tolist()) for place in moved[:, 0].nonzero()[:, 1:]}
    assert {row for row, _ in places} == {0, 1, 2, 3, 4}
    assert {column for _, column in places} == {0, 1, 2, 3, 4, 5}
    alone = crop_and_flip(x[5:6], Draws(0, torch.tensor([5]), 0), pad=2)
    assert torch.equal(alone, moved[5:6])
