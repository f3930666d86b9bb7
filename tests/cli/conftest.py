"""The command line in this process, and files that are wrong in one way each."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from calipers.cli import run


class Said(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line that a bad input is answered with."""
        assert self.status == 2, self
        assert self.out == ""
        (line,) = self.err.splitlines()
        start, _, sentence = line.partition(": ")
        assert start == "calipers"
        return sentence


@pytest.fixture
def calipers(capsys) -> Callable[..., Said]:
    def call(*words: object) -> Said:
        capsys.readouterr()
        status = run([str(word) for word in words])
        return Said(status, *capsys.readouterr())

    return call


@pytest.fixture
def quick(calipers, tmp_path) -> Callable[..., Said]:
    """An audit of five digits on the linear network, in ``tmp_path / "run"``."""

    def call(*words: object, model="digits-linear", data="digits") -> Said:
        out = [] if "--out" in words else ["--out", tmp_path / "run"]
        count = [] if "--examples" in words else ["--examples", 5]
        budget = [] if "--budget" in words else ["--budget", "quick"]
        return calipers("audit", model, "--data", data, *count, *budget, *out, *words)

    return call


@pytest.fixture
def npz(tmp_path) -> Callable[..., Path]:
    """A file of ten inputs of 64 numbers that fits the digits networks, but for what is asked otherwise."""

    def write(**changes: object) -> Path:
        x = np.random.default_rng(0).random((10, 64), dtype=np.float32)
        np.savez(tmp_path / "some.npz", **({"x": x, "y": np.arange(10)} | changes))
        return tmp_path / "some.npz"

    return write
