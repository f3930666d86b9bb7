"""FGSM and PGD: steepest ascent of a loss inside the ball."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from calipers.attacks.losses import Loss, find_loss
from calipers.attacks.method import Ask, Options, Rows, Seen, Steps, column, go_on, likely_targets
from calipers.attacks.result import AttackResult
from calipers.attacks.search import attack
from calipers.errors import BadInput
from calipers.models import Classifier, public
from calipers.threats import Threat, norm, project, sample, steepest

__all__ = ["PGD", "fgsm", "mifgsm", "pgd"]


@dataclass(frozen=True)
class PGD(Steps):
    """z ← Π(z + step·v) with v the steepest step, or the gradient itself."""

    step_size: float | None = None
    random_start: bool = True
    raw: bool = False
    warm: bool = True
    momentum: float = 0.0
    reach: float = 2.5

    def start(self, ask: Ask, rows: Rows) -> None:
        rows.target = likely_targets(rows, self.targets)
        fresh = rows.x
        if self.random_start:
            fresh = sample(rows.x, rows.eps, ask.threat.norm, ask.model.box, ask.draws(rows, 0))
        rows.z = go_on(ask, rows, fresh) if self.warm else fresh
        if self.momentum:
            rows.velocity = torch.zeros_like(rows.x)

    def step(self, ask: Ask, rows: Rows, seen: Seen) -> None:
        name, box = ask.threat.norm, ask.model.box
        size, grad = column(self._size(ask, rows), rows.x), seen.grad
        if self.momentum:
            length = norm(grad, "l1").clamp_min(torch.finfo(grad.dtype).tiny)
            rows.velocity = grad = self.momentum * rows.velocity + grad / column(length, grad)
        if self.raw:
            move = grad
        else:
            room: Tensor | None = None
            count: int | Tensor = 1
            if name in ("l1", "l0"):
                lo, hi = box.sides(rows.z)
                room = torch.where(grad > 0, hi - rows.z, rows.z - lo)
                # One coordinate in a hundred at a time mixes on images (Tramèr & Boneh 2019), exact for small inputs.
                count = rows.eps.floor() if name == "l0" else max(rows.x[0].numel() // 100, 1)
            move = steepest(grad, name, room, count)
        rows.z = project(rows.z + size * move, rows.x, rows.eps, name, box)

    def _size(self, ask: Ask, rows: Rows) -> Tensor:
        if self.step_size is not None:
            return torch.full_like(rows.eps, self.step_size)
        if ask.threat.norm == "l0":
            return ask.model.box.scale(rows.x) / 2
        return self.reach * rows.eps / self.steps


@public
def pgd(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    steps: int = 40,
    step_size: float | None = None,
    loss: str | Loss = "margin",
    random_start: bool = True,
    raw: bool = False,
    momentum: float = 0.0,
    targets: int = 0,
    **options: Unpack[Options],
) -> AttackResult:
    r"""Projected gradient ascent: z ← Π_{ball ∩ box}(z + step_size · v), v = argmax ⟨∇loss(z), v⟩ with ‖v‖_p ≤ 1.

    Arguments:
        model: the classifier.
        x: inputs in the model's box, shape (N, \*shape).
        y: labels, shape (N,).
        threat: norm and eps; an ascending tuple is climbed as one ladder; with ``eps=None`` powers of two are climbed
            and every witness is drawn back toward the input.
        steps: gradient steps.
        step_size: in the units of ``x``; 2.5·eps/steps by default, so that the whole ball can be reached.
        loss: ``"margin"``, ``"ce"``, ``"dlr"``, ``"ce-raw"`` or a callable.
        random_start: begin at a uniform sample of the ball instead of at x.
        raw: move by step_size · ∇loss instead of the steepest step.
        momentum: μ of g ← μ·g + ∇loss/‖∇loss‖₁, along which the step is taken ("Boosting Adversarial Attacks with
            Momentum", Dong et al. 2018, equation 6); see :func:`mifgsm`.
        targets: aim at this many of the likeliest other classes, one restart each, instead of at any.
        options: seed, index, batch_size, restarts, progress.

    Source: "Towards Deep Learning Models Resistant to Adversarial Attacks" (Madry et al. 2018), Section 2.1.

    Example:
        >>> net = torch.nn.Linear(2, 2).eval()
        >>> _ = net.load_state_dict({"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "bias": torch.zeros(2)})
        >>> model = Classifier.of(net, shape=(2,))
        >>> found = pgd(model, torch.tensor([[0.6, 0.5]]), torch.tensor([0]), Threat("linf", 0.1))
        >>> found.success.item(), found.distance.item() <= 0.1
        (True, True)
    """
    if steps < 1:
        raise BadInput("steps of PGD", expected="at least 1", got=steps)
    if step_size is not None and not (math.isfinite(step_size) and step_size > 0):
        raise BadInput("step_size of PGD", expected="a finite number > 0", got=step_size)
    if step_size is not None and threat.ladder and not raw and steps * step_size < threat.ladder[-1]:
        message = f"PGD cannot reach all of the ball: steps*step_size = {steps * step_size:g} < eps = {threat.eps}"
        warnings.warn(message, stacklevel=3)
    method = PGD(
        find_loss(loss), steps, targets, step_size=step_size, random_start=random_start, raw=raw, momentum=momentum
    )
    return attack(method, model, x, y, threat, **options)


@public
def fgsm(
    model: Classifier, x: Tensor, y: Tensor, threat: Threat, *, loss: str | Loss = "margin", **options: Unpack[Options]
) -> AttackResult:
    r"""One steepest step of length eps from the clean input: z = Π(x + eps · v).

    Source: "Explaining and Harnessing Adversarial Examples" (Goodfellow, Shlens & Szegedy 2015), Section 4. Arguments
    and options are those of :func:`pgd`.
    """
    return attack(PGD(find_loss(loss), 1, random_start=False, warm=False), model, x, y, threat, **options)


@public
def mifgsm(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    steps: int = 10,
    momentum: float = 1.0,
    loss: str | Loss = "ce",
    **options: Unpack[Options],
) -> AttackResult:
    r"""The momentum iterative method: from the clean input, steps of eps/steps along g ← μ·g + ∇loss/‖∇loss‖₁.

    Source: "Boosting Adversarial Attacks with Momentum" (Dong, Liao, Pang, Su, Zhu, Hu & Li 2018), Algorithm 1.
    Arguments and options are those of :func:`pgd`.
    """
    if steps < 1:
        raise BadInput("steps of MI-FGSM", expected="at least 1", got=steps)
    method = PGD(find_loss(loss), steps, random_start=False, reach=1.0, momentum=momentum)
    return attack(method, model, x, y, threat, **options)
