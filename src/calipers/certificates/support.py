"""How much a function can lose within ball ∩ box when its gradient is known to within an interval."""

from __future__ import annotations

import torch
from torch import Tensor

from calipers.threats import Box, Norm

__all__ = ["largest_loss"]

_UP = 1 + 1e-10


def largest_loss(lo: Tensor, hi: Tensor, x: Tensor, radius: Tensor, norm: Norm, box: Box) -> Tensor:
    r"""max over ‖δ‖_p ≤ r, x + δ in the box, of Σ_i max(−lo_i δ_i, −hi_i δ_i), from above: shape (N, P).

    A coordinate loses −lo_i by every unit it rises, and hi_i by every unit it falls. L∞ is a sum. L2 is bounded by its
    Lagrangian λr² + Σ max over both directions of (slope·s − λs²), s up to where the box ends; every λ ≥ 0 gives a
    bound, and a few rounds find nearly the best. L1 spends the radius where the loss is steepest.

    Arguments:
        lo, hi: bounds of the gradient of P functions, shape (N, P, \*shape), float64.
        x: centres, shape (N, \*shape).
        radius: r, shape (N,).
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        box: the input box.

    Example:
        >>> g = torch.tensor([[[3.0, -4.0]]], dtype=torch.float64)
        >>> x, r = torch.tensor([[0.5, 0.5]], dtype=torch.float64), torch.tensor([0.25], dtype=torch.float64)
        >>> [round(largest_loss(g, g, x, r, p, Box(0, 1)).item(), 6) for p in ("linf", "l2", "l1")]
        [1.75, 1.25, 1.0]
    """
    down, up = (side.expand_as(x).flatten(1)[:, None] for side in box.sides(x))
    centre, r = x.flatten(1)[:, None], radius[:, None, None] * _UP
    slopes = torch.stack([-lo.flatten(2), hi.flatten(2)]).clamp_min(0)
    rooms = torch.stack([up - centre, centre - down]).clamp_min(0).minimum(r).expand_as(slopes)
    if norm == "linf":
        return (slopes * rooms).amax(0).sum(2) * _UP
    if norm == "l1":
        return _steepest_first(slopes, rooms, r[:, :, 0]) * _UP
    return _lagrangian(slopes, rooms, r[:, :, 0]) * _UP


def _steepest_first(slopes: Tensor, rooms: Tensor, r: Tensor) -> Tensor:
    """Both directions of a coordinate as two items: fill them in the order of their slopes until r is spent."""
    slope, order = torch.cat(tuple(slopes), 2).sort(dim=2, descending=True)
    room = torch.cat(tuple(rooms), 2).gather(2, order)
    before = room.cumsum(2) - room
    return (slope * torch.minimum(room, (r[:, :, None] - before).clamp_min(0))).sum(2)


def _lagrangian(slopes: Tensor, rooms: Tensor, r: Tensor, rounds: int = 6) -> Tensor:
    """Without the box λ = ‖slope‖/2r; a round fixes the coordinates at their ends and solves for the others."""
    steepest = slopes.amax(0)
    multiplier = steepest.norm(dim=2) / (2 * r).clamp_min(1e-300)
    best = torch.full_like(multiplier, torch.inf)
    for _ in range(rounds):
        twice = (2 * multiplier).clamp_min(1e-300)[:, :, None]
        step = torch.minimum(slopes / twice, rooms)
        gain, which = (slopes * step - multiplier[:, :, None] * step.square()).max(0)
        best = torch.minimum(best, multiplier * r.square() + gain.sum(2))
        step = step.gather(0, which[None])[0]
        slope, room = slopes.gather(0, which[None])[0], rooms.gather(0, which[None])[0]
        fixed = (slope > 0) & (step >= room)
        left = (r.square() - torch.where(fixed, room, 0.0).square().sum(2)).clamp_min(0)
        free = torch.where(fixed, 0.0, slope).square().sum(2)
        # Nothing left to move: the box gives out before the radius does, and the multiplier goes to zero.
        multiplier = torch.where(left > 0, (free / (4 * left).clamp_min(1e-300)).sqrt(), multiplier)
    everything = (slopes * rooms).amax(0).sum(2)
    return torch.minimum(best, everything)
