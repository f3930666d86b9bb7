"""The pages of the documentation, taken apart into their code blocks."""

from __future__ import annotations

import doctest
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

__all__ = ["PAGES", "ROOT", "blocks", "commands", "run_python", "title"]

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def title(page: Path) -> str:
    """What a page is called in a test's id."""
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """The code blocks of a page in one language, each with the number of its first line."""
    text = page.read_text(encoding="utf-8")
    found = (m for m in _BLOCK.finditer(text) if m[1] == language)
    return [(text.count("\n", 0, m.start(2)) + 1, m[2]) for m in found]


def run_python(page: Path, folder: Path) -> dict[str, object]:
    """Run a page's Python blocks in order and return their common namespace.

    Blocks with prompts are doctests, blocks that begin with ``# NAME.py`` are saved in ``folder``, others are scripts.
    """
    module = ModuleType("page")
    names = module.__dict__
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    complaints: list[str] = []
    # A dataclass looks its module up.
    sys.modules["page"] = module
    try:
        for line, code in blocks(page, "python"):
            if named := re.match(r"# (\w+\.py)\n", code):
                (folder / named[1]).write_text(code, encoding="utf-8")
            elif ">>>" in code:
                test = doctest.DocTestParser().get_doctest(code, names, title(page), str(page), line - 1)
                runner.run(test, out=complaints.append, clear_globs=False)
                names.update(test.globs)
            else:
                # Blank lines in front, so that an error names the line of the page.
                exec(compile("\n" * (line - 1) + code, str(page), "exec", dont_inherit=True), names)
    finally:
        # What a page saved and imported must not be taken for another page's file.
        for name in ("page", *(file.stem for file in folder.glob("*.py"))):
            sys.modules.pop(name, None)
    assert not complaints, "".join(complaints)
    return names


def commands(page: Path) -> list[list[str]]:
    """The arguments of every ``calipers …`` line in a page's ``sh`` blocks."""
    lines = [line for _, code in blocks(page, "sh") for line in code.replace("\\\n", " ").splitlines()]
    found = []
    for line in lines:
        # A line may begin with variables: CALIPERS_DATA=~/data calipers data fetch mnist
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        if words and words[0] == "calipers":
            found.append(words[1:])
    return found
