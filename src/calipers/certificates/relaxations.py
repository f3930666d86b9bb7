"""Between two straight lines: sound linear bounds of activations and of max pooling over an interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from calipers.certificates.activations import Activation
from calipers.certificates.graph import Interval, Operator
from calipers.certificates.pooling import MaxPool

__all__ = ["Band", "Lines", "Picks", "between", "dot", "tangents"]


class Lines(Protocol):
    """What a bound needs of a nonlinear operator: its place taken by lines."""

    def back(self, a: Tensor) -> tuple[Tensor, Tensor]:
        r"""⟨a, f(x)⟩ ≥ ⟨back, x⟩ + constant, from a (N, R, \*out): (N, R, \*in) and (N, R)."""


@dataclass(frozen=True, eq=False)
class Band:
    r"""low·x + under ≤ f(x) ≤ high·x + over, elementwise: each (N, \*shape), or (N, R, \*shape) by row."""

    low: Tensor
    under: Tensor | None
    high: Tensor
    over: Tensor

    def back(self, a: Tensor) -> tuple[Tensor, Tensor]:
        up = a.clamp_min(0)
        down = a - up
        constant = dot(down, self.over)
        if self.under is not None:
            constant = constant + dot(up, self.under)
        low, high = (s if s.dim() == a.dim() else s[:, None] for s in (self.low, self.high))
        return up * low + down * high, constant


def dot(a: Tensor, b: Tensor) -> Tensor:
    r"""⟨a_r, b⟩ for a (N, R, \*shape) and b (N, \*shape), or b like a: (N, R)."""
    if b.dim() == a.dim():
        rows: Tensor = torch.linalg.vecdot(a.flatten(2), b.flatten(2))
        return rows
    return (a.flatten(2) @ b.expand(len(a), *a.shape[2:]).flatten(1)[:, :, None])[..., 0]


@dataclass(frozen=True, eq=False)
class Picks:
    r"""x[least] ≤ max over a window ≤ slope·x[most] + over; indices and numbers (N, outputs)."""

    least: Tensor
    most: Tensor
    slope: Tensor
    over: Tensor
    shape: tuple[int, ...]

    def back(self, a: Tensor) -> tuple[Tensor, Tensor]:
        flat = a.flatten(2)
        up = flat.clamp_min(0)
        down = flat - up
        at = a.new_zeros(*a.shape[:2], int(torch.Size(self.shape).numel()))
        at.scatter_add_(2, self.least[:, None].expand_as(up), up)
        at.scatter_add_(2, self.most[:, None].expand_as(up), down * self.slope[:, None])
        return at.view(*a.shape[:2], *self.shape), dot(down, self.over)


def between(op: Operator, interval: Interval) -> Lines:
    """The lines of a nonlinear operator over lo ≤ x ≤ hi, as tight as they are simple."""
    if isinstance(op, MaxPool):
        return _largest(op, *interval)
    assert isinstance(op, Activation)
    return tangents(op, *interval)


def tangents(op: Activation, lo: Tensor, hi: Tensor) -> Band:
    """The lines of an activation over lo ≤ x ≤ hi."""
    return _kinked(op.kink, lo, hi) if op.kink is not None else _smooth(op, lo, hi)


def _kinked(left: float, lo: Tensor, hi: Tensor) -> Band:
    """max(x, left·x): the chord above; below, whichever of the two slopes leaves the smaller area."""
    chord = (hi - left * lo) / (hi - lo).clamp_min(torch.finfo(lo.dtype).tiny)
    crossing = (lo < 0) & (hi > 0)
    one = torch.ones_like(lo)
    stable = torch.where(lo >= 0, one, left * one)
    high = torch.where(crossing, chord, stable)
    over = torch.where(crossing, (left - chord) * lo, 0.0)
    return Band(torch.where(crossing, torch.where(hi > -lo, one, left * one), stable), None, high, over)


# Cells into which an interval is cut, finest near 0 where functions bend: the bound loses about 1/CELLS² of its width.
_CELLS = 24


def _smooth(op: Activation, lo: Tensor, hi: Tensor) -> Band:
    r"""The best of four slopes on each side; intercepts from samples, made sound by a bound of \|f″\|.

    On a cell of width h a function differs from its chord by at most max\|f″\|·h²/8, so
    f(t) − λt ≥ min over cells of (the smaller end − max\|f″\|·h²/8): no root is sought, any λ is sound.
    """
    share = torch.linspace(0, 1, _CELLS + 1, dtype=lo.dtype, device=lo.device)
    start, stop = torch.asinh(lo)[..., None], torch.asinh(hi)[..., None]
    t = torch.sinh(start + (stop - start) * share)
    t = torch.minimum(torch.maximum(t, lo[..., None]), hi[..., None])
    t[..., 0], t[..., -1] = lo, hi
    value = op(t)
    left, right = t[..., :-1], t[..., 1:]
    nearest = torch.where(left * right > 0, torch.minimum(left.abs(), right.abs()), 0.0)
    assert op.curvature is not None
    slack = op.curvature(nearest) * (right - left).square() / 8
    middle = (lo + hi) / 2
    width = hi - lo
    step = 1e-4 * width.clamp_min(1e-6)
    tangent = (op(middle + step) - op(middle - step)) / (2 * step)
    chord = (value[..., -1] - value[..., 0]) / width.clamp_min(1e-12)
    tiny = 1e-12
    from_lo = (value - value[..., :1])[..., 1:] / (t - t[..., :1])[..., 1:].clamp_min(tiny)
    from_hi = (value[..., -1:] - value)[..., :-1] / (t[..., -1:] - t)[..., :-1].clamp_min(tiny)

    def best(sign: float, *slopes: Tensor) -> tuple[Tensor, Tensor]:
        """The slope with the highest line (sign 1: below f; −1: above −f) at the middle, and its intercept."""
        slope = torch.stack(slopes).clamp(0.0 if op.valley is None else -op.slope, op.slope)
        gap = sign * (value - slope[..., None] * t)
        intercept = (torch.minimum(gap[..., :-1], gap[..., 1:]) - slack).amin(-1)
        which = (sign * slope * middle + intercept).argmax(0, keepdim=True)
        return slope.gather(0, which)[0], sign * intercept.gather(0, which)[0]

    low, under = best(1.0, chord, tangent, from_lo.amin(-1), from_hi.amax(-1))
    high, over = best(-1.0, chord, tangent, from_lo.amax(-1), from_hi.amin(-1))
    return Band(low, under, high, over)


def _largest(op: MaxPool, lo: Tensor, hi: Tensor) -> Picks:
    """Below, the coordinate of the largest lower end; above, that of the largest upper end against the rest."""
    shape = tuple(lo.shape[1:])
    windows = op.windows.clamp_min(0)
    outside = (op.windows < 0)[None]
    lows = lo.flatten(1)[:, windows].masked_fill(outside, -torch.inf)
    highs = hi.flatten(1)[:, windows].masked_fill(outside, -torch.inf)
    top, which = highs.max(2)
    rest = highs.scatter(2, which[..., None], -torch.inf).amax(2)
    bottom = lows.gather(2, which[..., None])[..., 0]
    # max(x, rest) for x in [bottom, top] is below its chord; it is x itself where x is never below the rest.
    chord = (top - rest) / (top - bottom).clamp_min(torch.finfo(lo.dtype).tiny)
    slope = torch.where(rest <= bottom, 1.0, torch.where(rest < top, chord, 0.0))
    over = torch.where(rest <= bottom, 0.0, torch.where(rest < top, top - slope * top, torch.maximum(top, rest)))
    pick = windows[None].expand(len(lo), -1, -1)
    least = pick.gather(2, lows.argmax(2)[..., None])[..., 0]
    return Picks(least, pick.gather(2, which[..., None])[..., 0], slope, over, shape)
