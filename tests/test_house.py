"""What importing Calipers costs, and what it must not do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LATE = {"pandas", "pyarrow", "plotly", "skops", "jinja2", "httpx", "matplotlib", "cyclopts", "rich", "sklearn"}
SCRIPT = """
import sys
import {module}
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
"""


def imported_with(module: str, folder: Path) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT.format(module=module)],
        cwd=folder, env=os.environ | {"HOME": str(folder), "XDG_CACHE_HOME": str(folder)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == [], "nothing is written at import"
    return set(done.stdout.split())


def test_the_package_alone_imports_nothing_heavy(tmp_path):
    found = imported_with("calipers", tmp_path)
    assert "calipers" in found
    assert not found & (LATE | {"torch", "numpy", "scipy"})


@pytest.mark.parametrize("module", ["calipers.threats, calipers.attacks, calipers.certificates", "calipers.cli"])
def test_rooms_import_what_they_need_and_no_more(module, tmp_path):
    allowed = {"cyclopts", "rich"} if module == "calipers.cli" else {"torch"}
    found = imported_with(module, tmp_path)
    assert allowed <= found
    assert not found & ((LATE | {"torch", "numpy"}) - allowed - ({"numpy"} if "torch" in allowed else set()))


def test_every_public_name_has_a_docstring_and_is_there():
    import importlib
    import pkgutil

    import calipers

    for found in pkgutil.walk_packages(calipers.__path__, "calipers."):
        if found.name == "calipers.__main__":  # importing it runs it
            continue
        module = importlib.import_module(found.name)
        assert module.__doc__, found.name
        for name in getattr(module, "__all__", ()):
            assert hasattr(module, name), f"{found.name} promises {name}"
            value = getattr(module, name)
            if getattr(value, "__module__", "").startswith("calipers") and callable(value):
                assert value.__doc__, f"{found.name}.{name}"
