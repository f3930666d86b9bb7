"""What an attack returns: witnesses, distances, cost."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["AttackResult"]


@dataclass(frozen=True, eq=False)
class AttackResult:
    r"""The best witness of every example.

    Arguments:
        adversarial: inputs that fool the model, shape (N, \*shape); the clean input where nothing was found.
        distance: float64, shape (N,), rounded up; ``inf`` = nothing found, 0 = the clean input is already wrong.
        predicted: what the model answers on ``adversarial``, by a fresh call, shape (N,).
        forwards, gradients: model evaluations spent on each example, int64, shape (N,).
    """

    adversarial: Tensor
    distance: Tensor
    predicted: Tensor
    forwards: Tensor
    gradients: Tensor

    @property
    def success(self) -> Tensor:
        """Which examples have a witness: bool (N,)."""
        return self.distance.isfinite()

    def within(self, eps: float, x: Tensor, y: Tensor) -> AttackResult:
        """The witnesses no farther than eps; the others count as not found."""
        far = self.distance > eps
        return AttackResult(
            torch.where(far.view(-1, *[1] * (x.dim() - 1)), x.to(self.adversarial), self.adversarial),
            torch.where(far, torch.inf, self.distance),
            torch.where(far, y.to(self.predicted), self.predicted),
            self.forwards,
            self.gradients,
        )

    def better(self, other: AttackResult) -> AttackResult:
        """The nearer witness of two results on the same examples, example by example; the costs add up."""
        wins = other.distance < self.distance
        rows = wins.view(-1, *[1] * (self.adversarial.dim() - 1))
        return AttackResult(
            torch.where(rows, other.adversarial, self.adversarial),
            torch.where(wins, other.distance, self.distance),
            torch.where(wins, other.predicted, self.predicted),
            self.forwards + other.forwards,
            self.gradients + other.gradients,
        )

    def after(self, spent: AttackResult) -> AttackResult:
        """The same result, with the cost of the search that led to it."""
        return replace(self, forwards=self.forwards + spent.forwards, gradients=self.gradients + spent.gradients)
