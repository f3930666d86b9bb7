"""At which radius an example is attacked next: up a ladder that was asked for, or in toward the smallest that works."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from calipers.attacks.method import Rows
from calipers.models import Classifier
from calipers.threats import Box, Threat

__all__ = ["Bisection", "Ladder", "Radii"]


class Radii(Protocol):
    """A plan of radii; ``rows.asked`` holds each example's present one, ``rows.low`` the largest that did not work."""

    @property
    def levels(self) -> int:
        """How many radii an example is attacked at, at most."""

    def first(self, rows: Rows) -> None:
        """Write ``rows.asked`` and ``rows.low`` before the first attempt."""

    def next(self, rows: Rows, level: Tensor, fell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The radius after the ``level``-th, the largest that did not work, and whether this was the last."""


class Ladder:
    """Ascending radii; an example that falls is not attacked at a larger one."""

    def __init__(self, radii: tuple[float, ...]) -> None:
        self.radii = torch.tensor(radii, dtype=torch.float64)
        self.levels = len(radii)

    def first(self, rows: Rows) -> None:
        self.radii = self.radii.to(rows.x.device)
        rows.asked = self.radii[:1].repeat(len(rows))
        rows.low = torch.zeros_like(rows.asked)

    def next(self, rows: Rows, level: Tensor, fell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        above = level + 1
        return self.radii[above.clamp_max(len(self.radii) - 1)], rows.asked, fell | (above >= len(self.radii))


class Bisection:
    r"""The smallest radius at which a fixed-budget attack succeeds: asked = √(low·high), for each example by itself.

    ``high`` is the distance of the nearest witness so far, at first the whole box; ``low`` at first 2⁻¹⁰ of it, and
    2⁻¹⁰ of a witness that is nearer still. Ten rounds leave 1 % between the two, and no round is spent once they are
    that close. Where the box is infinite, ±2¹⁰ a
    coordinate stand in for it, whatever the inputs: batch mates must not matter.
    """

    levels = 10

    def __init__(self, threat: Threat, model: Classifier) -> None:
        d = math.prod(model.shape)
        box = model.box if model.box.bounded else Box(-(2.0**10), 2.0**10)
        self.whole = threat.norm == "l0"
        self.reach = box.reach(threat.norm, d)
        self.least = 0.5 if self.whole else self.reach * 2.0 ** (-10 if model.box.bounded else -21)

    def first(self, rows: Rows) -> None:
        rows.low = torch.full_like(rows.best, self.least)
        rows.asked = self._between(rows.low, torch.full_like(rows.best, self.reach))

    def next(self, rows: Rows, level: Tensor, fell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        low = torch.where(fell, rows.low, rows.asked)
        high = rows.best.clamp_max(self.reach)
        if not self.whole:
            # Nothing has failed yet, and what was to be the least radius is too large.
            low = torch.where((low == self.least) & fell & (high <= 2 * low), high * 2.0**-10, low)
        asked = self._between(low, high)
        close = asked >= high if self.whole else high <= 1.01 * low
        return asked, low, close | (level + 1 >= self.levels)

    def _between(self, low: Tensor, high: Tensor) -> Tensor:
        middle = (low * high).sqrt()
        return torch.maximum(middle.floor(), low.floor() + 1) if self.whole else middle
