"""Every Python block of the documentation runs, every command parses, every link leads somewhere."""

import itertools
import re
from pathlib import Path

import pytest

from calipers.cli import app
from calipers.papers import figures
from tests.docs.pages import PAGES, ROOT, blocks, commands, run_python, title

pages = pytest.mark.parametrize("page", [p for p in PAGES if p.name != "CONTRIBUTING.md"], ids=title)
COMMANDS = [pytest.param(words, id=f"{title(page)}: {' '.join(words)}") for page in PAGES for words in commands(page)]


@pages
def test_the_python_of_a_page_runs(page: Path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_python(page, tmp_path)


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_of_a_page_parses(words: list[str]):
    # An unknown command, option or value raises; nothing is run.
    command, _, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    assert command.__module__.startswith("calipers.cli")


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_a_newcomer_has_every_file_that_a_page_names(page: Path):
    """Files are made further up on the page, by its Python or by a command's --out, or are the reader's own: my…"""
    made = "".join(code for _, code in blocks(page, "python"))
    for words in commands(page):
        named = [word for word in words if re.search(r"\.(npz|skops|joblib|safetensors|onnx|pt|json)$", word)]
        named += [f"# {word.partition(':')[0]}.py" for word in words if re.fullmatch(r"[\w.]+:\w+", word)]
        if words[0] in ("compare", "report"):
            named += itertools.takewhile(lambda word: not word.startswith("--"), words[1:])
        for name in named:
            assert name in made or re.match(r"(# |dask:)?my", name), f"{' '.join(words)}: where is {name}?"
        made += " ".join(words[words.index("--out") :]) if "--out" in words else ""


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_the_links_of_a_page_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_every_page_is_in_the_map():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    tree = re.search(r"```\{toctree\}\n(.*?)```", index, re.DOTALL)
    listed = set(re.findall(r"^(\w+)$", tree[1], re.MULTILINE))
    assert listed == {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"}


def test_every_figure_is_in_the_table():
    listed = re.findall(
        r"^\| `([a-z_]+\.[\w-]+)` \|", (ROOT / "docs" / "papers.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sorted(listed) == list(figures())
