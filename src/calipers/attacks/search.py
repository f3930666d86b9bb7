"""Searches without gradients: the line search toward the input, the search for any witness at all, random noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from calipers.attacks.engine import run
from calipers.attacks.losses import Loss, margin
from calipers.attacks.method import Ask, Method, Options, Rows, Seen, column
from calipers.attacks.result import AttackResult
from calipers.models import Classifier
from calipers.threats import Threat, project, sample

__all__ = ["attack", "noise", "refine"]


@dataclass(frozen=True)
class _Search:
    """What the methods of this file share: no gradients, no targets."""

    looks: int
    minimal: bool = True
    loss: Loss = margin
    gradients: int = 0
    targets: int = 0


class _LineSearch(_Search):
    """Bisection on the path t → Π_{t·D}(witness), from the witness (t = 1) to the input (t = 0)."""

    def start(self, ask: Ask, rows: Rows) -> None:
        rows.low, rows.high = torch.zeros_like(rows.reach), rows.reach.clone()
        self._query(ask, rows)

    def step(self, ask: Ask, rows: Rows, seen: Seen) -> None:
        middle = (rows.low + rows.high) / 2
        rows.high = torch.where(seen.fooled, middle, rows.high)
        rows.low = torch.where(seen.fooled, rows.low, middle)
        self._query(ask, rows)

    def _query(self, ask: Ask, rows: Rows) -> None:
        radius = ((rows.low + rows.high) / 2).to(rows.x.dtype)
        rows.z = project(rows.witness, rows.x, radius, ask.threat.norm, ask.model.box)


class _Anywhere(_Search):
    """Uniform points of the box, whatever the distance: a witness to draw back when all else has failed."""

    def start(self, ask: Ask, rows: Rows) -> None:
        self._query(ask, rows, 0 * rows.k)

    def step(self, ask: Ask, rows: Rows, seen: Seen) -> None:
        self._query(ask, rows, rows.k + 1)

    def _query(self, ask: Ask, rows: Rows, look: Tensor) -> None:
        draw, (n, d) = ask.draws(rows, look), rows.x.flatten(1).shape
        lo, hi = ask.model.box.sides(rows.x)
        # Where the box is infinite, the reach doubles from look to look.
        reach = column(2.0 ** look.clamp(0, 60).to(rows.x.dtype), rows.x)
        low, high = torch.where(lo.isinf(), rows.x - reach, lo), torch.where(hi.isinf(), rows.x + reach, hi)
        rows.z = ask.model.box.clamp(low + (high - low) * draw("uniform", (n, d)).to(rows.x.dtype).view_as(rows.x))


class _Noise(_Search):
    """Independent uniform samples of the ball."""

    def start(self, ask: Ask, rows: Rows) -> None:
        self._query(ask, rows, 0 * rows.k)

    def step(self, ask: Ask, rows: Rows, seen: Seen) -> None:
        self._query(ask, rows, rows.k + 1)

    def _query(self, ask: Ask, rows: Rows, look: Tensor) -> None:
        rows.z = sample(rows.x, rows.eps, ask.threat.norm, ask.model.box, ask.draws(rows, look))


def noise(
    model: Classifier, x: Tensor, y: Tensor, threat: Threat, *, steps: int = 100, **options: Unpack[Options]
) -> AttackResult:
    r"""Random noise: ``steps`` independent uniform samples of every radius. What no attack may be weaker than.

    Arguments and options are those of :func:`calipers.attacks.pgd`.
    """
    return attack(_Noise(steps, minimal=False), model, x, y, threat, **options)


def refine(
    found: AttackResult,
    model: Classifier,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    steps: int = 16,
    beyond: float = 0.0,
    **options: Unpack[Options],
) -> AttackResult:
    r"""Draw every witness toward its input: bisection on t → Π_{ball(x, t·D) ∩ box}(witness), D its distance.

    In L2 the path is the straight line; in L∞ it lowers the largest changes first, in L1 it drops the smallest, in L0
    it gives up coordinates. A nearer witness is kept, a farther one never.

    Arguments:
        found: the result of an attack on these examples.
        steps: forwards per example; the distance is found to D·2^−steps.
        beyond: leave alone the witnesses that are no farther than this.
    """
    some = (found.success & (found.distance > beyond)).nonzero()[:, 0]
    if not len(some):
        return found
    extra = {"witness": found.adversarial[some], "reach": found.distance[some]}
    options = _quietly(options, some, len(x))
    nearer = run(_LineSearch(steps), model, x[some], y[some], Threat(threat.norm), extra=extra, **options)
    return found.better(_spread(nearer, some, found))


def attack(
    method: Method, model: Classifier, x: Tensor, y: Tensor, threat: Threat, **options: Unpack[Options]
) -> AttackResult:
    """Run a method; where the minimal distortion is asked for, never end without a witness if one can be had.

    A failure falls back to a search anywhere in the box, and every witness is drawn toward its input. A method that
    seeks the minimal distortion itself is not told of an eps; its witnesses beyond it are drawn in, and count if they
    end inside.
    """
    found = run(method, model, x, y, Threat(threat.norm) if method.minimal else threat, **options)
    if threat.ladder:
        eps = threat.ladder[-1]
        return refine(found, model, x, y, threat, beyond=eps, **options).within(eps, x, y) if method.minimal else found
    lost = (~found.success).nonzero()[:, 0]
    if len(lost):
        quiet = _quietly(options, lost, len(x))
        far = run(_Anywhere(32), model, x[lost], y[lost], threat, **quiet)
        found = found.better(_spread(far, lost, found))
    return refine(found, model, x, y, threat, **options)


def _quietly(options: Options, some: Tensor, count: int) -> Options:
    """The options for a part of the examples: their own indices, no progress, no restarts."""
    index = options.get("index", torch.arange(count))
    part: Options = {"index": index[some.to(index.device)], "seed": options.get("seed", 0)}
    if "batch_size" in options:
        part["batch_size"] = options["batch_size"]
    return part


def _spread(part: AttackResult, some: Tensor, whole: AttackResult) -> AttackResult:
    """The result of some examples as a result of all: inf and no cost elsewhere."""
    distance = torch.full_like(whole.distance, math.inf)
    distance[some] = part.distance
    adversarial, predicted = whole.adversarial.clone(), whole.predicted.clone()
    adversarial[some], predicted[some] = part.adversarial, part.predicted
    forwards, gradients = torch.zeros_like(whole.forwards), torch.zeros_like(whole.gradients)
    forwards[some], gradients[some] = part.forwards, part.gradients
    return AttackResult(adversarial, distance, predicted, forwards, gradients)
