"""A threat: a norm and a size, always inside the box."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any

from calipers.errors import BadInput
from calipers.threats.norms import Norm, find_norm

__all__ = ["Threat", "radii"]


@dataclass(frozen=True)
class Threat:
    r"""What the adversary may do: move x by at most eps in a norm, inside the box.

    Arguments:
        norm: ``"linf"``, ``"l2"``, ``"l1"`` or ``"l0"`` (the number of changed coordinates), or another way to write
            one of these: ``"Linf"``, ``"inf"``, ``"l_2"``.
        eps: the radius in the units of ``x``, a number or text such as ``"8/255"``; an ascending tuple asks for all of
            them as one ladder; ``None`` asks for the minimal distortion.

    Raises:
        BadInput: for an unknown norm, or an eps that is not positive, finite and ascending.

    Example:
        >>> Threat("linf", 0.1)
        Threat(norm='linf', eps=0.1)
        >>> Threat("l2", (0.5, 1.0)).ladder
        (0.5, 1.0)
        >>> Threat("Linf", "8/255") == Threat("linf", 8 / 255)
        True
    """

    norm: Norm
    eps: float | tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", find_norm(self.norm))
        if self.eps is not None:
            several = radii(self.eps)
            one = len(several) == 1 and not isinstance(self.eps, tuple)
            object.__setattr__(self, "eps", several[0] if one else several or None)
        given: tuple[Any, ...] = self.ladder
        for eps in given:
            if not (isinstance(eps, Real) and math.isfinite(eps) and float(eps) > 0):
                raise BadInput(f"eps of the {self.norm} threat", expected="a finite number > 0", got=eps)
        if list(self.ladder) != sorted(set(self.ladder)):
            raise BadInput(f"eps of the {self.norm} threat", expected="ascending values", got=self.eps)

    @property
    def ladder(self) -> tuple[float, ...]:
        """The asked radii, ascending; empty for the minimal distortion."""
        if self.eps is None:
            return ()
        return self.eps if isinstance(self.eps, tuple) else (self.eps,)


def radii(eps: object) -> tuple[float, ...]:
    """Radii as they are given: one number, several, or text: numbers or fractions with commas between them.

    Raises:
        BadInput: for text that is neither number nor fraction.

    Example:
        >>> radii(0.25), radii([0.1, 0.2]), radii("2/255, 8/255") == (2 / 255, 8 / 255)
        ((0.25,), (0.1, 0.2), True)
    """
    if not isinstance(eps, str):
        if isinstance(eps, Iterable) and getattr(eps, "ndim", True):
            return tuple(radius for part in eps for radius in radii(part))
        return (eps,)  # type: ignore[return-value]
    found = []
    for part in eps.split(","):
        try:
            above, *below = (float(number) for number in part.split("/", 1))
            found.append(above / below[0] if below else above)
        except (ValueError, ZeroDivisionError):
            raise BadInput("eps", expected="a number or a fraction such as 8/255", got=repr(part.strip())) from None
    return tuple(found)
