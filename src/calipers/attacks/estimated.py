"""SPSA, NES and ZOO: the gradient estimated from pairs of queries, one on either side of the point."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Unpack

import torch
from torch import Tensor

from calipers.attacks.method import Ask, Options, Rows, Seen, column, go_on
from calipers.attacks.result import AttackResult
from calipers.attacks.search import Queries, attack
from calipers.errors import BadInput
from calipers.models import Classifier, public
from calipers.runner.draws import Draws
from calipers.threats import Threat, norm_of, project, sample, steepest

__all__ = ["nes", "spsa", "zoo"]

Directions = Literal["signs", "normal", "coordinates"]


@dataclass(frozen=True)
class _Estimated(Queries):
    """A look at the point, then pairs of looks around it, then a move; slope = Σ (f(z + hv) − f(z − hv))/2 · v."""

    minimal: bool = False
    directions: Directions = "signs"
    pairs: int = 1
    reach: float = 0.01
    step_size: float | None = None
    momentum: float = 0.9

    def start(self, ask: Ask, rows: Rows) -> None:
        # The first attempt starts at x itself, restarts at a random point of the ball.
        fresh = sample(rows.x, rows.eps, ask.threat.norm, ask.model.box, ask.draws(rows, 0))
        begin = torch.where(column(rows.attempt == 0, rows.x), rows.x, fresh)
        rows.z = getattr(rows, "base", rows.z)
        rows.base = go_on(ask, rows, begin)
        rows.z, rows.plus = rows.base, torch.zeros_like(rows.eps)
        for name in ("direction", "slope", "mean", "square", "visits"):
            setattr(rows, name, torch.zeros_like(rows.x))

    def step(self, ask: Ask, rows: Rows, seen: Seen) -> None:
        period = 2 * self.pairs + 1
        phase = rows.k % period
        upper = phase % 2 == 1
        lower = (phase > 0) & ~upper
        rows.plus = torch.where(upper, seen.value, rows.plus)
        gain = torch.where(lower, (rows.plus - seen.value) / 2, 0.0)
        rows.slope = rows.slope + column(gain, rows.x) * rows.direction
        moves = column(phase == period - 1, rows.x)
        if bool(moves.any()):
            self._move(ask, rows, moves)
        following = (phase + 1) % period
        upper, lower = (column(c, rows.x) for c in (following % 2 == 1, (following > 0) & (following % 2 == 0)))
        if bool(upper.any()):
            fresh = self._direction(ask.draws(rows, rows.k + 1), rows)
            rows.direction = torch.where(upper, fresh, rows.direction)
        probe = torch.where(upper, 1.0, torch.where(lower, -1.0, 0.0)).to(rows.x.dtype) * rows.direction
        rows.z = ask.model.box.clamp(rows.base + column(self._reach(ask, rows), rows.x) * probe)

    def _reach(self, ask: Ask, rows: Rows) -> Tensor:
        """How far the two looks of a pair lie from the point: never beyond what eps is to one coordinate."""
        return (self.reach * ask.model.box.scale(rows.x)).minimum(self._share(ask, rows))

    def _share(self, ask: Ask, rows: Rows) -> Tensor:
        """eps·d^(−1/p): what each coordinate may change if all change alike."""
        share: float = rows.x[0].numel() ** (-1 / norm_of(ask.threat.norm))
        return rows.eps * share

    def _direction(self, draw: Draws, rows: Rows) -> Tensor:
        n, d = rows.x.flatten(1).shape
        if self.directions == "coordinates":
            chosen = (draw("uniform", (n, 1)) * d).long().clamp_max(d - 1)
            return torch.zeros(n, d, dtype=rows.x.dtype, device=rows.x.device).scatter(1, chosen, 1.0).view_as(rows.x)
        if self.directions == "normal":
            return draw("normal", (n, d)).to(rows.x.dtype).view_as(rows.x)
        return torch.where(draw("uniform", (n, d)) < 0.5, -1.0, 1.0).to(rows.x.dtype).view_as(rows.x)

    def _move(self, ask: Ask, rows: Rows, moves: Tensor) -> None:
        """One step along the estimated slope where it is complete; then it is forgotten, but for the momentum."""
        steps = math.ceil(self.looks / (2 * self.pairs + 1))
        if self.directions == "coordinates":
            visits = max(steps * self.pairs / rows.x[0].numel(), 1.0)
            size = self._share(ask, rows) * max(2.5 / visits, 0.1)
            move = _adam(rows, moves)
        else:
            size, move = 2.5 * rows.eps / steps, steepest(rows.slope, ask.threat.norm)
        if self.step_size is not None:
            size = torch.full_like(rows.eps, self.step_size)
        ahead = project(rows.base + column(size, rows.x) * move, rows.x, rows.eps, ask.threat.norm, ask.model.box)
        rows.base = torch.where(moves, ahead, rows.base)
        kept = 0.0 if self.directions == "coordinates" else self.momentum
        rows.slope = torch.where(moves, kept * rows.slope, rows.slope)


def _adam(rows: Rows, moves: Tensor) -> Tensor:
    """ADAM on the coordinates that were looked at, each with a clock of its own (the paper's Algorithm 2)."""
    touched = moves & (rows.slope != 0)
    rows.visits = rows.visits + touched
    rows.mean = torch.where(touched, 0.9 * rows.mean + 0.1 * rows.slope, rows.mean)
    rows.square = torch.where(touched, 0.999 * rows.square + 0.001 * rows.slope.square(), rows.square)
    visits = rows.visits.clamp_min(1)
    mean, square = rows.mean / (1 - 0.9**visits), rows.square / (1 - 0.999**visits)
    return torch.where(touched, mean / square.sqrt().clamp_min(torch.finfo(mean.dtype).tiny), 0.0)


@public
def spsa(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    steps: int = 100,
    samples: int = 64,
    reach: float = 0.01,
    step_size: float | None = None,
    **options: Unpack[Options],
) -> AttackResult:
    r"""Ascent along ĝ = mean_i (f(z + h·v_i) − f(z − h·v_i)) / 2h · v_i with v_i ∈ {−1, 1}^d and f the margin.

    Arguments:
        model, x, y, threat, options: as for :func:`calipers.attacks.pgd`.
        steps: moves; each costs 2·samples + 1 queries.
        samples: pairs of queries a move.
        reach: h as a fraction of the box, and never more than eps·d^(−1/p).
        step_size: in the units of ``x``; 2.5·eps/steps by default.

    Source: "Adversarial Risk and the Dangers of Evaluating Against Weak Attacks" (Uesato, O'Donoghue, van den Oord &
    Kohli 2018), Algorithm 1. In place of ADAM it moves by the steepest step of the norm, with momentum 0.9.

    Example:
        >>> model = Classifier.of(torch.nn.Identity(), shape=(2,))
        >>> spsa(model, torch.tensor([[0.6, 0.5]]), torch.tensor([0]), Threat("l2", 0.1), steps=5, samples=2).success
        tensor([True])
    """
    return _estimated("signs", "SPSA", model, x, y, threat, steps, samples, reach, step_size, options)


@public
def nes(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    steps: int = 100,
    samples: int = 25,
    reach: float = 0.001,
    step_size: float | None = None,
    **options: Unpack[Options],
) -> AttackResult:
    r"""Natural evolution strategies: :func:`spsa` with normal directions v_i, in pairs of opposite sign.

    Source: "Black-box Adversarial Attacks with Limited Queries and Information" (Ilyas, Engstrom, Athalye & Lin 2018),
    Section 2; 50 queries a move and h = 0.001 as there.

    Example:
        >>> model = Classifier.of(torch.nn.Identity(), shape=(2,))
        >>> nes(model, torch.tensor([[0.6, 0.5]]), torch.tensor([0]), Threat("linf", 0.1), steps=5, samples=2).success
        tensor([True])
    """
    return _estimated("normal", "NES", model, x, y, threat, steps, samples, reach, step_size, options)


@public
def zoo(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    steps: int = 100,
    coordinates: int = 128,
    reach: float = 1e-4,
    step_size: float | None = None,
    **options: Unpack[Options],
) -> AttackResult:
    r"""Zeroth-order optimisation: ADAM on random coordinates, ∂f/∂z_i ≈ (f(z + h·e_i) − f(z − h·e_i)) / 2h.

    Arguments:
        model, x, y, threat, options: as for :func:`calipers.attacks.pgd`.
        steps: moves; each costs 2·coordinates + 1 queries.
        coordinates: how many are looked at for a move.
        reach: h as a fraction of the box; 1e-4 in the paper.
        step_size: ADAM's, in the units of ``x``; by default every coordinate can go 2.5 times as far as eps lets it.

    Source: "ZOO: Zeroth Order Optimization Based Black-box Attacks to Deep Neural Networks without Training Substitute
    Models" (Chen, Zhang, Sharma, Yi & Hsieh 2017), Algorithm 2. The margin is climbed inside the ball; the paper
    weighs it against the squared distance.

    Example:
        >>> model = Classifier.of(torch.nn.Identity(), shape=(2,))
        >>> zoo(model, torch.tensor([[0.6, 0.5]]), torch.tensor([0]), Threat("l2", 0.1), coordinates=2).success
        tensor([True])
    """
    return _estimated("coordinates", "ZOO", model, x, y, threat, steps, coordinates, reach, step_size, options)


def _estimated(
    directions: Directions,
    name: str,
    model: Classifier,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    steps: int,
    pairs: int,
    reach: float,
    step_size: float | None,
    options: Options,
) -> AttackResult:
    if steps < 1 or pairs < 1:
        raise BadInput(f"steps and pairs of {name}", expected="at least 1", got=f"{steps} and {pairs}")
    if not 0 < reach < 1:
        raise BadInput(f"reach of {name}", expected="a fraction of the box above 0, below 1", got=reach)
    if threat.norm not in ("linf", "l2"):
        raise BadInput(f"norm of {name}", expected="linf or l2", got=repr(threat.norm), hint="square takes l1 too")
    looks = steps * (2 * pairs + 1) + 1
    method = _Estimated(looks, directions=directions, pairs=pairs, reach=reach, step_size=step_size)
    return attack(method, model, x, y, threat, **options)
