"""DDN: the direction by gradient ascent, the norm by a rule of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from calipers.attacks.losses import Loss, find_loss
from calipers.attacks.method import Ask, Options, Rows, Seen, Steps, column
from calipers.attacks.result import AttackResult
from calipers.attacks.search import attack
from calipers.errors import BadInput
from calipers.models import Classifier, public
from calipers.threats import Threat, steepest

__all__ = ["ddn"]


@dataclass(frozen=True)
class _DDN(Steps):
    """δ ← δ + α·g/‖g‖₂, then rescaled to a radius that shrinks while the model is fooled and grows while it holds."""

    gamma: float = 0.05

    def start(self, ask: Ask, rows: Rows) -> None:
        rows.z, rows.radius = rows.x.clone(), ask.model.box.scale(rows.x)

    def step(self, ask: Ask, rows: Rows, seen: Seen) -> None:
        box = ask.model.box
        alpha = (0.01 + 0.99 * self.falling(rows)) * box.scale(rows.x)
        delta = rows.z - rows.x + column(alpha, rows.x) * steepest(seen.grad, "l2")
        radius = rows.radius * torch.where(seen.fooled, 1 - self.gamma, 1 + self.gamma).to(rows.radius)
        rows.radius = radius.clamp_max(box.reach("l2", delta[0].numel()))
        rows.z = box.clamp(rows.x + column(rows.radius, delta) * steepest(delta, "l2"))


@public
def ddn(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    steps: int = 100,
    gamma: float = 0.05,
    loss: str | Loss = "ce",
    **options: Unpack[Options],
) -> AttackResult:
    r"""Decoupled direction and norm: min ‖δ‖₂ subject to argmax f(x + δ) ≠ y.

    δ ← ε·(δ + α·g/‖g‖₂)/‖…‖₂, ε ← (1 ± γ)·ε; α falls along a cosine from the box's width, ε begins there. No
    quantisation.

    Arguments:
        model, x, y, threat, options: as for :func:`calipers.attacks.pgd`; L2 only. The attack always seeks the minimal
            distortion; with an eps, witnesses beyond it do not count.
        steps: gradient steps; 100 in the paper.
        gamma: the relative change of the radius; 0.05 in the paper.
        loss: ``"ce"`` in the paper; any of :data:`calipers.attacks.LOSSES`.

    Source: "Decoupling Direction and Norm for Efficient Gradient-Based L2 Adversarial Attacks and Defenses" (Rony,
    Hafemann, Oliveira, Ben Ayed, Sabourin & Granger 2019), Algorithm 1.

    Example:
        >>> net = torch.nn.Linear(2, 2).double().eval()
        >>> _ = net.load_state_dict({"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "bias": torch.zeros(2)})
        >>> model = Classifier.of(net, shape=(2,))
        >>> x = torch.tensor([[0.75, 0.25]], dtype=torch.float64)
        >>> round(ddn(model, x, torch.tensor([0]), Threat("l2")).distance.item(), 3)
        0.354
    """
    if steps < 1 or not 0 < gamma < 1:
        raise BadInput("steps and gamma of DDN", expected="at least 1, between 0 and 1", got=f"{steps} and {gamma}")
    if threat.norm != "l2":
        raise BadInput("norm of DDN", expected="l2", got=repr(threat.norm), hint="fmn takes all norms")
    return attack(_DDN(find_loss(loss), steps, minimal=True, gamma=gamma), model, x, y, threat, **options)
