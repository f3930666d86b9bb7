"""Which witnesses are shown: the nearest, the typical and the farthest ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calipers.errors import BadInput
from calipers.records import Run
from calipers.report.facts import Facts
from calipers.report.pictures import Picture, pictures
from calipers.report.words import named, number

__all__ = ["Exhibit", "gallery"]

_LARGE = 128 * 128


@dataclass(frozen=True)
class Exhibit:
    """One witness as it hangs in the gallery: its pictures, and what the model said before and after."""

    index: int
    label: str
    predicted: str
    distance: str
    attack: str
    lower: str
    certificate: str
    pictures: tuple[Picture, ...]


def gallery(run: Run, facts: Facts) -> dict[str, list[Exhibit]]:
    """The witnesses worth a look, by heading; empty if there is none.

    An example that was wrong from the start needed no change, so it is not shown.

    Raises:
        BadInput: if a witness belongs to no example of the run, or its arrays disagree in length.
    """
    index = _witness_index(run)
    rows = run.examples.reset_index(drop=True)
    where = {int(key): row for row, key in enumerate(rows["index"])}
    strange = [int(key) for key in index if int(key) not in where]
    if strange:
        raise BadInput(f"witnesses of {run.folder}", expected="examples of the run", got=f"example {strange[0]}")
    row_of = np.array([where[int(key)] for key in index], dtype=np.int64)
    distance = facts.upper[row_of]
    order = np.argsort(distance, kind="stable")
    order = order[distance[order] > 0]

    def hang(witness: int) -> Exhibit:
        row = rows.iloc[int(row_of[witness])]
        arrays = run.witnesses
        return Exhibit(
            index=int(row["index"]),
            label=facts.class_name(row["label"]),
            predicted=facts.class_name(arrays["predicted"][witness]),
            distance=number(float(row["upper"])),
            attack=named(row["attack"]),
            lower=number(float(row["lower"]), "any distance"),
            certificate=named(row["certificate"]),
            pictures=pictures(arrays["clean"][witness], arrays["adversarial"][witness], facts.box),
        )

    pixels = int(np.prod(run.witnesses["clean"].shape[-2:])) if len(index) else 0
    groups = _choose(order, 3 if pixels > _LARGE else 9)
    return {heading: [hang(int(at)) for at in chosen] for heading, chosen in groups.items() if len(chosen)}


def _witness_index(run: Run) -> np.ndarray:
    names = ("index", "clean", "adversarial", "predicted")
    if not run.witnesses:
        return np.empty(0, dtype=np.int64)
    lengths = {name: len(run.witnesses[name]) if name in run.witnesses else None for name in names}
    if len(set(lengths.values())) != 1:
        got = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise BadInput(f"witnesses of {run.folder}", expected="one row per witness in every array", got=got)
    return run.witnesses["index"]


def _choose(order: np.ndarray, each: int) -> dict[str, np.ndarray]:
    """The first, middle and last few of an ascending order; all of them if they are few."""
    if len(order) <= 3 * each:
        return {"All witnesses, nearest first": order}
    middle = (len(order) - each) // 2
    return {
        "Easiest to break": order[:each],
        "In the middle": order[middle : middle + each],
        "Hardest to break": order[-each:],
    }
