import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from calipers.errors import BadInput
from calipers.papers import Bench, Result, Scale, figure, figures, registry, run
from calipers.runner import Part, merge

NAMES = {
    "pointwise.figure1", "pointwise.figure2", "pointwise.figure3", "pointwise.figure4",
    "lower_bound.compare", "large_perturbations.figure12", "large_perturbations.theorems",
}  # fmt: skip


def test_all_figures_are_found_sorted_and_described() -> None:
    known = figures()
    assert set(known) >= NAMES
    assert list(known) == sorted(known)
    assert all(f.name == name and f.claim and "20" in f.paper for name, f in known.items())


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_figure_runs_at_smoke_scale(name: str, tmp_path: Path) -> None:
    files = run(name, "smoke", tmp_path / "new" / "folder")
    table = pd.read_csv(files[0])
    assert len(table) > 0
    about = json.loads(files[-1].read_text(encoding="utf-8"))
    assert about["command"] == f"calipers papers run {name} --scale smoke"
    assert about["claim"] == figures()[name].claim
    assert len(about["findings"]) > 0
    assert {"python", "numpy", "torch"} <= set(about["versions"])
    assert [f.suffix for f in files] in ([".csv", ".svg", ".json"], [".csv", ".json"])
    assert sorted(p.name for p in files[0].parent.iterdir()) == sorted(f.name for f in files)


def test_the_same_figure_twice_is_the_same_bytes(tmp_path: Path) -> None:
    first = run("pointwise.figure3", "smoke", tmp_path / "a")
    second = run("pointwise.figure3", "smoke", tmp_path / "b")
    for one, other in zip(first[:2], second[:2], strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert b"<dc:date>" not in first[1].read_bytes()


def test_unknown_words_suggest_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"did you mean 'pointwise\.figure2'"):
        run("pointwise.figur2", "smoke", tmp_path)
    with pytest.raises(BadInput, match="did you mean 'smoke'"):
        run("pointwise.figure2", "smok", tmp_path)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_figure_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    @figure("test.broken", paper="2000", claim="none")
    def _fails(scale: Scale) -> Result:
        return Result(pd.DataFrame({"a": [1]}), (), broken)  # type: ignore[arg-type]

    try:
        with pytest.raises(ZeroDivisionError):
            run("test.broken", "smoke", tmp_path)
    finally:
        registry._FIGURES.pop("test.broken")
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_given_once() -> None:
    with pytest.raises(BadInput, match=r"expected a new name, got 'pointwise\.figure1'"):
        figure(figures()["pointwise.figure1"].name, paper="2000", claim="none")(
            lambda scale: Result(pd.DataFrame(), ())
        )


def test_a_long_figure_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    calls: list[int] = []
    kills = [KeyboardInterrupt]

    def work(i: int) -> Part:
        if i == 2 and kills:
            raise kills.pop()
        calls.append(i)
        return Part({"n": np.array([i])})

    @figure("test.long", paper="2000", claim="none", long=True)
    def _long(scale: Scale, bench: Bench) -> Result:
        parts = bench.shards("count", scale, work, 4)
        return Result(pd.DataFrame(merge(parts).table), ("counted",))

    try:
        with pytest.raises(KeyboardInterrupt):
            run("test.long", "smoke", tmp_path)
        files = run("test.long", "smoke", tmp_path)
    finally:
        registry._FIGURES.pop("test.long")
    assert calls == [0, 1, 2, 3]
    assert pd.read_csv(files[0]).n.tolist() == [0, 1, 2, 3]
    assert json.loads(files[-1].read_text())["shards_kept_from_earlier_runs"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.long.csv", "test.long.json"]
