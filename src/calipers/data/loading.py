"""From what the user typed to a data set: a built-in name, a plugin, FILE.npz or a folder of images."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from calipers.data.dataset import DataSet
from calipers.data.folder import from_folder
from calipers.data.formats import parse_cifar, parse_idx
from calipers.data.npz import from_npz
from calipers.data.official import OFFICIAL, OfficialFile, OfficialSet
from calipers.data.synthetic import is_synthetic, synthetic
from calipers.errors import BadInput, nearest
from calipers.threats import Box

__all__ = ["load", "plugins"]

Bytes = NDArray[np.uint8]
SPLITS = ("train", "test")


def load(spec: str, *, split: str = "test", home: Path | None = None, box: Box | None = None) -> DataSet:
    r"""The data set that ``spec`` names.

    Looked up in this order:

    - ``digits``: scikit-learn's 1797 embedded digits, x = pixels / 16, shape (1, 8, 8). The examples at positions
      0, 5, 10, … are the test split (360), the others the train split (1437), for ever.
    - ``mnist``, ``fashion-mnist``, ``cifar10``: the official files under ``$CALIPERS_DATA``, x = bytes / 255. Lengths
      and headers are checked here, checksums by :func:`calipers.data.verify`.
    - ``gaussian:d=20,eps=1``, ``bernoulli:k=50,t=0.3``: samples of models with a known answer, see
      :func:`calipers.data.synthetic`.
    - a plugin: an entry point of the group ``calipers.data``, called with the split.
    - a folder of images or ``FILE.npz``: all of it whatever the split; see :func:`calipers.data.from_folder` and
      :func:`calipers.data.from_npz`.

    Arguments:
        spec: one of the above; write ``./mnist`` for a folder that has a built-in's name.
        split: ``"train"`` or ``"test"``.
        home: the folder of the official files, instead of ``$CALIPERS_DATA``.
        box: for ``FILE.npz``: the values an input may take, instead of the file's own; the others know theirs.

    Raises:
        BadInput: an unknown name or split, a missing file, or a file that is not what its name says.

    Example:
        >>> digits = load("digits")
        >>> digits.shape, len(digits), digits.index[:3].tolist(), digits.box
        ((1, 8, 8), 360, [0, 5, 10], Box(0.0, 1.0))
        >>> load("mnits")
        Traceback (most recent call last):
            ...
        calipers.errors.BadInput: data: expected a known name, FILE.npz or a folder of images, got 'mnits'; did you
        mean 'mnist'? known: ...
    """
    if split not in SPLITS:
        raise BadInput(f"split of {spec}", expected="'train' or 'test'", got=repr(split), hint=nearest(split, SPLITS))
    if spec == "digits":
        return _digits(split)
    if spec in OFFICIAL:
        return _official(spec, split, home)
    if is_synthetic(spec):
        return synthetic(spec, "train" if split == "train" else "test")
    found = plugins()
    if spec in found:
        return _plugin(found[spec], split)
    path = Path(spec).expanduser()
    if spec and path.is_dir():
        return from_folder(path)
    if path.suffix.lower() == ".npz":
        return from_npz(path, box=box)
    hint = nearest(spec, ["digits", "gaussian", "bernoulli", *OFFICIAL, *found])
    if path.is_file():
        hint = "save its arrays with numpy.savez(FILE, x=…, y=…)"
    elif len(path.parts) > 1:
        hint = "there is no such file or folder"
    raise BadInput("data", expected="a known name, FILE.npz or a folder of images", got=repr(spec), hint=hint)


def plugins() -> dict[str, EntryPoint]:
    """The installed plugins: entry points of the group ``calipers.data``, each a callable(split) -> DataSet.

    Example:
        >>> "digits" in plugins()
        False
    """
    found = entry_points(group="calipers.data")
    return {point.name: point for point in found if point.name != "digits" and point.name not in OFFICIAL}


def _digits(split: str) -> DataSet:
    from sklearn.datasets import load_digits

    digits = load_digits()
    about = {"source": "scikit-learn, load_digits()", "scaling": "pixels / 16"}
    x, y = torch.from_numpy(digits.images[:, None] / 16).float(), torch.from_numpy(digits.target).long()
    train, test = DataSet("digits", x, y, tuple("0123456789"), provenance=about).held_out()
    return test if split == "test" else train


def _official(name: str, split: str, home: Path | None) -> DataSet:
    known = OfficialSet.named(name)
    files = known.train if split == "train" else known.test
    place = known.place(home)
    images, labels = _pixels(known, files, place)
    where = f"{split} files of {name} in {place}"
    if images.shape[1:] != known.shape or labels.shape != (len(images),) or (labels >= len(known.class_names)).any():
        expected = f"images of shape {known.shape} with as many labels 0…{len(known.class_names) - 1}"
        got = f"images {images.shape}, labels {labels.shape} up to {labels.max(initial=0)}"
        raise BadInput(where, expected=expected, got=got, hint=f"run 'calipers data verify {name}'")
    about = {
        "source": ", ".join(f"{known.folder}/{file.name}" for file in files),
        "scaling": "bytes / 255",
        "split": split,
    }
    whole = sum(file.size // file.record for file in files if file.record)
    if whole and len(images) < whole:
        about["examples"] = f"only the first {len(images)} of {whole}: the file is shorter than the official one"
    x = torch.from_numpy(images.astype(np.float32)).div_(255)
    return DataSet(name, x, torch.from_numpy(labels.astype(np.int64)), known.class_names, provenance=about)


def _pixels(known: OfficialSet, files: tuple[OfficialFile, ...], place: Path) -> tuple[Bytes, Bytes]:
    """Images and labels of one split, as bytes."""
    contents = [(file.read(place / file.name, known.name), f"{place / file.name}") for file in files]
    if files[0].name.endswith(".bin"):
        parts = [parse_cifar(raw, where) for raw, where in contents]
        return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])
    x, y = (parse_idx(raw, where) for raw, where in contents)
    return (x[:, None] if x.ndim == 3 else x), y


def _plugin(point: EntryPoint, split: str) -> DataSet:
    who = f"data plugin {point.name} ({point.value})"
    try:
        make = point.load()
    except (ImportError, AttributeError) as error:
        raise BadInput(f"{who} cannot be imported", got=error) from error
    data = make(split)
    if not isinstance(data, DataSet):
        raise BadInput(who, expected="a DataSet from callable(split)", got=type(data).__name__)
    return data
