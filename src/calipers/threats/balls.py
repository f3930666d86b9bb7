"""Moves inside ball ∩ box: the exact projection, the steepest step, a uniform sample."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from calipers.threats.box import Box
from calipers.threats.norms import Norm, distance, norm

__all__ = ["inside", "project", "sample", "steepest"]

# A source of random numbers: draw("uniform" | "normal", (n, d)) gives one row per example.
Draw = Callable[[str, tuple[int, int]], Tensor]


def project(z: Tensor, x: Tensor, eps: Tensor | float, name: Norm, box: Box) -> Tensor:
    r"""The point of ball ∩ box nearest to z: argmin_v ‖v − z‖₂ subject to ‖v − x‖_p ≤ eps and v in the box.

    L∞ is a clamp. L2 solves ‖clip(tδ)‖ = eps for t by an active set that grows until it is exact. L1 solves
    Σ clip(|δ| − λ, 0, c) = eps for λ by sorting its breakpoints ("Mind the Box: l1-APGD for Sparse Adversarial
    Attacks on Image Classifiers", Croce & Hein 2021, Prop. 2.1). L0 keeps the floor(eps) coordinates that gain most.
    The stored result is inside the ball as measured by :func:`calipers.threats.distance`: the radius is reduced by
    what rounding to the dtype of ``z`` can add.

    Arguments:
        z: points to project, shape (N, \*shape).
        x: centres, inside the box, shape (N, \*shape).
        eps: radius, or one per example, shape (N,).
        name: which norm.
        box: the input box.

    Example:
        >>> x = torch.zeros(1, 2)
        >>> project(torch.tensor([[3.0, 4.0]]), x, 1.0, "l2", Box(-1, 1)).norm().item() <= 1
        True
    """
    centre = x.flatten(1)
    delta = z.flatten(1) - centre
    asked = torch.as_tensor(eps, dtype=z.dtype, device=z.device).expand(len(z))[:, None]
    radius = _inner_radius(centre, delta, asked, name)
    if name == "linf":
        moved = delta.clamp(-radius, radius)
    else:
        lo, hi = (side.expand_as(z).flatten(1) for side in box.sides(z))
        room = torch.where(delta > 0, hi - centre, centre - lo)
        moved = _SHRINK[name](delta.abs(), room, radius).copysign(delta)
    return box.clamp((centre + moved).view_as(z))


def _inner_radius(x: Tensor, delta: Tensor, eps: Tensor, name: Norm) -> Tensor:
    """eps less what rounding x + δ to x's dtype can add to the distance: (N, 1), in L∞ (N, d)."""
    if name == "l0":
        return eps.floor()
    unit = torch.finfo(x.dtype).eps / 2
    # Rounding x + δ moves a coordinate by unit·(|x| + |δ|) at most, and not at all where δ is 0; in L∞ each has its
    # own. The norms here and in `distance` add theirs.
    moved = x.abs() if name == "linf" else norm(torch.where(delta == 0, 0.0, x), name)[:, None]
    slack = unit * (2 * (moved + eps) + 32 * eps) + 2.0**-53 * (x.shape[1] + 8) * eps
    if name == "l1":
        # Where the sum is cut is found in float64, from the sum of all that was asked for.
        slack = slack + 2.0**-53 * (4 * x.shape[1] + 8) * norm(delta, name)[:, None]
    return torch.where(eps.isinf(), eps, (eps - slack).clamp_min(0))


def _shrink_l2(size: Tensor, room: Tensor, radius: Tensor) -> Tensor:
    """min(t·|δ|, c) with the largest t ≤ 1 that keeps the norm at most the radius."""
    full = torch.minimum(size, room)
    over = norm(full, "l2")[:, None] > radius
    if not bool(over.any()):
        return full
    free, size2, room2 = room > 0, size.square(), room.square()
    t = torch.zeros_like(radius)
    for _ in range(size.shape[1] + 1):
        fixed = torch.where(free, 0.0, room2).sum(1, keepdim=True)
        loose = torch.where(free, size2, 0.0).sum(1, keepdim=True)
        t = ((radius.square() - fixed).clamp_min(0) / loose.clamp_min(torch.finfo(size.dtype).tiny)).sqrt()
        full_now = free & over & (t * size >= room)
        if not bool(full_now.any()):
            break
        free &= ~full_now
    return torch.where(over, torch.minimum(t * size, room), full)


def _shrink_l1(size: Tensor, room: Tensor, radius: Tensor) -> Tensor:
    """clip(|δ| − λ, 0, c) with the smallest λ ≥ 0 that keeps the sum at most the radius."""
    full = torch.minimum(size, room)
    over = full.sum(1, keepdim=True) > radius
    if not bool(over.any()):
        return full
    # The sum as a function of λ is piecewise linear: it starts to fall at |δ| − c and stops at |δ|.
    start, stop = (size - room).clamp_min(0), size
    points, order = torch.cat([start, stop], 1).double().sort(1)
    turns = torch.cat([-torch.ones_like(size), torch.ones_like(size)], 1).double()
    slope = turns.gather(1, order).cumsum(1)
    falls = slope[:, :-1] * points.diff(dim=1)
    total = torch.cat([torch.zeros_like(points[:, :1]), falls.cumsum(1)], 1) + full.double().sum(1, keepdim=True)
    below = (total > radius).sum(1, keepdim=True).clamp(1, points.shape[1] - 1) - 1
    at, level, rate = points.gather(1, below), total.gather(1, below), slope.gather(1, below)
    cut = at + (level - radius) / rate.neg().clamp_min(1e-300)
    # One step up, so that no coordinate keeps more than it may.
    cut = torch.nextafter(cut.to(size.dtype), cut.new_tensor(torch.inf, dtype=size.dtype))
    shrunk = (size - cut).clamp_min(0).minimum(room)
    return torch.where(over, shrunk, full)


def _keep_largest(size: Tensor, room: Tensor, radius: Tensor) -> Tensor:
    """min(|δ|, c) on the radius-many coordinates whose keeping saves most, 0 elsewhere."""
    kept = torch.minimum(size, room)
    gain = size.square() - (size - kept).square()
    rank = gain.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return torch.where(rank < radius, kept, 0.0)


_SHRINK = {"l2": _shrink_l2, "l1": _shrink_l1, "l0": _keep_largest}


def inside(z: Tensor, x: Tensor, eps: Tensor | float, name: Norm, box: Box) -> Tensor:
    r"""Whether each z_n lies in the box and within eps of x_n, measured in float64 and rounded up: bool (N,)."""
    return (distance(x, z, name) <= eps) & box.contains(z)


def steepest(grad: Tensor, name: Norm, room: Tensor | None = None, count: int | Tensor = 1) -> Tensor:
    r"""The unit step v that gains most: argmax ⟨g, v⟩ subject to ‖v‖_p ≤ 1.

    L∞: sign(g). L2: g/‖g‖₂. L1: sign(g)/k on the k largest |g| (k = 1 is the exact maximiser; more mix faster on
    images). L0: sign(g) on the k largest |g|.

    Arguments:
        grad: shape (N, \*shape).
        name: which norm.
        room: how far each coordinate can still move along sign(g); coordinates with no room are left out (L1, L0).
        count: k, or one per example, shape (N,); coordinates that tie with the k-th move too.

    Example:
        >>> steepest(torch.tensor([[3.0, -4.0]]), "l1")
        tensor([[ 0., -1.]])
    """
    if name == "linf":
        return grad.sign()
    flat = grad.flatten(1)
    if name == "l2":
        length, tiny = norm(flat, "l2"), torch.finfo(flat.dtype).tiny
        # The squares of very small entries vanish, those of very large ones overflow: the largest becomes 1 first.
        odd = (length < tiny**0.4) | length.isinf()
        if bool(odd.any()):
            largest = torch.where(odd, flat.abs().amax(1).clamp_min(tiny), 1.0)
            flat = flat / largest[:, None]
            length = norm(flat, "l2")
        return (flat / length[:, None].clamp_min(tiny)).view_as(grad)
    size = flat.abs() if room is None else torch.where(room.flatten(1) > 0, flat.abs(), 0.0)
    keep = torch.as_tensor(count, device=size.device).expand(len(size)).round().long().clamp(1, size.shape[1])
    least = size.sort(dim=1, descending=True).values.gather(1, keep[:, None] - 1)
    step = flat.sign() * ((size >= least) & (size > 0))
    if name == "l1":
        step = step / step.abs().sum(1, keepdim=True).clamp_min(1)
    return step.view_as(grad)


def sample(x: Tensor, eps: Tensor | float, name: Norm, box: Box, draw: Draw) -> Tensor:
    r"""A point uniform in the ball around x, then brought into the box by projection.

    L∞ is uniform in the cube, L2 a normal direction with radius u^{1/d}, L1 a Dirichlet split with random signs,
    L0 floor(eps) random coordinates set anywhere in the box (within ±1 of x where the box is infinite).

    Arguments:
        x: centres, shape (N, \*shape).
        eps: radius, or one per example, shape (N,).
        draw: the source of random numbers, one row per example.
    """
    n, d = len(x), x[0].numel()
    radius = torch.as_tensor(eps, dtype=x.dtype, device=x.device).expand(n)[:, None]
    if name == "linf":
        step = (2 * draw("uniform", (n, d)) - 1) * radius
    elif name == "l2":
        direction = draw("normal", (n, d))
        length = draw("uniform", (n, 1)) ** (1 / d) * radius
        step = direction / norm(direction, "l2")[:, None] * length
    elif name == "l1":
        # d of d + 1 normalised exponentials are uniform in the solid simplex.
        parts = -torch.log1p(-draw("uniform", (n, d + 1)))
        signs = torch.where(draw("uniform", (n, d)) < 0.5, -1.0, 1.0)
        step = parts[:, :d] / parts.sum(1, keepdim=True) * signs * radius
    else:
        lo, hi = (side.expand_as(x).flatten(1) for side in box.sides(x))
        low, high = torch.where(lo.isinf(), x.flatten(1) - 1, lo), torch.where(hi.isinf(), x.flatten(1) + 1, hi)
        chosen = draw("uniform", (n, d)).argsort(dim=1).argsort(dim=1) < radius
        step = torch.where(chosen, low + (high - low) * draw("uniform", (n, d)) - x.flatten(1), 0.0)
    step = step.to(x.dtype)
    return project(x + step.view_as(x), x, eps, name, box)
