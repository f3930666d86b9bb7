"""A threat: a norm and a size, always inside the box."""

from __future__ import annotations

import math
from dataclasses import dataclass

from calipers.errors import BadInput
from calipers.threats.norms import Norm, check_norm

__all__ = ["Threat"]


@dataclass(frozen=True)
class Threat:
    r"""What the adversary may do: move x by at most eps in a norm, inside the box.

    Arguments:
        norm: ``"linf"``, ``"l2"``, ``"l1"`` or ``"l0"`` (the number of changed coordinates).
        eps: the radius in the units of ``x``; an ascending tuple asks for all of them as one ladder; ``None`` asks
            for the minimal distortion.

    Raises:
        BadInput: for an unknown norm, or an eps that is not positive, finite and ascending.

    Example:
        >>> Threat("linf", 0.1)
        Threat(norm='linf', eps=0.1)
        >>> Threat("l2", (0.5, 1.0)).ladder
        (0.5, 1.0)
    """

    norm: Norm
    eps: float | tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_norm(self.norm)
        for eps in self.ladder:
            if not (isinstance(eps, int | float) and math.isfinite(eps) and eps > 0):
                raise BadInput(f"eps of the {self.norm} threat", expected="a finite number > 0", got=eps)
        if list(self.ladder) != sorted(set(self.ladder)):
            raise BadInput(f"eps of the {self.norm} threat", expected="ascending values", got=self.eps)

    @property
    def ladder(self) -> tuple[float, ...]:
        """The asked radii, ascending; empty for the minimal distortion."""
        if self.eps is None:
            return ()
        return self.eps if isinstance(self.eps, tuple) else (self.eps,)
