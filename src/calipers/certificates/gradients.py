"""Interval gradients: bounds of every partial derivative of combinations of the logits, over a set of inputs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from calipers.certificates.activations import Activation
from calipers.certificates.arithmetic import OURS
from calipers.certificates.graph import Graph, Interval, Operator
from calipers.certificates.pooling import MaxPool
from calipers.certificates.slopes import slopes_over

__all__ = ["gradient_interval"]


def gradient_interval(graph: Graph, bounds: Mapping[int, Interval], rows: Tensor) -> Interval:
    r"""Bounds of ∇⟨u_p, f(z)⟩ over all z for which every node's value lies in its bounds.

    Backwards from u: a linear operator maps the middle by Wᵀ and the half width by \|W\|ᵀ, an activation multiplies by
    the range of its slopes, and in a window of max pooling whoever can be the largest may have the whole gradient or
    nothing. Where f has kinks these are bounds of Clarke's generalised gradient, which is all the mean value theorem
    needs.

    Arguments:
        graph: the network.
        bounds: for every node that an activation or a max pooling reads, elementwise bounds (N, \*shape).
        rows: u, one set for each example, shape (N, P, K).

    Returns:
        lo and hi, shape (N, P, \*shape).
    """
    n, count = rows.shape[:2]
    middle: dict[int, Tensor] = {graph.last: rows.flatten(0, 1).double()}
    half: dict[int, Tensor] = {graph.last: torch.zeros_like(middle[graph.last])}
    for at, node in reversed(list(graph)):
        if at not in middle:
            continue  # nothing behind this node reaches the logits
        c, r = middle.pop(at), half.pop(at)
        if node.op.linear:
            parts = _through_linear(node.op, c, r, [graph.shape_of(i) for i in node.inputs])
        elif isinstance(node.op, Activation):
            slopes = tuple(s.repeat_interleave(count, 0) for s in slopes_over(node.op, bounds[node.inputs[0]]))
            parts = [_product(c, r, *slopes)]
        else:
            assert isinstance(node.op, MaxPool)
            lo, hi = (side.repeat_interleave(count, 0) for side in bounds[node.inputs[0]])
            parts = [_through_windows(node.op, c, r, lo, hi)]
        for i, (more, wider) in zip(node.inputs, parts, strict=True):
            middle[i] = middle[i] + more if i in middle else more
            half[i] = half[i] + wider + OURS * middle[i].abs() * 2 if i in half else wider
    c, r = (side[0].unflatten(0, (n, count)) for side in (middle, half))
    return c - r, c + r


def _through_linear(op: Operator, c: Tensor, r: Tensor, shapes: list[tuple[int, ...]]) -> list[tuple[Tensor, Tensor]]:
    """Wᵀc and |W|ᵀr for every input, with what the sums can lose; |W|ᵀ is the derivative of ``spread``."""
    unit = 4 * OURS * (c[0].numel() + 8)
    with torch.enable_grad():
        zeros = tuple(c.new_zeros(len(c), *shape, requires_grad=True) for shape in shapes)
        wider = torch.autograd.grad(op.spread(*zeros), zeros, r * (1 + unit) + unit * c.abs())
    return list(zip(op.transpose(c), wider, strict=True))  # type: ignore[attr-defined]


def _product(c: Tensor, r: Tensor, bottom: Tensor, top: Tensor) -> tuple[Tensor, Tensor]:
    """[c − r, c + r] · [bottom, top] as middle and half width."""
    ends = torch.stack([(c - r) * bottom, (c - r) * top, (c + r) * bottom, (c + r) * top])
    lo, hi = ends.amin(0), ends.amax(0)
    return (lo + hi) / 2, (hi - lo) / 2 + 4 * OURS * torch.maximum(lo.abs(), hi.abs())


def _through_windows(op: MaxPool, c: Tensor, r: Tensor, lo: Tensor, hi: Tensor) -> tuple[Tensor, Tensor]:
    """Every coordinate's share of its windows: 1 if it must be the largest, [0, 1] if it may be, 0 if it cannot."""
    m, windows, inside = len(c), op.windows, op.windows >= 0
    at = windows.clamp_min(0)
    low = torch.where(inside, lo.flatten(1)[:, at], -torch.inf)
    high = torch.where(inside, hi.flatten(1)[:, at], -torch.inf)
    may = high >= low.amax(2, keepdim=True)
    first, second = high.topk(2, dim=2).values.unbind(2) if windows.shape[1] > 1 else (high[:, :, 0], -torch.inf)
    others = torch.where(high == first[..., None], torch.as_tensor(second)[..., None], first[..., None])
    must = low > others
    middle, width = _product(c.flatten(1)[:, :, None], r.flatten(1)[:, :, None], must.double(), (may | must).double())
    shape = (m, lo[0].numel())
    target = at.flatten().expand(m, -1)
    parts = [torch.where(inside, part, 0.0).flatten(1) for part in (middle, width)]
    parts[1] = parts[1] + 64 * OURS * (parts[0].abs() + parts[1])
    middle, width = (torch.zeros(shape, dtype=c.dtype, device=c.device).scatter_add(1, target, p) for p in parts)
    return middle.view_as(lo), width.view_as(lo)
