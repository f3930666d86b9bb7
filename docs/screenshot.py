"""The picture of the README: the top of the example report, as a browser shows it."""

import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent

with sync_playwright() as play:
    browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1000, "height": 1330})
    page.goto((HERE / "example" / "report.html").resolve().as_uri())
    page.screenshot(path=HERE / "report.png")
    browser.close()
