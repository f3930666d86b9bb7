"""With which eps: how the radius grows while a model is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

from calipers.errors import BadInput, nearest

__all__ = ["SCHEDULES", "Schedule"]

SCHEDULES = {
    "constant": "eps from the first step on; with weights trained at a smaller eps it is extended training",
    "ramp": "grows linearly from the start over the first epochs, then stays",
    "iterative": "grows by a fixed amount every epoch, and stops before the loss rises suddenly",
}


@dataclass(frozen=True)
class Schedule:
    r"""eps as a function of the time t in epochs; it never decreases.

    - ``constant``: eps.
    - ``ramp``: start + (eps − start)·min(1, t/span).
    - ``iterative``: min(eps, start + rise·(⌊t⌋ + 1)).

    "Extended adversarial training" is ``constant`` from weights that were trained at a smaller eps, "iterative
    adversarial training" (IAT) is ``iterative``.

    Arguments:
        kind: one of the above.
        eps: where it ends, in the units of x.
        start: where it begins: the eps that the initial weights withstand, or 0.
        span: epochs of the ramp.
        rise: of every epoch of ``iterative``, in the units of x.

    Raises:
        BadInput: an unknown kind, numbers that are not finite, or a schedule that decreases.

    Source: "Towards Deep Learning Models Resistant to Large Perturbations" (Shaeiri, Nobahari & Rohban 2020),
    Sections 3.1.1 and 3.4.

    Example:
        >>> iat = Schedule("iterative", 0.4, rise=0.01)
        >>> [round(iat(t), 3) for t in (0, 0.9, 1, 38.5, 39, 50)]
        [0.01, 0.01, 0.02, 0.39, 0.4, 0.4]
    """

    kind: str
    eps: float
    start: float = 0.0
    span: float = 1.0
    rise: float = 0.01

    def __post_init__(self) -> None:
        if self.kind not in SCHEDULES:
            raise BadInput("schedule", got=repr(self.kind), hint=nearest(self.kind, SCHEDULES))
        if not (math.isfinite(self.eps) and self.eps >= 0 and math.isfinite(self.start) and self.start >= 0):
            got = self.eps if self.start >= 0 else self.start
            raise BadInput("eps to train with", expected="a finite number >= 0", got=got)
        if self.start > self.eps:
            hint = "a schedule that decreases forgets what was learned: start from weights trained at a smaller eps"
            raise BadInput("eps to train with", expected=f"at least the {self.start:g} it starts from", got=self.eps,
                           hint=hint)  # fmt: skip
        if not (math.isfinite(self.span) and self.span > 0):
            raise BadInput("epochs of the ramp", expected="a finite number > 0", got=self.span)
        if not (math.isfinite(self.rise) and self.rise > 0):
            hint = "a schedule that decreases or stands still gets nowhere"
            raise BadInput("rise of eps an epoch", expected="a finite number > 0", got=self.rise, hint=hint)

    def __call__(self, t: float) -> float:
        """The radius at time ``t`` ≥ 0, in epochs."""
        if self.kind == "constant":
            return self.eps
        if self.kind == "ramp":
            return self.start + (self.eps - self.start) * min(1.0, t / self.span)
        return min(self.eps, self.start + self.rise * (math.floor(t) + 1))
