"""Objects by name: ``package.module:factory`` and the plugins that installed packages offer."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from calipers.errors import BadInput, nearest
from calipers.models.classifier import Classifier

__all__ = ["made_by", "plugins"]

_SPEC = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def is_factory(spec: str) -> bool:
    """Whether ``spec`` reads as package.module:factory."""
    return _SPEC.fullmatch(spec) is not None


def made_by(spec: str) -> Any:
    """What ``package.module:factory`` names, or returns when it is called without arguments.

    The current directory can be imported from, as with ``python -m``. A module or estimator is returned as it is.

    Raises:
        BadInput: if there is no such module or attribute, if it needs arguments, or if it fails.

    Example:
        >>> made_by("torch.nn:Identity")
        Identity()
    """
    module_name, _, attribute = spec.partition(":")
    with _current_directory_importable():
        found: Any = _imported(module_name, spec)
        for part in attribute.split("."):
            if not hasattr(found, part):
                own = [k for k, v in vars(found).items() if getattr(v, "__module__", None) == module_name]
                hint = nearest(part, own) if own else None
                raise BadInput(spec, expected=f"something named {part!r} in {module_name}", got="nothing", hint=hint)
            found = getattr(found, part)
        return _called(found, spec)


def _called(found: Any, spec: str) -> Any:
    """``found`` itself if it is a model already, otherwise what it returns."""
    if isinstance(found, nn.Module | Classifier) or not callable(found):
        return found
    try:
        inspect.signature(found).bind()
    except TypeError as error:
        raise BadInput(spec, expected="a factory that is called without arguments", got=error) from None
    except ValueError:
        pass  # Some built-in callables have no signature.
    try:
        return found()
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(spec, expected="a model", got=f"{type(error).__name__}: {error}") from error


def _imported(name: str, spec: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        where = f"{error.name} cannot be found from {Path.cwd()}" if error.name else str(error)
        raise BadInput(spec, expected=f"an importable module {name}", got=where) from error
    except Exception as error:
        raise BadInput(spec, expected=f"an importable module {name}", got=f"{type(error).__name__}: {error}") from error


@contextmanager
def _current_directory_importable() -> Iterator[None]:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def plugins() -> dict[str, metadata.EntryPoint]:
    """The models that installed packages offer: entry points of the group ``calipers.models``, by name.

    An entry point names a model, or a factory that is called without arguments.

    Example:
        >>> all(point.group == "calipers.models" for point in plugins().values())
        True
    """
    return {point.name: point for point in metadata.entry_points(group="calipers.models")}
