"""The folder of a training is a model: weights, architecture and data are found in it."""

import json

import pytest
import torch
from safetensors.torch import save_file

from calipers.audit import open_inputs
from calipers.errors import BadInput
from calipers.models import ARCHITECTURES, load
from calipers.models.training import ABOUT, WEIGHTS


@pytest.fixture
def folder(tmp_path):
    save_file(ARCHITECTURES["digits-linear"].build().state_dict(), tmp_path / WEIGHTS)
    (tmp_path / ABOUT).write_text(json.dumps({"arch": "digits-linear", "data": "digits"}))
    return tmp_path


def test_it_is_the_model_that_was_trained_on_the_data_it_was_trained_for(folder):
    inputs = open_inputs(str(folder), examples=5)
    assert (inputs.model.name, inputs.data.name) == (str(folder), "digits")
    assert inputs.model.box.same(inputs.data.box)
    assert inputs.model.class_names == inputs.data.class_names
    file = load(str(folder / WEIGHTS), arch="digits-linear")
    assert torch.equal(inputs.model(inputs.data.x), file(inputs.data.x))
    assert torch.equal(load(str(folder / WEIGHTS))(inputs.data.x), file(inputs.data.x))


def test_a_training_without_weights_yet_is_a_sentence(folder):
    (folder / WEIGHTS).unlink()
    with pytest.raises(BadInput, match=r"weights\.safetensors: expected a file, got nothing there"):
        load(str(folder))


def test_data_are_asked_for_where_no_training_knows_them():
    with pytest.raises(BadInput, match="--data: expected what to audit on, got none"):
        open_inputs("digits-linear")
