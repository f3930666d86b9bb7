"""The figures that train: their code runs, their trainings are kept, their measures obey their laws."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from calipers.models import Classifier, digest
from calipers.papers import figures, run
from calipers.papers.large_grid import _named, _variants
from calipers.papers.large_training import SIZES, Trainings
from calipers.papers.tilting_lenet import _temperature, _toward
from calipers.training import ABOUT, METRICS, Schedule

ON_DIGITS = [
    "large_perturbations.appendix_b",
    "large_perturbations.beyond",
    "large_perturbations.table1",
    "pointwise.figure5",
]


@pytest.mark.parametrize("name", ON_DIGITS)
def test_figures_run_at_smoke_scale(name: str, tmp_path: Path) -> None:
    files = {path.name: path for path in run(name, "smoke", tmp_path)}
    assert len(pd.read_csv(files[f"{name}.csv"])) > 0
    assert json.loads(files[f"{name}.json"].read_text(encoding="utf-8"))["findings"]
    assert list((tmp_path / "trained" / "smoke").glob(f"*/{METRICS}"))


def test_a_training_is_done_once_for_all_figures(tmp_path: Path) -> None:
    run("large_perturbations.figure10", "smoke", tmp_path)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob(METRICS)}
    table = pd.read_csv(run("large_perturbations.figure2", "smoke", tmp_path)[0])
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert set(table.training) == {"A: 0.3 -> 0.4", "B: 0.35 -> 0.45", "0.4 from random weights"}


def test_several_workers_train_the_chains_of_a_figure_at_once(tmp_path: Path) -> None:
    name, told = "large_perturbations.figure8", list[str]()
    with pytest.warns(UserWarning, match="half of the input box"):
        alone = pd.read_csv(run(name, "smoke", tmp_path / "alone")[0])
        together = pd.read_csv(run(name, "smoke", tmp_path / "together", workers=2, tell=told.append)[0])
    assert [line.partition(" after")[0] for line in told] == ["trained: 1 of 2", "trained: 2 of 2"]
    # Other threads round otherwise.
    pd.testing.assert_frame_equal(alone, together, rtol=1e-3)


def test_a_training_killed_before_its_first_checkpoint_begins_again(tmp_path: Path) -> None:
    runs = Trainings("smoke", tmp_path)
    whole = runs.iterative(0.4)
    (folder,) = tmp_path.iterdir()
    for path in folder.iterdir():
        if path.name != ABOUT:
            path.unlink()
    assert digest(runs.iterative(0.4).model) == digest(whole.model)


def test_iterative_training_to_half_the_box_goes_on_from_the_one_to_04(tmp_path: Path) -> None:
    to_04 = Trainings("smoke", tmp_path).iterative(0.4)
    with pytest.warns(UserWarning, match="half of the input box"):
        further = Trainings("smoke", tmp_path).iterative(0.5)
        alone = Trainings("smoke", tmp_path / "alone").iterative(0.5)
    assert further.metrics[: len(to_04.metrics)] == to_04.metrics
    assert len(alone.metrics) > len(to_04.metrics)
    assert digest(further.model) == digest(alone.model)


def test_the_paper_scale_is_the_published_one() -> None:
    runs, size = Trainings("paper", None), SIZES["paper"]
    assert (size.arch, size.epochs, size.extended, size.rise, size.judged) == ("mnist-cnn", 30, 5, 0.01, 10_000)
    plan = runs.plan(Schedule("constant", 0.3), size.epochs)
    assert (plan.optimizer, plan.lr, plan.batch_size, plan.ascent.plan(0.3)) == ("adam", 1e-3, 128, (15, 0.05))
    assert plan.ascent.plan(0.4) == (20, 0.05)
    assert (size.tried, size.ramp) == (2, 2)
    grid = _variants()
    assert len({_named(name) for name in grid}) == len(grid) == 18


def test_a_base_network_gets_a_ramp_only_if_it_never_left_chance(tmp_path: Path) -> None:
    size = replace(SIZES["smoke"], examples=1000, epochs=12, tried=10, ramp=3)
    runs = Trainings("smoke", tmp_path, {"smoke": size})
    learnt, stuck = runs.base(0.01), runs.base(0.45)
    assert {row["eps"] for row in learnt.metrics} == {0.01}
    assert len({row["eps"] for row in stuck.metrics}) > 1
    assert [len(run.metrics) for run in (learnt, stuck, runs.base(0.01))] == [12, 12, 12]
    assert len(pd.read_parquet(next(tmp_path.glob(f"*plain-0.45/{METRICS}")))) == 10


def test_every_figure_of_the_training_says_what_it_claims() -> None:
    known = figures()
    for name in ("1", "2", "7", "8", "10"):
        assert known[f"large_perturbations.figure{name}"].long
    assert known["large_perturbations.table2"].claim.startswith("CIFAR-10")
    assert known["tilting.lenet"].long


def test_the_temperature_makes_the_median_top_score_as_asked() -> None:
    logits = torch.randn(201, 10, generator=torch.Generator().manual_seed(0)) * 7
    t = _temperature(logits)
    assert (logits.double() / t).softmax(1).amax(1).median().item() == pytest.approx(0.95, abs=1e-6)
    assert _temperature(10 * logits) == pytest.approx(10 * t, rel=1e-6)


def test_targeted_ascent_ends_at_the_score_along_the_shortest_way_on_an_affine_model() -> None:
    """p = σ(w·x): the gradient's direction is w's, so the length is that of the score, to one step of 1/255."""
    w = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    net = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        net.weight.copy_(w)
    model = Classifier.of(net, shape=(2,), box=(-10, 10))
    x, target = torch.zeros(1, 2), torch.tensor([1])
    z, reached = _toward(model, x, target, 1.0)
    needed = math.log(0.95 / 0.05) / 5
    assert reached.all()
    assert needed <= (z - x).norm().item() <= needed + 1 / 255 + 1e-5
