"""The interactive pages of the figures in a real browser: they move, obey the keyboard, fit a phone and ask nobody."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser, Page

from calipers.data import load
from calipers.geometry import Hyperplane, svm_path
from calipers.papers import tilting_page, transfer_page
from tests.report.test_browser import CHROMIUM, _open, browser

__all__ = ["browser"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the path"),
]
DRAWN = ("histogram", "plane", "image0", "image2", "image4")


@pytest.fixture(scope="module")
def tilting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data, frames = load("digits", split="train"), {}
    x, label = data.x.flatten(1).double().numpy(), data.y.numpy()
    for pair in ((0, 1), (4, 9)):
        rows = np.concatenate([np.flatnonzero(label == digit)[:60] for digit in pair])
        y, ladder = np.repeat([-1.0, 1.0], 60), np.array([10.0, 0.1, 1e-3])
        path = svm_path(x[rows], y, ladder)
        frames[pair] = [
            tilting_page.frame(Hyperplane(path.weight[i], path.bias[i]), x[rows], y,
                               {"lambda": 25 / 3 / C, "theta": 0.0, "d_adv": 0.0, "err_train": 0.0, "err_test": 0.0,
                                "inv_norm_w": 1 / float(np.linalg.norm(path.weight[i]))})
            for i, C in enumerate(ladder)
        ]  # fmt: skip
    written = tmp_path_factory.mktemp("tilting") / "svm_path.html"
    written.write_bytes(tilting_page.page(frames))
    return written


def _drawn(page: Page) -> dict[str, str]:
    return {name: page.evaluate(f"document.getElementById('{name}').toDataURL()") for name in DRAWN}


@pytest.mark.parametrize("width", [1200, 390])
def test_the_boundary_tilts_under_the_keyboard(browser: Browser, tilting: Path, width: int) -> None:
    page, trouble = _open(browser, tilting, width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    start = _drawn(page)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "pair"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "lambda"
    before = page.text_content("#value")
    page.keyboard.press("ArrowRight")
    moved = _drawn(page)
    assert page.text_content("#value") != before
    assert all(moved[name] != start[name] for name in DRAWN)
    page.select_option("#pair", "4 vs 9")
    other = _drawn(page)
    assert all(other[name] != moved[name] for name in DRAWN)
    assert trouble == []
    page.close()


@pytest.mark.parametrize("width", [1200, 390])
def test_figure_4_draws_both_kinds_of_targets(browser: Browser, tmp_path: Path, width: int) -> None:
    rows = [
        {"target": target, "perturbation": kind, "eps": eps, "mean": 0.5, "min": 0.4, "max": 0.7}
        for target in ("SVM", "network") for kind in ("random", "SVM", "network") for eps in (0.1, 0.2)
    ]  # fmt: skip
    written = tmp_path / "figure4.html"
    written.write_bytes(transfer_page.page(pd.DataFrame(rows)))
    page, trouble = _open(browser, written, width)
    page.wait_for_selector("#accuracy-network .main-svg")
    assert page.locator(".scatterlayer .trace").count() == 6
    ends = page.evaluate("[...document.querySelectorAll('.main-svg')].map((it) => it.getBoundingClientRect().right)")
    boxes = page.evaluate("[...document.querySelectorAll('.main-svg')].map((it) => it.closest('.row > div')"
                          ".getBoundingClientRect().right)")  # fmt: skip
    assert all(end <= box + 1 for end, box in zip(ends, boxes, strict=True))
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert trouble == []
    page.close()
