"""The largest radius at which a bound still proves the label."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["largest_radius", "lead"]


def largest_radius(
    lowest: Callable[[Tensor], Tensor],
    clean: Tensor,
    scale: Tensor,
    *,
    upper: Tensor | None = None,
    looks: int = 12,
    enough: float = 0.99,
) -> Tensor:
    """The largest radius found with lowest(radius) > 0, for a function that does not rise with the radius.

    A secant step (damped where one end stays, as in the Illinois rule, then a bisection) inside a bracket whose lower
    end is proved.

    Arguments:
        lowest: (N,) radii to (N,) margins; NaN proves nothing.
        clean: the margin at radius 0, shape (N,); where it is not positive the radius is 0.
        scale: lengths typical of the inputs, shape (N,).
        upper: radii known to be too large, an attack's; infinite where nothing is known. Only where to look depends
            on them, never whether a radius is proved.
        looks: evaluations of ``lowest``, at most.
        enough: stop where the radius is this share of ``upper``.
    """
    low, high = torch.zeros_like(scale), torch.full_like(scale, torch.inf)
    if upper is not None:
        high = upper.to(scale)
    known = high.isfinite()
    at_low, at_high = clean, torch.where(known, -clean.abs(), -1.0)
    guess = torch.where(known, 0.7 * high, scale * 2.0**-16)
    before, kept = torch.ones_like(scale, dtype=torch.bool), torch.zeros_like(scale)
    for _ in range(looks):
        value = lowest(guess)
        good = value > 0
        # An end that stays for the second time counts half, so that both ends move.
        stays = torch.where(good == before, 0.5, 1.0)
        kept = torch.where(good == before, kept + 1, 0.0)
        at_high, at_low = torch.where(good, at_high * stays, value), torch.where(good, value, at_low * stays)
        before = good
        low, high = torch.where(good, guess, low), torch.where(good, high, guess)
        done = ~(clean > 0) | (high - low <= 1e-3 * low)
        if upper is not None:
            done |= low >= enough * upper
        if bool(done.all()):
            break
        # Where an end stays for a third time, as where the margin no longer falls with the radius, halve the bracket.
        share = torch.where(kept < 2, at_low / (at_low - at_high).clamp_min(1e-300), 0.5)
        # Until something fails, aim a little past where the line through the clean margin meets zero.
        beyond = 1.01 * low * clean / (clean - value).clamp_min(1e-300)
        farther = torch.minimum(torch.maximum(beyond, 1.01 * low), 4 * scale)
        # Never quite at an end: a zero there must still be passed to be known.
        inside = low + (high - low) * share.nan_to_num(0.5).clamp(1e-3, 1 - 1e-4)
        guess = torch.where(done, low, torch.where(high.isinf(), farther, inside))
    return torch.where(clean > 0, low, 0.0)


def lead(logits: Tensor, y: Tensor) -> Tensor:
    """z_y − max over j ≠ y of z_j: (N, K) → (N,)."""
    own = logits.gather(1, y[:, None])[:, 0]
    return own - logits.scatter(1, y[:, None], -torch.inf).amax(1)
