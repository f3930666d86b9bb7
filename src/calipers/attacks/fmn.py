"""FMN: the minimal distortion by ascent of the margin inside a ball that breathes around the decision boundary."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from calipers.attacks.losses import margin
from calipers.attacks.method import Ask, Options, Rows, Seen, Steps, column, reserve
from calipers.attacks.result import AttackResult
from calipers.attacks.search import attack
from calipers.errors import BadInput
from calipers.models import Classifier, public
from calipers.threats import Norm, Threat, dual, norm, project, steepest

__all__ = ["fmn"]

# A leg whose last quarter came nearer by this share goes on in the next.
_GAIN = 0.05

# The longest step over the radius; in L0 the radius counts coordinates and the box alone gives a length.
_SHARE: dict[Norm, float] = {"linf": 0.5, "l2": 2.0, "l1": 1.0, "l0": 1.0}


@dataclass(frozen=True)
class _FMN(Steps):
    """Legs of equal length: the first to any class, the others from the input to classes no witness is in yet.

    But where a leg still comes nearer at its end, the next one goes on from there.
    """

    gamma: float = 0.05
    legs: int = 1

    @property
    def length(self) -> int:
        """Steps of a leg; the last has what is left."""
        return math.ceil(self.steps / self.legs)

    def start(self, ask: Ask, rows: Rows) -> None:
        rows.z, every = rows.x.clone(), torch.ones_like(rows.k, dtype=torch.bool)
        rows.late = rows.best.clone()
        if bool((rows.attempt > 0).any()):
            self._aim(rows, every)
            return
        rows.far, rows.radius = every, torch.full_like(rows.eps, math.inf)
        rows.tried = one_hot(rows.y, ask.model.classes).bool()

    def _aim(self, rows: Rows, which: Tensor) -> None:
        """A new leg from the input, for the rows chosen, to the likeliest class that has had none and no witness."""
        likeliest = rows.clean.masked_fill(rows.tried, -torch.inf).argmax(1)
        rows.z = torch.where(column(which, rows.x), rows.x, rows.z)
        rows.target = torch.where(which, torch.where(rows.tried.all(1), -1, likeliest), rows.target)
        rows.tried = rows.tried | (which[:, None] & one_hot(likeliest, rows.tried.shape[1]).bool())
        rows.far = rows.far | which

    def step(self, ask: Ask, rows: Rows, seen: Seen) -> None:
        name, box = ask.threat.norm, ask.model.box
        rows.tried = rows.tried.scatter(1, seen.logits.argmax(1, keepdim=True), True)
        falling = self.falling(rows, self.length)
        rows.radius = self._radius(rows, seen, 1e-4 + (self.gamma - 1e-4) * falling, name)
        # A step as long as the box is wide is too short far out and too long close by: the radius says how far.
        widest = box.span(rows.x, name)
        length = (0.01 + 0.99 * falling) * (widest if name == "l0" else rows.radius.minimum(widest)) * _SHARE[name]
        ahead = rows.z + column(length, rows.z) * steepest(seen.grad, "linf" if name == "linf" else "l2")
        rows.z = project(ahead, rows.x, rows.radius, name, box)
        place = (rows.k + 1) % self.length
        rows.late = torch.where(place == 3 * self.length // 4, rows.best, rows.late)
        over = (place == 0) & (rows.k + 1 < self.steps) & (rows.best >= (1 - _GAIN) * rows.late)
        if bool(over.any()):
            self._aim(rows, over)

    def _radius(self, rows: Rows, seen: Seen, gamma: Tensor, name: Norm) -> Tensor:
        """Grow while the model holds, shrink while it is fooled; before a leg's first success go where the plane is."""
        best = rows.best.to(rows.x.dtype)
        now = norm(rows.z - rows.x, name)
        if name == "l0":
            smaller = torch.minimum(rows.radius - 1, (rows.radius * (1 - gamma)).floor()).minimum(best - 1).clamp_min(1)
            larger = torch.maximum(rows.radius + 1, (rows.radius * (1 + gamma)).floor())
            jump = now + 1
        else:
            slope = norm(seen.grad, dual(name))
            smaller = (rows.radius * (1 - gamma)).minimum(best)
            larger = rows.radius * (1 + gamma)
            # A little farther than the linearised boundary, or an affine model is never crossed.
            jump = (
                now + (seen.value.neg().clamp_min(0) + reserve(rows)) / slope.clamp_min(torch.finfo(slope.dtype).tiny)
            ) * (1 + gamma)
        rows.far = rows.far & ~seen.fooled
        return torch.where(rows.far, jump.minimum(best), torch.where(seen.fooled, smaller, larger))


@public
def fmn(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    steps: int = 100,
    gamma: float | None = None,
    legs: int | None = None,
    **options: Unpack[Options],
) -> AttackResult:
    r"""Fast minimum-norm attack: min ‖δ‖_p subject to argmax f(x + δ) ≠ y, in all four norms.

    δ ← Π_{ball(radius) ∩ box}(δ + α·g/‖g‖₂) with g the gradient of the margin. The radius grows by 1 + γ while the
    model holds and shrinks by 1 − γ while it is fooled; before the first success it is ‖δ‖ + margin / ‖g‖_q, where the
    linearised boundary lies. γ and α fall along a cosine.

    Differs from the paper: α falls from a multiple of the radius (½ in L∞, 2 in L2, 1 in L1) instead of from a fixed
    length, and in L∞ the step is α·sign(g): on an adversarially trained network the paper's step ends much farther out.
    The steps are spent in legs: the first goes to any class, as in the paper, each other one from x to the likeliest
    class that no witness is in yet, for on a shallow network more steps toward the wrong class gain nothing; but where
    the last quarter of a leg came nearer by 5 %, as on adversarially trained networks, the next goes on from its end.
    So restarts go on to further classes.

    Arguments:
        model, x, y, threat, options: as for :func:`calipers.attacks.pgd`. The attack always seeks the minimal
            distortion; with an eps, witnesses beyond it do not count.
        steps: gradient steps, of all legs together.
        gamma: the first relative change of the radius, 0.05 in the paper; by default 10 over the steps of a leg,
            between 0.05 and 0.3, so that a short leg can shrink as far; 0.05 in L0.
        legs: by default three, if there are so many other classes and 25 steps for each; one in L0.

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
    sparse = threat.norm == "l0"
    if legs is None:
        legs = 1 if sparse else max(min(3, model.classes - 1, steps // 25), 1)
    if legs < 1 or steps < legs:
        raise BadInput("steps and legs of FMN", expected="steps >= legs >= 1", got=f"{steps} and {legs}")
    if gamma is None:
        gamma = 0.05 if sparse else min(max(10 * legs / steps, 0.05), 0.3)
    if not 0 < gamma < 1:
        raise BadInput("gamma of FMN", expected="a number between 0 and 1", got=gamma)
    return attack(_FMN(margin, steps, minimal=True, gamma=gamma, legs=legs), model, x, y, threat, **options)
