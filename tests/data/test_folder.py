"""A folder of images, made here with Pillow."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calipers.data import load
from calipers.errors import BadInput

RNG = np.random.default_rng(3)
GREY = RNG.integers(0, 256, (2, 3), dtype=np.uint8)
RGB = RNG.integers(0, 256, (2, 3, 3), dtype=np.uint8)


def put(root: Path, name: str, pixels: np.ndarray, **options: object) -> None:
    (root / name).parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(root / name, **options)


def test_classes_are_sorted_and_examples_come_in_turn(tmp_path):
    for i, name in enumerate(["dog/b.png", "cat/2.png", "cat/1.png", "dog/a.png", "cat/3.png"]):
        put(tmp_path, name, np.full((2, 3), i, dtype=np.uint8))
    data = load(str(tmp_path))
    assert data.class_names == ("cat", "dog")
    assert data.y.tolist() == [0, 1, 0, 1, 0]
    assert (data.x[:, 0, 0, 0] * 255).round().tolist() == [2, 3, 1, 0, 4]
    assert data.index.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp"])
def test_lossless_pixels_come_back_exactly(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    put(tmp_path, f"a/1.{suffix}", RGB, **options)
    put(tmp_path, f"b/1.{suffix.upper()}", 255 - RGB, **options)
    data = load(str(tmp_path))
    assert data.shape == (3, 2, 3)
    expected = np.stack([RGB, 255 - RGB]).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    assert np.array_equal(data.x.numpy(), expected)


def test_grey_and_jpeg(tmp_path):
    put(tmp_path, "a/1.jpg", np.full((8, 8), 100, dtype=np.uint8))
    put(tmp_path, "b/1.jpeg", np.full((8, 8), 200, dtype=np.uint8))
    data = load(str(tmp_path))
    assert data.shape == (1, 8, 8)
    assert np.allclose(data.x.mean((1, 2, 3)) * 255, [100, 200], atol=1)


def test_palettes_are_rgb_and_bits_are_grey(tmp_path):
    for name in ("p/a/1.png", "p/b/1.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.fromarray(RGB).quantize(8).save(tmp_path / name)
    assert load(str(tmp_path / "p")).shape == (3, 2, 3)
    for name in ("bits/a/1.png", "bits/b/1.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.fromarray(GREY > 100).save(tmp_path / name)
    assert set(load(str(tmp_path / "bits")).x.unique().tolist()) == {0.0, 1.0}


def test_hidden_files_and_a_readme_beside_the_classes_are_passed_over(tmp_path):
    put(tmp_path, "a/1.png", GREY)
    put(tmp_path, "b/1.png", GREY)
    for name in (".hidden", "a/.DS_Store", "README.txt"):
        (tmp_path / name).write_text("words")
    assert len(load(str(tmp_path))) == 2


def broken(root: Path) -> None:
    put(root, "b/bad.png", RNG.integers(0, 256, (40, 40), dtype=np.uint8))
    raw = (root / "b/bad.png").read_bytes()
    (root / "b/bad.png").write_bytes(raw[: len(raw) // 2])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: put(root, "b/bad.png", GREY.T), r"bad.png: expected shape \(1, 2, 3\).*got \(1, 3, 2\)"),
        (lambda root: put(root, "b/bad.png", RGB), r"bad.png: expected shape \(1, 2, 3\).*got \(3, 2, 3\)"),
        (lambda root: put(root, "b/bad.png", np.dstack([RGB, RGB[..., :1]])), "bad.png.*mode RGBA"),
        (lambda root: put(root, "b/bad.png", GREY, transparency=3), "bad.png.*L with transparency"),
        (lambda root: put(root, "b/bad.png", GREY.astype(np.uint16)), "bad.png.*8-bit.*mode I"),
        (broken, "bad.png: expected a readable image"),
        (lambda root: (root / "b/bad.png").write_text("words"), "bad.png: expected a readable image"),
        (lambda root: (root / "b/scan.tif").write_text("words"), "class folder .*got scan.tif"),
        (lambda root: (root / "b/deeper.png").mkdir(), "class folder .*got deeper.png"),
        (lambda root: (root / "c").mkdir(), "class folder .*c: expected at least one image, got none"),
        (lambda root: put(root, "loose.png", GREY), "the image loose.png beside them"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path, spoil, message):
    put(tmp_path, "a/1.png", GREY)
    put(tmp_path, "b/1.png", GREY)
    spoil(tmp_path)
    with pytest.raises(BadInput, match=message):
        load(str(tmp_path))


def test_fewer_than_two_classes_are_refused(tmp_path):
    with pytest.raises(BadInput, match=r"two or more sub-folders.*got 0"):
        load(str(tmp_path))
    put(tmp_path, "a/1.png", GREY)
    with pytest.raises(BadInput, match=r"two or more sub-folders.*got 1"):
        load(str(tmp_path))
