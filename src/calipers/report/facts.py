"""What a page says about a run, read once from its records; every key of ``run.about`` may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from calipers.errors import BadInput
from calipers.records import Run

__all__ = ["Facts", "facts_of", "part"]

_COLUMNS = ("index", "label", "predicted", "lower", "certificate", "upper", "attack", "forwards", "gradients")
_NORMS = {"linf": "L∞", "l2": "L2", "l1": "L1", "l0": "L0"}


@dataclass(frozen=True, eq=False)
class Facts:
    """The names, the brackets and the circumstances of one run.

    Arguments:
        model: the model's name.
        data: the data set's name.
        norm: the norm as asked for, e.g. ``"linf"``; empty if the run does not say.
        eps: the radii asked for, ascending; none if only the minimal distortion was asked for.
        class_names: K names, or none.
        box: the values an input may take, if it is one pair of numbers.
        size: how many examples the data set holds, if known.
        lower: certified radii, float64, shape (N,), finite or inf.
        upper: distances of the witnesses, float64, shape (N,); inf where there is none.
        witness: the row of every witness among the examples, shape (M,).
    """

    model: str
    data: str
    norm: str
    eps: tuple[float, ...]
    class_names: tuple[str, ...]
    box: tuple[float, float] | None
    size: int | None
    lower: np.ndarray
    upper: np.ndarray
    witness: np.ndarray

    @property
    def norm_sign(self) -> str:
        """The norm as it is written on the page, e.g. ``"L∞"``."""
        return _NORMS.get(self.norm, self.norm)

    @property
    def sampled(self) -> bool:
        """Whether the examples are only a part of the data set."""
        return self.size is not None and self.size > len(self.lower)

    def class_name(self, label: object) -> str:
        """The name of a class, or its number if it has none."""
        number = int(str(label))
        return self.class_names[number] if 0 <= number < len(self.class_names) else str(number)


def part(run: Run, key: str) -> dict[str, object]:
    """One section of ``run.about``; empty if missing, ``{"name": …}`` if it is a bare word."""
    value = run.about.get(key)
    if isinstance(value, Mapping):
        return {str(k): v for k, v in value.items()}
    return {} if value is None else {"name": value}


def facts_of(run: Run) -> Facts:
    """Read a run's facts, and refuse records that cannot be told truthfully.

    Raises:
        BadInput: if there is no example, a column is missing, an index occurs twice, or a bracket is not
            0 ≤ lower ≤ upper, a witness belongs to no example, or the witnesses' arrays disagree in length.
    """
    lower, upper = _brackets(run)
    model, data, settings = part(run, "model"), part(run, "data"), part(run, "settings")
    threats = run.summary.threats
    names = data.get("class_names")
    size = data.get("size")
    return Facts(
        model=str(model.get("name") or settings.get("model") or "a model"),
        data=str(data.get("name") or settings.get("data") or "unnamed data"),
        norm=threats[0].norm if threats else str(settings.get("norm") or ""),
        eps=tuple(sorted(threat.eps for threat in threats)),
        class_names=tuple(str(name) for name in names) if isinstance(names, list | tuple) else (),
        box=_box(run.about.get("box")),
        size=size if isinstance(size, int) else None,
        lower=lower,
        upper=upper,
        witness=_witness(run),
    )


def _brackets(run: Run) -> tuple[np.ndarray, np.ndarray]:
    where = f"examples of {run.folder}"
    missing = [name for name in _COLUMNS if name not in run.examples.columns]
    if missing:
        raise BadInput(where, expected=f"columns {', '.join(_COLUMNS)}", got=f"no {', '.join(missing)}")
    if run.examples.empty:
        raise BadInput(where, expected="at least one example", got=0)
    if not run.examples["index"].is_unique:
        twice = run.examples["index"][run.examples["index"].duplicated()].iloc[0]
        raise BadInput(where, expected="every index once", got=f"index {twice} twice")
    lower = run.examples["lower"].to_numpy(dtype=np.float64)
    upper = run.examples["upper"].to_numpy(dtype=np.float64)
    bad = np.flatnonzero(~((lower >= 0) & (lower <= upper)))  # NaN is bad too
    if bad.size:
        at = bad[0]
        raise BadInput(
            f"example {run.examples['index'].iloc[at]} of {run.folder}",
            expected="0 ≤ lower ≤ upper",
            got=f"lower {lower[at]} and upper {upper[at]}",
        )
    return lower, upper


def _witness(run: Run) -> np.ndarray:
    names = ("index", "clean", "adversarial", "predicted")
    if not run.witnesses:
        return np.empty(0, dtype=np.int64)
    lengths = {name: len(run.witnesses[name]) if name in run.witnesses else None for name in names}
    if len(set(lengths.values())) != 1:
        got = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise BadInput(f"witnesses of {run.folder}", expected="one row per witness in every array", got=got)
    where = {int(key): row for row, key in enumerate(run.examples["index"])}
    strange = [int(key) for key in run.witnesses["index"] if int(key) not in where]
    if strange:
        raise BadInput(f"witnesses of {run.folder}", expected="examples of the run", got=f"example {strange[0]}")
    return np.array([where[int(key)] for key in run.witnesses["index"]], dtype=np.int64)


def _box(value: object) -> tuple[float, float] | None:
    pair = isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(v, int | float) for v in value)
    return (float(value[0]), float(value[1])) if pair and isinstance(value, list | tuple) else None
