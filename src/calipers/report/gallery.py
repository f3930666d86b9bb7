"""The witnesses: each with its pictures, what the model said before and after, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calipers.records import Run
from calipers.report.facts import Facts
from calipers.report.pictures import Picture, pictures
from calipers.report.words import named, number

__all__ = ["Exhibit", "gallery"]

# What all pictures together may weigh, in bytes, so that the page stays below 5 MB.
_ROOM = 3_400_000
_MOST = 1000


@dataclass(frozen=True)
class Exhibit:
    """One witness as it hangs in the gallery."""

    index: int
    label: str
    predicted: str
    distance: str
    attack: str
    lower: str
    certificate: str
    pictures: tuple[Picture, ...]


def gallery(run: Run, facts: Facts) -> tuple[list[Exhibit], int]:
    """The witnesses, nearest first, and how many there are; as many are shown, evenly by rank, as 3.4 MB hold.

    An example that was wrong from the start needed no change, so it is not shown.
    """
    rows = run.examples.reset_index(drop=True)
    distance = facts.upper[facts.witness]
    order = np.argsort(distance, kind="stable")
    order = order[distance[order] > 0]

    def hang(witness: int) -> Exhibit:
        row = rows.iloc[int(facts.witness[witness])]
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

    sample = [hang(int(at)) for at in _evenly(order, 6)]
    weight = max((sum(picture.weight for picture in it.pictures) for it in sample), default=1)
    shown = _evenly(order, min(_MOST, max(_ROOM // weight, 3)))
    return [hang(int(at)) for at in shown], len(order)


def _evenly(order: np.ndarray, count: int) -> np.ndarray:
    """The first, the last and evenly spaced ones between, ``count`` in all; all of them if they are few."""
    return order if len(order) <= count else order[np.linspace(0, len(order) - 1, count).round().astype(int)]
