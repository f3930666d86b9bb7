"""The smoothed model in an audit: columns of its own, which never touch a bracket."""

import json

import pandas as pd
import pytest

from calipers.audit import audit, open_inputs, read_run
from calipers.errors import BadInput


def test_smoothing_adds_columns_and_leaves_every_bracket_as_it_is(tmp_path):
    inputs = open_inputs("digits-linear", "digits", examples=6)
    plain = audit(inputs, norm="l2", eps=[0.1], budget="quick")
    run = audit(inputs, norm="l2", eps=[0.1], budget="quick", smooth=0.2, smooth_draws=400, out=tmp_path / "run")
    more = ["smoothed", "smoothed_radius"]
    pd.testing.assert_frame_equal(run.examples.drop(columns=more), plain.examples)
    assert not set(more) & set(plain.examples.columns)
    right = run.examples["smoothed"] == run.examples["label"]
    assert right.any()
    assert (run.examples["smoothed_radius"][~right] == 0).all()
    assert (run.examples["smoothed_radius"][right] > 0).all()
    # A linear model keeps its answer farther out than its own exact radius only in the smoothed sense; never in lower.
    assert (run.examples["lower"] <= run.examples["upper"]).all()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["smoothed"]["sigma"] == 0.2
    assert summary["smoothed"]["confidence"] == 0.999
    assert plain.summary.smoothed is None
    again = read_run(tmp_path / "run")
    assert again.summary == run.summary
    assert again.about["settings"]["smooth"] == [0.2, 400]


@pytest.mark.parametrize("options", [{"smooth": 0.0}, {"smooth": 0.1, "smooth_draws": 10}])
def test_bad_settings_of_the_smoothing(options):
    with pytest.raises(BadInput, match="--smooth"):
        audit(open_inputs("digits-linear", "digits", examples=2), norm="l2", **options)
