"""On which examples: a recipe is a function of a batch that returns the loss of every example, shape (N,)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from calipers.attacks import Loss, climb
from calipers.models import Classifier, as_they_were
from calipers.runner.draws import Draws
from calipers.theory import feature_layer, self_loss
from calipers.threats import Norm, Threat, find_norm

__all__ = [
    "RECIPES",
    "WITHOUT_ADVERSARY",
    "Ascent",
    "Batch",
    "Recipe",
    "fast",
    "hard",
    "noise",
    "pgd",
    "standard",
    "trades",
]


@dataclass(frozen=True)
class Ascent:
    """How the examples of a step are found.

    Arguments:
        norm: of the ball.
        step_size: in the units of x; eps/6 by default, so that there are 15 steps.
        steps: ⌈2.5·eps / step_size⌉ by default.
        raw: move by step_size · gradient instead of the steepest step.
        beta: the weight of the robust term of TRADES.

    Example:
        >>> Ascent("linf", step_size=0.05).plan(0.3), Ascent("linf").plan(0.3)[0]
        ((15, 0.05), 15)
    """

    norm: Norm = "linf"
    step_size: float | None = None
    steps: int | None = None
    raw: bool = False
    beta: float = 6.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", find_norm(self.norm))

    def plan(self, eps: float) -> tuple[int, float]:
        """Steps and their size at this eps."""
        size = self.step_size or (eps / 6 if self.steps is None else 2.5 * eps / self.steps)
        # A hair less than the quotient, so that 2.5·0.3/0.05 is 15 in floating point too.
        return self.steps or max(1, math.ceil(2.5 * eps / size * (1 - 1e-9))), size


@dataclass(frozen=True, eq=False)
class Batch:
    r"""What a recipe is given.

    Arguments:
        net: the network as it is trained: gradients flow, precision and processes are taken care of.
        model: the same network bare, to be attacked.
        x, y: inputs (N, \*shape) and labels (N,).
        index: the examples' original indices, shape (N,): their names in the draws.
        eps: the radius of this step; 0 makes every recipe the standard one.
        seed: of this step's draws.
        ascent: how examples are found.
    """

    net: Callable[[Tensor], Tensor]
    model: Classifier
    x: Tensor
    y: Tensor
    index: Tensor
    eps: float
    seed: int
    ascent: Ascent

    def climb(
        self, loss: str | Loss = "ce-raw", *, random_start: bool = True, start: Tensor | None = None,
        steps: int | None = None, step_size: float | None = None,
    ) -> Tensor:  # fmt: skip
        """The batch after an ascent of ``loss`` in the ball, as :func:`calipers.attacks.climb`."""
        count, size = self.ascent.plan(self.eps)
        return climb(
            self.model, self.x, self.y, Threat(self.ascent.norm, self.eps),
            steps=steps or count, step_size=step_size or size, loss=loss, random_start=random_start,
            raw=self.ascent.raw, start=start, seed=self.seed, index=self.index,
        )  # fmt: skip

    def draws(self, stream: int) -> Draws:
        """Random numbers of these examples at this step, apart from those of the ascent."""
        return Draws(self.seed, self.index, 0, stream)


Recipe = Callable[[Batch], Tensor]


def _ce(logits: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits.float(), y, reduction="none")


def standard(batch: Batch) -> Tensor:
    """CE(f(x), y)."""
    return _ce(batch.net(batch.x), batch.y)


def pgd(batch: Batch) -> Tensor:
    r"""CE(f(z), y) at z = argmax_{‖z − x‖ ≤ eps} CE(f(z), y), by projected gradient ascent.

    Source: "Towards Deep Learning Models Resistant to Adversarial Attacks" (Madry et al. 2018), equation (2.1).
    """
    if batch.eps == 0:
        return standard(batch)
    return _ce(batch.net(batch.climb()), batch.y)


def fast(batch: Batch) -> Tensor:
    r"""As :func:`pgd` with one step of 1.25·eps from a random start.

    Source: "Fast is better than free: Revisiting adversarial training" (Wong, Rice & Kolter 2020), Algorithm 3.
    """
    if batch.eps == 0:
        return standard(batch)
    return _ce(batch.net(batch.climb(steps=1, step_size=1.25 * batch.eps)), batch.y)


def trades(batch: Batch) -> Tensor:
    r"""CE(f(x), y) + β·KL(f(x) ‖ f(z)) at z = argmax_{‖z − x‖ ≤ eps} KL(f(x) ‖ f(z)), from x + 0.001·N(0, I).

    Source: "Theoretically Principled Trade-off between Robustness and Accuracy" (Zhang et al. 2019), Algorithm 1.
    """
    if batch.eps == 0:
        return standard(batch)
    with torch.no_grad(), as_they_were(batch.model.module):
        clean = batch.model(batch.x).log_softmax(1)

    def divergence(logits: Tensor, y: Tensor, target: Tensor, spread: Tensor) -> Tensor:
        return _kl(clean, logits.log_softmax(1))

    jitter = batch.draws(1).normal(batch.x[0].numel()).view_as(batch.x).to(batch.x.dtype)
    z = batch.climb(divergence, start=batch.model.box.clamp(batch.x + 1e-3 * jitter))
    own, moved = batch.net(torch.cat([batch.x, z])).float().chunk(2)
    return _ce(own, batch.y) + batch.ascent.beta * _kl(own.log_softmax(1), moved.log_softmax(1))


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(1)


def hard(batch: Batch) -> Tensor:
    r"""(CE(f(x), y) + CE(f(z), y))/2 at z = argmax_{‖z − x‖ ≤ eps} L(φ(z), φ(z)), φ the feature layer of f.

    Objective (9) of the paper: the entropy of the softmax over the features; no label and no random start enters. The
    paper takes "a few gradient ascend steps" from the batch and gives no numbers: here they are normalised and stay
    within eps.

    Source: "Towards Explaining Adversarial Examples Phenomenon in Artificial Neural Networks" (Barati, Safabakhsh &
    Rahmati 2021), Section IV-C.
    """
    if batch.eps == 0:
        return standard(batch)
    network = batch.model.module
    assert isinstance(network, nn.Sequential)
    features = replace(batch, model=replace(batch.model, module=feature_layer(network)))

    def hardness(values: Tensor, y: Tensor, target: Tensor, spread: Tensor) -> Tensor:
        return self_loss(values.float())

    z = features.climb(hardness, random_start=False)
    own, moved = batch.net(torch.cat([batch.x, z])).float().chunk(2)
    return (_ce(own, batch.y) + _ce(moved, batch.y)) / 2


def noise(batch: Batch) -> Tensor:
    r"""CE(f(x + σ·N(0, I)), y) with σ = eps; the box does not bind, because it does not bind a smoothed classifier.

    Source: "Certified Adversarial Robustness via Randomized Smoothing" (Cohen, Rosenfeld & Kolter 2019), Section 3.3.
    """
    drawn = batch.draws(2).normal(batch.x[0].numel()).view_as(batch.x).to(batch.x.dtype)
    return _ce(batch.net(batch.x + batch.eps * drawn), batch.y)


RECIPES: dict[str, Recipe] = {
    "standard": standard,
    "pgd": pgd,
    "fast": fast,
    "trades": trades,
    "hard": hard,
    "noise": noise,
}

# Recipes whose eps is no radius: they promise nothing against an adversary.
WITHOUT_ADVERSARY = ("standard", "noise")
