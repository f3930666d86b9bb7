"""The sentences that the closed forms share."""

from __future__ import annotations

import math
from collections.abc import Sequence

from calipers.errors import BadInput
from calipers.threats import Norm, find_norm

__all__ = ["check_degree", "check_eps", "norm_in"]


def check_eps(eps: float) -> None:
    """A sentence unless eps is a finite number ≥ 0; closed forms allow 0, where there is no adversary."""
    if not (math.isfinite(eps) and eps >= 0):
        raise BadInput("eps", expected="a finite number >= 0", got=eps)


def norm_in(who: str, norm: str, allowed: Sequence[Norm]) -> Norm:
    """The norm that is meant; a sentence unless a closed form is known for it."""
    found = find_norm(norm)
    if found not in allowed:
        raise BadInput(f"norm for the {who}", expected=" or ".join(allowed), got=repr(norm))
    return found


def check_degree(degree: int, least: int = 1) -> None:
    """A sentence unless the degree is a whole number ≥ least."""
    if isinstance(degree, bool) or not isinstance(degree, int) or degree < least:
        raise BadInput("degree of the polynomial", expected=f"a whole number >= {least}", got=degree)
