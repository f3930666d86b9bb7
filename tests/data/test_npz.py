"""FILE.npz: what is taken, and every way it can be wrong."""

import numpy as np
import pytest
import torch

from calipers.data import from_npz, load
from calipers.errors import BadInput
from calipers.threats import Box

X = np.linspace(0, 1, 24, dtype=np.float32).reshape(4, 2, 3)
Y = np.array([0, 2, 1, 2])


@pytest.fixture
def save(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "some.npz", **arrays)
        return str(tmp_path / "some.npz")

    return write


def test_floats_are_taken_as_they_are(save):
    data = load(save(x=X, y=Y))
    assert np.array_equal(data.x.numpy(), X)
    assert data.x.dtype == torch.float32
    assert data.y.tolist() == [0, 2, 1, 2]
    assert data.y.dtype == torch.int64
    assert data.class_names == ("0", "1", "2")
    assert (data.box.lo, data.box.hi) == (0.0, 1.0)
    assert data.index.tolist() == [0, 1, 2, 3]


def test_both_splits_are_the_whole_file_and_say_so(save):
    path = save(x=X, y=Y)
    assert len(load(path, split="train")) == len(load(path)) == 4
    assert "whole file" in load(path).provenance["split"]


def test_uint8_is_divided_by_255_and_says_so(save):
    x = np.arange(256, dtype=np.uint8).reshape(2, 128)
    data = load(save(x=x, y=[0, 1]))
    assert np.array_equal(data.x.numpy(), x.astype(np.float32) / np.float32(255))
    assert data.provenance["scaling"] == "uint8 / 255"


@pytest.mark.parametrize(
    ("stored", "kept"),
    [("float16", "float32"), ("float64", "float64"), (">f8", "float64"), ("int16", "float32"), ("int64", "float64"),
     ("bool", "float32")],
)  # fmt: skip
def test_no_type_is_rounded(save, stored, kept):
    x = (X > 0.5).astype(stored)
    data = load(save(x=x, y=Y))
    assert data.x.dtype == getattr(torch, kept)
    assert np.array_equal(data.x.numpy(), x.astype(kept))


def test_names_and_box_come_from_the_file(save):
    data = load(save(x=X * 4 - 2, y=Y, class_names=["a", "b", "c", "d"], lo=-2, hi=np.full((2, 3), 2.0)))
    assert data.class_names == ("a", "b", "c", "d")
    assert data.box.lo == -2.0
    assert torch.equal(torch.as_tensor(data.box.hi), torch.full((2, 3), 2.0, dtype=torch.float64))
    assert bool(data.box.contains(data.x).all())


def test_values_outside_the_box_name_both_and_say_what_to_do(save):
    with pytest.raises(BadInput) as caught:
        load(save(x=X * 4 - 2, y=Y))
    for part in (
        "some.npz",
        "[0, 1]",
        "-2…2",
        "example 0",
        "state the box (--box LO HI), or add lo and hi to the file",
    ):
        assert part in str(caught.value)


def changed(**arrays):
    return {"x": X, "y": Y} | arrays


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": X, "y": Y}, "got X, y; did you mean 'x'"),
        ({"x": X}, "expected x, y.*got x"),
        (changed(low=0), "did you mean 'lo'"),
        (changed(x=X[:0], y=Y[:0]), "at least one example.*0 inputs and 0 labels"),
        (changed(x=X[:3]), "3 inputs and 4 labels"),
        (changed(x=X.ravel()[:4]), r"shape \(N, …\), got float32 of shape \(4,\)"),
        (changed(x=X.astype(complex)), "expected numbers.*complex"),
        (changed(x=X.astype(str)), "expected numbers"),
        (changed(x=X.astype(object)), "plain arrays.*allow_pickle"),
        (changed(y=Y.astype(float)), "expected integers.*float64"),
        (changed(y=Y[:, None]), r"integers of shape \(N,\).*\(4, 1\)"),
        (changed(y=Y - 1), "label of example 0 .*expected 0…1, got -1"),
        (changed(y=Y - 9), "label of example 0 .*expected 0 or more, got -9"),
        (changed(y=Y * 10**12), "label of example 1 .*got 2000000000000"),
        (changed(y=Y * 0), "two classes, got only class 0; .*add class_names"),
        (changed(class_names=["a", "b"]), "label of example 1 .*expected 0…1, got 2"),
        (changed(class_names=["a"]), "two or more strings"),
        (changed(class_names=[1, 2, 3]), "two or more strings"),
        (changed(x=np.where(X > 0.9, np.nan, X)), "example 3: expected finite numbers"),
        (changed(x=np.where(X > 0.9, np.inf, X)), "example 3: expected finite numbers"),
        (changed(lo=0.5), "state the box that x lives in"),
        (changed(lo=2), "lo < hi"),
        (changed(lo="a"), "lo of .*a number"),
        (changed(hi=np.ones(3)), r"hi of .*numbers of shape \(2, 3\)"),
        (changed(x=X.astype(np.uint8), hi=255), "hi of .*expected 1 .uint8 is divided by 255"),
    ],
)
def test_bad_files_are_refused(save, arrays, message):
    with pytest.raises(BadInput, match=message):
        load(save(**arrays))


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + bytes(40), b"\x80\x04K\x01."])
def test_what_is_no_npz_is_refused(tmp_path, content):
    (tmp_path / "no.npz").write_bytes(content)
    with pytest.raises(BadInput, match=r"expected a NumPy \.npz of plain arrays"):
        load(str(tmp_path / "no.npz"))


def test_a_npy_called_npz_is_refused(tmp_path):
    with (tmp_path / "no.npz").open("wb") as file:
        np.save(file, X)
    with pytest.raises(BadInput, match=r"expected a NumPy \.npz"):
        load(str(tmp_path / "no.npz"))


def test_a_damaged_npz_is_refused(save, tmp_path):
    path = save(x=X, y=Y)
    raw = bytearray((tmp_path / "some.npz").read_bytes())
    raw[200] ^= 255
    (tmp_path / "some.npz").write_bytes(raw)
    with pytest.raises(BadInput, match="CRC"):
        load(path)


def test_a_member_that_is_no_array_is_refused(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "no.npz", "w") as packed:
        packed.writestr("x", "hello")
        packed.writestr("y", "hello")
    with pytest.raises(BadInput, match="a file that is no array"):
        load(str(tmp_path / "no.npz"))


def test_a_given_box_comes_before_the_files_and_keeps_bytes_as_they_are(tmp_path):
    file = tmp_path / "wide.npz"
    np.savez(file, x=np.array([[0.0, 40.0], [1680.0, 2.0]]), y=np.array([0, 1]))
    wide = from_npz(file, box=Box(0, 2000))
    assert wide.x.max() == 1680
    assert repr(wide.box) == "Box(0.0, 2000.0)"
    with pytest.raises(BadInput, match=r"expected values inside \[0, 1000\]"):
        from_npz(file, box=Box(0, 1000))
    np.savez(file, x=np.array([[0, 51], [102, 255]], dtype=np.uint8), y=np.array([0, 1]))
    assert from_npz(file, box=Box(0, 255)).x.tolist() == [[0, 51], [102, 255]]
