"""The command as it is really called: a process, its pipes, its terminal, its signals."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from calipers.cli import run

ROOT = Path(__file__).parents[2]
CALIPERS = [sys.executable, "-m", "calipers"]
SLOW = ["audit", "tests.factories:slow_mlp", "--data", "digits", "--budget", "quick", "--eps", "0.02"]


def environment(**more: str) -> dict[str, str]:
    here = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return os.environ | {"PYTHONPATH": here, "OMP_NUM_THREADS": "1", "COLUMNS": "100", "TERM": "xterm"} | more


def call(*words: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*CALIPERS, *map(str, words)], env=environment(), capture_output=True, text=True, timeout=120, check=False
    )


def test_help_of_every_command_comes_at_once_and_teaches_by_example():
    # One process for all: what matters is that none of them imports what takes seconds.
    script = """
import sys, io, contextlib
from calipers.cli import run
commands = [[], ["audit"], ["report"], ["compare"], ["data"], ["data", "list"], ["data", "fetch"], ["data", "verify"],
            ["papers"], ["papers", "list"], ["papers", "run"], ["train"]]
for command in commands:
    page = io.StringIO()
    with contextlib.redirect_stdout(page):
        status = run([*command, "--help"])
    examples = page.getvalue().count(" calipers " + " ".join(command))
    assert status == 0 and examples >= 2 - (command in (["data"], ["papers"])), (command, page.getvalue())
heavy = {"torch", "numpy", "pandas", "scipy", "sklearn", "pyarrow", "plotly", "skops", "jinja2", "httpx"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_version_and_status_of_bad_input(tmp_path):
    said = call("--version")
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.strip().count(".") == 2
    said = call("audit", "digits-linear", "--data", "digits", "--eps", "-1", "--out", tmp_path / "run")
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr == "calipers: eps of the linf threat: expected a finite number > 0, got -1.0\n"
    assert not (tmp_path / "run").exists()


def test_in_a_pipe_there_is_no_bar_and_no_colour(tmp_path):
    said = call("audit", "digits-linear", "--data", "digits", "--budget", "quick", "--json", "--out", tmp_path / "run")
    assert (said.returncode, said.stderr) == (0, "")
    assert json.loads(said.stdout)["examples"] == 360


def test_on_a_terminal_the_bar_shows_rate_and_time_left(tmp_path):
    ours, theirs = pty.openpty()
    words = [*SLOW, "--examples", "64", "--batch-size", "16", "--out", str(tmp_path / "run")]
    with subprocess.Popen([*CALIPERS, *words], env=environment(), stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                if select.select([ours], [], [], 60)[0]:
                    seen += os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
        table = process.stdout.read().decode()
    os.close(ours)
    assert process.returncode == 0
    shown = seen.decode()
    assert "tests.factories:slow_mlp on digits" in shown
    assert "/64" in shown
    assert "examples/s" in shown
    assert "0:00:0" in shown
    assert "examples/s" not in table


def test_two_workers_find_the_factory_and_give_the_same_rows(calipers, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x.flatten(1)[:, 20:30]\n"
        "def make():\n"
        "    return Net().eval()\n"
    )
    words = ["audit", "mine:make", "--data", "digits", "--budget", "quick", "--eps", "0.1", "--json"]
    # The installed command has no current directory on its path, unlike python -m.
    start = "import sys; sys.path = [p for p in sys.path if p]; from calipers.cli import main; main()"
    said = subprocess.run(
        [sys.executable, "-c", start, *words, "--workers", "2", "--out", "two"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert (said.returncode, said.stderr) == (0, "")
    monkeypatch.chdir(tmp_path)
    assert calipers(*words, "--out", "one").status == 0
    for name in ("examples.parquet", "adversarials.safetensors"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()


def until(happens, process: subprocess.Popen) -> None:
    for _ in range(2400):
        if happens():
            return
        assert process.poll() is None, "it was finished before it could be stopped"
        time.sleep(0.05)
    raise AssertionError("it never happened")


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_stopped_in_mid_audit_and_resumed(calipers, tmp_path, stop, undisturbed):
    folder, words = tmp_path / "run", [*SLOW, "--out", str(tmp_path / "run")]
    # Whoever runs these tests in the background of a shell has SIGINT ignored, and children inherit that.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen([*CALIPERS, *words], env=environment(), stderr=subprocess.PIPE, preexec_fn=heard) as process:
        until((folder / "parts" / "part-00000").exists, process)
        process.send_signal(stop)
        said = process.stderr.read().decode()
    if stop == signal.SIGINT:
        assert process.returncode == 130
        assert re.fullmatch(
            r"calipers: stopped; (1 finished shard stays|\d+ finished shards stay), and --resume goes on from there\n",
            said,
        )
    assert not (folder / "summary.json").exists()
    first = (folder / "parts" / "part-00000").stat()
    assert "unfinished; --resume goes on with it" in calipers(*words).complaint
    assert (folder / "parts" / "part-00000").stat() == first
    assert calipers(*words, "--resume", "--quiet") == (0, "", "")
    assert (folder / "examples.parquet").read_bytes() == (undisturbed / "examples.parquet").read_bytes()
    assert {path.name for path in folder.iterdir()} == {path.name for path in undisturbed.iterdir()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    assert run([*SLOW, "--out", str(out), "--quiet"]) == 0
    return out
