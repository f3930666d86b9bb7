"""The networks in docs/trained are what their README says: folders of trainings, read as models, robust on MNIST."""

import os
from pathlib import Path

import pytest

from calipers.data import load as load_data
from calipers.models import load
from calipers.threats import Threat
from calipers.training import accuracy, robust_accuracy

TRAINED = Path(__file__).resolve().parents[2] / "docs" / "trained"


@pytest.mark.mnist
@pytest.mark.skipif(
    not (Path(os.environ.get("CALIPERS_DATA", "")) / "mnist").is_dir(), reason="MNIST is not under $CALIPERS_DATA"
)
@pytest.mark.parametrize(("name", "eps", "weaker"), [("mnist-linf-0.3", 0.3, 0.4), ("mnist-linf-0.3-to-0.4", 0.4, 0.5)])
def test_they_withstand_what_they_were_trained_for_and_no_more(name, eps, weaker):
    model, test = load(str(TRAINED / name)), load_data("mnist").take(100)
    assert accuracy(model, test.x, test.y) >= 0.97
    assert robust_accuracy(model, test.x, test.y, Threat("linf", eps), steps=20) >= 0.85
    assert robust_accuracy(model, test.x, test.y, Threat("linf", weaker), steps=20) <= 0.75
