"""Brute force: random points of the ball, streamed in blocks, so that 10⁸ of them need no more memory than 10²."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Unpack

import torch
from torch import Tensor

from calipers.attacks.engine import finite
from calipers.attacks.method import Options, clears, column
from calipers.attacks.result import AttackResult
from calipers.attacks.search import judged, settle
from calipers.errors import BadInput, nearest
from calipers.models import Classifier, public
from calipers.runner.draws import Draws
from calipers.threats import Box, Norm, Threat, distance, norm_of, project, sample

__all__ = ["KINDS", "noise"]

# How many points of one example are drawn and looked at together; what is spent is counted in whole blocks.
_BLOCK = 64

Kind = Callable[[Tensor, Tensor, Norm, Classifier, Draws], Tensor]


def _uniform(x: Tensor, eps: Tensor, norm: Norm, model: Classifier, draw: Draws) -> Tensor:
    return sample(x, eps, norm, model.box, draw)


def _bernoulli(x: Tensor, eps: Tensor, norm: Norm, model: Classifier, draw: Draws) -> Tensor:
    """x ± eps·d^(−1/p) with a fair coin for every coordinate; in L0 a side of the box on eps many coordinates."""
    n, d = x.flatten(1).shape
    coin = draw("uniform", (n, d)).view_as(x) < 0.5
    if norm == "l0":
        lo, hi = model.box.sides(x)
        low, high = torch.where(lo.isinf(), x - 1, lo), torch.where(hi.isinf(), x + 1, hi)
        chosen = draw("uniform", (n, d)).argsort(dim=1).argsort(dim=1).view_as(x) < column(eps, x)
        corner = torch.where(chosen, torch.where(coin, high, low), x)
    else:
        size = column(eps * d ** (-1 / norm_of(norm)), x)
        corner = torch.where(coin, x + size, x - size)
    return project(corner, x, eps, norm, model.box)


KINDS: dict[str, Kind] = {"uniform": _uniform, "bernoulli": _bernoulli}


@public
def noise(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    steps: int = 100,
    kind: str = "uniform",
    **options: Unpack[Options],
) -> AttackResult:
    r"""Brute force: ``steps`` independent random points of every radius. What no attack may be weaker than.

    z ~ uniform on ball ∩ box, or z = Π(x ± eps·d^(−1/p)) with a fair coin for every coordinate: in L∞ the corners of
    the cube. Points are made in blocks of 64 from counters, so nothing is kept but the nearest witness.

    Arguments:
        model, x, y, threat, options: as for :func:`calipers.attacks.pgd`; ``restarts`` multiplies the points.
        steps: points per example and radius, up to 2³².
        kind: ``"uniform"`` or ``"bernoulli"``.

    Source: "Obfuscated Gradients Give a False Sense of Security" (Athalye, Carlini & Wagner 2018), Section 3.1, which
    takes it as a test of an evaluation.

    Example:
        >>> model = Classifier.of(torch.nn.Identity(), shape=(2,))
        >>> noise(model, torch.tensor([[0.5, 0.45]]), torch.tensor([0]), Threat("linf", 0.2)).success
        tensor([True])
    """
    if kind not in KINDS:
        raise BadInput("kind of noise", expected=" or ".join(KINDS), got=repr(kind), hint=nearest(kind, KINDS))
    points = steps * options.get("restarts", 1)
    if not 1 <= points < 2**32:
        raise BadInput("steps of noise", expected="1 to 2^32 - 1", got=points)
    x, y = model.check(x.detach(), y)
    index = options.get("index", torch.arange(len(x))).to(x.device)
    quiet: Options = {"index": index, "seed": options.get("seed", 0), "batch_size": options.get("batch_size", 256)}
    stream = _Stream(model, x, y, threat, KINDS[kind], quiet)
    with model.frozen(), torch.no_grad():
        stream.run(points, options.get("progress", lambda finished: None))
    found = judged(stream.best, model, x, y, threat, **quiet)
    found = replace(found, forwards=found.forwards + stream.forwards)
    return settle(found, model, x, y, threat, **quiet)


class _Stream:
    """The examples that still stand, and the nearest witness of those that do not."""

    def __init__(self, model: Classifier, x: Tensor, y: Tensor, threat: Threat, kind: Kind, options: Options) -> None:
        self.model, self.x, self.y, self.threat, self.kind = model, x, y, threat, kind
        self.index, self.seed, self.batch_size = options["index"], options["seed"], options["batch_size"]
        self.best = x.clone()
        self.forwards = torch.zeros(len(x), dtype=torch.int64, device=x.device)

    def run(self, points: int, tell: Callable[[int], None]) -> None:
        """Rung by rung, block by block, until every example has fallen or the points are spent."""
        standing = self._fooled(self.x, torch.arange(len(self.x), device=self.x.device)).logical_not().nonzero()[:, 0]
        self.forwards += 1
        tell(len(self.x) - len(standing))
        for stream, eps in enumerate(_rungs(self.threat, self.model)):
            for first in range(0, points, _BLOCK):
                block = torch.arange(first, min(first + _BLOCK, points), device=self.x.device)
                groups = standing.split(max(self.batch_size // len(block), 1)) if len(standing) else ()
                fell = [self._look(some, block, eps, stream) for some in groups]
                if not fell:
                    return
                tell(int(torch.cat(fell).sum()))
                standing = standing[~torch.cat(fell)]
        tell(len(standing))

    def _look(self, some: Tensor, block: Tensor, eps: float, stream: int) -> Tensor:
        """One block of points of some examples; whether each fell: bool (n,)."""
        row = some.repeat_interleave(len(block))
        draw = Draws(self.seed, self.index[row], block.repeat(len(some)), stream)
        x, norm = self.x[row], self.threat.norm
        z = self.kind(x, torch.full_like(x.flatten(1)[:, 0], eps), norm, self.model, draw)
        far = distance(x, z, norm)
        far = torch.where(self._fooled(z, row) & (far <= eps), far, torch.inf).view(len(some), -1)
        nearest = far.argmin(1, keepdim=True)
        fell = far.gather(1, nearest)[:, 0].isfinite()
        chosen = z.view(len(some), len(block), *z.shape[1:])[torch.arange(len(some), device=z.device), nearest[:, 0]]
        self.best[some[fell]] = chosen[fell]
        self.forwards[some] += len(block)
        return fell

    def _fooled(self, z: Tensor, row: Tensor) -> Tensor:
        logits = torch.cat([self.model(part) for part in z.split(self.batch_size)])
        finite(logits, self.index[row], self.model)
        return clears(logits, self.y[row])


def _rungs(threat: Threat, model: Classifier) -> tuple[float, ...]:
    """The asked radii, or powers of two up to the whole box; ±2¹⁰ a coordinate where it is infinite."""
    if threat.ladder:
        return threat.ladder
    box, d = model.box if model.box.bounded else Box(-(2.0**10), 2.0**10), math.prod(model.shape)
    count = math.ceil(math.log2(d)) if threat.norm == "l0" else 10 if model.box.bounded else 21
    return tuple(box.reach(threat.norm, d) * 2.0**-i for i in range(count, -1, -1))
