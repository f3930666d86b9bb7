"""Penalty attacks: distance + c·loss by gradient descent, with a search over c for every example by itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from calipers.attacks.losses import margin
from calipers.attacks.method import Ask, Options, Rows, Seen, Steps, column, reserve
from calipers.attacks.result import AttackResult
from calipers.attacks.search import attack
from calipers.errors import BadInput
from calipers.models import Classifier, public
from calipers.threats import Box, Threat

__all__ = ["cw", "ead"]


@dataclass(frozen=True)
class _Penalty(Steps, ABC):
    """Rounds of descent, each with a c of its own; δ in units of the box, the margin in twentieths of the spread."""

    rounds: int = 9
    step_size: float = 0.01
    patience: int = 0

    @property
    def length(self) -> int:
        """Steps of a round."""
        return self.steps // self.rounds

    def start(self, ask: Ask, rows: Rows) -> None:
        rows.z, rows.near = rows.x.clone(), rows.x.clone()
        rows.one, rows.two = torch.zeros_like(rows.x), torch.zeros_like(rows.x)
        rows.round, rows.t = torch.zeros_like(rows.k), torch.zeros_like(rows.k)
        rows.gained = torch.zeros_like(rows.k, dtype=torch.bool)
        rows.c, rows.plane, rows.pace, rows.held = (torch.zeros_like(rows.eps) for _ in range(4))
        rows.least, rows.then, rows.cheapest = (torch.full_like(rows.eps, torch.inf) for _ in range(3))

    def _begin(self, rows: Rows, which: Tensor, unit: Tensor) -> None:
        """A new round from the nearest witness, or from the input itself, for the rows chosen."""
        each = column(which, rows.x)
        rows.z = torch.where(each, rows.near, rows.z)
        rows.t, rows.gained = torch.where(which, 0, rows.t), rows.gained & ~which
        rows.least, rows.then = torch.where(which, torch.inf, rows.least), torch.where(which, torch.inf, rows.then)
        rows.one = torch.where(each, self._at_rest((rows.z - rows.x) / unit), rows.one)
        rows.two = torch.where(each, 0.0, rows.two)

    def step(self, ask: Ask, rows: Rows, seen: Seen) -> None:
        unit = column(ask.model.box.scale(rows.x), rows.x)
        gain = 20 / rows.scale
        delta, away = (rows.z - rows.x) / unit, (gain * seen.value.neg()).clamp_min(0)
        grad = column(gain, delta) * seen.grad * unit
        # Twice what an affine model needs: there 2δ = c·grad at the boundary.
        steep = grad.square().flatten(1).sum(1).clamp_min(torch.finfo(rows.c.dtype).tiny)
        # At a tie there is nothing to go away from, but somewhere to go to.
        first = away + gain * reserve(rows)
        rows.c = torch.where(rows.k == 0, (4 * first / steep).clamp_max(1e6), rows.c)
        rows.plane = torch.where(rows.k == 0, first / steep.sqrt(), rows.plane)
        # Where every coordinate moves alike, a fourth of a round at this pace reaches the linearised boundary.
        reach = first / grad.abs().flatten(1).sum(1).clamp_min(torch.finfo(rows.c.dtype).tiny)
        rows.pace = torch.where(rows.k == 0, (4 * reach / self.length).clamp_max(1), rows.pace)
        self._keep(rows, seen, delta, grad, steep)
        slope = 2 * delta - torch.where(column(seen.fooled, delta), 0.0, column(rows.c, delta) * grad)
        rows.t = rows.t + 1
        cost = self._distance(delta) + rows.c * away
        over = (rows.t >= self.length) | self._stalls(rows, cost)
        self._descend(rows, delta, slope, unit, ask.model.box)
        if bool(over.any()):
            self._next_round(rows, over, unit)

    def _keep(self, rows: Rows, seen: Seen, delta: Tensor, grad: Tensor, steep: Tensor) -> None:
        """The nearest witness, and twice the c that holds it: 2δ = c·grad there, as far as both point the same way."""
        far = self._distance(delta)
        nearer = seen.fooled & (far < rows.cheapest)
        rows.cheapest, rows.gained = torch.where(nearer, far, rows.cheapest), rows.gained | nearer
        rows.near = torch.where(column(nearer, delta), rows.z, rows.near)
        rows.held = torch.where(nearer, 4 * (delta * grad).flatten(1).sum(1) / steep, rows.held)

    def _stalls(self, rows: Rows, cost: Tensor) -> Tensor:
        """Whether the cost has not fallen by 0.01 % since the last time it was asked."""
        rows.least = rows.least.minimum(cost)
        if not self.patience:
            return torch.zeros_like(rows.gained)
        here = rows.t % self.patience == 0
        stalls = here & (rows.least > 0.9999 * rows.then)
        rows.then = torch.where(here, rows.least, rows.then)
        return stalls

    def _next_round(self, rows: Rows, over: Tensor, unit: Tensor) -> None:
        stiffer = torch.where(rows.cheapest.isinf(), 10 * rows.c, 2 * rows.c)
        c = torch.where(rows.gained & (rows.held > 0), rows.held, stiffer)
        rows.c = torch.where(over, c.clamp_max(1e6), rows.c)
        rows.round = rows.round + over
        rows.k = torch.where(rows.round >= self.rounds, self.looks - 2, rows.k)
        # The last look of all is spent where the last round ended.
        self._begin(rows, over & (rows.round < self.rounds), unit)

    def _distance(self, delta: Tensor) -> Tensor:
        return delta.square().flatten(1).sum(1)

    @abstractmethod
    def _at_rest(self, delta: Tensor) -> Tensor:
        """What ``rows.one`` is at δ before anything has moved."""

    @abstractmethod
    def _descend(self, rows: Rows, delta: Tensor, slope: Tensor, unit: Tensor, box: Box) -> None:
        """Write the next ``rows.z``; δ and the slope of the objective are in units of the box."""


class _CW(_Penalty):
    """Adam, and a clip to the box after every step."""

    def _at_rest(self, delta: Tensor) -> Tensor:
        return torch.zeros_like(delta)

    def _descend(self, rows: Rows, delta: Tensor, slope: Tensor, unit: Tensor, box: Box) -> None:
        # Adam moves every coordinate alike: at most a tenth of what the nearest witness moved them, in the mean; before
        # there is one, as far as the linearised boundary.
        far = torch.where(rows.best.isinf(), 10 * rows.plane * unit.flatten(), rows.best.to(rows.c.dtype))
        usual = far / delta[0].numel() ** 0.5
        rest = (1 - rows.t / self.length).clamp_min(0.01).to(rows.c.dtype)
        pace = (self.step_size * unit.flatten().minimum(10 * usual)).maximum(
            torch.where(rows.best.isinf(), rows.pace * unit.flatten(), 0.0)
        )
        size = column(rest * pace, delta)
        rows.one = 0.9 * rows.one + 0.1 * slope
        rows.two = 0.999 * rows.two + 0.001 * slope.square()
        first = rows.one / column(1 - 0.9 ** rows.t.to(rows.c.dtype), slope)
        second = rows.two / column(1 - 0.999 ** rows.t.to(rows.c.dtype), slope)
        rows.z = box.clamp(rows.z - size * first / (second.sqrt() + 1e-8))


@dataclass(frozen=True)
class _EAD(_Penalty):
    """FISTA: a gradient step, soft thresholding by β, a clip to the box, and momentum; ``one`` is the last iterate."""

    beta: float = 1e-2

    def _at_rest(self, delta: Tensor) -> Tensor:
        return delta

    def _distance(self, delta: Tensor) -> Tensor:
        return super()._distance(delta) + self.beta * delta.flatten(1).abs().sum(1)

    def _descend(self, rows: Rows, delta: Tensor, slope: Tensor, unit: Tensor, box: Box) -> None:
        size = self.step_size * (1 - rows.t / self.length).clamp_min(0).sqrt().to(rows.c.dtype)
        moved = delta - column(size, delta) * slope
        shrunk = moved.sign() * (moved.abs() - self.beta * column(size, delta)).clamp_min(0)
        now = (box.clamp(rows.x + unit * shrunk) - rows.x) / unit
        momentum = column((rows.t / (rows.t + 3)).to(rows.c.dtype), delta)
        rows.z = box.clamp(rows.x + unit * (now + momentum * (now - rows.one)))
        rows.one = now


@public
def cw(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    steps: int = 9000,
    rounds: int | None = None,
    step_size: float = 0.01,
    **options: Unpack[Options],
) -> AttackResult:
    r"""Carlini & Wagner, L2: min ‖δ‖₂² + c·max(z_y − max_{j≠y} z_j, 0) by Adam, with a search over c.

    c begins at twice what an affine model needs and goes up tenfold until a round of steps/rounds steps has succeeded.
    From then on a round begins at the nearest witness, with twice the c that holds it there, where 2δ = c·∇loss, or
    with twice the last c if that gained nothing: a larger c has the same minimum near by, only stiffer. The paper
    bisects c and begins each round at x. A round ends early when its objective has not fallen in a tenth of it. The
    first rounds step far enough to reach the linearised boundary in a fourth of their length. The box is kept by
    clipping (the paper's projected gradient descent, Section V.B) where its main text changes variables to tanh, whose
    gradient is zero at pixels of exactly 0 and 1.

    Arguments:
        model, x, y, threat, options: as for :func:`calipers.attacks.pgd`. The attack always seeks the minimal
            distortion; with an eps, witnesses beyond it do not count.
        steps: gradient steps in all rounds together.
        rounds: values of c tried; 20 in the paper, 9 in the authors' code and here, fewer where a round would have less
            than 30 steps.
        step_size: of Adam, in units of the box's width; 0.01 in the authors' code. It
            falls over a round, and with the distance of the nearest witness.

    Source: "Towards Evaluating the Robustness of Neural Networks" (Carlini & Wagner 2017), Sections V and VI.A.

    Example:
        >>> net = torch.nn.Linear(2, 2).double().eval()
        >>> _ = net.load_state_dict({"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "bias": torch.zeros(2)})
        >>> model = Classifier.of(net, shape=(2,))
        >>> x = torch.tensor([[0.75, 0.25]], dtype=torch.float64)
        >>> round(cw(model, x, torch.tensor([0]), Threat("l2"), steps=450).distance.item(), 2)
        0.35
    """
    rounds = _rounds(steps) if rounds is None else rounds
    _check("CW", "l2", threat, steps, rounds, step_size)
    patience = max(steps // rounds // 10, 1)
    method = _CW(margin, steps, minimal=True, rounds=rounds, step_size=step_size, patience=patience)
    return attack(method, model, x, y, threat, **options)


@public
def ead(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    steps: int = 9000,
    rounds: int | None = None,
    step_size: float = 0.01,
    beta: float = 0.01,
    **options: Unpack[Options],
) -> AttackResult:
    r"""EAD, L1: min β‖δ‖₁ + ‖δ‖₂² + c·max(z_y − max_{j≠y} z_j, 0) by FISTA, with the search over c of :func:`cw`.

    The model is looked at where the gradient is taken, at the point with momentum; the witness is the nearest in L1.

    Arguments:
        model, x, y, threat, steps, rounds, options: as for :func:`cw`; L1 only.
        step_size: in units of the box's width, falls with the square root of the rest of the round; 0.01 in the paper.
        beta: weight of the L1 norm; 0.01 in the paper.

    Source: "EAD: Elastic-Net Attacks to Deep Neural Networks via Adversarial Examples" (Chen, Sharma, Zhang, Yi &
    Hsieh 2018), Algorithm 1.
    """
    rounds = _rounds(steps) if rounds is None else rounds
    _check("EAD", "l1", threat, steps, rounds, step_size)
    method = _EAD(margin, steps, minimal=True, rounds=rounds, step_size=step_size, beta=beta)
    return attack(method, model, x, y, threat, **options)


def _rounds(steps: int) -> int:
    """Nine, or fewer where a round would have less than 30 steps."""
    return max(min(9, steps // 30), 1)


def _check(name: str, norm: str, threat: Threat, steps: int, rounds: int, step_size: float) -> None:
    if threat.norm != norm:
        raise BadInput(f"norm of {name}", expected=norm, got=repr(threat.norm), hint="fmn takes all norms")
    if rounds < 1 or steps < rounds or step_size <= 0:
        got = f"{steps}, {rounds} and {step_size}"
        raise BadInput(f"steps, rounds and step_size of {name}", expected="steps >= rounds >= 1, above 0", got=got)
