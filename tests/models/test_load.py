"""Everything a user may type for MODEL: what comes back, what is refused, and in which words."""

import warnings
from importlib.metadata import EntryPoint
from pathlib import Path

import joblib
import pytest
import skops.io
import torch
from safetensors.torch import save_file
from torch import nn

from calipers.errors import BadInput
from calipers.models import digest, load, loading, made_by
from calipers.models.files import content_of
from calipers.threats import Box
from tests.models import samples

ARCH = "tests.models.samples:net"
X = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))


def refusal(*args, **options) -> str:
    with pytest.raises(BadInput) as caught:
        load(*map(str, args), **options)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def script(path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(samples.net().eval(), X).save(str(path))
    return path


def exported(path: Path) -> Path:
    n = torch.export.Dim("n", min=1)
    torch.export.save(torch.export.export(samples.net().eval(), (X,), dynamic_shapes=({0: n},)), path)
    return path


def same(model, x=X):
    with torch.no_grad():
        assert torch.equal(model(x), samples.net()(x))
    assert not model.module.training
    return model


def test_safetensors_and_state_dicts_come_back_the_same(tmp_path):
    save_file(samples.net().state_dict(), tmp_path / "w.safetensors")
    torch.save(samples.net().state_dict(), tmp_path / "w.pt")
    torch.save({"epoch": 3, "state_dict": samples.net().state_dict()}, tmp_path / "checkpoint.pth")
    torch.save(samples.net().state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    names = ["w.safetensors", "w.pt", "checkpoint.pth", "old.pt"]
    models = [same(load(str(tmp_path / name), arch=ARCH, shape=(4,))) for name in names]
    assert len({digest(model) for model in models}) == 1
    assert models[0].shape == (4,)
    assert repr(models[0].box) == repr(Box(0, 1))


def test_weights_keep_their_dtype(tmp_path):
    save_file(samples.net().double().state_dict(), tmp_path / "w.safetensors")
    assert load(str(tmp_path / "w.safetensors"), arch=ARCH, shape=(4,)).dtype == torch.float64


def test_loading_leaves_the_callers_random_numbers_alone(tmp_path):
    save_file(samples.Net().state_dict(), tmp_path / "w.safetensors")
    before = torch.get_rng_state()
    load(str(tmp_path / "w.safetensors"), arch="tests.models.samples:Net", shape=(4,))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_built_in_architecture_knows_its_shape(tmp_path):
    from calipers.models import ARCHITECTURES

    for name in ("digits-linear", "digits-mlp", "mnist-mlp"):
        save_file(ARCHITECTURES[name].build().state_dict(), tmp_path / "w.safetensors")
        model = load(str(tmp_path / "w.safetensors"), arch=name)
        assert (model.shape, model.classes) == (ARCHITECTURES[name].shape, 10)
    assert load(str(tmp_path / "w.safetensors"), arch="mnist-mlp", shape=(784,)).shape == (784,)
    assert "expected examples of shape (1, 28, 28), got shape (3, 32, 32)" in refusal(
        tmp_path / "w.safetensors", arch="mnist-mlp", shape=(3, 32, 32)
    )


def test_weights_that_do_not_fit_are_listed(tmp_path):
    state = samples.net().state_dict()
    save_file({"1.weight": torch.zeros(3, 5), "head.bias": torch.zeros(3)}, tmp_path / "w.safetensors")
    sentence = refusal(tmp_path / "w.safetensors", arch=ARCH, shape=(4,))
    assert f"expected those of {ARCH}" in sentence
    assert "missing: 1.bias" in sentence
    assert "unexpected: head.bias" in sentence
    assert "of another shape: 1.weight (3, 5) instead of (3, 4)" in sentence
    save_file({f"{i}": torch.zeros(1) for i in range(9)} | state, tmp_path / "w.safetensors")
    assert "unexpected: 0, 1, 2, …" in refusal(tmp_path / "w.safetensors", arch=ARCH, shape=(4,))


def test_weights_need_an_architecture_and_models_need_none(tmp_path):
    save_file(samples.net().state_dict(), tmp_path / "w.safetensors")
    assert "expected --arch" in refusal(tmp_path / "w.safetensors", shape=(4,))
    torch.save({"epoch": 1}, tmp_path / "w.pt")
    assert "w.pt: expected a state dict: names to tensors, got dict" in refusal(tmp_path / "w.pt", arch=ARCH)
    assert "did you mean 'mnist-cnn'?" in refusal(tmp_path / "w.safetensors", arch="mnist-cn")
    assert "got int" in refusal(tmp_path / "w.safetensors", arch="tests.models.samples:number")
    assert "which is a whole model" in refusal(ARCH, arch="digits-mlp", shape=(4,))


def test_skops_models_are_the_estimator(tmp_path):
    from sklearn.neural_network import MLPClassifier

    estimator = samples.logistic()
    skops.io.dump(estimator, tmp_path / "m.skops")
    model = load(str(tmp_path / "m.skops"), shape=(1, 2, 2), box=(0, 4), class_names=("x", "y", "z"))
    assert (model.shape, repr(model.box), model.class_names) == ((1, 2, 2), repr(Box(0, 4)), ("x", "y", "z"))
    logits = model(X.double().reshape(-1, 1, 2, 2)).detach()
    assert (logits - torch.from_numpy(estimator.decision_function(X.double().numpy()))).abs().max() < 1e-6
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        skops.io.dump(MLPClassifier((3,), max_iter=2).fit(X, [0, 1, 0, 1, 1]), tmp_path / "mlp.skops")
    assert load(str(tmp_path / "mlp.skops")).shape == (4,)


def test_skops_shows_the_types_it_does_not_know(tmp_path):
    fitted = samples.Foreign().fit([[0.0], [1.0]], [0, 1])
    skops.io.dump(fitted, tmp_path / "m.skops")
    sentence = refusal(tmp_path / "m.skops")
    assert "got tests.models.samples.Foreign; read that list, then --trust" in sentence
    assert load(str(tmp_path / "m.skops"), trust=True).name == str(tmp_path / "m.skops")


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("name", ["m.pkl", "m.pickle", "m.joblib", "m.pt", "m.pth"])
def test_what_runs_code_is_refused_before_it_runs(tmp_path, name):
    mark = tmp_path / "boom"
    (torch.save if name.startswith("m.pt") else joblib.dump)(Bomb(mark), tmp_path / name)
    sentence = refusal(tmp_path / name, arch=ARCH, shape=(4,))
    assert "can run code, so it is refused" in sentence
    assert "--trust" in sentence
    assert "not a sandbox" in sentence
    assert not mark.exists()


def test_trust_loads_pickles_and_whole_modules(tmp_path):
    joblib.dump(samples.logistic(), tmp_path / "m.joblib")
    assert load(str(tmp_path / "m.joblib"), trust=True).shape == (4,)
    torch.save(samples.net().eval(), tmp_path / "whole.pt")
    assert "can run code" in refusal(tmp_path / "whole.pt", shape=(4,))
    same(load(str(tmp_path / "whole.pt"), trust=True, shape=(4,)))


def test_torchscript_only_with_trust(tmp_path):
    for name in ("s.pt", "s.pth"):
        path = script(tmp_path / name)
        assert content_of(path) == "a TorchScript archive"
        assert "TorchScript archive" in refusal(path, shape=(4,))
        same(load(str(path), shape=(4,), trust=True))


def test_exported_programs_only_with_trust(tmp_path):
    for name in ("e.pt2", "e.pt"):
        path = exported(tmp_path / name)
        assert content_of(path) == "an exported program (.pt2)"
        assert "exported program" in refusal(path, shape=(4,))
        with torch.no_grad():
            assert torch.equal(load(str(path), shape=(4,), trust=True)(X), samples.net()(X))


def test_a_file_must_be_what_its_name_says(tmp_path):
    made = {
        "w.safetensors": lambda path: save_file(samples.net().state_dict(), path),
        "w.pt": lambda path: torch.save(samples.net().state_dict(), path),
        "m.skops": lambda path: skops.io.dump(samples.logistic(), path),
    }
    for name, write in made.items():
        write(tmp_path / name)
        for suffix in {".safetensors", ".pt", ".skops", ".pt2"} - {Path(name).suffix}:
            other = (tmp_path / name).rename(tmp_path / f"renamed{suffix}")
            sentence = refusal(other, arch=ARCH, shape=(4,), trust=True)
            assert f"model file {other}: expected" in sentence
            assert "got" in sentence
            other.rename(tmp_path / name)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".skops", ".joblib", ".pt2"])
@pytest.mark.parametrize("content", [b"", b"hello, this is no model", b"PK\x03\x04 torn", b"\x80\x04K\x01."])
def test_noise_is_named_as_such(tmp_path, suffix, content):
    (tmp_path / f"m{suffix}").write_bytes(content)
    assert refusal(tmp_path / f"m{suffix}", arch=ARCH, shape=(4,), trust=True)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".skops"])
def test_a_torn_file_is_a_sentence(tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    if suffix == ".skops":
        skops.io.dump(samples.logistic(), path)
    else:
        (save_file if suffix == ".safetensors" else torch.save)(samples.net().state_dict(), path)
    whole = path.read_bytes()
    for part in (5, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:part])
        assert "model file" in refusal(path, arch=ARCH, shape=(4,))


def test_what_is_missing_or_not_supported_says_what_to_do(tmp_path):
    assert "expected a file, got nothing there" in refusal(tmp_path / "gone.safetensors", arch=ARCH)
    assert "got a folder" in refusal(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert "or the folder of a training, got a Hugging Face folder; save its state_dict()" in refusal(tmp_path)
    (tmp_path / "m.onnx").write_bytes(b"\x08")
    assert "expected an ONNX model" in refusal(tmp_path / "m.onnx", shape=(4,))
    (tmp_path / "m.h5").write_bytes(b"")
    assert "expected a name that ends in .safetensors, .pt" in refusal(tmp_path / "m.h5")
    assert "did you mean 'digits-linear'?" in refusal("digits-liner")
    assert "got ''" in refusal("")


def test_factories_and_ready_models():
    for name in ("net", "bare", "ready"):
        assert torch.equal(load(f"tests.models.samples:{name}", shape=(4,))(X), samples.net()(X))
    model = load("tests.models.samples:flat")
    assert (model.shape, model.name, repr(model.box)) == ((4,), "flat", repr(Box(-1, 2)))
    assert load("tests.models.samples:Net", shape=(2, 2)).classes == 3
    assert load("tests.models.samples:logistic").shape == (4,)


def test_a_module_keeps_the_mode_it_was_handed_over_in():
    made = load(ARCH, shape=(4,))
    assert made.module.training


def test_what_is_given_wins_over_what_the_model_says():
    model = load("tests.models.samples:flat", shape=(1, 2, 2), box=Box(0, 3), class_names=("p", "q", "r"))
    assert (model.shape, repr(model.box), model.class_names) == ((1, 2, 2), repr(Box(0, 3)), ("p", "q", "r"))
    assert torch.equal(model(X.reshape(-1, 1, 2, 2)), samples.net()(X))
    assert load("tests.models.samples:flat", class_names=("two", "names")).class_names == ("a", "b", "c")


def test_shapes_that_do_not_fit_are_both_named():
    assert "expected examples of shape (4,), got shape (3, 3)" in refusal("tests.models.samples:flat", shape=(3, 3))
    assert "expected examples of shape (1, 2, 2), got shape (4,)" in refusal("tests.models.samples:image", shape=(4,))
    assert "cannot take inputs of shape (1, 8, 8)" in refusal(ARCH, shape=(1, 8, 8))
    assert "shape of one example" in refusal(ARCH)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("tests.models.sampels:net", "expected an importable module tests.models.sampels"),
        ("tests.models.samples:nett", "did you mean 'net'?"),
        ("tests.models.samples:needy", "called without arguments, got missing a required argument: 'path'"),
        ("tests.models.samples:broken", "expected a model, got KeyError: 'depth'"),
        ("tests.models.samples:particular", "depth: expected a number, got none"),
        ("tests.models.samples:number", "got int"),
        ("tests.models.samples:Foreign", "Foreign: expected a fitted estimator"),
    ],
)
def test_factories_that_fail_say_how(spec, sentence):
    assert sentence in refusal(spec, shape=(4,))


def test_the_current_directory_can_be_imported_from(tmp_path, monkeypatch):
    import sys

    (tmp_path / "my_own_model.py").write_text("from torch import nn\ndef make():\n    return nn.Linear(4, 2)\n")
    (tmp_path / "my_broken_model.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert load("my_own_model:make", shape=(4,)).classes == 2
    assert "ZeroDivisionError" in refusal("my_broken_model:make", shape=(4,))
    assert sys.path == before
    del sys.modules["my_own_model"]


def test_plugins_are_found_by_name(monkeypatch):
    point = EntryPoint("house-net", "tests.models.samples:flat", "calipers.models")
    monkeypatch.setattr(loading, "plugins", lambda: {"house-net": point})
    assert load("house-net").name == "flat"
    assert "did you mean 'house-net'?" in refusal("house-nets")


def test_made_by_returns_what_is_named():
    assert isinstance(made_by("torch.nn:Identity"), nn.Identity)


def test_built_ins_are_trained_on_the_examples_they_are_given(tmp_path):
    def examples():
        return torch.eye(64)[:20].reshape(-1, 1, 8, 8), torch.arange(20) % 10

    model = load("digits-linear", examples=examples, cache=tmp_path)
    assert (model.shape, model.classes) == ((1, 8, 8), 10)
    assert digest(load("digits-linear", examples=examples, cache=tmp_path)) == digest(model)
    assert load("digits-linear", examples=examples, box=(0, 16)).box.hi == 16
    assert "expected examples to train it with" in refusal("digits-mlp")
