from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from calipers.errors import BadInput
from calipers.records import Reaction, Run
from calipers.report import render, write
from calipers.report.charts import ROWS, SIDE, band_chart, bracket_chart, histogram_chart
from calipers.report.confusion import confusions
from calipers.report.facts import facts_of
from calipers.report.words import at_least, at_most
from tests.report.factory import CHECKS, make_run, with_landscape

INF = float("inf")
EVIL = "<script>alert(1)</script>"
ODD = {
    "usual": make_run(checks=CHECKS),
    "no witnesses": make_run([0.1, 0.2], [INF, INF]),
    "all attacked": make_run([0.0, 0.0], [0.0, 0.01]),
    "all certified": make_run([1.0, 2.0], [3.0, INF]),
    "certified without end": make_run([INF, INF], [INF, INF]),
    "all wrong": make_run([0.0, 0.0], [0.0, 0.0]),
    "one example": make_run([0.05], [0.08]),
    "two classes": make_run(classes=("no", "yes"), shape=(5,)),
    "no eps": make_run(eps=()),
    "colour": make_run(shape=(3, 8, 8)),
    "exact": make_run([0.1, 0.2], [0.1, 0.2], eps=(0.1,)),
    "many": make_run(np.linspace(0, 1, 1000), np.linspace(0, 2, 1000), shape=(4,)),
    "a signal": make_run(shape=(2, 30)),
    "one feature": make_run([0.1], [0.2], shape=(1,)),
    "a landscape": with_landscape(make_run()),
    "many classes": make_run(classes=tuple(f"class {at}" for at in range(30))),
}
VOID = {"meta", "link", "br", "img", "rect", "line", "path"}


class Page(HTMLParser):
    """Checks that every tag is closed, and collects the text, the attributes and the scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.text: list[str] = []
        self.urls: list[str] = []
        self.ids: list[str] = []
        self.scripts: list[str] = []
        self.feed(page)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.urls += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "xlink:href")]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass  # <path … /> closes itself

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] == "script":
            self.scripts.append(data)
        elif not self.stack or self.stack[-1] != "style":
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def _charts(page: str) -> dict[str, dict[str, object]]:
    found = re.search(r'<script type="application/json" id="charts">(.*?)</script>', page, re.DOTALL)
    assert found

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    charts: dict[str, dict[str, object]] = json.loads(found[1], parse_constant=refuse)
    return charts


@pytest.mark.parametrize("name", ODD)
def test_every_odd_run_is_a_well_formed_page_with_valid_charts(name: str) -> None:
    page = render(ODD[name])
    seen = Page(page)
    assert len(set(seen.ids)) == len(seen.ids)
    assert all(url.startswith(("#", "data:")) for url in seen.urls)
    assert not re.search(r"\bnan\b", seen.words)
    for name, chart in _charts(page).items():
        assert name in seen.ids
        assert len(chart["stops"]) == len(chart["told"])
        assert chart["stops"] == sorted(chart["stops"])
        assert all(0 <= stop <= SIDE for stop in chart["stops"])


def test_the_page_says_the_numbers() -> None:
    run = ODD["usual"]
    words = Page(render(run)).words
    for threat in run.summary.threats:
        row = f"{threat.certified} {threat.open} {threat.attacked}"
        assert row in words
    assert "at least" in words
    assert "✗ failed" in words
    assert "✓ passed" in words
    assert "– not applicable" in words
    assert "4 of 60 examples have no upper bound" in words
    assert "calipers audit digits-mlp --data digits --norm linf" in words
    assert "cd" * 32 in words
    assert "seed 3" in words
    assert f"{run.summary.forwards:,}" in words


def test_intervals_stand_there_only_for_a_sample() -> None:
    whole = make_run()
    assert "95 %" not in Page(render(whole)).words
    whole.about["data"]["size"] = 61
    words = Page(render(whole)).words
    assert "60 of 61 examples were audited" in words
    assert "95 %:" in words


def _points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML](\S+?) ([^ MLz]+)", path)]


def test_the_band_chart_agrees_with_the_summary_at_every_eps() -> None:
    run = make_run(eps=(0.03, 0.07, 0.1))
    chart = band_chart(facts_of(run))
    drawn = {shape.kind: _points(shape.path) for shape in chart.shapes}
    for threat, mark in zip(run.summary.threats, chart.marks, strict=True):
        at = 10 * mark.at
        reach = [y for x, y in drawn["certified-line"] if abs(x - at) < 0.01]
        whole = [y for x, y in drawn["attacked-line"] if abs(x - at) < 0.01]
        assert min(reach) <= SIDE * (1 - threat.proved) + 0.01 <= max(reach) + 0.02
        assert whole[-1] == pytest.approx(SIDE * (1 - threat.not_broken), abs=0.01)
        told = chart.told[int(np.argmin(np.abs(np.array(chart.stops) - at)))]
        assert told.startswith(f"radius {threat.eps:g}: proved {at_least(threat.proved)}")
        assert told.endswith(f"not broken {at_most(threat.not_broken)}")


def test_the_band_of_a_sample_has_limits_around_it() -> None:
    run = make_run(data={"name": "digits", "size": 1000})
    shapes = band_chart(facts_of(run)).shapes
    low, high = ([y for _, y in _points(shape.path)] for shape in shapes if shape.kind == "limit")
    proved, whole = ([y for _, y in _points(s.path)] for kind in ("certified-line", "attacked-line")
                     for s in shapes if s.kind == kind)  # fmt: skip
    assert (np.array(low) >= np.array(proved)).all()
    assert (np.array(high) <= np.array(whole)).all()
    assert low[0] > proved[0]
    assert not any(shape.kind == "limit" for shape in band_chart(facts_of(make_run())).shapes)


def test_the_histogram_counts_every_example_or_says_how_many_lie_beyond() -> None:
    chart = histogram_chart(facts_of(make_run()))
    counts = [re.fullmatch(r".*: (\d+) upper bounds, (\d+) lower bounds", line) for line in chart.told]
    inside = sum(int(count[1]) + int(count[2]) for count in counts if count)
    beyond = sum(int(count) for count in re.findall(r"(\d+) (?:beyond|infinite)", " ".join(chart.notes)))
    assert inside + beyond == 120
    assert "4 infinite" in " ".join(chart.notes)


def test_rows_of_the_bracket_chart_are_capped_sorted_and_full() -> None:
    run = ODD["many"]
    chart = bracket_chart(facts_of(run), run.examples)
    assert len(chart.stops) == ROWS
    assert "example 0:" in chart.told[0]
    assert "example 999:" in chart.told[-1]
    # Certified, open and attacked parts of all rows fill the chart.
    area = sum(
        float(w) * float(h) for shape in chart.shapes[:3] for w, h in re.findall(r"h([\d.]+)v([\d.]+)h-", shape.path)
    )
    assert area == pytest.approx(SIDE * SIDE, rel=0.01)


def test_the_confusion_counts_every_example_once_and_only_witnesses_within_eps() -> None:
    run = make_run([0.0, 0.0, 0.0, 0.2], [0.0, 0.05, 0.3, np.inf], eps=(0.1,), classes=("a", "b", "c"))
    label, clean = run.examples["label"].to_numpy(), run.examples["predicted"].to_numpy()
    (seen,) = confusions(run, facts_of(run))
    assert seen.counts.sum() == 4
    expected = np.zeros((3, 3), dtype=int)
    for true, said in (
        (label[0], clean[0]),
        (label[1], run.witnesses["predicted"][1]),
        *zip(label[2:], label[2:], strict=True),
    ):
        expected[true, said] += 1
    assert seen.counts.tolist() == expected.tolist()
    diagonal = int(np.trace(seen.counts))
    assert diagonal / 4 == run.summary.threats[0].not_broken


def test_the_confusion_off_the_diagonal_is_what_is_broken() -> None:
    for run in (ODD["usual"], ODD["many classes"]):
        for seen, threat in zip(confusions(run, facts_of(run)), run.summary.threats, strict=True):
            wrong = int(seen.counts.sum() - np.trace(seen.counts))
            assert wrong == threat.attacked
            assert sum(count for *_, count in seen.mistakes) <= wrong
    assert "The commonest mistakes among 30 classes" in Page(render(ODD["many classes"])).words


def test_whatever_the_user_called_things_stays_text() -> None:
    classes = (EVIL, '"><img src=x onerror=alert(2)>', "</style>&amp;")
    run = make_run(classes=classes, command=f"calipers {EVIL}", model={"name": EVIL, "sha256": EVIL}, machine=EVIL)
    run = Run(f"{EVIL}/run", run.about, run.examples, run.witnesses, CHECKS, run.summary)
    page = render(run)
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    seen = Page(page)
    assert seen.words.count(EVIL) >= 4
    assert len(seen.scripts) == 2
    assert EVIL in " ".join(_charts(page)["brackets"]["told"])


@pytest.mark.parametrize("about", [{}, {"model": "net", "data": "toy", "box": "per feature", "settings": None}])
def test_every_key_of_about_may_be_missing(about: dict[str, object]) -> None:
    run = make_run()
    words = Page(render(Run("run1", about, run.examples, run.witnesses, (), run.summary))).words
    assert "does not say which command made it" in words
    assert ("net on toy" if about else "a model on unnamed data") in words


def test_missing_cells_are_words_and_not_nan() -> None:
    run = make_run()
    run.examples.loc[run.examples["attack"] == "", "attack"] = None
    run.examples.loc[run.examples["certificate"] == "none", "certificate"] = np.nan
    page = render(run)
    assert "none (4)" in page
    assert "nan" not in json.dumps(_charts(page)).lower()


def test_what_the_audit_did_when_checks_failed_stands_there_before_and_after() -> None:
    run = make_run(checks=CHECKS)
    done = Reaction(causes=("random-noise-is-weaker",), actions=("searched without gradients", EVIL), eps=(0.05, 0.1),
                    before=(0.9, 0.8), after=(0.35, 0.1), upper_median_before=0.5, upper_median_after=0.2)  # fmt: skip
    for reaction, said in (
        (done, "0.05 90.0 % 35.0 % 0.1 80.0 % 10.0 %"),
        (done.model_copy(update={"eps": (), "before": (), "after": ()}), "median witness 0.5 0.2"),
    ):
        summary = run.summary.model_copy(update={"reaction": reaction})
        page = render(replace(run, summary=summary))
        assert said in Page(page).words
        assert "searched without gradients; <script>" in Page(page).words
        assert "<script>alert" not in page
    assert "second attack" not in render(run)


def test_a_thousand_mnist_images_stay_below_five_megabytes() -> None:
    rng = np.random.default_rng(0)
    lower = rng.random(1000)
    page = render(make_run(lower, lower * 1.2 + 0.01, checks=CHECKS))
    assert page.count('class="exhibit"') == 1000
    assert len(page.encode()) < 5_000_000


def test_a_landscape_that_contradicts_itself_is_refused() -> None:
    run = with_landscape(make_run())
    run.landscape["index"][0] = 999
    with pytest.raises(BadInput, match="landscape of run1: expected examples of the run, got example 999"):
        render(run)
    del run.landscape["loss"]
    with pytest.raises(BadInput, match="no loss"):
        render(run)


@pytest.mark.parametrize(
    ("column", "value", "complaint"),
    [("lower", 9.0, "0 ≤ lower ≤ upper"), ("upper", np.nan, "upper nan"), ("index", 1, "index 1 twice")],
)
def test_records_that_contradict_themselves_are_refused(column: str, value: float, complaint: str) -> None:
    run = make_run()
    run.examples.loc[5, column] = value
    with pytest.raises(BadInput, match=complaint):
        render(run)


def test_no_examples_and_missing_columns_are_refused() -> None:
    run = make_run()
    for examples, complaint in (
        (run.examples.iloc[:0], "at least one example"),
        (run.examples.drop(columns="upper"), "no upper"),
    ):
        with pytest.raises(BadInput, match=complaint):
            render(Run("run1", {}, examples, {}, (), run.summary))


def test_writing_replaces_whole_files_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    assert write(make_run([0.1], [0.2]), path) == path
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(self: Path, target: Path) -> Path:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        write(make_run([0.1], [0.2]), path)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none" / "report.html"):
        with pytest.raises(BadInput, match="existing folder"):
            write(make_run(), path)
