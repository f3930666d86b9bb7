"""``calipers train`` as it is called: what it ends with, killed and resumed, several processes, bad input."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from calipers.data import load
from calipers.models import ARCHITECTURES
from calipers.training import fresh
from tests.cli.test_process import CALIPERS, environment

SHORT = ["train", "--data", "digits", "--arch", "digits-mlp", "--eps", "0.05", "--steps", "2", "--lr", "0.005",
         "--precision", "32", "--examples", "200", "--test-examples", "50"]  # fmt: skip


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "weights.safetensors")


def test_trained_then_extended_and_told_honestly(calipers, tmp_path):
    small, large = tmp_path / "0.05", tmp_path / "0.1"
    said = calipers(*SHORT, "--epochs", 2, "--out", small)
    assert (said.status, said.err) == (0, "")
    assert re.search(r"epoch 2/2  eps 0.05  loss .* clean .* robust .* images/s", said.out)
    said = calipers("train", "--init", small, "--eps", 0.1, "--epochs", 1, "--out", large, "--test-examples", 50)
    assert (said.status, said.err) == (0, "")
    table = re.findall(r"^ +(clean|[\d.]+) +([\d.]+) % +([\d.]+) %$", said.out, re.M)
    assert [row[0] for row in table] == ["clean", "0.05", "0.1"]
    percent = [(float(pgd), float(left)) for _, pgd, left in table]
    assert all(left <= pgd for pgd, left in percent)
    assert percent == sorted(percent, reverse=True)
    assert f"calipers audit {large} --data digits --norm linf" in said.out
    summary = json.loads((large / "summary.json").read_text())
    assert summary["withstands"][1]["eps"] == 0.05
    assert json.loads((large / "train.json").read_text())["init"] == str(small)
    assert len(pd.read_parquet(large / "metrics.parquet")) == 1
    rows = []
    for words in ([large], [large / "weights.safetensors", "--data", "digits"]):
        how = ["--examples", 20, "--budget", "quick", "--eps", 0.1, "--out", tmp_path / "run", "--replace"]
        assert calipers("audit", *words, *how).status == 0
        rows.append(pd.read_parquet(tmp_path / "run" / "examples.parquet"))
    assert rows[0].equals(rows[1])


def test_fresh_weights_are_drawn_as_init_says(calipers, tmp_path):
    still = ["1e-12" if word == "0.005" else word for word in [*SHORT, "--epochs", "1"]]
    assert calipers(*still, "--init", "tutorial", "--out", tmp_path / "run").status == 0
    drawn = fresh("digits-mlp", init="tutorial").module.state_dict()
    assert all(torch.allclose(weight, drawn[name], atol=1e-9) for name, weight in weights(tmp_path / "run").items())
    assert json.loads((tmp_path / "run" / "train.json").read_text())["init"] == "tutorial"
    said = calipers(*still, "--out", tmp_path / "run", "--resume")
    assert said.status == 2
    assert "init" in said.err
    assert "tutorial" in said.err


def test_killed_in_mid_epoch_and_resumed(calipers, tmp_path):
    words = ["tests.factories:slow_mlp" if word == "digits-mlp" else word for word in SHORT[:-1]]
    words += ["10", "--epochs", "2", "--batch-size", "32"]
    killed, straight = tmp_path / "killed", tmp_path / "straight"
    with subprocess.Popen([*CALIPERS, *words, "--out", str(killed)], env=environment(), stdout=subprocess.PIPE) as job:
        for line in job.stdout:
            if line.startswith(b"epoch 1/2"):
                break
        time.sleep(0.05)  # some steps into the second epoch, each of which takes 12 ms and more
        job.send_signal(signal.SIGKILL)
    assert job.returncode == -signal.SIGKILL
    assert not (killed / "summary.json").exists()
    assert "expected a new one, got a training; --resume" in calipers(*words, "--out", killed).complaint
    assert calipers(*words, "--out", killed, "--resume", "--quiet") == (0, "", "")
    assert calipers(*words, "--out", straight, "--quiet") == (0, "", "")
    assert (killed / "weights.safetensors").read_bytes() == (straight / "weights.safetensors").read_bytes()
    assert calipers(*words, "--out", straight, "--replace", "--quiet").status == 0


@pytest.mark.parametrize("start", ["--nproc", "torchrun"])
def test_two_processes_give_the_single_ones_result(calipers, tmp_path, start):
    words = [*SHORT, "--epochs", "1", "--quiet"]
    command = [*CALIPERS, *words, "--nproc", "2"]
    if start == "torchrun":
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
        command = [*launcher, "-m", "calipers", *words]
    done = subprocess.run([*command, "--out", str(tmp_path / "two")], env=environment(), capture_output=True, text=True,
                          timeout=250, check=False)  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert calipers(*words, "--out", tmp_path / "one").status == 0
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)
    losses = [json.loads((tmp_path / name / "summary.json").read_text())["last"]["loss"] for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_tensorboard_and_json(calipers, tmp_path):
    pytest.importorskip("tensorboard")
    said = calipers(*SHORT, "--epochs", 1, "--out", tmp_path, "--tensorboard", "--json")
    assert json.loads(said.out)["epochs"] == 1
    assert list((tmp_path / "tensorboard").glob("events*"))


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--eps", "0.1"], ["--data", "expected what to train on", "got none"]),
        (["--data", "digits", "--eps", "0.1"], ["--arch", "expected the network to train", "digits-mlp"]),
        (["--data", "digits", "--arch", "digits-mlp"], ["--eps", "the radius to train for with recipe pgd"]),
        ([*SHORT[1:], "--recipe", "madry"], ["recipe", "got 'madry'", "known: fast, hard"]),
        ([*SHORT[1:], "--schedule", "iterativ"], ["schedule", "did you mean 'iterative'"]),
        ([*SHORT[1:], "--norm", "linff"], ["norm", "got 'linff'"]),
        ([*SHORT[1:], "--epochs", "0"], ["epochs", "expected at least 1", "got 0"]),
        ([*SHORT[1:], "--device", "cud"], ["device", "did you mean 'cuda'"]),
        ([*SHORT[1:], "--nproc", "0"], ["processes", "expected at least 1"]),
        ([*SHORT[1:], "--resume", "--replace"], ["resume and replace", "expected one of the two"]),
        ([*SHORT[1:], "--resume"], ["training in", "expected its train.json"]),
        (
            ["--init", "nowhere", "--eps", "0.1"],
            ["--init nowhere", "expected the folder of a train", "nothing"],
        ),
        ([*SHORT[1:], "--init", "nowhere.safetensors"], ["nowhere.safetensors", "got nothing there"]),
    ],
)
def test_bad_input(calipers, tmp_path, words, parts):
    said = calipers("train", *words, "--out", tmp_path / "run")
    for part in parts:
        assert part in said.complaint
    assert not (tmp_path / "run").exists()


def test_weights_that_do_not_fit_and_eps_that_falls(calipers, tmp_path):
    other = ARCHITECTURES["digits-mlp"].build()[:4].state_dict() | {"5.weight": torch.zeros(9, 32)}
    save_file(other, tmp_path / "other.safetensors")
    said = calipers(*SHORT, "--init", tmp_path / "other.safetensors", "--out", tmp_path / "run")
    assert "missing: 5.bias; of another shape: 5.weight (9, 32) instead of (10, 32)" in said.complaint
    assert calipers(*SHORT, "--epochs", 1, "--quiet", "--out", tmp_path / "0.05").status == 0
    said = calipers("train", "--init", tmp_path / "0.05", "--eps", 0.01, "--out", tmp_path / "run")
    assert "eps to train with: expected at least the 0.05 it starts from, got 0.01" in said.complaint


def test_a_file_holds_examples_out_and_says_where_they_are(calipers, tmp_path):
    """Labels that say nothing are learned by heart on what is trained on, and on nothing else."""
    draw = np.random.default_rng(0)
    file, out = tmp_path / "random.npz", tmp_path / "out"
    np.savez(file, x=draw.random((100, 1, 8, 8), dtype=np.float32), y=draw.integers(0, 10, 100))
    words = ["train", "--arch", "digits-mlp", "--data", file, "--recipe", "standard", "--lr", 0.01, "--epochs", 60]
    said = calipers(*words, "--out", out)
    assert (said.status, said.err) == (0, "")
    (clean,) = re.findall(r"^ +clean +([\d.]+) %", said.out, re.M)
    assert float(clean) < 50
    assert f"--data {out / 'held-out.npz'} --norm linf --examples 20" in said.out
    assert len(load(str(out / "held-out.npz"))) == 20
    said = calipers(*words[:-2], "--epochs", 1, "--test-data", "digits", "--out", tmp_path / "other")
    assert "on the first 360 test examples of digits" in said.out


def test_a_norm_and_a_span_are_those_of_the_training_that_is_gone_on_with(calipers, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    words = [*SHORT, "--norm", "l2", "--schedule", "ramp", "--out", first]
    assert calipers(*words, "--epochs", 2).status == 0
    said = calipers(*words, "--epochs", 3, "--resume")
    assert (said.status, said.err) == (0, "")
    assert json.loads((first / "train.json").read_text())["plan"]["schedule"]["span"] == 1.0
    assert calipers("train", "--init", first, "--eps", 0.1, "--epochs", 1, "--out", second).status == 0
    assert json.loads((second / "train.json").read_text())["plan"]["ascent"]["norm"] == "l2"
    # An eps of another norm is no eps to compare with.
    more = ["--norm", "linf", "--eps", 0.01, "--epochs", 1, "--out", tmp_path / "third"]
    assert calipers("train", "--init", first, *more).status == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a process that its parent died")
def test_a_process_that_the_first_one_started_ends_with_it():
    child = "import time; from calipers.training.launch import _end_with_parent as end; end(); print('on', flush=True)"
    child += "; time.sleep(600)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], env=environment(), stdout=subprocess.PIPE) as job:
        assert job.stdout.readline() == b"on\n"
        job.send_signal(signal.SIGKILL)
        # The pipe ends when nobody can write to it any more.
        assert job.stdout.read() == b""
