"""How far it is to cross a hyperplane, or to leave the cell of an affine classifier, without leaving the box."""

from __future__ import annotations

import torch
from torch import Tensor

from calipers.threats.box import Box
from calipers.threats.norms import Norm, dual, norm

__all__ = ["cross", "leave_cell", "onto"]


def cross(x: Tensor, normal: Tensor, gap: Tensor, name: Norm, box: Box) -> tuple[Tensor, Tensor]:
    r"""The smallest step that gains ``gap``: min ‖δ‖_p subject to ⟨g, δ⟩ ≥ gap and x + δ in the box. Exact.

    Where the box does not bind this is gap / ‖g‖_q. With room_i how far coordinate i can move along sign(g_i): L∞ and
    L2 solve Σ w_i·min(t, b_i) = gap by sorting the b_i (L∞: w = |g|, b = room; L2: w = g², b = room/|g|); L1 fills the
    coordinates of the largest |g_i| first, L0 those of the largest |g_i|·room_i.

    Arguments:
        x: inputs in the box, shape (N, \*shape); float64 is advised.
        normal: g, shape (N, \*shape).
        gap: what is to be gained, shape (N,); nothing is needed where it is ≤ 0.
        name: which norm.
        box: the input box.

    Returns:
        radius (N,), ``inf`` where the box cannot give the gap; and δ like x, zero where the radius is 0 or inf.

    Example:
        >>> x, g = torch.tensor([[0.5, 0.5]]), torch.tensor([[2.0, -1.0]])
        >>> cross(x, g, torch.tensor([0.3]), "linf", Box(0, 1))[0]
        tensor([0.1000])
    """
    g = normal.flatten(1)
    lo, hi = (side.expand_as(x).flatten(1) for side in box.sides(x))
    centre, size = x.flatten(1), g.abs()
    room = torch.where(g > 0, hi - centre, centre - lo).clamp_min(0)
    room = torch.where(size > 0, room, 0.0)
    need = gap.clamp_min(0)[:, None]
    if name == "linf":
        move = torch.minimum(_level(size, room, need), room)
    elif name == "l2":
        level = _level(size.square(), torch.where(size > 0, room / size, 0.0), need)
        move = torch.minimum(torch.where(level.isinf(), torch.inf, level * size), room)
    else:
        move = _greedy(size, room, need, size if name == "l1" else _product(size, room))
    never = _product(size, room).sum(1) < need[:, 0]
    move = torch.where(never[:, None] | (size == 0), 0.0, move)
    radius = torch.where(never, torch.inf, norm(move, name))
    return radius, (move * g.sign()).view_as(x)


def onto(x: Tensor, slope: Tensor, value: Tensor, name: Norm, box: Box) -> Tensor:
    r"""The smallest step δ onto the plane value + ⟨slope, δ⟩ = 0 inside the box; as near to it as the box allows.

    Arguments:
        x: inputs in the box, shape (N, \*shape).
        slope: like x.
        value: on either side of 0, shape (N,).

    Example:
        >>> onto(torch.tensor([[0.5, 0.5]]), torch.tensor([[2.0, 0.0]]), torch.tensor([0.4]), "l2", Box(0, 1))
        tensor([[-0.2000, 0.0000]])
    """
    toward = -value.sign().view(-1, *[1] * (x.dim() - 1)) * slope
    radius, step = cross(x, toward, value.abs(), name, box)
    lo, hi = box.sides(x)
    corner = torch.where(toward > 0, hi, torch.where(toward < 0, lo, x)) - x
    missed = radius.isinf().view(-1, *[1] * (x.dim() - 1))
    return torch.where(missed, corner.nan_to_num(posinf=0.0, neginf=0.0), step)


def _product(weight: Tensor, limit: Tensor) -> Tensor:
    """weight·limit with 0·inf = 0."""
    return torch.where(weight > 0, weight * limit, 0.0)


def _level(weight: Tensor, limit: Tensor, need: Tensor) -> Tensor:
    """The t with Σ w_i·min(t, b_i) = need; inf where nothing is left to rise. Shape (N, 1)."""
    free, filled = (weight > 0) & (limit > 0), _product(weight, limit)
    # What is full at some t is full at the larger t that its being full asks for: the set only grows.
    for _ in range(weight.shape[1] + 1):
        rest = torch.where(free, weight, 0.0).sum(1, keepdim=True)
        left = need - torch.where(free, 0.0, filled).sum(1, keepdim=True)
        t = torch.where(rest > 0, (left / rest).clamp_min(0), torch.inf)
        full = free & (limit < t)
        if not bool(full.any()):
            break
        free &= ~full
    return t


def _greedy(size: Tensor, room: Tensor, need: Tensor, rank: Tensor) -> Tensor:
    """Fill coordinates in descending order of ``rank`` until Σ |g_i|·δ_i = need, the last one in part."""
    order = rank.argsort(dim=1, descending=True, stable=True)
    a, r = size.gather(1, order), room.gather(1, order)
    gains = _product(a, r)
    before = torch.cat([torch.zeros_like(need), gains.cumsum(1)[:, :-1]], 1)
    left = (need - before).clamp_min(0)
    move = torch.minimum(torch.where(a > 0, left / a.clamp_min(torch.finfo(a.dtype).tiny), 0.0), r)
    return torch.zeros_like(size).scatter(1, order, move)


def leave_cell(x: Tensor, weight: Tensor, logits: Tensor, y: Tensor, name: Norm, box: Box) -> tuple[Tensor, Tensor]:
    r"""The smallest step to where an affine classifier z = Wx + b no longer prefers y: min over j ≠ y of :func:`cross`.

    Classes are tried in the order of their distance without the box, until no remaining one can be nearer.

    Arguments:
        x: inputs, shape (N, \*shape).
        weight: W, shape (K, d).
        logits: Wx + b, shape (N, K); lower the others' to leave a reserve.
        y: labels, shape (N,).

    Returns:
        radius (N,) and δ like x; 0 where another class already leads.
    """
    best = torch.full_like(logits[:, 0], torch.inf)
    step = torch.zeros_like(x)
    gaps = logits.gather(1, y[:, None]) - logits
    if name == "l0":
        apart = torch.where(gaps > 0, 1.0, 0.0)
    else:
        q = dual(name)
        slope = torch.stack([norm(weight - weight[int(label)], q) for label in y.unique()])
        where = torch.searchsorted(y.unique(), y)
        apart = gaps.clamp_min(0) / slope[where].clamp_min(torch.finfo(x.dtype).tiny)
    apart = apart.scatter(1, y[:, None], torch.inf)
    ranked, order = apart.sort(dim=1, stable=True)
    for rank in range(logits.shape[1] - 1):
        open_ = (ranked[:, rank] < best).nonzero()[:, 0]
        if not len(open_):
            break
        other = order[open_, rank]
        normal = (weight[other] - weight[y[open_]]).view_as(x[open_])
        radius, delta = cross(x[open_], normal, gaps[open_, other], name, box)
        nearer = radius < best[open_]
        best[open_[nearer]], step[open_[nearer]] = radius[nearer], delta[nearer]
    return best, step
