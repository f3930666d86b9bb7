"""From what a user types to what an audit needs: model and data by name, checked against each other."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from calipers import data, models
from calipers.errors import BadInput
from calipers.models import Classifier
from calipers.models.training import about, folder_of
from calipers.threats import Box

__all__ = ["Inputs", "cache_folder", "open_inputs"]


@dataclass(frozen=True, eq=False)
class Inputs:
    """A model and the examples it is audited on, which fit each other; perhaps another model to transfer from.

    ``size`` and ``whole`` are the length and the digest of the data set that the examples are the first of.
    """

    model: Classifier
    data: data.DataSet
    size: int
    other: Classifier | None = None
    whole: str = ""


def cache_folder() -> Path:
    """Where trained built-in models are kept: $XDG_CACHE_HOME/calipers, or ~/.cache/calipers."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "calipers"


def open_inputs(
    model: str,
    data_spec: str | None = None,
    *,
    arch: str | None = None,
    box: tuple[float, float] | None = None,
    examples: int | None = None,
    other: str | None = None,
    trust: bool = False,
) -> Inputs:
    r"""Load the data and the model, and check that they fit before anything is computed.

    Arguments:
        model: see :func:`calipers.models.load`.
        data_spec: see :func:`calipers.data.load`; the test split. None: what the model was trained on, if it is the
            folder of a training.
        arch: the architecture for bare weights.
        box: the values an input may take; the data set's own by default.
        examples: audit the first so many.
        other: a second model to transfer from, loaded in the same way.
        trust: load files that can run code.

    Raises:
        BadInput: with both shapes if they do not fit; labels out of range; inputs outside the box; NaN.

    Example:
        >>> both = open_inputs("digits-linear", "digits", examples=5)
        >>> both.model.shape, len(both.data), both.size
        ((1, 8, 8), 5, 360)
    """
    if data_spec is None:
        training = folder_of(model)
        data_spec = about(training).get("data") if training else None
    if data_spec is None:
        raise BadInput("--data", expected="what to audit on", got="none", hint="calipers audit --help shows examples")
    given = Box(*box) if box else None
    whole = data.load(data_spec, box=given)
    some = whole.take(examples)
    chosen = given or some.box

    def opened(spec: str) -> Classifier:
        return models.load(
            spec,
            arch=arch,
            shape=some.shape,
            box=chosen,
            class_names=some.class_names,
            trust=trust,
            examples=_training_digits,
            cache=_writable(cache_folder()),
        )

    loaded = opened(model)
    if len(some.class_names) > loaded.classes:
        raise BadInput(
            f"{model} on {data_spec}",
            expected=f"at least {len(some.class_names)} classes, as {data_spec} has",
            got=f"{loaded.classes} logits",
        )
    loaded.check(some.x, some.y)
    second = None if other is None else opened(other)
    if second is not None and second.classes != loaded.classes:
        raise BadInput(f"{other} beside {model}", expected=f"{loaded.classes} classes", got=second.classes)
    return Inputs(loaded, some, len(whole), other=second, whole=data.digest(whole))


def _training_digits() -> tuple[Tensor, Tensor]:
    digits = data.load("digits", split="train")
    return digits.x, digits.y


def _writable(folder: Path) -> Path:
    """The cache folder, or a temporary one where there is no home to write to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.gettempdir()) / "calipers-cache"
    return folder
