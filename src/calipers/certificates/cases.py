"""What branch and bound works on: cases, lines that say where to cut next, and the ascent of a case's multipliers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from calipers.certificates.relaxations import Band

__all__ = ["Cases", "Climb", "Watched"]


@dataclass(eq=False)
class Cases:
    r"""Cases still to be proved; one row each.

    ``goal`` is the row whose least value is sought, (B, \*shape of its node); ``lo`` and ``hi`` bound the inputs of
    each activation, ``cut_lo`` and ``cut_hi`` say where a cut made them so; ``alpha``, ``beta_lo`` and ``beta_hi``
    are the last multipliers.
    """

    goal: Tensor
    lo: dict[int, Tensor]
    hi: dict[int, Tensor]
    cut_lo: dict[int, Tensor]
    cut_hi: dict[int, Tensor]
    alpha: dict[int, Tensor]
    beta_lo: dict[int, Tensor]
    beta_hi: dict[int, Tensor]

    def take(self, at: Tensor) -> Cases:
        parts = (self.lo, self.hi, self.cut_lo, self.cut_hi, self.alpha, self.beta_lo, self.beta_hi)
        return Cases(self.goal[at], *({i: t[at] for i, t in part.items()} for part in parts))

    def join(self, other: Cases) -> Cases:
        pairs = (
            (self.lo, other.lo), (self.hi, other.hi), (self.cut_lo, other.cut_lo), (self.cut_hi, other.cut_hi),
            (self.alpha, other.alpha), (self.beta_lo, other.beta_lo), (self.beta_hi, other.beta_hi),
        )  # fmt: skip
        joined = ({i: torch.cat([mine[i], theirs[i]]) for i in mine} for mine, theirs in pairs)
        return Cases(torch.cat([self.goal, other.goal]), *joined)


class Watched:
    """Lines that remember how much of the bound they may cost."""

    def __init__(self, band: Band, lo: Tensor, hi: Tensor, kinked: bool) -> None:
        self.band, self.lo, self.hi, self.kinked = band, lo, hi, kinked
        under = None if band.under is None else band.under[None]
        self.rows = Band(band.low[None], under, band.high[None], band.over[None])
        self.loss = torch.zeros_like(lo)

    def back(self, a: Tensor) -> tuple[Tensor, Tensor]:
        weight, band = a[0].detach(), self.band
        if self.kinked:
            # What the chord adds at the kink. The slope below is free to adapt: it counts only among equals.
            self.loss = (1e-9 + (-weight).clamp_min(0) * band.over) * ((self.lo < 0) & (self.hi > 0))
        else:
            # How far the lines are apart in the middle.
            middle, under = (self.lo + self.hi) / 2, 0.0 if band.under is None else band.under
            self.loss = weight.abs() * ((band.high - band.low) * middle + band.over - under).clamp_min(0)
        return self.rows.back(a)


class Climb:
    """Adam, upwards, with a rate that falls: Kingma & Ba 2015. torch.optim takes seconds to import, on first use."""

    def __init__(self, start: list[Tensor], rate: float = 0.3, fall: float = 0.95, memory: float = 0.9) -> None:
        self.leaves = [t.detach().clone().requires_grad_() for t in start]
        self.rate, self.fall, self.memory, self.count = rate, fall, memory, 0
        self.first, self.second = [torch.zeros_like(t) for t in start], [torch.zeros_like(t) for t in start]

    def step(self, grads: Sequence[Tensor]) -> None:
        self.count += 1
        scale = 1 - self.memory**self.count
        for leaf, grad, first, second in zip(self.leaves, grads, self.first, self.second, strict=True):
            first.lerp_(grad, 1 - self.memory)
            # No denormal numbers: their square roots are a hundred times slower.
            second.lerp_(grad.square().clamp_min_(1e-30), 1 - self.memory)
            leaf.data.addcdiv_(first, second.sqrt(), value=self.rate / scale**0.5)
        self.rate *= self.fall
