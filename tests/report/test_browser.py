"""The page in a real browser: it draws, asks nobody for anything, fits a phone, and keeps names as text."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from calipers.report import write
from tests.report.factory import CHECKS, make_run

CHROMIUM = shutil.which("chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip
EVIL = "<script>window.broken=1</script>"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the path"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    classes = (EVIL, "<img src=x onerror='window.broken=1'>", *"23456789")
    return write(make_run(checks=CHECKS, classes=classes), tmp_path_factory.mktemp("run") / "report.html")


def _open(browser: Browser, report: Path, width: int = 1200, scheme: str = "light") -> tuple[Page, list[str]]:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda request: trouble.append(request.url) if request.url.startswith("http") else None)
    page.goto(report.as_uri())
    page.wait_for_selector("#brackets.js-plotly-plot .main-svg")
    return page, trouble


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (1200, "dark"), (390, "light"), (390, "dark")])
def test_it_draws_and_fits(browser: Browser, report: Path, tmp_path: Path, width: int, scheme: str) -> None:
    page, trouble = _open(browser, report, width, scheme)
    assert page.locator(".js-plotly-plot").count() == 3
    assert page.evaluate("document.documentElement.scrollWidth") == width
    edges = page.evaluate("[...document.querySelectorAll('.main-svg')].map((svg) => svg.getBoundingClientRect().right)")
    assert max(edges) <= width
    assert page.evaluate("[...document.images].every((image) => image.naturalWidth === 28)")
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 50_000
    assert trouble == []
    page.close()


def test_names_stay_text_on_the_page_and_in_the_hover(browser: Browser, report: Path) -> None:
    page, trouble = _open(browser, report)
    page.locator("#brackets").scroll_into_view_if_needed()
    box = page.locator("#brackets .nsewdrag").first.bounding_box()
    assert box
    told = ""
    for part in range(1, 40):
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * part / 40)
        page.wait_for_timeout(60)
        told += " ".join(page.locator("#brackets .hovertext").all_text_contents())
    assert EVIL in told
    assert "<img src=x" in told
    assert EVIL in page.inner_text("body")
    assert page.evaluate("window.broken") is None
    assert page.locator("img[src='x']").count() == 0
    assert trouble == []
    page.close()


def test_charts_follow_the_colour_scheme_and_the_printer(browser: Browser, report: Path) -> None:
    page, _ = _open(browser, report)
    ink = expect(page.locator("#band .xtick text").first)
    ink.to_have_css("fill", "rgb(28, 35, 41)")
    page.emulate_media(color_scheme="dark")
    ink.to_have_css("fill", "rgb(231, 234, 237)")
    page.emulate_media(media="print")
    ink.to_have_css("fill", "rgb(0, 0, 0)")
    page.emulate_media(media="screen")
    ink.to_have_css("fill", "rgb(231, 234, 237)")
    page.close()


def test_the_keyboard_reaches_the_sections(browser: Browser, report: Path) -> None:
    page, _ = _open(browser, report)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to what was found"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#the-band"
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{report.as_uri()}#the-band")
    page.close()
