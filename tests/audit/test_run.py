"""What an audit leaves behind, and that its files say the same."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from calipers.audit import audit, read_run, summarise
from calipers.audit.folder import COLUMNS
from calipers.records import status
from calipers.threats import Threat

EPS = (0.02, 0.05, 0.1)


@pytest.fixture(scope="module")
def run(digits_mlp, tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit") / "run"
    return audit(digits_mlp, norm="linf", eps=EPS, budget="standard", out=folder, command="calipers audit …")


def test_the_folder_is_that_of_the_design(run):
    names = {path.name for path in Path(run.folder).iterdir()}
    assert names == {"run.json", "examples.parquet", "adversarials.safetensors", "checks.json", "summary.json"}


def test_one_row_per_example(run, digits_mlp):
    rows = pd.read_parquet(f"{run.folder}/examples.parquet")
    assert {name: str(kind) for name, kind in rows.dtypes.items()} == COLUMNS
    assert rows.equals(run.examples)
    assert rows["index"].tolist() == digits_mlp.data.index.tolist()
    assert rows["label"].tolist() == digits_mlp.data.y.tolist()
    assert (rows["lower"] <= rows["upper"]).all()
    assert (rows["lower"] >= 0).all()
    assert not rows.isna().any().any()
    wrong = rows["predicted"] != rows["label"]
    assert wrong.any()
    assert (rows["upper"][wrong] == 0).all()
    assert (rows["attack"][wrong] == "clean").all()
    assert (rows["lower"][wrong] == 0).all()
    assert (rows["upper"][~wrong] > 0).all()
    assert ((rows["certificate"] == "") == (rows["lower"] == 0)).all()
    assert ((rows["attack"] == "") == np.isinf(rows["upper"])).all()
    assert (rows["forwards"] >= 1).all()
    assert (rows["gradients"] <= rows["forwards"]).all()
    assert (rows["forwards"][wrong] == 1).all(), "what is wrong already is looked at once"


def test_the_summary_counts_the_rows(run):
    stored = json.loads(Path(run.folder, "summary.json").read_text())
    rows, n = run.examples, len(run.examples)
    assert set(stored) == {
        "schema", "examples", "clean_accuracy", "seconds", "forwards", "gradients", "threats", "checks", "trusted",
        "reaction", "smoothed",
    }  # fmt: skip
    assert stored["schema"] == 1
    assert stored["examples"] == n
    assert stored["clean_accuracy"] == (rows["predicted"] == rows["label"]).mean()
    assert stored["seconds"] > 0
    assert (stored["forwards"], stored["gradients"]) == (rows["forwards"].sum(), rows["gradients"].sum())
    assert [threat["eps"] for threat in stored["threats"]] == list(EPS)
    for threat in stored["threats"]:
        assert set(threat) == {"norm", "eps", "proved", "not_broken", "certified", "attacked", "open", "radius"}
        verdicts = status(rows["lower"].to_numpy(), rows["upper"].to_numpy(), threat["eps"])
        for word in ("certified", "attacked", "open"):
            assert threat[word] == (verdicts == word).sum()
        assert threat["certified"] + threat["attacked"] + threat["open"] == n
        assert threat["proved"] == pytest.approx(threat["certified"] / n)
        assert threat["not_broken"] == pytest.approx((threat["certified"] + threat["open"]) / n)
        assert threat["radius"]["lower_median"] == np.median(rows["lower"])
        assert threat["radius"]["upper_median"] == np.median(rows["upper"])
        right = rows[rows["upper"] > 0]
        assert threat["radius"]["ratio_median"] == np.median(right["lower"] / right["upper"])
    band = [(threat["proved"], threat["not_broken"]) for threat in stored["threats"]]
    assert band == sorted(band, reverse=True), "the band falls with eps"
    assert stored["trusted"] == all(check["passed"] for check in stored["checks"])


def test_the_witnesses_are_what_the_rows_say(run, digits_mlp):
    witnesses, rows = load_file(f"{run.folder}/adversarials.safetensors"), run.examples.set_index("index")
    found = rows[(rows["upper"] > 0) & np.isfinite(rows["upper"])]
    assert witnesses["index"].tolist() == found.index.tolist()
    clean, adversarial = (witnesses[name].astype(np.float64) for name in ("clean", "adversarial"))
    far = np.abs(adversarial - clean).reshape(len(found), -1).max(1)
    assert (far <= found["upper"]).all(), "the distance is rounded up"
    np.testing.assert_allclose(far, found["upper"], rtol=1e-12)
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    answer = digits_mlp.model(torch.from_numpy(witnesses["adversarial"])).argmax(1).numpy()
    assert (answer == witnesses["predicted"]).all()
    assert (answer != found["label"]).all()
    order = {int(index): i for i, index in enumerate(digits_mlp.data.index)}
    assert np.array_equal(witnesses["clean"], digits_mlp.data.x[[order[i] for i in found.index]].numpy())


def test_run_json_says_what_was_asked_of_what_with_what(run):
    about = json.loads(Path(run.folder, "run.json").read_text())
    assert about["command"] == "calipers audit …"
    settings = about["settings"]
    assert (settings["norm"], settings["eps"], settings["budget"], settings["seed"]) == (
        "linf",
        list(EPS),
        "standard",
        0,
    )
    assert len(about["model"]["sha256"]) == len(about["data"]["sha256"]) == 64
    assert about["model"]["shape"] == [1, 8, 8]
    assert (about["data"]["size"], about["data"]["name"]) == (360, "digits")
    assert about["data"]["class_names"] == list("0123456789")
    assert about["box"] == [0.0, 1.0]
    assert {"python", "torch", "numpy", "calipers"} <= set(about["versions"])


def test_it_can_be_read_back(run):
    again = read_run(Path(run.folder))
    assert again.examples.equals(run.examples)
    assert (again.summary, again.checks, again.about) == (run.summary, run.checks, run.about)


def test_no_part_is_left(run):
    assert not (Path(run.folder) / "parts").exists()


def test_medians_that_are_infinite_are_none():
    rows = pd.DataFrame(
        {"lower": [0.1, 0.2, 0.0], "upper": [np.inf, np.inf, 0.0], "label": 0, "predicted": [0, 0, 1],
         "forwards": 1, "gradients": 0}
    )  # fmt: skip
    (threat,) = summarise(rows, Threat("l2", 0.15), (), 1.0).threats
    assert (threat.certified, threat.open, threat.attacked) == (1, 1, 1)
    assert threat.radius.upper_median is None
    assert threat.radius.lower_median == 0.1
    assert threat.radius.ratio_median == 0.0, "lower / ∞ is 0"


def test_an_interrupted_audit_in_memory_needs_no_folder(digits_mlp, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = audit(digits_mlp, norm="l2", budget="quick")
    assert run.folder == ""
    assert list(tmp_path.iterdir()) == []
    assert run.summary.threats == ()
