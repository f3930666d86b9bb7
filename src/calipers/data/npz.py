"""A data set in one NumPy file: x and y, and what else one must know."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from calipers.data.dataset import DataSet
from calipers.errors import BadInput, nearest
from calipers.threats import Box

__all__ = ["from_npz"]

# Without class names the highest label tells their number; beyond this it is taken for something else than a label.
CLASSES = 100_000
KEYS = ("x", "y", "class_names", "lo", "hi")
Array = NDArray[Any]


def from_npz(path: Path, *, box: Box | None = None) -> DataSet:
    r"""``FILE.npz`` with ``x``, shape (N, \*shape), and ``y``, shape (N,), labels 0…K−1; nothing in it can run code.

    uint8 images are divided by 255, unless a box is given. Other numbers are taken as they are, float64 where float32
    would round them, and must lie in the box: the one given, else from ``lo`` to ``hi`` if the file has them (numbers,
    or arrays of an example's shape), else from 0 to 1. ``class_names`` may name the classes.

    Arguments:
        path: the file.
        box: the values an input may take, in the units of ``x`` as it is stored.

    Raises:
        BadInput: a file that is missing or is no such file; a missing or unknown key; shapes or types that do not fit;
            zero examples; one class; NaN, infinite or out-of-box inputs; a label outside 0…K−1.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = Path(folder.name) / "two.npz"
        >>> np.savez(path, x=np.array([[0, 51], [102, 255]], dtype=np.uint8), y=[0, 1])
        >>> data = from_npz(path)
        >>> data.x, data.provenance["scaling"]
        (tensor([[0.0000, 0.2000], [0.4000, 1.0000]]), 'uint8 / 255')
        >>> folder.cleanup()
    """
    arrays = _read(path)
    x, y = arrays["x"], _labels(arrays, path)
    if x.ndim < 2 or x.dtype.kind not in "buif" or x.dtype.itemsize > 8:
        raise BadInput(f"x of {path}", expected="numbers of shape (N, …)", got=f"{x.dtype} of shape {x.shape}")
    if len(x) == 0 or len(x) != len(y):
        expected = "at least one example, and as many labels as inputs"
        raise BadInput(f"{path}", expected=expected, got=f"{len(x)} inputs and {len(y)} labels")
    if x.dtype == np.uint8 and box is None:
        inputs, scaling = torch.from_numpy(x.astype(np.float32)).div_(255), "uint8 / 255"
    else:
        inputs = torch.from_numpy(x.astype(np.result_type(x.dtype, np.float32)))
        scaling = f"{x.dtype} as stored"
    named = box is not None or "lo" in arrays or "hi" in arrays
    box = box or _box(arrays, x, path)
    _check_inside(inputs, box, f"{path}", named=named)
    names = _names(arrays, y, path)
    about = {"source": str(path), "scaling": scaling, "split": "none: the whole file"}
    return DataSet(path.name, inputs, torch.from_numpy(y.astype(np.int64)), names, box, about)


def _read(path: Path) -> dict[str, Array]:
    if not path.is_file():
        raise BadInput("data", expected=f"the file {path}", got="no such file")
    try:
        # Without this test NumPy would try a .npy, then a pickle, and blame the latter.
        if not zipfile.is_zipfile(path):
            raise ValueError("something else")
        with np.load(path, allow_pickle=False) as stored:
            unknown = sorted(set(stored.files) - set(KEYS))
            missing = [key for key in ("x", "y") if key not in stored.files]
            if missing or unknown:
                hint = nearest(unknown[0].lower(), KEYS) if unknown else None
                got = ", ".join(sorted(stored.files)) or "an empty file"
                raise BadInput(f"arrays of {path}", expected="x, y and at most class_names, lo, hi", got=got, hint=hint)
            arrays = {key: stored[key] for key in stored.files}
            if not all(isinstance(array, np.ndarray) for array in arrays.values()):
                raise ValueError("a file that is no array")
            return arrays
    except BadInput:
        raise
    except (OSError, EOFError, ValueError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        hint = "save it with numpy.savez(FILE, x=…, y=…)"
        raise BadInput(f"{path}", expected="a NumPy .npz of plain arrays", got=error, hint=hint) from error


def _labels(arrays: dict[str, Array], path: Path) -> Array:
    y = arrays["y"]
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise BadInput(f"y of {path}", expected="integers of shape (N,)", got=f"{y.dtype} of shape {y.shape}")
    return y


def _names(arrays: dict[str, Array], y: Array, path: Path) -> tuple[str, ...]:
    """The class names, given or counted; every label has one."""
    count = min(int(y.max()) + 1, CLASSES)
    names = tuple(str(k) for k in range(count))
    if "class_names" in arrays:
        stored = arrays["class_names"]
        if stored.ndim != 1 or stored.dtype.kind != "U" or len(stored) < 2:
            got = f"{stored.dtype} of shape {stored.shape}"
            raise BadInput(f"class_names of {path}", expected="two or more strings", got=got)
        names = tuple(str(name) for name in stored)
    wrong = np.flatnonzero((y < 0) | (y >= max(len(names), 1)))
    if len(wrong):
        i = int(wrong[0])
        expected = f"0…{len(names) - 1}" if len(names) > 1 else "0 or more"
        raise BadInput(f"label of example {i} of {path}", expected=expected, got=int(y[i]))
    if len(names) == 1:
        hint = "if there are more classes than these examples show, add class_names"
        raise BadInput(f"y of {path}", expected="at least two classes", got="only class 0", hint=hint)
    return names


def _box(arrays: dict[str, Array], x: Array, path: Path) -> Box:
    sides: list[float | torch.Tensor] = []
    for key, default in (("lo", 0.0), ("hi", 1.0)):
        side = arrays.get(key, np.array(default))
        if side.dtype.kind not in "iuf" or side.shape not in ((), x.shape[1:]):
            expected = f"a number, or numbers of shape {x.shape[1:]}"
            raise BadInput(f"{key} of {path}", expected=expected, got=f"{side.dtype} of shape {side.shape}")
        if x.dtype == np.uint8 and (side != default).any():
            hint = "store x as floats in the units of lo and hi"
            raise BadInput(f"{key} of {path}", expected=f"{default:g} (uint8 is divided by 255)", got=side, hint=hint)
        sides.append(torch.from_numpy(side.astype(np.float64)) if side.ndim else float(side))
    return Box(*sides)


def _check_inside(x: torch.Tensor, box: Box, where: str, *, named: bool) -> None:
    bad = (~x.isfinite()).flatten(1).any(1).nonzero()
    if len(bad):
        raise BadInput(f"x of {where}, example {int(bad[0])}", expected="finite numbers", got="NaN or infinity")
    out = (~box.contains(x)).nonzero()
    if len(out):
        got = f"{x.min().item():g}…{x.max().item():g} (example {int(out[0])} is the first outside)"
        hint = "state the box that x lives in" if named else "state the box (--box LO HI), or add lo and hi to the file"
        raise BadInput(f"x of {where}", expected=f"values inside {box}", got=got, hint=hint)
