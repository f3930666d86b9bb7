"""What a certificate returns: a radius for every example, and what kind of guarantee it is."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from calipers.errors import BadInput
from calipers.threats import Box, Norm

__all__ = ["Bound", "Certified", "Estimate", "NotApplicable", "Numerical", "Probabilistic", "UnknownOperator"]


class NotApplicable(BadInput):
    """This certificate says nothing about this norm or this kind of model; another may."""


class UnknownOperator(NotApplicable):
    """A certificate met an operator it has no rule for; it refuses rather than guesses."""


@dataclass(frozen=True, eq=False)
class Bound:
    """A radius for every example, within the ball of ``norm`` and the model's box.

    Arguments:
        radius: float64, shape (N,); nothing within this distance changes the answer. 0 where nothing is known, or
            where the model is already wrong.
        norm: the norm the radius is in.
        by: the name of the method.
        execution: what the guarantee is about: ``"float32"``, ``"float64"`` (the model as executed in that
            precision) or ``"real"`` arithmetic.
        assumes: what else must hold.
        domain: the box the ball was cut by; None says nothing of it.
    """

    radius: Tensor
    norm: Norm
    by: str
    execution: str
    assumes: str = ""
    domain: Box | None = None

    def check(self, norm: Norm, domain: Box, execution: str) -> None:
        """Refuse to be compared with an attack in another norm, box or arithmetic.

        Raises:
            BadInput: where they differ: a radius in a smaller box may well be above an attack in a larger one.
        """
        box = domain if self.domain is None else self.domain
        for what, own, theirs, same in (
            ("norm", self.norm, norm, self.norm == norm),
            ("execution", self.execution, execution, self.execution == execution),
            ("domain", box, domain, box.same(domain)),
        ):
            if not same:
                raise BadInput(f"{what} of the bound by {self.by}", expected=f"the attack's, {theirs}", got=own)


class Certified(Bound):
    """A proof. The only kind that is ever a lower bound."""


@dataclass(frozen=True, eq=False)
class Probabilistic(Bound):
    r"""Holds with a stated confidence for every single example, for a smoothed model and not for the model itself.

    Arguments:
        confidence: the probability, over the method's own draws, with which an example's statement is true.
        predicted: what the smoothed model answers, int64 (N,); −1 where it abstains, and then the radius is 0.
    """

    confidence: float = 0.0
    predicted: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))


class Numerical(Bound):
    """A solver's tolerance stands between it and a proof."""


class Estimate(Bound):
    """No guarantee: sampled maxima and the like."""
