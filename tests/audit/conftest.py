"""Inputs that several tests audit."""

from pathlib import Path

import pytest

from calipers.audit import Inputs, open_inputs


@pytest.fixture(scope="session")
def digits_mlp() -> Inputs:
    """The built-in network on 40 digits."""
    return open_inputs("digits-mlp", "digits", examples=40)


@pytest.fixture
def rows() -> object:
    """The rows of a run folder, byte by byte."""

    def read(folder: Path) -> bytes:
        return (folder / "examples.parquet").read_bytes()

    return read
