"""The landscape's figures at scale smoke: every number is finite, stays in its range, and the networks are shared."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from calipers.papers import run


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder, so that every network is trained once."""
    return tmp_path_factory.mktemp("figures")


def reproduced(name: str, out: Path) -> tuple[pd.DataFrame, str]:
    files = {file.suffix: file for file in run(f"large_perturbations.{name}", "smoke", out)}
    assert files[".svg"].stat().st_size < 1_000_000
    return pd.read_csv(files[".csv"]), " ".join(json.loads(files[".json"].read_text())["findings"])


@pytest.mark.parametrize("name", ["figure3", "figure4", "figure11"])
def test_lines_between_weights_begin_and_end_where_they_say(name: str, out: Path) -> None:
    table, told = reproduced(name, out)
    assert (table["alpha"].iloc[0], table["alpha"].iloc[-1]) == (0, 1)
    losses = table.drop(columns="alpha")
    assert np.isfinite(losses.to_numpy()).all()
    assert (losses > 0).all(axis=None)
    for curve in losses:
        assert f"{curve}: from {losses[curve].iloc[0]:.3f} to {losses[curve].iloc[-1]:.3f}" in told
    if name == "figure4":
        assert (table["eps = 0.4"] >= table["eps = 0.3"] - 0.02).all()


def test_a_plane_has_a_row_for_every_network_and_example(out: Path) -> None:
    table, told = reproduced("figure5", out)
    networks = ["0.3", "0.3 -> 0.4", "0.3 -> 0.5", "0.3 -> 0.5, PGD of 3 steps"]
    assert table.groupby("network").size().to_dict() == dict.fromkeys(networks, 2)
    assert table["jump"].between(0, 1).all()
    assert (table["roughness"] >= 0).all()
    assert (table["loss_adversarial"] > table["loss_clean"]).all()
    for network, part in table.groupby("network"):
        assert f"{network}: jump {part['jump'].median():.3f} of the range" in told


@pytest.mark.parametrize("name", ["figure6", "figure13"])
def test_maps_have_numbers_in_their_ranges(name: str, out: Path) -> None:
    table, told = reproduced(name, out)
    rows = table.set_index("map")
    assert rows["gini"].between(0, 1).all()
    assert rows["in_foreground"].between(0, 1).all()
    assert rows["agreement_with_0.3"]["saliency, 0.3"] == pytest.approx(1)
    assert rows["agreement_with_0.3"]["sign 0.45, 0.3"] == pytest.approx(1)
    assert f"Gini {rows['gini']['saliency, 0.3']:.3f} for 0.3" in told
