"""What one model, one example or one direction tells about others: transfer, directions, universal perturbations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Unpack

import torch
from torch import Tensor

from calipers.attacks.engine import differentiable, run
from calipers.attacks.losses import margin
from calipers.attacks.method import Ask, Options, Rows, Seen, column
from calipers.attacks.result import AttackResult
from calipers.attacks.search import Queries, attack, judged, refine
from calipers.errors import BadInput
from calipers.models import Classifier, public
from calipers.threats import Box, Threat, norm, project, steepest

__all__ = ["along", "transferred", "universal"]


@dataclass(frozen=True, eq=False)
class _Transferred(Queries):
    """Momentum ascent of the surrogate's margin; every look asks the model itself whether it is fooled."""

    minimal: bool = False
    surrogate: Classifier = field(kw_only=True)
    momentum: float = 1.0

    def start(self, ask: Ask, rows: Rows) -> None:
        rows.z, rows.velocity = rows.x.clone(), torch.zeros_like(rows.x)

    def step(self, ask: Ask, rows: Rows, seen: Seen) -> None:
        like = rows.z.view(len(rows), *self.surrogate.shape).to(self.surrogate.device, self.surrogate.dtype)
        with self.surrogate.frozen(), torch.enable_grad():
            z = like.detach().requires_grad_()
            value = margin(self.surrogate(z), rows.y.to(z.device), torch.full_like(rows.y, -1).to(z.device), z)
            grad = torch.autograd.grad(value.sum(), z)[0].to(rows.z.device, rows.z.dtype).view_as(rows.z)
        size = column(norm(grad, "l1"), grad).clamp_min(torch.finfo(grad.dtype).tiny)
        rows.velocity = self.momentum * rows.velocity + grad / size
        move = column(2.5 * rows.eps / self.looks, rows.z) * steepest(rows.velocity, ask.threat.norm)
        rows.z = project(rows.z + move, rows.x, rows.eps, ask.threat.norm, ask.model.box)


@public
def transferred(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    surrogate: Classifier,
    steps: int = 40,
    momentum: float = 1.0,
    **options: Unpack[Options],
) -> AttackResult:
    r"""Gradients of a surrogate, labels of the model: g ← μ·g + ∇m/‖∇m‖₁, z ← Π(z + (2.5·eps/steps)·v), m its margin.

    The surrogate's own answer never stops the search; the model is asked at every step. Only the model's evaluations
    are counted.

    Arguments:
        model: needs no gradients.
        x, y, threat, options: as for :func:`calipers.attacks.pgd`; linf or l2.
        surrogate: a differentiable classifier of the same inputs and classes.
        steps: queries of the model.
        momentum: μ.

    Source: "Boosting Adversarial Attacks with Momentum" (Dong et al. 2018), Section 3, on one surrogate.

    Example:
        >>> model = Classifier.of(torch.nn.Identity(), shape=(2,))
        >>> x, y = torch.tensor([[0.6, 0.5]]), torch.tensor([0])
        >>> transferred(model, x, y, Threat("linf", 0.1), surrogate=model, steps=10).success
        tensor([True])
    """
    if steps < 1:
        raise BadInput("steps of the transfer", expected="at least 1", got=steps)
    if threat.norm not in ("linf", "l2"):
        raise BadInput("norm of the transfer", expected="linf or l2", got=repr(threat.norm))
    if surrogate.classes != model.classes or torch.Size(surrogate.shape).numel() != torch.Size(model.shape).numel():
        expected = f"inputs of shape {model.shape} and {model.classes} classes"
        got = f"shape {surrogate.shape} and {surrogate.classes} classes"
        raise BadInput(f"surrogate {surrogate.name}", expected=expected, got=got)
    method = _Transferred(steps, surrogate=surrogate, momentum=momentum)
    return attack(method, model, x, y, threat, **options)


@dataclass(frozen=True)
class _Along(Queries):
    """Ever longer steps along one direction, up to the whole ball; √2 from one to the next."""

    def start(self, ask: Ask, rows: Rows) -> None:
        self._query(ask, rows, 0 * rows.k)

    def step(self, ask: Ask, rows: Rows, seen: Seen) -> None:
        # A witness is as near as this path has one: the rest is left out.
        rows.k = torch.where(rows.best.isfinite(), self.looks - 2, rows.k)
        self._query(ask, rows, rows.k + 1)

    def _query(self, ask: Ask, rows: Rows, look: Tensor) -> None:
        length = rows.reach * 2.0 ** ((look + 1 - self.looks) / 2)
        way = rows.direction / column(norm(rows.direction, ask.threat.norm), rows.x)
        moved = rows.x + column(length.to(rows.x.dtype), rows.x) * way
        rows.z = project(moved, rows.x, length.to(rows.x.dtype), ask.threat.norm, ask.model.box)


@public
def along(
    direction: Tensor, model: Classifier, x: Tensor, y: Tensor, threat: Threat, **options: Unpack[Options]
) -> AttackResult:
    r"""Walk from every x along a direction until the model is fooled, as far as eps, or across the box without one.

    Where the directions come from is not asked: a gradient, a normal of ``geometry``, another example's perturbation.

    Arguments:
        direction: shape \*shape, the same for all, or (N, \*shape), one each; its length does not matter.
        model, x, y, threat, options: as for :func:`calipers.attacks.pgd`; linf, l2 or l1.

    Raises:
        BadInput: directions of another shape, zero or NaN ones.

    Example:
        >>> model, x = Classifier.of(torch.nn.Identity(), shape=(2,)), torch.tensor([[0.6, 0.5]])
        >>> found = along(torch.tensor([-1.0, 1.0]), model, x, torch.tensor([0]), Threat("linf"))
        >>> round(found.distance.item(), 3)
        0.05
    """
    x, y = model.check(x.detach(), y)
    if threat.norm == "l0":
        raise BadInput("norm of a direction", expected="linf, l2 or l1", got="'l0'")
    if tuple(direction.shape) not in (model.shape, tuple(x.shape)):
        raise BadInput("direction", expected=f"shape {model.shape} or {tuple(x.shape)}", got=tuple(direction.shape))
    ways = direction.detach().to(x.device, x.dtype).expand_as(x)
    if not bool(ways.isfinite().all()) or not bool((ways != 0).flatten(1).any(1).all()):
        raise BadInput("direction", expected="finite numbers, not all of them zero", got="something else")
    box = model.box if model.box.bounded else Box(-(2.0**10), 2.0**10)
    reach = threat.ladder[-1] if threat.ladder else box.reach(threat.norm, x[0].numel())
    far = torch.full((len(x),), reach, dtype=x.dtype, device=x.device)
    plain = Threat(threat.norm)
    found = run(_Along(24), model, x, y, plain, extra={"direction": ways, "reach": far}, **options)
    found = refine(found, model, x, y, plain, **options)
    return found.within(reach, x, y) if threat.ladder else found


@public
def universal(
    model: Classifier, x: Tensor, y: Tensor, threat: Threat, *, steps: int = 100, **options: Unpack[Options]
) -> tuple[Tensor, AttackResult]:
    r"""One perturbation v for all examples: max over ‖v‖_p ≤ eps of mean_n min(m(x_n + v), 0), m the margin.

    Steepest ascent with a step of 2·eps/√t; the v that fools most examples is kept. What is already fooled pulls no
    longer. An attack on one model: witnesses and costs for every example, in batches. For one v against several models,
    and how much of it each believes, see :func:`calipers.geometry.universal_direction`.

    Arguments:
        model, x, y: differentiable; the examples v is to fool.
        threat: linf or l2, with one eps.
        steps: gradients of every example.

    Returns:
        v, shape \*shape, and what it does to each example, judged by a fresh call.

    Source: "Universal Adversarial Perturbations" (Moosavi-Dezfooli, Fawzi, Fawzi & Frossard 2017), Section 3, by
    gradient ascent as in "Universal Adversarial Training" (Shafahi et al. 2020), Algorithm 2.

    Example:
        >>> model = Classifier.of(torch.nn.Identity(), shape=(2,))
        >>> x, y = torch.tensor([[0.6, 0.5], [0.7, 0.5]]), torch.tensor([0, 0])
        >>> v, found = universal(model, x, y, Threat("linf", 0.2))
        >>> found.success.tolist(), v.abs().max().item() <= 0.2
        ([True, True], True)
    """
    if threat.norm not in ("linf", "l2") or len(threat.ladder) != 1:
        raise BadInput("threat of a universal perturbation", expected="linf or l2 with one eps", got=threat)
    x, y = model.check(x.detach(), y)
    if not differentiable(model, x):
        hint = "transferred and along need none"
        raise BadInput(f"model of a universal perturbation, {model.name}", expected="a gradient", got="none", hint=hint)
    eps, anywhere, size = threat.ladder[0], Box(-torch.inf, torch.inf), options.get("batch_size", 256)
    none = torch.full_like(y, -1)
    v = best = torch.zeros_like(x[:1])
    most = -1
    with model.frozen():
        for step in range(1, steps + 1):
            total, fooled = torch.zeros_like(v), 0
            for some in torch.arange(len(x), device=x.device).split(size):
                shift = v.clone().requires_grad_()
                with torch.enable_grad():
                    value = margin(model(model.box.clamp(x[some] + shift)), y[some], none[some], none[some])
                    total += torch.autograd.grad(value.clamp_max(0).sum(), shift)[0]
                fooled += int((value > 0).sum())
            if fooled > most:
                most, best = fooled, v
            v = project(v + 2 * eps / step**0.5 * steepest(total, threat.norm), 0 * v, eps, threat.norm, anywhere)
    found = judged(x + best, model, x, y, threat, **options)
    cost = torch.full_like(found.gradients, steps)
    return best[0], AttackResult(found.adversarial, found.distance, found.predicted, found.forwards + cost, cost)
