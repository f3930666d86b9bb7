from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from calipers.report import render_comparison, write_comparison
from calipers.report.comparison import bands_chart, difference_chart
from calipers.report.pairs import named_runs, pair
from calipers.report.words import at_least, at_most
from tests.report.factory import CHECKS, make_run
from tests.report.test_page import EVIL, Page

LOWER = np.random.default_rng(0).random(40) / 10
RUNS = [
    make_run(LOWER, LOWER * 1.5, checks=CHECKS),
    make_run(LOWER * 1.2, LOWER * 2),
    make_run(LOWER[:20], LOWER[:20] * 1.5),
]


def test_the_page_is_well_formed_and_says_the_tables() -> None:
    page = render_comparison(RUNS)
    seen = Page(page)
    assert len(set(seen.ids)) == len(seen.ids)
    assert all(url.startswith(("#", "data:")) for url in seen.urls)
    assert not re.search(r"\bnan\b", seen.words)
    for run in RUNS:
        for threat in run.summary.threats:
            assert f"{at_least(threat.proved)} {at_most(threat.not_broken)} {threat.certified}" in seen.words
    assert "random-noise-is-weaker" in seen.words
    assert "A and B, 40 common examples" in seen.words
    assert "A and C, 20 common examples" in seen.words
    assert "upper bound larger 0 40 0 < 0.0001" in seen.words


def test_the_bands_say_the_fractions_at_every_eps() -> None:
    chart = bands_chart(named_runs(RUNS))
    for mark, threats in zip(chart.marks, zip(*(run.summary.threats for run in RUNS), strict=True), strict=True):
        told = chart.told[int(np.argmin(np.abs(np.array(chart.stops) - 10 * mark.at)))]
        for letter, threat in zip("ABC", threats, strict=True):
            assert f"{letter} {at_least(threat.proved)} to {at_most(threat.not_broken)}" in told


def test_differences_are_sorted_and_survive_infinite_bounds() -> None:
    a = make_run([0.1] * 4, [0.2, 0.3, np.inf, np.inf])
    b = make_run([0.1] * 4, [0.4, np.inf, np.inf, 0.2])
    chart = difference_chart(pair(*named_runs([a, b])))
    assert [line.split(":")[0] for line in chart.told] == ["example 3", "example 2", "example 0", "example 1"]
    assert "nan" not in "".join(shape.path for shape in chart.shapes)


def test_what_cannot_be_compared_is_said() -> None:
    other = make_run(data={"name": EVIL, "sha256": "00"}, eps=(0.3,))
    page = render_comparison([RUNS[0], other])
    words = Page(page).words
    assert "Not paired: their data are not known to be the same." in words
    assert "The runs share no norm and eps." in words
    assert EVIL in words
    assert "<script>alert" not in page


def test_it_is_written_whole(tmp_path: Path) -> None:
    path = write_comparison(RUNS, tmp_path / "page.html")
    assert path.stat().st_size < 300_000
    with pytest.raises(ValueError, match="existing folder"):
        write_comparison(RUNS, tmp_path)
