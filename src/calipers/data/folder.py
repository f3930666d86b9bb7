"""A data set in a folder of images, one sub-folder per class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from calipers.data.dataset import DataSet
from calipers.errors import BadInput

__all__ = ["from_folder"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def from_folder(path: Path) -> DataSet:
    """A folder with one sub-folder of images per class, x = bytes / 255, shape (1, H, W) if grey, (3, H, W) if RGB.

    Classes are the sub-folders in sorted order. Examples come in turn, one of each class, each class in the order of
    its sorted file names, so that the first N examples show all classes. Hidden files are passed over.

    Arguments:
        path: the folder.

    Raises:
        BadInput: fewer than two classes; a class without images; a file that is no png, jpg, webp or bmp, cannot be
            read, has another size or mode than the first image, transparency, or more than 8 bits.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = tempfile.TemporaryDirectory()
        >>> for animal, grey in [("cat", 0), ("dog", 255)]:
        ...     (Path(folder.name) / animal).mkdir()
        ...     Image.new("L", (3, 2), grey).save(Path(folder.name) / animal / "1.png")
        >>> data = from_folder(Path(folder.name))
        >>> data.class_names, data.shape, data.x.flatten(1).mean(1)
        (('cat', 'dog'), (1, 2, 3), tensor([0., 1.]))
        >>> folder.cleanup()
    """
    classes = [entry for entry in _entries(path) if entry.is_dir()]
    loose = [entry for entry in _entries(path) if entry.suffix.lower() in SUFFIXES and entry.is_file()]
    if len(classes) < 2 or loose:
        got = f"the image {loose[0].name} beside them" if loose else f"{len(classes)} sub-folders"
        raise BadInput(f"folder {path}", expected="two or more sub-folders of images, one per class", got=got)
    files = sorted(
        (place, label, file) for label, kind in enumerate(classes) for place, file in enumerate(_images(kind))
    )
    first = _pixels(files[0][2])
    raw = np.empty((len(files), *first.shape), dtype=np.uint8)
    for row, (_, _, file) in enumerate(files):
        pixels = _pixels(file)
        if pixels.shape != first.shape:
            expected = f"shape {first.shape}, as {files[0][2].name} has"
            raise BadInput(f"image {file}", expected=expected, got=pixels.shape, hint="convert it, or leave it out")
        raw[row] = pixels
    about = {"source": str(path), "scaling": "bytes / 255", "split": "none: the whole folder"}
    y = torch.tensor([label for _, label, _ in files])
    x = torch.from_numpy(raw.astype(np.float32)).div_(255)
    return DataSet(path.resolve().name, x, y, tuple(kind.name for kind in classes), provenance=about)


def _entries(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))


def _images(kind: Path) -> list[Path]:
    files = _entries(kind)
    if not files:
        raise BadInput(f"class folder {kind}", expected="at least one image", got="none")
    for file in files:
        # A class that silently lost its .tif files would be measured wrongly.
        if file.suffix.lower() not in SUFFIXES or not file.is_file():
            raise BadInput(f"class folder {kind}", expected=f"only {' '.join(SUFFIXES)} files", got=file.name)
    return files


def _pixels(file: Path) -> NDArray[np.uint8]:
    """The bytes of one image, shape (1, H, W) or (3, H, W)."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            mode = image.mode if "transparency" not in image.info else f"{image.mode} with transparency"
            if mode in ("1", "L"):
                return np.asarray(image.convert("L"), dtype=np.uint8)[None]
            if mode in ("RGB", "P"):
                return np.asarray(image.convert("RGB"), dtype=np.uint8).transpose(2, 0, 1)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadInput(f"image {file}", expected="a readable image", got=error) from error
    raise BadInput(f"image {file}", expected="8-bit grey or RGB", got=f"mode {mode}", hint="convert it to RGB")
