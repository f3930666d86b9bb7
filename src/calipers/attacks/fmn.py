"""FMN: the minimal distortion by ascent of the margin inside a ball that breathes around the decision boundary."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from calipers.attacks.losses import margin
from calipers.attacks.method import Ask, Options, Rows, Seen, Steps, column
from calipers.attacks.result import AttackResult
from calipers.attacks.search import attack
from calipers.errors import BadInput
from calipers.models import Classifier, public
from calipers.threats import Norm, Threat, dual, norm, project, steepest

__all__ = ["fmn"]

# The longest step over the radius; in L0 the radius counts coordinates and the box alone gives a length.
_SHARE: dict[Norm, float] = {"linf": 0.5, "l2": 2.0, "l1": 1.0, "l0": 1.0}
_INVERSE: dict[Norm, float] = {"linf": 0.0, "l2": 0.5, "l1": 1.0, "l0": 0.0}


@dataclass(frozen=True)
class _FMN(Steps):
    gamma: float = 0.05

    def start(self, ask: Ask, rows: Rows) -> None:
        rows.z = rows.x.clone()
        rows.radius = torch.full_like(rows.eps, math.inf)

    def step(self, ask: Ask, rows: Rows, seen: Seen) -> None:
        name, box = ask.threat.norm, ask.model.box
        falling = self.falling(rows)
        gamma = 1e-4 + (self.gamma - 1e-4) * falling
        rows.radius = self._radius(rows, seen, gamma, name)
        # A step as long as the box is wide is too short far out and too long close by: the radius says how far.
        widest = box.scale(rows.x) * (rows.x[0].numel() ** _INVERSE[name])
        length = (0.01 + 0.99 * falling) * (widest if name == "l0" else rows.radius.minimum(widest)) * _SHARE[name]
        ahead = rows.z + column(length, rows.z) * steepest(seen.grad, "linf" if name == "linf" else "l2")
        rows.z = project(ahead, rows.x, rows.radius, name, box)

    def _radius(self, rows: Rows, seen: Seen, gamma: Tensor, name: Norm) -> Tensor:
        """Grow while the model holds, shrink while it is fooled; before the first success go where the plane is."""
        best = rows.best.to(rows.x.dtype)
        now = norm(rows.z - rows.x, name)
        if name == "l0":
            slope = seen.grad.flatten(1).abs().amax(1)
            smaller = torch.minimum(rows.radius - 1, (rows.radius * (1 - gamma)).floor()).minimum(best - 1).clamp_min(1)
            larger = torch.maximum(rows.radius + 1, (rows.radius * (1 + gamma)).floor())
            jump = now + 1
        else:
            slope = norm(seen.grad, dual(name))
            smaller = (rows.radius * (1 - gamma)).minimum(best)
            larger = rows.radius * (1 + gamma)
            # A little farther than the linearised boundary, or an affine model is never crossed.
            jump = (now + seen.value.neg().clamp_min(0) / slope.clamp_min(torch.finfo(slope.dtype).tiny)) * (1 + gamma)
        never = rows.best.isinf()
        return torch.where(never, jump, torch.where(seen.fooled, smaller, larger))


@public
def fmn(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    steps: int = 100,
    gamma: float = 0.05,
    **options: Unpack[Options],
) -> AttackResult:
    r"""Fast minimum-norm attack: min ‖δ‖_p subject to argmax f(x + δ) ≠ y, in all four norms.

    δ ← Π_{ball(radius) ∩ box}(δ + α·g/‖g‖₂) with g the gradient of the margin. The radius grows by 1 + γ while the
    model holds and shrinks by 1 − γ while it is fooled; before the first success it is ‖δ‖ + margin / ‖g‖_q, where the
    linearised boundary lies. γ and α fall along a cosine.

    Differs from the paper: α falls from a multiple of the radius (½ in L∞, 2 in L2, 1 in L1) instead of from a fixed
    length, and in L∞ the step is α·sign(g). On an adversarially trained network the paper's step ends much farther out.

    Arguments:
        model, x, y, threat, options: as for :func:`calipers.attacks.pgd`. The attack always seeks the minimal
            distortion; with an eps, witnesses beyond it do not count.
        steps: gradient steps.
        gamma: the first relative change of the radius; 0.05 in the paper.

    Source: "Fast Minimum-norm Adversarial Attacks through Adaptive Norm Constraints" (Pintor, Roli, Brendel & Biggio
    2021), Algorithm 1.

    Example:
        >>> net = torch.nn.Linear(2, 2).double().eval()
        >>> _ = net.load_state_dict({"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "bias": torch.zeros(2)})
        >>> model = Classifier.of(net, shape=(2,))
        >>> x = torch.tensor([[0.75, 0.25]], dtype=torch.float64)
        >>> round(fmn(model, x, torch.tensor([0]), Threat("linf")).distance.item(), 2)
        0.25
    """
    if steps < 1:
        raise BadInput("steps of FMN", expected="at least 1", got=steps)
    return attack(_FMN(margin, steps, minimal=True, gamma=gamma), model, x, y, threat, **options)
