"""Where the input may be: a ball around x, cut by the box; and the least value of a linear function there."""

from __future__ import annotations

import torch
from torch import Tensor

from calipers.certificates.arithmetic import OURS
from calipers.threats import Box, Norm

__all__ = ["Domain", "ball_interval"]


def ball_interval(x: Tensor, radius: Tensor, box: Box) -> tuple[Tensor, Tensor]:
    """The smallest box around ball ∩ box, rounded outward."""
    r = radius.view(-1, *[1] * (x.dim() - 1))
    down, up = torch.full_like(x, -torch.inf), torch.full_like(x, torch.inf)
    return box.clamp(torch.nextafter(x - r, down)), box.clamp(torch.nextafter(x + r, up))


class Domain:
    r"""{z : ‖z − x‖_p ≤ r} ∩ box for a batch of x (N, \*shape) and radii (N,), in float64; p = ∞, 2 or 1."""

    def __init__(self, x: Tensor, radius: Tensor, norm: Norm, box: Box) -> None:
        self.x, self.radius, self.norm, self.box = x, radius, norm, box
        self.lo, self.hi = ball_interval(x, radius, box)
        lo, hi = self.lo.flatten(1), self.hi.flatten(1)
        self._size = torch.maximum(lo.abs(), hi.abs())[:, :, None]
        self._down, self._up = (x.flatten(1) - lo)[:, None], (hi - x.flatten(1))[:, None]

    def rows(self, some: Tensor) -> Domain:
        """The same for some of the examples."""
        return Domain(self.x[some], self.radius[some], self.norm, self.box)

    def lowest(self, a: Tensor) -> Tensor:
        r"""min of ⟨a, z⟩ over the domain for every row of a (N, R, \*shape): (N, R), rounded down.

        L∞ takes the worse side of every coordinate. L2 and L1 maximise the dual over the multiplier λ of the ball,
        over steps 0 ≤ t_i ≤ room_i; any λ ≥ 0 gives a valid bound, so how exactly it is found does not matter.

        Example:
            >>> x, r = torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
            >>> [round(Domain(x, r, p, Box(-2, 0.5)).lowest(-torch.ones(1, 1, 2).double()).item(), 6)
            ...  for p in ("linf", "l2", "l1")]
            [-1.0, -1.0, -1.0]
        """
        a = a.flatten(2)
        size = a.abs()
        error = (size @ self._size)[..., 0] * (4 * (a.shape[2] + 16) * OURS)
        if self.norm == "linf":
            middle, half = (self._up - self._down) / 2, (self._up + self._down) / 2
            centre = (self.x.flatten(1) + middle[:, 0])[:, :, None]
            return (a @ centre)[..., 0] - (size @ half.transpose(1, 2))[..., 0] - error
        # 1e-11 covers the float64 arithmetic of the dual value.
        gain = torch.cat([self._gain(a[some], size[some], some) for some in self._blocks(a)]) * (1 + 1e-11)
        return (a @ self.x.flatten(1)[:, :, None])[..., 0] - gain - error

    def minimiser(self, a: Tensor) -> Tensor:
        r"""Where ⟨a, z⟩ is least over the domain, nearly for L2, for every row of a (N, R, \*shape): like a.

        Example:
            >>> x, r = torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
            >>> Domain(x, r, "l2", Box(-2, 0.5)).minimiser(-torch.ones(1, 1, 2).double()).numpy().round(3)
            array([[[0.5, 0.5]]])
        """
        flat, centre = a.flatten(2), self.x.flatten(1)[:, None]
        room, radius = torch.where(flat > 0, self._down, self._up), self.radius[:, None]
        if self.norm == "linf":
            step = room
        elif self.norm == "l2":
            level = _level_l2(flat.abs(), room, radius)
            step = torch.minimum(flat.abs() / level[..., None].clamp_min(1e-300), room)
            step = step * (radius / step.norm(dim=2).clamp_min(1e-300)).clamp_max(1.0)[..., None]
        else:
            order = flat.abs().argsort(dim=2, descending=True)
            rooms = room.gather(2, order)
            spent = rooms.cumsum(2) - rooms
            step = torch.minimum((radius[..., None] - spent).clamp_min(0), rooms)
            step = torch.zeros_like(flat).scatter(2, order, step)
        return (centre - flat.sign() * step).view_as(a)

    @staticmethod
    def _blocks(a: Tensor) -> list[slice]:
        # As many examples at once as stay in a processor's cache.
        count = max(1, 2**17 // a[0].numel()) if a.device.type == "cpu" else len(a)
        return [slice(start, start + count) for start in range(0, len(a), count)]

    def _gain(self, a: Tensor, size: Tensor, some: slice) -> Tensor:
        """An upper bound of max Σ m_i t_i over steps 0 ≤ t ≤ room of the ball, m = |a|: (N, R)."""
        room = torch.where(a > 0, self._down[some], self._up[some])
        return (_gain_l2 if self.norm == "l2" else _gain_l1)(size, room, self.radius[some, None])


def _gain_l2(size: Tensor, room: Tensor, r: Tensor) -> Tensor:
    """λr²/2 + Σ of the largest m_i t_i − λ t_i²/2."""
    r = r.clamp_min(torch.finfo(size.dtype).tiny)
    level = _level_l2(size.detach(), room, r)
    step = torch.minimum(size / level[..., None].clamp_min(1e-300), room).detach()
    return _inner(step, size) + level / 2 * (r.square() - _inner(step, step))


def _level_l2(size: Tensor, room: Tensor, r: Tensor, looks: int = 4) -> Tensor:
    """The λ at which ‖t‖ = r, nearly: the dual is flat there, a relative error of 1e-2 costs 1e-4 at most."""
    squares, rooms = size.square(), room.square()
    level = _inner(squares, (room > 0).to(size)).sqrt() / r
    total = rooms.sum(2)
    for _ in range(looks):
        # Coordinates that hit the box leave more of the radius to the others: λ falls to the solution.
        free = (size < level[..., None] * room).to(size)
        rest = (r.square() - total + _inner(rooms, free)).clamp_min(0).sqrt()
        among = _inner(squares, free).sqrt()
        lower = torch.where(among > 0, among / rest.clamp_min(1e-300), 0.0)
        settled = bool((lower >= level * (1 - 1e-2)).all())
        level = torch.minimum(lower, level)
        if settled:
            break
    return level


def _inner(a: Tensor, b: Tensor) -> Tensor:
    product: Tensor = torch.linalg.vecdot(a, b)
    return product


def _gain_l1(size: Tensor, room: Tensor, r: Tensor) -> Tensor:
    """λr + Σ max(m_i − λ, 0)·room_i, with λ the m_i at which the budget is spent; 0 if the box is spent first."""
    ordered, order = size.detach().sort(dim=2, descending=True)
    full = room.gather(2, order).cumsum(2) >= r[..., None]
    first = torch.where(full.any(2), full.to(torch.int8).argmax(2), -1)
    level = torch.where(first >= 0, ordered.gather(2, first.clamp_min(0)[..., None])[..., 0], 0.0)
    gain: Tensor = level * r + ((size - level[..., None]).clamp_min(0) * room).sum(2)
    return gain
