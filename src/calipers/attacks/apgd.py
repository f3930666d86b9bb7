"""Auto-PGD: PGD with momentum that halves its step size and goes back to its best point when progress stalls."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Unpack

import torch
from torch import Tensor

from calipers.attacks.losses import Loss, find_loss
from calipers.attacks.method import Ask, Method, Options, Rows, Seen, Steps, column, go_on, likely_targets
from calipers.attacks.result import AttackResult
from calipers.attacks.search import attack
from calipers.errors import BadInput
from calipers.models import Classifier, public
from calipers.threats import Threat, norm, project, sample, steepest

__all__ = ["apgd"]


def _begin(ask: Ask, rows: Rows, targets: int, radius: Tensor) -> None:
    """What both variants start from: a random point, or where the smaller radius ended; nothing remembered."""
    rows.target = likely_targets(rows, targets)
    fresh = sample(rows.x, radius, ask.threat.norm, ask.model.box, ask.draws(rows, 0))
    rows.z = go_on(ask, rows, fresh)
    rows.top, rows.top_z, rows.top_grad = torch.full_like(rows.eps, -torch.inf), rows.z, torch.zeros_like(rows.z)


def _remember(rows: Rows, seen: Seen) -> None:
    """Keep the point of the largest loss, with its gradient."""
    more = seen.value > rows.top
    rows.top = torch.where(more, seen.value, rows.top)
    rows.top_z = torch.where(column(more, rows.z), rows.z, rows.top_z)
    rows.top_grad = torch.where(column(more, rows.z), seen.grad, rows.top_grad)


@dataclass(frozen=True)
class _APGD(Steps):
    """The L∞ and L2 variant (Croce & Hein 2020, Algorithm 1)."""

    @cached_property
    def window(self) -> Tensor:
        """At a checkpoint the number of steps since the one before, else 0: shape (steps + 1,)."""
        first, least, fall = (max(int(share * self.steps), 1) for share in (0.22, 0.06, 0.03))
        window, at, width = torch.zeros(self.steps + 2, dtype=torch.int64), 0, first
        while at + width <= self.steps:
            at += width
            window[at] = width
            width = max(width - fall, least)
        return window

    def start(self, ask: Ask, rows: Rows) -> None:
        _begin(ask, rows, self.targets, rows.eps)
        rows.size, rows.before = 2 * rows.eps, rows.z
        rows.last = rows.top.clone()
        rows.rises = torch.zeros_like(rows.k)
        rows.halved, rows.top_then = torch.ones_like(rows.k, dtype=torch.bool), rows.top.clone()

    def step(self, ask: Ask, rows: Rows, seen: Seen) -> None:
        rows.rises = rows.rises + (seen.value > rows.last) * (rows.k > 0)
        rows.last = seen.value
        _remember(rows, seen)
        z, grad = self._checkpoint(rows, seen)
        inside = (rows.x, rows.eps, ask.threat.norm, ask.model.box)
        ahead = project(
            z + column(rows.size, z) * steepest(seen.grad if grad is None else grad, ask.threat.norm), *inside
        )
        momentum = project(z + 0.75 * (ahead - z) + 0.25 * (z - rows.before), *inside)
        rows.before, rows.z = z, torch.where(column(rows.k == 0, z), ahead, momentum)

    def _checkpoint(self, rows: Rows, seen: Seen) -> tuple[Tensor, Tensor | None]:
        """At a checkpoint without progress: half the step size, back to the best point. The point to step from."""
        window = self.window.to(rows.k.device)[rows.k]
        here = window > 0
        if not bool(here.any()):
            return rows.z, None
        few_rises = rows.rises <= 0.75 * window
        no_gain = ~rows.halved & (rows.top_then >= rows.top)
        halve = here & (few_rises | no_gain)
        rows.size = torch.where(halve, rows.size / 2, rows.size)
        rows.halved = torch.where(here, halve, rows.halved)
        rows.top_then = torch.where(here, rows.top, rows.top_then)
        rows.rises = torch.where(here, 0, rows.rises)
        back = column(halve, rows.z)
        return torch.where(back, rows.top_z, rows.z), torch.where(back, rows.top_grad, seen.grad)


# In L1: shares of the steps, and the ball they are spent in, in units of eps; the second where steps are few.
_FROM_OUTSIDE, _INSIDE = ((0.3, 3.0), (0.3, 2.0), (0.4, 1.0)), ((1.0, 1.0),)


@dataclass(frozen=True)
class _SparseAPGD(Steps):
    """The L1 variant, which adapts how many coordinates a step moves, and comes from outside (Croce & Hein 2021).

    Its Algorithm 1 in legs: each but the first begins at the best point of the one before, in a smaller ball.
    """

    legs: tuple[tuple[float, float], ...] = _INSIDE

    @cached_property
    def plan(self) -> tuple[Tensor, Tensor, Tensor]:
        """For every look: the ball in units of eps, the place in its leg, the steps between the leg's checkpoints."""
        ball = torch.ones(self.steps + 2, dtype=torch.float64)
        place, every = (torch.ones(self.steps + 2, dtype=torch.int64) for _ in range(2))
        begin = 0
        for share, wide in self.legs:
            end = self.steps + 2 if wide == 1 else begin + int(share * self.steps)
            ball[begin:end], place[begin:end] = wide, torch.arange(end - begin)
            every[begin:end] = max(int(0.04 * (min(end, self.steps) - begin)), 1)
            begin = end
        return ball, place, every

    def start(self, ask: Ask, rows: Rows) -> None:
        radius = float(self.plan[0][0]) * rows.eps
        _begin(ask, rows, self.targets, radius)
        rows.size = rows.count = rows.spread = rows.eps
        self._open(rows, radius, torch.ones_like(rows.k, dtype=torch.bool))

    def _open(self, rows: Rows, radius: Tensor, which: Tensor) -> None:
        """A new leg, in a ball of this radius, for the rows chosen."""
        d = rows.x[0].numel()
        rows.size = torch.where(which, radius, rows.size)
        rows.count = torch.where(which, 0.2 * d, rows.count)
        rows.spread = torch.where(which, float(d), rows.spread)
        rows.top = torch.where(which, -torch.inf, rows.top)

    def step(self, ask: Ask, rows: Rows, seen: Seen) -> None:
        _remember(rows, seen)
        ball, place, every = (table.to(rows.k.device) for table in self.plan)
        radius, after = ((ball[rows.k + i] * rows.eps).to(rows.eps.dtype) for i in (0, 1))
        here = (place[rows.k] > 0) & (place[rows.k] % every[rows.k] == 0)
        used = norm(rows.top_z - rows.x, "l0")
        sparser = here & (used < 0.95 * rows.spread)
        slower = (rows.size / 1.5).maximum(radius / 10)
        rows.size = torch.where(sparser, radius, torch.where(here, slower, rows.size))
        rows.count = torch.where(here, used / 1.5, rows.count)
        rows.spread = torch.where(here, used, rows.spread)
        back = column(sparser, rows.z)
        z, grad = torch.where(back, rows.top_z, rows.z), torch.where(back, rows.top_grad, seen.grad)
        lo, hi = ask.model.box.sides(z)
        move = steepest(grad, "l1", torch.where(grad > 0, hi - z, z - lo), rows.count)
        over = place[rows.k + 1] == 0
        ahead = torch.where(column(over, z), rows.top_z, z + column(rows.size, z) * move)
        rows.z = project(ahead, rows.x, after, "l1", ask.model.box)
        if bool(over.any()):
            self._open(rows, after, over)


@public
def apgd(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    steps: int = 100,
    loss: str | Loss = "ce",
    targets: int = 0,
    **options: Unpack[Options],
) -> AttackResult:
    r"""Auto-PGD: step size 2·eps at first, momentum 0.75, halved at checkpoints where progress stalls.

    z' = Π(z + η·v), z ← Π(z + 0.75·(z' − z) + 0.25·(z − z_before)); at a checkpoint η is halved and the search goes
    back to its best point if fewer than 75 % of the steps raised the loss, or neither η nor the best changed since
    the last one. In L1 the number of moved coordinates follows the sparsity of the best point, and one comes from
    outside: 30 % of ten or more steps in the ball of 3·eps, 30 % in that of 2·eps, each leg from the last one's best.

    Arguments:
        model, x, y, threat, options: as for :func:`calipers.attacks.pgd`.
        steps: gradient steps; 100 in the paper.
        loss: ``"ce"`` or ``"dlr"`` in the paper; any of :data:`calipers.attacks.LOSSES`.
        targets: aim at this many of the likeliest other classes in turn (9 in the paper's targeted attack).

    Source: "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks"
    (Croce & Hein 2020), Algorithm 1; "Mind the Box: l1-APGD for Sparse Adversarial Attacks on Image Classifiers"
    (Croce & Hein 2021), Algorithm 1, the larger balls first as there. The losses differ from the papers' in being
    blind to the scale of the logits.

    Example:
        >>> model = Classifier.of(torch.nn.Linear(3, 4).double().eval(), shape=(3,), box=(-9, 9))
        >>> x = torch.zeros(1, 3, dtype=torch.float64)
        >>> y = model(x).argmax(1)
        >>> apgd(model, x, y, Threat("l2", 8.0), steps=10).success.item()
        True
    """
    if steps < 1:
        raise BadInput("steps of APGD", expected="at least 1", got=steps)
    if threat.norm == "l0":
        raise BadInput("norm of APGD", expected="linf, l2 or l1", got="'l0'", hint="pgd and fmn take l0")
    method: Method = _APGD(find_loss(loss), steps, targets)
    if threat.norm == "l1":
        # A handful of steps has none to spare for larger balls, nor has a bisection, whose radii are many.
        legs = _FROM_OUTSIDE if threat.ladder and steps >= 10 else _INSIDE
        method = _SparseAPGD(find_loss(loss), steps, targets, legs=legs)
    return attack(method, model, x, y, threat, **options)
