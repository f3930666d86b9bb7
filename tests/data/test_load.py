"""What load() understands: digits, official files, plugins, and what it refuses."""

import numpy as np
import pytest
import torch

from calipers.data import DataSet, digest, load, parse_cifar, parse_idx
from calipers.errors import BadInput
from tests.data.conftest import idx


def test_digits_are_split_by_every_fifth_position():
    test, train = load("digits"), load("digits", split="train")
    assert (len(test), len(train)) == (360, 1437)
    assert test.index.tolist() == list(range(0, 1797, 5))
    assert sorted(test.index.tolist() + train.index.tolist()) == list(range(1797))


def test_digits_are_scikit_learns_pixels_over_16():
    from sklearn.datasets import load_digits

    original, ours = load_digits(), load("digits", split="train")
    assert ours.x.dtype == torch.float32
    assert ours.y.dtype == torch.int64
    assert np.array_equal(ours.x[:, 0].numpy() * 16, original.images[ours.index])
    assert np.array_equal(ours.y.numpy(), original.target[ours.index])
    assert ours.class_names == tuple("0123456789")
    assert bool(ours.box.contains(ours.x).all())


@pytest.mark.parametrize("split", ["train", "test"])
def test_mnist_is_bytes_over_255(tiny_mnist, lay, split):
    home = lay("mnist", tiny_mnist)
    data = load("mnist", split=split, home=home)
    rng = np.random.default_rng(0)
    train = rng.integers(0, 256, (3, 28, 28))
    expected = train if split == "train" else rng.integers(0, 256, (2, 28, 28))
    assert data.shape == (1, 28, 28)
    assert data.x.dtype == torch.float32
    assert np.array_equal(data.x[:, 0].numpy(), expected.astype(np.float32) / np.float32(255))
    assert data.y.tolist() == list(range(len(expected)))


def test_home_is_calipers_data(tiny_mnist, lay, monkeypatch):
    monkeypatch.setenv("CALIPERS_DATA", str(lay("mnist", tiny_mnist)))
    assert len(load("mnist")) == 2


def test_cifar_batches_follow_one_another(tiny_cifar, lay):
    home = lay("cifar-10-batches-bin", tiny_cifar)
    data = load("cifar10", split="train", home=home)
    assert data.y.tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    raw = np.frombuffer(tiny_cifar["data_batch_2.bin"], np.uint8)
    assert np.array_equal((data.x[2] * 255).round().numpy().ravel(), raw[1:3073])
    assert "examples" not in data.provenance


def test_a_shorter_cifar_test_file_is_loaded_and_says_so(tiny_cifar, lay):
    home = lay("cifar-10-batches-bin", {"test_batch.bin": tiny_cifar["test_batch.bin"][:3073]})
    data = load("cifar10", home=home)
    assert len(data) == 1
    assert data.provenance["examples"].startswith("only the first 1 of 2")


@pytest.mark.parametrize("length", [0, 3072, 3074, 3 * 3073])
def test_a_cifar_test_file_of_another_length_is_refused(tiny_cifar, lay, length):
    home = lay("cifar-10-batches-bin", {"test_batch.bin": bytes(length)})
    with pytest.raises(BadInput, match=r"expected 6146 bytes .*test_batch.bin, got"):
        load("cifar10", home=home)


def test_a_shorter_cifar_train_file_is_refused(tiny_cifar, lay):
    home = lay("cifar-10-batches-bin", tiny_cifar | {"data_batch_3.bin": bytes(3073)})
    with pytest.raises(BadInput, match=r"data_batch_3.bin, got 3073"):
        load("cifar10", split="train", home=home)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda gz: gz[:-9], "end-of-stream"),
        (lambda gz: b"<html>not found</html>", "[Nn]ot a gzip"),
        (lambda gz: gz[:-8] + bytes(4) + gz[-4:], "CRC"),
    ],
)
def test_a_damaged_gz_is_refused(tiny_mnist, lay, spoil, message):
    name = "t10k-images-idx3-ubyte.gz"
    home = lay("mnist", tiny_mnist | {name: spoil(tiny_mnist[name])})
    with pytest.raises(BadInput, match=message) as caught:
        load("mnist", home=home)
    assert name in str(caught.value)
    assert "calipers data fetch mnist" in str(caught.value)


def test_labels_beyond_the_classes_are_refused(tiny_mnist, lay):
    import gzip

    home = lay("mnist", tiny_mnist | {"t10k-labels-idx1-ubyte.gz": gzip.compress(idx(np.array([3, 10])))})
    with pytest.raises(BadInput, match=r"labels 0…9.*up to 10"):
        load("mnist", home=home)


def test_missing_files_and_missing_home_say_what_to_do(tmp_path):
    with pytest.raises(BadInput, match=r"mnist/t10k-images-idx3-ubyte.gz, got no such file.*calipers data fetch mnist"):
        load("mnist", home=tmp_path)
    with pytest.raises(BadInput, match=r"CALIPERS_DATA.*test_batch.bin.*nothing set.*calipers data fetch cifar10"):
        load("cifar10")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("digit", "did you mean 'digits'"),
        ("fashion_mnist", "did you mean 'fashion-mnist'"),
        ("", "known name"),
        ("no/such/folder", "there is no such file or folder"),
        ("gone.npz", "expected the file gone.npz, got no such file"),
    ],
)
def test_unknown_names_are_refused(spec, message):
    with pytest.raises(BadInput, match=message):
        load(spec)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text("1,2")
    with pytest.raises(BadInput, match=r"numpy\.savez"):
        load(str(tmp_path / "x.csv"))


def test_an_unknown_split_is_refused():
    with pytest.raises(BadInput, match="did you mean 'test'"):
        load("digits", split="tests")


PLUGIN = """
import torch
from calipers.data import DataSet

def ramp(split):
    return DataSet("ramp", torch.zeros(1 if split == "test" else 2, 3), torch.zeros(1 if split == "test" else 2).long(),
                   ("no", "yes"))

def nothing(split):
    return None
"""


def test_plugins_come_after_the_built_in_names(tmp_path, monkeypatch):
    (tmp_path / "ramp_plugin.py").write_text(PLUGIN)
    about = tmp_path / "ramp_plugin-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: ramp-plugin\nVersion: 1.0\n")
    lines = ["ramp = ramp_plugin:ramp", "digits = ramp_plugin:nothing", "bad = ramp_plugin:nothing", "gone = no_such:f"]
    (about / "entry_points.txt").write_text("[calipers.data]\n" + "\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert len(load("ramp")) == 1
    assert len(load("ramp", split="train")) == 2
    assert len(load("digits")) == 360
    with pytest.raises(BadInput, match="expected a DataSet from callable"):
        load("bad")
    with pytest.raises(BadInput, match=r"gone .no_such:f. cannot be imported"):
        load("gone")
    with pytest.raises(BadInput, match="did you mean 'ramp'"):
        load("rampp")


@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 5), (0, 4)])
def test_idx_round_trip(shape):
    array = np.random.default_rng(2).integers(0, 256, shape).astype(np.uint8)
    assert np.array_equal(parse_idx(idx(array)), array)
    assert parse_idx(idx(array)).shape == shape


@pytest.mark.parametrize(
    "raw",
    [b"", b"\0\0\x08", bytes([0, 0, 8, 0]), bytes([0, 0, 13, 1, 0, 0, 0, 1, 0]), bytes([0, 0, 8, 2, 0, 0, 0, 1]),
     idx(np.zeros(3)) + b"\0", idx(np.zeros(3))[:-1], b"<html></html>"],
)  # fmt: skip
def test_idx_of_wrong_header_or_length_is_refused(raw):
    with pytest.raises(BadInput, match="this one"):
        parse_idx(raw, "this one")


@pytest.mark.parametrize("length", [0, 1, 3072, 3074])
def test_cifar_of_broken_records_is_refused(length):
    with pytest.raises(BadInput, match="whole records of 3073 bytes"):
        parse_cifar(bytes(length))


def test_digest_sees_values_labels_shape_and_dtype_only():
    x, y = torch.rand(4, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 1, 0])
    base = DataSet("a", x, y, ("no", "yes"))
    same = DataSet("b", x.clone().t().contiguous().t(), y, ("n", "y"), provenance={"source": "elsewhere"})
    others = [
        DataSet("a", x.clone().index_fill_(0, torch.tensor([2]), 0.5), y, ("no", "yes")),
        DataSet("a", x, 1 - y, ("no", "yes")),
        DataSet("a", x.view(4, 2, 3), y, ("no", "yes")),
        DataSet("a", x.double(), y, ("no", "yes")),
        DataSet("a", x.view(torch.int32), y, ("no", "yes")),
        base.take(3),
    ]
    assert digest(base) == digest(same)
    assert len({digest(base), *map(digest, others)}) == len(others) + 1
