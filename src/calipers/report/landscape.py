"""The loss around a few witnesses, as recorded: a heat map, two profiles, the saliency, and the numbers beside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calipers.errors import BadInput
from calipers.records import Run
from calipers.report.charts import SIDE, Chart, Shape, Tick, ticks
from calipers.report.facts import Facts
from calipers.report.pictures import Picture, heat, strength
from calipers.report.words import number

__all__ = ["View", "landscape"]

# What is told of each, in this order: the key in the record, what it is called, what it says.
_NUMBERS = (
    ("jump", "largest jump", "the largest share of the whole range between two neighbouring points; a straight line "
     "of n points has 1/(n − 1), a cliff 1"),
    ("roughness", "roughness", "how much the slope changes along a line, for a range and a length of 1; 0 for a "
     "straight line, 8 for a bowl, 2(n − 1) for a cliff between n points"),
    ("gini", "sparsity of the saliency", "the Gini index of |∂loss/∂x| at the witness: 0 if all features count the "
     "same, near 1 if few do"),
    ("foreground", "saliency in the foreground", "the share of |∂loss/∂x| on features that are nearer to the "
     "box's upper than to its lower end"),
)  # fmt: skip


@dataclass(frozen=True)
class View:
    """One witness and the loss around it."""

    index: int
    heading: str
    heat: Picture
    here: tuple[float, float]
    witness: tuple[float, float]
    lowest: str
    highest: str
    profile: Chart
    saliency: Picture
    numbers: tuple[tuple[str, str, str], ...]


def landscape(run: Run, facts: Facts) -> list[View]:
    """The recorded views; empty if the run has none.

    Raises:
        BadInput: if the record lacks an array, or a view belongs to no example of the run.
    """
    record = run.landscape
    if not record:
        return []
    missing = [name for name in ("index", "loss", "toward", "aside", "saliency") if name not in record]
    if missing:
        raise BadInput(f"landscape of {run.folder}", expected="its arrays", got=f"no {', '.join(missing)}")
    rows = {int(key): at for at, key in enumerate(run.examples["index"])}
    strange = [int(key) for key in record["index"] if int(key) not in rows]
    if strange:
        raise BadInput(f"landscape of {run.folder}", expected="examples of the run", got=f"example {strange[0]}")
    return [_view(run, facts, at, rows[int(key)]) for at, key in enumerate(record["index"])]


def _view(run: Run, facts: Facts, at: int, row: int) -> View:
    record, loss = run.landscape, run.landscape["loss"][at].astype(np.float64)
    toward, aside = record["toward"], record["aside"]
    index, label = int(record["index"][at]), facts.class_name(run.examples["label"].iloc[row])
    distance = number(float(facts.upper[row]))
    return View(
        index=index,
        heading=f"Example {index}, label {label}, witness at distance {distance}",
        heat=heat("loss around the example", loss[::-1]),
        here=(_percent(0, toward), 100 - _percent(0, aside)),
        witness=(_percent(1, toward), 100 - _percent(0, aside)),
        lowest=number(float(loss.min())),
        highest=number(float(loss.max())),
        profile=_profile(f"profile-{index}", loss, toward, aside),
        saliency=strength("saliency at the witness", record["saliency"][at]),
        numbers=tuple(
            (name, number(float(record[key][at])), meaning) for key, name, meaning in _NUMBERS if key in record
        ),
    )


def _percent(value: float, steps: np.ndarray) -> float:
    return round(100 * float((value - steps[0]) / (steps[-1] - steps[0])), 2)


def _profile(name: str, loss: np.ndarray, toward: np.ndarray, aside: np.ndarray) -> Chart:
    """The loss along both directions through the example, over the same steps."""
    ahead, across = loss[np.abs(aside).argmin()], loss[:, np.abs(toward).argmin()]
    low, high = float(min(ahead.min(), across.min(), 0.0)), float(max(ahead.max(), across.max()))
    low, high = (low, high) if high > low else (low, low + 1.0)

    def line(kind: str, steps: np.ndarray, values: np.ndarray) -> Shape:
        x = SIDE * (steps - toward[0]) / (toward[-1] - toward[0])
        y = SIDE * (1 - (values - low) / (high - low))
        inside = (x >= -1e-6) & (x <= SIDE + 1e-6)
        return Shape(kind, "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x[inside], y[inside], strict=True)))

    stops = tuple(round(float(10 * _percent(float(step), toward)), 2) for step in toward)
    told = tuple(
        f"{step:.2f} of the way to the witness: loss {number(v)}" for step, v in zip(toward, ahead, strict=True)
    )
    marks = (Tick(_percent(0, toward), "example"), Tick(_percent(1, toward), "witness"))
    return Chart(
        name, "The loss toward the witness and along a random direction.",
        (line("random-line", aside, across), line("attacked-line", toward, ahead)), (),
        tuple(Tick(tick.at, tick.text) for tick in ticks(high, 3)) if low == 0 else (), "distance", "loss", marks,
        stops, told, tall=13.0,
    )  # fmt: skip
