"""One training, undisturbed, killed, resumed, derailed: the same weights, or one sentence and nothing lost."""

import json
import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from calipers.data import load
from calipers.errors import BadInput
from calipers.models import Classifier
from calipers.training import (
    ABOUT,
    METRICS,
    WEIGHTS,
    Ascent,
    Plan,
    Schedule,
    accuracy,
    fresh,
    initial,
    train,
    trained_for,
)
from calipers.training import loop as loop_module
from calipers.training.checkpoint import CHECKPOINT, PREVIOUS

DATA = load("digits", split="train").take(200)
TEST = load("digits").take(40)
PLAN = Plan("pgd", Schedule("ramp", 0.05, span=2.0), Ascent("linf", steps=2), epochs=3, batch_size=64, lr=0.005)


class Killed(BaseException):
    """Stands for a signal: nothing in the code under test catches it."""


def weights(model):
    return {name: value.clone() for name, value in model.module.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def dropout_net():
    """A network whose layers draw random numbers and keep statistics."""
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3),
                            nn.Linear(32, 10))  # fmt: skip
    return Classifier.of(net, shape=(1, 8, 8))


def conv_net():
    """Convolutions, which are trained channels last, and whose weights have strides of their own then."""
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(),
                            nn.Flatten(), nn.Linear(6 * 64, 10))  # fmt: skip
    return Classifier.of(net, shape=(1, 8, 8))


def killed_at(step, plan, out, make=dropout_net, **options):
    """A training that dies once it has done so many steps, whatever it has written by then."""
    done = 0

    def progress(examples):
        nonlocal done
        done += 1
        if done == step:
            raise Killed

    with pytest.raises(Killed):
        train(make(), DATA, plan, out=out, progress=progress, **options)


@pytest.fixture(scope="module")
def undisturbed():
    return weights(train(dropout_net(), DATA, PLAN).model)


def test_training_helps_and_is_a_function_of_its_arguments():
    start = fresh("digits-mlp")
    plan = replace(PLAN, epochs=6)
    before, state = accuracy(start, TEST.x, TEST.y), torch.get_rng_state()
    trained = train(start, DATA, plan, held_out=TEST)
    assert torch.equal(torch.get_rng_state(), state)
    assert trained.model.module is start.module
    assert not start.module.training
    assert all(p.grad is None and p.requires_grad for p in start.module.parameters())
    assert trained.metrics[-1]["clean"] > before + 0.3
    torch.rand(3)
    assert same(weights(trained.model), weights(train(fresh("digits-mlp"), DATA, plan).model))
    other = train(fresh("digits-mlp"), DATA, replace(plan, seed=1)).model
    assert not same(weights(trained.model), weights(other))


@pytest.mark.parametrize("step", [1, 4, 6, 8])  # 4 steps an epoch
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("make", [dropout_net, conv_net])
def test_killed_anywhere_and_resumed_it_ends_with_the_same_weights(tmp_path, step, optimizer, make):
    plan = replace(PLAN, optimizer=optimizer)
    killed_at(step, plan, tmp_path, make, checkpoint_seconds=0.0)
    resumed = train(make(), DATA, plan, out=tmp_path, resume=True) if step > 1 else None
    if resumed is None:  # nothing was written yet but what was asked for
        with pytest.raises(BadInput, match="expected a whole one, got none"):
            train(make(), DATA, plan, out=tmp_path, resume=True)
        resumed = train(make(), DATA, plan, out=tmp_path, replace=True)
    straight = train(make(), DATA, plan)
    assert same(weights(resumed.model), weights(straight.model))
    timeless = [{k: v for k, v in row.items() if "second" not in k} for row in resumed.metrics]
    assert timeless == [{k: v for k, v in row.items() if "second" not in k} for row in straight.metrics]
    assert same(load_file(tmp_path / WEIGHTS), weights(straight.model))


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, undisturbed):
    killed_at(10, PLAN, tmp_path, checkpoint_seconds=0.0)
    whole = (tmp_path / CHECKPOINT).read_bytes()
    (tmp_path / CHECKPOINT).write_bytes(whole[: len(whole) // 2])
    assert same(weights(train(dropout_net(), DATA, PLAN, out=tmp_path, resume=True).model), undisturbed)
    for name in (CHECKPOINT, PREVIOUS):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(BadInput, match=r"expected a whole one, got only damaged ones: checkpoint\.safetensors"):
        train(dropout_net(), DATA, PLAN, out=tmp_path, resume=True)


def test_a_finished_training_goes_on_for_more_epochs(tmp_path, undisturbed):
    train(dropout_net(), DATA, replace(PLAN, epochs=1), out=tmp_path)
    longer = train(dropout_net(), DATA, PLAN, out=tmp_path, resume=True)
    assert same(weights(longer.model), undisturbed)
    again = train(dropout_net(), DATA, PLAN, out=tmp_path, resume=True)  # nothing is left to do
    assert same(weights(again.model), undisturbed)
    assert again.metrics == longer.metrics


def test_an_iterative_training_goes_on_to_a_larger_eps_as_long_as_eps_still_rises(tmp_path):
    far = replace(PLAN, schedule=Schedule("iterative", 0.05, rise=0.01), epochs=4)
    near = replace(far, schedule=Schedule("iterative", 0.02, rise=0.01), epochs=2)
    train(dropout_net(), DATA, near, out=tmp_path)
    further = train(dropout_net(), DATA, far, out=tmp_path, resume=True)
    straight = train(dropout_net(), DATA, far)
    assert same(weights(further.model), weights(straight.model))
    assert [row["eps"] for row in further.metrics] == [row["eps"] for row in straight.metrics]
    with pytest.raises(BadInput, match=r"same settings, got eps of epoch 4: 0\.04 then, 0\.03 now; --init starts from"):
        train(dropout_net(), DATA, replace(far, schedule=Schedule("iterative", 0.03)), out=tmp_path, resume=True)
    with pytest.raises(BadInput, match=r"plan\.schedule: "):
        train(dropout_net(), DATA, replace(far, schedule=Schedule("iterative", 0.05, rise=0.02)), out=tmp_path,
              resume=True)  # fmt: skip


def test_a_folder_is_one_training(tmp_path):
    train(dropout_net(), DATA, replace(PLAN, epochs=1), out=tmp_path)
    with pytest.raises(BadInput, match="expected a new one, got a training; --resume goes on with it"):
        train(dropout_net(), DATA, PLAN, out=tmp_path)
    with pytest.raises(BadInput, match=r"the same settings, got plan\.lr: 0\.005 then, 0\.01 now"):
        train(dropout_net(), DATA, replace(PLAN, lr=0.01), out=tmp_path, resume=True)
    with pytest.raises(BadInput, match="examples: 200 then, 100 now"):
        train(dropout_net(), DATA.take(100), PLAN, out=tmp_path, resume=True)
    with pytest.raises(BadInput, match="data_sha256: "):
        train(dropout_net(), replace(DATA, y=DATA.y.flip(0)), PLAN, out=tmp_path, resume=True)
    with pytest.raises(BadInput, match=r"expected its train\.json"):
        train(dropout_net(), DATA, PLAN, out=tmp_path / "nowhere", resume=True)


def test_metrics_are_what_they_say(tmp_path):
    start = fresh("digits-mlp")
    first = weights(start)
    trained = train(start, DATA, replace(PLAN, epochs=2), held_out=TEST, out=tmp_path, origin={"arch": "digits-mlp"})
    table = pd.read_parquet(tmp_path / METRICS)
    assert table.epoch.tolist() == [1, 2]
    assert table.eps.tolist() == pytest.approx([0.025, 0.05])
    assert table.loss_change[1] == pytest.approx(table.loss[1] - table.loss[0])
    assert table.clean[1] == accuracy(trained.model, TEST.x, TEST.y)
    assert (table.robust <= table.clean).all()
    last = weights(trained.model)
    rms = last["1.weight"].double().square().mean().sqrt().item()
    assert table["rms/1.weight"][1] == pytest.approx(rms, rel=1e-5)
    # The epochs' moves are sides of a triangle with the way from the first weights to the last.
    way = math.sqrt(sum((last[n].double() - first[n].double()).square().sum().item() for n in last))
    one, two = table.weights_moved
    assert abs(one - two) <= way <= one + two
    assert same(last, weights(initial(tmp_path)))
    assert json.loads((tmp_path / ABOUT).read_text())["plan"]["ascent"]["steps"] == 2


def test_fresh_weights_are_drawn_as_asked():
    """Glorot: U(−r, r) with r² = 6/(n + m), biases 0; the tutorial: N(0, 0.1²) cut at 0.2, biases 0.1."""
    layer = fresh("mnist-mlp-512", init="glorot").module[1]
    reach = (6 / (784 + 512)) ** 0.5
    assert 0.999 * reach < layer.weight.abs().max() <= reach
    assert not layer.bias.any()
    layer = fresh("mnist-mlp-512", init="tutorial").module[1]
    assert 0.199 < layer.weight.abs().max() <= 0.2
    assert layer.weight.std().item() == pytest.approx(0.1 * 0.8796, rel=0.01)
    assert (layer.bias == 0.1).all()
    with pytest.raises(BadInput, match="initial weights: got 'tutorals'; did you mean 'tutorial'"):
        fresh("mnist-mlp-512", init="tutorals")


def test_weight_decay_is_the_papers():
    """θ ← θ − η(∇ + λθ), held against one step worked by hand."""
    plan = Plan("standard", Schedule("constant", 0.0), epochs=1, batch_size=200, optimizer="sgd", lr=0.1,
                weight_decay=0.5)  # fmt: skip
    start = fresh("digits-linear", seed=2)
    theta = [p.detach().clone() for p in start.module.parameters()]
    gradient = torch.autograd.grad(nn.functional.cross_entropy(start.module(DATA.x), DATA.y), start.module.parameters())
    train(start, DATA, plan)
    for now, before, slope in zip(start.module.parameters(), theta, gradient, strict=True):
        assert torch.allclose(now, before - 0.1 * (slope + 0.5 * before), atol=1e-6)


def test_the_learning_rate_falls_as_planned():
    plan = replace(PLAN, epochs=10, lr=1.0, lr_drops=(2, 5))
    assert [plan.rate(t) for t in (0, 1.9, 2, 4.9, 5)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    assert [replace(plan, lr_drops=(), anneal=True).rate(t) for t in (0, 5, 10)] == [1.0, 0.5, 0.0]


def test_a_loss_that_is_not_a_number_stops_it_and_the_last_good_weights_stay(tmp_path, monkeypatch):
    calls = 0

    def derailed(batch):
        nonlocal calls
        calls += 1
        return loop_module.RECIPES["standard"](batch) * (math.nan if calls == 7 else 1.0)

    monkeypatch.setitem(loop_module.RECIPES, "pgd", derailed)
    model = fresh("digits-mlp")
    with pytest.raises(BadInput, match="loss at epoch 2, step 3: expected a finite number, got nan; the weights of ep"):
        train(model, DATA, PLAN, out=tmp_path)
    assert all(value.isfinite().all() for value in load_file(tmp_path / WEIGHTS).values())
    assert same(load_file(tmp_path / WEIGHTS), weights(model))


def test_weights_that_are_no_numbers_are_never_the_last_good_ones(tmp_path):
    """The step after the last loss of an epoch is seen in the weights alone."""

    class Root(nn.Module):
        def forward(self, x):
            # The square root of 0 has no slope: its gradient is 0/0, though it is not chosen.
            return torch.where(x > 1e9, (0 * x).sqrt(), x)

    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), Root())
    plan = replace(PLAN, recipe="standard", schedule=Schedule("constant", 0.0), epochs=1, batch_size=200)
    with pytest.raises(BadInput, match=r"after epoch 1: expected a finite number, got NaN or infinity"):
        train(Classifier.of(net, shape=(1, 8, 8)), DATA, plan, out=tmp_path)
    assert not (tmp_path / WEIGHTS).exists()
    assert all(value.isfinite().all() for value in net.state_dict().values())


def test_a_last_batch_of_one_is_no_batch_where_there_are_batch_statistics():
    plan = replace(PLAN, batch_size=199, epochs=1)
    assert len(train(dropout_net(), DATA, plan).metrics) == 1


def test_what_was_begun_can_be_overwritten_whatever_is_left_of_it(tmp_path, undisturbed):
    killed_at(6, PLAN, tmp_path, checkpoint_seconds=0.0)
    (tmp_path / f"{CHECKPOINT}.new").write_bytes((tmp_path / CHECKPOINT).read_bytes())
    assert same(weights(train(dropout_net(), DATA, PLAN, out=tmp_path, replace=True).model), undisturbed)
    further = train(dropout_net(), DATA, replace(PLAN, epochs=1), out=tmp_path, resume=True)
    assert same(weights(further.model), undisturbed)
    assert json.loads((tmp_path / ABOUT).read_text())["plan"]["epochs"] == 3


def test_what_is_held_out_is_checked_whole_and_a_refusal_leaves_the_network_alone(tmp_path):
    wrong = replace(TEST, y=TEST.y.clone().index_fill_(0, torch.tensor([7]), 11))
    model = conv_net()
    with pytest.raises(BadInput, match="label of example 7"):
        train(model, DATA, PLAN, held_out=wrong, out=tmp_path)
    killed_at(6, PLAN, tmp_path, checkpoint_seconds=0.0)
    with pytest.raises(BadInput, match="expected a new one"):
        train(model, DATA, PLAN, out=tmp_path)
    assert model.module[2].weight.is_contiguous()


def test_weights_know_in_which_norm_they_were_trained(tmp_path):
    train(fresh("digits-mlp"), DATA, replace(PLAN, ascent=Ascent("l2", steps=2)), out=tmp_path)
    assert (trained_for(tmp_path, "l2"), trained_for(tmp_path, "linf")) == (pytest.approx(0.05), 0.0)


def test_a_constant_answer_is_called_one(monkeypatch):
    monkeypatch.setitem(loop_module.RECIPES, "pgd", lambda b: 0 * loop_module.RECIPES["standard"](b) + math.log(10))
    assert "2.303" in train(fresh("digits-mlp"), DATA, replace(PLAN, epochs=1)).constant
    assert train(fresh("digits-mlp"), DATA, replace(PLAN, recipe="standard", epochs=3)).constant is None


def dead_net():
    """No example comes through its first layer."""
    model = fresh("digits-mlp")
    with torch.no_grad():
        model.module[1].bias.fill_(-100.0)
    return model


def test_a_dead_network_is_not_trained_on(tmp_path):
    plan = replace(PLAN, epochs=30)
    model = dead_net()
    trained = train(model, DATA, plan, out=tmp_path)
    assert "dead: in epoch 2 no gradient reached" in trained.stopped
    assert len(trained.metrics) == 2
    assert trained.kept["epoch"] == 1
    assert "2.303" in trained.constant
    assert torch.equal(model.module[1].weight, fresh("digits-mlp").module[1].weight)
    again = train(fresh("digits-mlp"), DATA, plan, out=tmp_path, resume=True)
    assert again.stopped == trained.stopped
    assert same(weights(again.model), weights(model))


def test_what_may_come_back_to_life_is_trained_on():
    assert train(dead_net(), DATA, replace(PLAN, weight_decay=1e-3)).stopped is None
    alive = dead_net()
    with torch.no_grad():
        alive.module[1].bias[0] = 0.0
    assert train(alive, DATA, replace(PLAN, lr=1e-9)).stopped is None


@pytest.mark.parametrize("step", [2, 5, 6, 7])
def test_a_dead_network_is_found_dead_wherever_its_training_was_killed(step, tmp_path):
    plan = replace(PLAN, epochs=30)
    killed_at(step, plan, tmp_path, dead_net, checkpoint_seconds=0.0)
    assert "in epoch 2" in train(dead_net(), DATA, plan, out=tmp_path, resume=True).stopped


def test_iterative_training_stops_before_the_collapse_and_keeps_the_good_weights(monkeypatch, tmp_path):
    rising = {1: 0.3, 2: 0.31, 3: 0.32, 4: 0.33, 5: 2.3}
    kept = {}

    def planned(batch):
        epoch = round(batch.eps / 0.01)
        loss = loop_module.RECIPES["standard"](batch)
        return loss - loss.detach() + rising[epoch]

    monkeypatch.setitem(loop_module.RECIPES, "pgd", planned)
    plan = replace(PLAN, schedule=Schedule("iterative", 0.1, rise=0.01), epochs=10)
    model = fresh("digits-mlp")
    trained = train(model, DATA, plan, out=tmp_path, on_epoch=lambda row: kept.update({row["epoch"]: weights(model)}))
    assert trained.stopped is not None
    assert "rose suddenly from 0.330 to 2.300 at eps = 0.05 (epoch 5); the weights of eps = 0.04" in trained.stopped
    assert len(trained.metrics) == 5
    assert same(weights(model), kept[4])
    assert same(load_file(tmp_path / WEIGHTS), kept[4])
    assert trained_for(tmp_path) == trained_for(tmp_path / WEIGHTS) == pytest.approx(0.04)
    assert train(fresh("digits-mlp"), DATA, plan, out=tmp_path, resume=True).stopped == trained.stopped


def test_mixed_precision_trains_as_well():
    runs = [train(fresh("digits-mlp"), DATA, replace(PLAN, epochs=6, precision=precision), held_out=TEST)
            for precision in ("32", "bf16")]  # fmt: skip
    ours = [run.metrics[-1] for run in runs]
    assert ours[1]["loss"] == pytest.approx(ours[0]["loss"], rel=0.05)
    assert runs[1].model.module[1].weight.dtype == torch.float32


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch, undisturbed):
    killed_at(6, PLAN, tmp_path, checkpoint_seconds=0.0)

    def full(path, content):
        raise BadInput(f"writing {path}", expected="a disk that takes it", got="No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("calipers.training.checkpoint.atomic_write", full)
        with pytest.raises(BadInput, match="No space left"):
            train(dropout_net(), DATA, PLAN, out=tmp_path, resume=True, checkpoint_seconds=0.0)
    assert same(weights(train(dropout_net(), DATA, PLAN, out=tmp_path, resume=True).model), undisturbed)


def test_what_is_wrong_is_said_before_the_first_step(tmp_path):
    with pytest.raises(BadInput, match="label of example 3"):
        train(fresh("digits-mlp"), replace(DATA, y=torch.where(torch.arange(200) == 3, 11, DATA.y)), PLAN)
    with pytest.warns(UserWarning, match=r"eps = 0\.6 is half of the input box in linf \(0\.5\) or more"):
        train(fresh("digits-linear"), DATA.take(64), replace(PLAN, schedule=Schedule("constant", 0.6), epochs=1))
    flat = Classifier.of(nn.Linear(64, 10), shape=(64,))
    with pytest.raises(BadInput, match=r"network of recipe hard: expected an nn\.Sequential"):
        train(flat, replace(DATA, x=DATA.x.flatten(1)), replace(PLAN, recipe="hard"))
    with pytest.raises(BadInput, match="augment: expected images"):
        train(flat, replace(DATA, x=DATA.x.flatten(1)), replace(PLAN, augment=True))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"recipe": "pdg"}, "did you mean 'pgd'"),
        ({"optimizer": "adan"}, "did you mean 'adam'"),
        ({"epochs": 0}, "epochs: expected at least 1, got 0"),
        ({"lr": 0.0}, "lr: expected a finite number > 0, got 0.0"),
        ({"weight_decay": -1.0}, "weight decay: expected a finite number >= 0"),
        ({"ascent": Ascent("linf", step_size=0.0)}, "step size: expected a finite number > 0, got 0.0"),
        ({"schedule": Schedule("constant", 0.0)}, "eps of recipe pgd: expected a number > 0"),
        ({"seed": -1}, "seed: expected 0 to 4294967295, got -1"),
    ],
)
def test_plans_that_cannot_be_meant(change, said):
    with pytest.raises(BadInput, match=said):
        replace(PLAN, **change)


def test_an_ascent_in_no_norm_cannot_be_meant():
    with pytest.raises(BadInput, match="norm: expected linf, l2, l1 or l0, got 'l3'"):
        Ascent("l3")


def test_a_plan_survives_its_own_json():
    plan = replace(PLAN, lr_drops=(2, 3))
    assert Plan.of(json.loads(json.dumps(plan.settings()))) == plan
