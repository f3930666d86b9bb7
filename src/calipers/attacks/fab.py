"""FAB: walk along the decision boundary, at every step drawn back toward the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from calipers.attacks.losses import gaps, margin
from calipers.attacks.method import Ask, Options, Rows, Seen, Steps, column, likely_targets, nearest_boundary, reserve
from calipers.attacks.result import AttackResult
from calipers.attacks.search import attack
from calipers.errors import BadInput
from calipers.models import Classifier, public
from calipers.threats import Threat, norm, onto, sample

__all__ = ["fab"]


@dataclass(frozen=True)
class _FAB(Steps):
    """z ← (1 − α)(z + η·d) + α(x + η·d₀), d and d₀ the steps from z and from x to the boundary's tangent plane."""

    pull: float = 0.1
    overshoot: float = 1.05
    back: float = 0.9

    def start(self, ask: Ask, rows: Rows) -> None:
        rows.target = likely_targets(rows, self.targets)
        first = rows.attempt < max(min(self.targets, ask.model.classes - 1), 1)
        if bool(first.all()):
            rows.z = rows.x.clone()
            return
        # Where there is no witness yet, and the box may be infinite, a length typical of x stands in for it.
        span = ask.model.box.span(rows.x, ask.threat.norm)
        reach = torch.where(rows.best.isinf(), span, rows.best.to(rows.x.dtype))
        around = sample(rows.x, reach / 2, ask.threat.norm, ask.model.box, ask.draws(rows, 0))
        rows.z = torch.where(column(first, rows.x), rows.x, around)

    def step(self, ask: Ask, rows: Rows, seen: Seen) -> None:
        value, slope = (seen.value, seen.grad) if self.targets else nearest_boundary(seen, ask.threat.norm)
        # A witness is first drawn back; what the plane says there follows from what it says here.
        share = torch.where(seen.fooled, self.back, 1.0).to(rows.x.dtype)
        z = rows.x + column(share, rows.x) * (rows.z - rows.x)
        value = value - reserve(rows)
        here = value + (slope * (z - rows.z)).flatten(1).sum(1)
        there = value + (slope * (rows.x - rows.z)).flatten(1).sum(1)
        name, box = ask.threat.norm, ask.model.box
        near, far = onto(z, slope, here, name, box), onto(rows.x, slope, there, name, box)
        a, b = norm(near, name), norm(far, name)
        pull = column((a / (a + b).clamp_min(torch.finfo(a.dtype).tiny)).clamp_max(self.pull), z)
        ahead = (1 - pull) * (z + self.overshoot * near) + pull * (rows.x + self.overshoot * far)
        rows.z = box.clamp(ahead)


@public
def fab(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    steps: int = 100,
    targets: int = 9,
    candidates: int = 9,
    **options: Unpack[Options],
) -> AttackResult:
    r"""Fast adaptive boundary: a minimal distortion in L∞, L2 and L1, blind to the scale of the logits.

    With the boundary's tangent plane at z, d the smallest step from z onto it inside the box and d₀ the one from x:
    z ← (1 − α)(z + 1.05·d) + α(x + 1.05·d₀), α = min(‖d‖/(‖d‖ + ‖d₀‖), 0.1). A witness is first drawn back to
    x + 0.9·(z − x); the plane is the one seen at the witness, so that every step costs one look, not two.

    Arguments:
        model, x, y, threat, options: as for :func:`calipers.attacks.pgd`. The attack always seeks the minimal
            distortion; with an eps, witnesses beyond it do not count. Restarts after the first begin at a random point
            half as far as the nearest witness.
        steps: gradient steps for every target; 100 in the paper.
        targets: aim at this many of the likeliest other classes in turn, as FAB-T does, one gradient a step; 0 goes to
            the nearest of all planes, at ``candidates`` gradients a step.
        candidates: with ``targets=0``, how many of the likeliest other classes have their plane looked at.

    Source: "Minimally distorted Adversarial Examples with a Fast Adaptive Boundary Attack" (Croce & Hein 2020),
    Algorithm 1; targets as in "Reliable evaluation of adversarial robustness …" (Croce & Hein 2020), Appendix C.

    Example:
        >>> net = torch.nn.Linear(2, 2).double().eval()
        >>> _ = net.load_state_dict({"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "bias": torch.zeros(2)})
        >>> model = Classifier.of(net, shape=(2,))
        >>> x = torch.tensor([[0.75, 0.25]], dtype=torch.float64)
        >>> round(fab(model, x, torch.tensor([0]), Threat("linf"), steps=10).distance.item(), 3)
        0.25
    """
    if steps < 1 or targets < 0 or candidates < 1:
        got = f"{steps}, {targets} and {candidates}"
        raise BadInput("steps, targets and candidates of FAB", expected="at least 1, 0 and 1", got=got)
    if threat.norm == "l0":
        raise BadInput("norm of FAB", expected="linf, l2 or l1", got="'l0'", hint="sigma_zero and fmn take l0")
    loss = margin if targets else gaps(candidates)
    return attack(_FAB(loss, steps, targets, minimal=True), model, x, y, threat, **options)
