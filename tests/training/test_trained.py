"""The network in docs/trained is what its README says: the folder of a training, in float32, robust on MNIST."""

import os
from pathlib import Path

import pytest
import torch

from calipers.data import load as load_data
from calipers.models import load
from calipers.threats import Threat
from calipers.training import accuracy, robust_accuracy

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "trained" / "mnist-linf-0.3-to-0.4"


def test_its_weights_are_as_they_were_trained():
    # Rounded to half precision nothing could be certified, and the check of the gradients would fail.
    assert {weight.dtype for weight in load(str(FOLDER)).module.state_dict().values()} == {torch.float32}


@pytest.mark.mnist
@pytest.mark.skipif(
    not (Path(os.environ.get("CALIPERS_DATA", "")) / "mnist").is_dir(), reason="MNIST is not under $CALIPERS_DATA"
)
def test_it_withstands_what_it_was_trained_for_and_no_more():
    model, test = load(str(FOLDER)), load_data("mnist").take(100)
    assert accuracy(model, test.x, test.y) >= 0.97
    assert robust_accuracy(model, test.x, test.y, Threat("linf", 0.4), steps=20) >= 0.85
    assert robust_accuracy(model, test.x, test.y, Threat("linf", 0.5), steps=20) <= 0.75
