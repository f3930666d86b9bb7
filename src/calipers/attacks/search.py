"""What every attack ends with: the line search toward the input, the search for any witness, the witness of others."""

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
from calipers.errors import BadInput
from calipers.models import Classifier
from calipers.threats import Threat, project

__all__ = ["Queries", "anywhere", "attack", "judged", "part_of", "refine", "settle", "spread"]


@dataclass(frozen=True)
class Queries:
    """What methods without gradients share: every look is a query of the model's answer, and no class is aimed at."""

    looks: int
    minimal: bool = True
    loss: Loss = margin
    gradients: int = 0
    targets: int = 0


class _LineSearch(Queries):
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


class _Anywhere(Queries):
    """Uniform points of the box, whatever the distance: a witness to draw back when all else has failed."""

    def start(self, ask: Ask, rows: Rows) -> None:
        rows.z = anywhere(ask, rows, 0 * rows.k)

    def step(self, ask: Ask, rows: Rows, seen: Seen) -> None:
        rows.z = anywhere(ask, rows, rows.k + 1)


def anywhere(ask: Ask, rows: Rows, look: Tensor) -> Tensor:
    """A uniform point of the box; where the box is infinite, the reach around x doubles from look to look."""
    draw, (n, d) = ask.draws(rows, look), rows.x.flatten(1).shape
    lo, hi = ask.model.box.sides(rows.x)
    reach = column(2.0 ** look.clamp(0, 60).to(rows.x.dtype), rows.x)
    low, high = torch.where(lo.isinf(), rows.x - reach, lo), torch.where(hi.isinf(), rows.x + reach, hi)
    return ask.model.box.clamp(low + (high - low) * draw("uniform", (n, d)).to(rows.x.dtype).view_as(rows.x))


class _Given(Queries):
    """One look at a point that somebody else proposes, brought into the ball and the box."""

    def start(self, ask: Ask, rows: Rows) -> None:
        ladder, box = ask.threat.ladder, ask.model.box
        z = rows.witness
        rows.z = project(z, rows.x, ladder[-1], ask.threat.norm, box) if ladder else box.clamp(z)

    def step(self, ask: Ask, rows: Rows, seen: Seen) -> None:
        """There is no second look."""


def judged(
    z: Tensor, model: Classifier, x: Tensor, y: Tensor, threat: Threat, **options: Unpack[Options]
) -> AttackResult:
    r"""Make witnesses of points that something else proposes: brought into ball ∩ box, judged by a call of the model.

    Arguments:
        z: proposals, shape (N, \*shape); those that do not fool the model there are nothing found.
        model, x, y, threat, options: as for :func:`calipers.attacks.pgd`.

    Raises:
        BadInput: proposals of another shape than ``x``, NaN or infinite ones.

    Example:
        >>> model = Classifier.of(torch.nn.Identity(), shape=(2,))
        >>> x, z = torch.tensor([[0.75, 0.5]]), torch.tensor([[0.25, 0.5]])
        >>> judged(z, model, x, torch.tensor([0]), Threat("linf", 0.375)).distance.item() <= 0.375
        True
    """
    x, y = model.check(x.detach(), y)
    z = z.detach().to(x.device, x.dtype)
    if z.shape != x.shape or not bool(z.isfinite().all()):
        got = tuple(z.shape) if z.shape != x.shape else "NaN or infinity"
        raise BadInput("proposed witnesses", expected=f"finite numbers of shape {tuple(x.shape)}", got=got)
    return run(_Given(1), model, x, y, threat, extra={"witness": z}, **options)


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
    options = part_of(options, some, len(x))
    nearer = run(_LineSearch(steps), model, x[some], y[some], Threat(threat.norm), extra=extra, **options)
    return found.better(spread(nearer, some, found))


def attack(
    method: Method, model: Classifier, x: Tensor, y: Tensor, threat: Threat, **options: Unpack[Options]
) -> AttackResult:
    """Run a method; where the minimal distortion is asked for, never end without a witness if one can be had.

    A failure falls back to a search anywhere in the box, and every witness is drawn toward its input. A method that
    seeks the minimal distortion itself is not told of an eps; its witnesses beyond it are drawn in, and count if they
    end inside.
    """
    found = run(method, model, x, y, Threat(threat.norm) if method.minimal else threat, **options)
    if threat.ladder and method.minimal:
        eps = threat.ladder[-1]
        return refine(found, model, x, y, threat, beyond=eps, **options).within(eps, x, y)
    return settle(found, model, x, y, threat, **options)


def settle(
    found: AttackResult, model: Classifier, x: Tensor, y: Tensor, threat: Threat, **options: Unpack[Options]
) -> AttackResult:
    """How every attack ends: with an eps as it is; otherwise what failed is searched anywhere, and all is refined."""
    if threat.ladder:
        return found
    lost = (~found.success).nonzero()[:, 0]
    if len(lost):
        quiet = part_of(options, lost, len(x))
        far = run(_Anywhere(32), model, x[lost], y[lost], threat, **quiet)
        found = found.better(spread(far, lost, found))
    return refine(found, model, x, y, threat, **options)


def part_of(options: Options, some: Tensor, count: int) -> Options:
    """The options for a part of the examples: their own indices, no progress, no restarts."""
    index = options.get("index", torch.arange(count))
    part: Options = {"index": index[some.to(index.device)], "seed": options.get("seed", 0)}
    if "batch_size" in options:
        part["batch_size"] = options["batch_size"]
    return part


def spread(part: AttackResult, some: Tensor, whole: AttackResult) -> AttackResult:
    """The result of some examples as a result of all: inf and no cost elsewhere."""
    distance = torch.full_like(whole.distance, math.inf)
    distance[some] = part.distance
    adversarial, predicted = whole.adversarial.clone(), whole.predicted.clone()
    adversarial[some], predicted[some] = part.adversarial, part.predicted
    forwards, gradients = torch.zeros_like(whole.forwards), torch.zeros_like(whole.gradients)
    forwards[some], gradients[some] = part.forwards, part.gradients
    return AttackResult(adversarial, distance, predicted, forwards, gradients)
