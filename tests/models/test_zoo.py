"""The built-in models: accurate, the same for ever, cached, and made without touching anything of the caller's."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from calipers.errors import BadInput
from calipers.models import ARCHITECTURES, TRAINED, digest, trained, zoo

DIGITS = load_digits()
X = torch.from_numpy(DIGITS.images[:, None] / 16).float()
Y = torch.from_numpy(DIGITS.target).long()
TEST = torch.arange(len(X)) % 5 == 0


def few():
    return X[:40], Y[:40]


def accuracy(model):
    with torch.no_grad():
        return (model(X[TEST]).argmax(1) == Y[TEST]).float().mean().item()


def test_digits_mlp_is_accurate_and_intervals_say_something_about_it():
    model = trained("digits-mlp", X[~TEST], Y[~TEST])
    assert accuracy(model) >= 0.96
    proved = []
    for eps in (0.02, 0.05):
        with torch.no_grad():
            lo, hi = zoo._interval(model.module, (X[TEST] - eps).clamp(0, 1), (X[TEST] + eps).clamp(0, 1))
        worst = hi.scatter(1, Y[TEST][:, None], lo.gather(1, Y[TEST][:, None]))
        proved.append((worst.argmax(1) == Y[TEST]).float().mean().item())
    assert proved[0] > 0.9
    assert 0.7 < proved[1] < 0.9


def test_digits_linear_is_accurate():
    assert accuracy(trained("digits-linear", X[~TEST], Y[~TEST])) >= 0.93


def test_training_is_a_function_of_its_arguments():
    x, y = few()
    one = digest(trained("digits-mlp", x, y))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        torch.rand(3)
        assert digest(trained("digits-mlp", x, y)) == one
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)
    assert digest(trained("digits-mlp", x, y, seed=1)) != one
    assert digest(trained("digits-mlp", x.flip(0), y.flip(0))) != one


def test_training_leaves_no_trace_on_the_caller():
    x, y = few()
    before, numpys, copy = torch.get_rng_state(), np.random.get_state()[1].copy(), x.clone()  # noqa: NPY002
    model = trained("digits-linear", x, y)
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpys).all()  # noqa: NPY002
    assert torch.equal(x, copy)
    assert all(p.grad is None for p in model.module.parameters())
    assert not model.module.training


def counted(monkeypatch):
    runs, fit = [], zoo._fit
    monkeypatch.setattr(zoo, "_fit", lambda *args: (runs.append(1), fit(*args)))
    return runs


def test_the_cache_gives_the_same_model_without_training(tmp_path, monkeypatch):
    runs = counted(monkeypatch)
    first = trained("digits-linear", *few(), cache=tmp_path / "new")
    again = trained("digits-linear", *few(), cache=tmp_path / "new")
    assert digest(first) == digest(again)
    assert (first.origin, first.name, first.shape) == (again.origin, again.name, again.shape)
    assert len(runs) == 1
    assert [path.suffix for path in (tmp_path / "new").iterdir()] == [".safetensors"]


def test_other_examples_seeds_and_models_have_caches_of_their_own(tmp_path):
    x, y = few()
    for _ in range(2):
        trained("digits-linear", x, y, cache=tmp_path)
        trained("digits-linear", x + 1e-7 * (x == 0), y, cache=tmp_path)
        trained("digits-linear", x, y.flip(0), cache=tmp_path)
        trained("digits-linear", x, y, seed=1, cache=tmp_path)
        trained("digits-mlp", x, y, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("damage", ["torn", "noise", "empty", "one bit", "another model"])
def test_a_damaged_cache_is_made_again(tmp_path, monkeypatch, damage):
    good = trained("digits-linear", *few(), cache=tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    if damage == "another model":
        trained("digits-mlp", *few(), cache=tmp_path / "other")
        whole = next((tmp_path / "other").iterdir()).read_bytes()
    file.write_bytes({
        "torn": whole[: len(whole) // 2],
        "noise": b"no weights at all",
        "empty": b"",
        "one bit": whole[:-1] + bytes([whole[-1] ^ 1]),
        "another model": whole,
    }[damage])  # fmt: skip
    runs = counted(monkeypatch)
    assert digest(trained("digits-linear", *few(), cache=tmp_path)) == digest(good)
    assert runs
    runs.clear()
    trained("digits-linear", *few(), cache=tmp_path)
    assert not runs


def test_a_cache_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadInput, match=r"cache .*: expected a folder that can be written to"):
        trained("digits-linear", *few(), cache=tmp_path / "file")


def test_examples_that_do_not_fit_are_refused():
    x, y = few()
    with pytest.raises(BadInput, match=r"digits-mlp cannot take inputs of shape \(1, 28, 28\)"):
        trained("digits-mlp", torch.zeros(2, 1, 28, 28), y[:2])
    with pytest.raises(BadInput, match="input of example 0: expected values inside"):
        trained("digits-linear", 16 * x, y)
    with pytest.raises(BadInput, match="label of example 3"):
        trained("digits-linear", x, torch.where(torch.arange(40) == 3, 10, y))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures_take_their_shape(name):
    build, shape = ARCHITECTURES[name]
    with torch.no_grad():
        assert build()(torch.zeros(2, *shape)).shape == (2, 10)


def test_what_is_trained_has_an_architecture():
    assert set(TRAINED) <= set(ARCHITECTURES)
