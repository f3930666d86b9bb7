"""Model files: what a file really is, and how it is read without running code that it brings along."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from calipers.errors import BadInput

__all__ = ["content_of", "read"]

_SAFER = "save its state_dict() as .safetensors and give --arch, or give package.module:factory"
_INSIST = "--trust loads it all the same if you trust who made it; that is not a sandbox, loading runs its code"


def content_of(path: Path) -> str:
    """What the bytes of a file say that it is, whatever its name says."""
    with path.open("rb") as file:
        head = file.read(16)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size - 8:
        return "safetensors"
    if zipfile.is_zipfile(path):
        return _content_of_zip(path)
    return "a pickle" if head[:1] == b"\x80" else "something else"


def _content_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return "a damaged zip archive"
    inner = {name.partition("/")[2] for name in names}
    if "schema.json" in names:
        return "a skops file"
    if inner & {"archive_format", "serialized_exported_program.json"} or "serialized_exported_program.json" in names:
        return "an exported program (.pt2)"
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        return "a TorchScript archive"
    return "a PyTorch file" if "data.pkl" in inner else "a zip archive"


def read(path: Path, *, trust: bool = False) -> dict[str, Tensor] | Any:
    """Weights by name, or the model itself, from a file whose suffix is one of :data:`READERS`.

    Raises:
        BadInput: if the file is missing, is not what its name says, is damaged, or can run code and ``trust`` is not
            given.
    """
    if path.is_dir():
        kind = "a Hugging Face folder" if (path / "config.json").exists() else "a folder"
        raise BadInput(f"model {path}", expected="a file, or the folder of a training", got=kind, hint=_SAFER)
    if not path.exists():
        raise BadInput(f"model file {path}", expected="a file", got="nothing there")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise BadInput(f"model file {path}", expected="a name that ends in " + ", ".join(READERS), got=path.suffix)
    try:
        return reader(path, trust)
    except OSError as error:
        raise BadInput(f"model file {path}", expected="a readable file", got=error) from error


def _demand(path: Path, *expected: str) -> str:
    content = content_of(path)
    if content not in expected:
        raise BadInput(f"model file {path}", expected=expected[0], got=content)
    return content


def _damaged(path: Path, expected: str, error: Exception) -> BadInput:
    reason = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
    return BadInput(f"model file {path}", expected=expected, got=f"a damaged one ({reason})")


def _refused(path: Path, what: str, hint: str = _SAFER) -> BadInput:
    return BadInput(f"model file {path}: loading {what} can run code, so it is refused", hint=f"{hint}; {_INSIST}")


def _safetensors(path: Path, trust: bool) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _demand(path, "safetensors")
    try:
        weights: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise _damaged(path, "safetensors", error) from error
    return weights


def _torch(path: Path, trust: bool) -> Any:
    content = _demand(path, "a PyTorch file", "a pickle", "a TorchScript archive", "an exported program (.pt2)")
    if content == "a TorchScript archive":
        return _torchscript(path, trust)
    if content == "an exported program (.pt2)":
        return _exported(path, trust)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        if not trust:
            raise _refused(path, "pickled objects") from None
        found = _trusted(path, lambda: torch.load(path, map_location="cpu", weights_only=False))
    except (RuntimeError, EOFError, KeyError, ValueError) as error:
        raise _damaged(path, "a PyTorch state dict", error) from error
    return found if isinstance(found, nn.Module) else _state_dict(found, path)


def _state_dict(found: object, path: Path) -> dict[str, Tensor]:
    """The weights themselves, or those inside a checkpoint under one of the customary keys."""
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise BadInput(f"model file {path}", expected="a state dict: names to tensors", got=type(found).__name__)
    return found


def _trusted(path: Path, load: Any) -> Any:
    """Run a loader that the caller has insisted on; whatever goes wrong in the file's code is one sentence."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
            return load()
    except Exception as error:
        raise _damaged(path, "a model", error) from error


def _torchscript(path: Path, trust: bool) -> Any:
    if not trust:
        raise _refused(path, "a TorchScript archive")
    return _trusted(path, lambda: torch.jit.load(str(path), map_location="cpu"))


def _exported(path: Path, trust: bool) -> Any:
    if not trust:
        raise _refused(path, "an exported program")
    _demand(path, "an exported program (.pt2)")
    return _trusted(path, lambda: torch.export.load(path).module())


def _pickle(path: Path, trust: bool) -> Any:
    if not trust:
        raise _refused(path, "a pickle", "save a scikit-learn model with skops.io.dump")
    import joblib

    return _trusted(path, lambda: joblib.load(path))


# Plain state of scikit-learn's own MLP training, which skops does not know yet; it holds numbers only.
_HARMLESS = {f"sklearn.neural_network._stochastic_optimizers.{name}Optimizer" for name in ("Adam", "SGD")}


def _skops(path: Path, trust: bool) -> Any:
    import skops.io

    _demand(path, "a skops file")
    try:
        unknown = skops.io.get_untrusted_types(file=path)
        foreign = sorted(set(unknown) - _HARMLESS)
    except Exception as error:
        raise _damaged(path, "a skops file", error) from error
    if foreign and not trust:
        raise BadInput(
            f"types in {path}",
            expected="types that skops trusts",
            got=", ".join(foreign),
            hint="read that list, then --trust if you know them all; that is not a sandbox",
        )
    return _trusted(path, lambda: skops.io.load(path, trusted=unknown))


def _onnx(path: Path, trust: bool) -> Any:
    from calipers.models.blackbox import read_onnx

    return read_onnx(path)


READERS = {
    ".safetensors": _safetensors,
    ".pt": _torch,
    ".pth": _torch,
    ".skops": _skops,
    ".pkl": _pickle,
    ".pickle": _pickle,
    ".joblib": _pickle,
    ".pt2": _exported,
    ".onnx": _onnx,
}
