"""The page in a real browser: it draws, asks nobody for anything, fits a phone, obeys keys, keeps names as text."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from calipers.report import write, write_comparison
from tests.report.factory import CHECKS, make_run, with_landscape

CHROMIUM = shutil.which("chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip
EVIL = "<script>alert(1)</script>"
WORSE = "<img src=x onerror='alert(2)'>"

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
    classes = (EVIL, WORSE, *"23456789")
    return write(
        with_landscape(make_run(checks=CHECKS, classes=classes)), tmp_path_factory.mktemp("run") / "report.html"
    )


def _open(browser: Browser, report: Path, width: int = 1200, scheme: str = "light") -> tuple[Page, list[str]]:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("dialog", lambda dialog: (trouble.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: trouble.append(request.url) if request.url.startswith("http") else None)
    page.context.set_offline(True)
    page.goto(report.as_uri())
    return page, trouble


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (1200, "dark"), (390, "light"), (390, "dark")])
def test_it_draws_and_fits(browser: Browser, report: Path, tmp_path: Path, width: int, scheme: str) -> None:
    page, trouble = _open(browser, report, width, scheme)
    assert page.locator(".chart").count() == 4
    assert page.evaluate("document.documentElement.scrollWidth") == width
    outside = """[...document.querySelectorAll('main *, header *')].filter((it) => {
        const box = it.getBoundingClientRect();
        const free = it.closest('.scroll, pre, thead, dialog, svg') || !box.width;
        return !free && (box.right > innerWidth + 1 || box.left < -1);
    }).map((it) => it.outerHTML.slice(0, 80))"""
    assert page.evaluate(outside) == []
    assert page.evaluate("[...document.querySelectorAll('.gallery img')].every((image) => image.naturalWidth === 28)")
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 50_000
    assert trouble == []
    page.close()


@pytest.mark.parametrize(
    ("chart", "says"), [("band", "radius "), ("histogram", "upper bounds"), ("brackets", "example ")]
)
def test_charts_say_what_is_pointed_at(browser: Browser, report: Path, chart: str, says: str) -> None:
    page, trouble = _open(browser, report)
    plot, told = page.locator(f"#{chart} .plot"), page.locator(f"output[for={chart}]")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box
    heard = set()
    for part in (0.1, 0.5, 0.9):
        page.mouse.move(box["x"] + box["width"] * part, box["y"] + box["height"] * part)
        heard.add(told.text_content())
    assert len(heard) == 3
    assert all(says in (line or "") for line in heard)
    page.locator(f"#{chart}").focus()
    page.keyboard.press("Home")
    first = told.text_content()
    page.keyboard.press("ArrowRight")
    assert told.text_content() != first
    page.keyboard.press("ArrowLeft")
    assert told.text_content() == first
    expect(page.locator(f"#{chart} .pointer")).to_be_visible()
    assert trouble == []
    page.close()


def test_names_stay_text_on_the_page_and_where_one_points(browser: Browser, report: Path) -> None:
    page, trouble = _open(browser, report)
    page.locator("#brackets").focus()
    told = ""
    for _ in range(60):
        page.keyboard.press("ArrowDown")
        told += page.locator("output[for=brackets]").text_content() or ""
    assert EVIL in told
    assert WORSE in told
    assert EVIL in page.inner_text("#the-confusion")
    page.select_option("select[name=label]", EVIL)
    cards = page.locator(".exhibit .said").all_text_contents()
    assert cards
    assert all(card.startswith(EVIL) for card in cards)
    assert page.locator("img[src='x']").count() == 0
    assert trouble == []
    page.close()


def test_the_gallery_sorts_filters_and_shows_more(browser: Browser, report: Path) -> None:
    page, trouble = _open(browser, report)
    cards = page.locator(".exhibit")
    assert cards.count() == 24

    def distances() -> list[float]:
        return [float(text.split()[-1]) for text in page.locator(".exhibit .said span").all_text_contents()]

    near = distances()
    assert near == sorted(near)
    page.locator("#more").click()
    assert cards.count() == 48
    page.select_option("select[name=sort]", "far")
    far = distances()
    assert far == sorted(far, reverse=True)
    assert far[0] > near[-1]
    page.select_option("select[name=answer]", "5")
    some = cards.count()
    assert 0 < some < 24
    assert set(page.locator(".exhibit").evaluate_all("(all) => all.map((it) => it.dataset.answer)")) == {"5"}
    assert f"{some} of 53 witnesses" in page.inner_text(".controls")
    page.select_option("select[name=answer]", "")
    page.select_option("select[name=sort]", "index")
    order = page.locator(".exhibit").evaluate_all("(all) => all.map((it) => Number(it.dataset.index))")
    assert order == sorted(order)
    assert trouble == []
    page.close()


def test_a_witness_grows_and_the_keys_leaf_through(browser: Browser, report: Path) -> None:
    page, trouble = _open(browser, report)
    large = page.locator("#large")
    first, second = (page.locator(".exhibit .note").nth(at).text_content() for at in (0, 1))
    page.locator(".exhibit button").first.focus()
    page.keyboard.press("Enter")
    expect(large).to_be_visible()
    assert large.locator(".note").text_content() == first
    assert large.locator("img").first.bounding_box()["width"] > 200  # type: ignore[index]
    page.keyboard.press("ArrowRight")
    assert large.locator(".note").text_content() == second
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")  # from the first back to the last
    last = page.locator("#large .said span").text_content()
    page.keyboard.press("Escape")
    expect(large).to_be_hidden()
    page.select_option("select[name=sort]", "far")
    assert page.locator(".exhibit .said span").first.text_content() == last
    assert trouble == []
    page.close()


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_a_comparison_fits_and_speaks(browser: Browser, tmp_path: Path, width: int, scheme: str) -> None:
    lower = np.linspace(0.01, 0.1, 40)
    names = {"name": EVIL, "sha256": "ab"}
    runs = [make_run(lower * k, lower * 2 * k, classes=(EVIL, WORSE), data=names, checks=CHECKS) for k in (1, 1.2, 0.9)]
    page, trouble = _open(browser, write_comparison(runs, tmp_path / "page.html"), width, scheme)
    assert page.locator(".chart").count() == 4
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.locator("#bands").focus()
    page.keyboard.press("End")
    assert (page.locator("output[for=bands]").text_content() or "").startswith("radius ")
    page.locator("#difference-A-B").focus()
    page.keyboard.press("ArrowRight")
    assert "upper A" in (page.locator("output[for=difference-A-B]").text_content() or "")
    assert trouble == []
    page.close()


def test_charts_follow_the_colour_scheme_and_the_printer(browser: Browser, report: Path) -> None:
    page, _ = _open(browser, report)
    ink = expect(page.locator("#band .mark b").first)
    ink.to_have_css("color", "rgb(28, 35, 41)")
    page.emulate_media(color_scheme="dark")
    ink.to_have_css("color", "rgb(231, 234, 237)")
    page.emulate_media(media="print")
    ink.to_have_css("color", "rgb(0, 0, 0)")
    expect(page.locator(".controls")).to_be_hidden()
    assert len(page.pdf()) > 50_000
    page.close()


def test_without_scripts_everything_is_there(browser: Browser, report: Path) -> None:
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(report.as_uri())
    assert page.locator(".exhibit").count() == 53
    expect(page.locator(".controls")).to_be_hidden()
    expect(page.locator("#band svg")).to_be_visible()
    page.context.close()


def test_the_keyboard_reaches_the_sections(browser: Browser, report: Path) -> None:
    page, _ = _open(browser, report)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to what was found"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#the-band"
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{report.as_uri()}#the-band")
    page.close()
