"""HopSkipJump: the minimal distortion from labels alone, by walking along the decision boundary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from calipers.attacks.method import Ask, Options, Rows, Seen, column
from calipers.attacks.result import AttackResult
from calipers.attacks.search import Queries, anywhere, attack
from calipers.errors import BadInput
from calipers.models import Classifier, public
from calipers.threats import Norm, Threat, norm, project, steepest

__all__ = ["hopskipjump"]

# What a look is for: any witness at all; the boundary between it and x; the normal there; how far to jump.
_SEARCH, _BISECT, _ESTIMATE, _JUMP = range(4)
# After so many halvings of a jump the normal is taken anew.
_PATIENCE = 16


@dataclass(frozen=True)
class _HopSkipJump(Queries):
    """Every row is in a phase of its own; each phase reads its answer and says what comes next."""

    samples: int = 100

    def start(self, ask: Ask, rows: Rows) -> None:
        for name in ("phase", "count", "turn"):
            setattr(rows, name, torch.zeros_like(rows.k))
        for name in ("low", "high", "jump", "ayes"):
            setattr(rows, name, torch.zeros_like(rows.eps))
        for name in ("point", "witness", "direction", "votes", "total"):
            setattr(rows, name, torch.zeros_like(rows.x))
        rows.z = anywhere(ask, rows, 0 * rows.k)

    def step(self, ask: Ask, rows: Rows, seen: Seen) -> None:
        name, phase = ask.threat.norm, rows.phase
        found = seen.fooled & ((phase == _SEARCH) | (phase == _JUMP))
        missed = ~seen.fooled & (phase == _JUMP)
        rows.count = rows.count + 1
        self._bisected(rows, seen, phase == _BISECT, self._tolerance(rows, name))
        self._estimated(rows, seen, phase == _ESTIMATE, name)
        rows.jump = torch.where(missed, rows.jump / 2, rows.jump)
        self._turn(rows, missed & (rows.count >= _PATIENCE))
        self._bisect_from_here(rows, found, name)
        rows.z = self._next(ask, rows)

    def _tolerance(self, rows: Rows, name: Norm) -> Tensor:
        """The paper's θ: d^(−3/2) in L2, d^(−2) in L∞; never below what the dtype can tell."""
        power = -1.5 if name == "l2" else -2.0
        return torch.full_like(rows.eps, max(rows.x[0].numel() ** power, 64 * torch.finfo(rows.x.dtype).eps))

    def _bisect_from_here(self, rows: Rows, at: Tensor, name: Norm) -> None:
        rows.witness = torch.where(column(at, rows.z), rows.z, rows.witness)
        rows.point = torch.where(column(at, rows.z), rows.z, rows.point)
        rows.low = torch.where(at, 0.0, rows.low)
        rows.high = torch.where(at, norm(rows.z - rows.x, name), rows.high)
        rows.phase = torch.where(at, _BISECT, rows.phase)

    def _bisected(self, rows: Rows, seen: Seen, at: Tensor, tolerance: Tensor) -> None:
        """Halve the interval; when it is short, the boundary is reached and a new turn begins."""
        middle = (rows.low + rows.high) / 2
        nearer = at & seen.fooled
        rows.point = torch.where(column(nearer, rows.z), rows.z, rows.point)
        rows.high = torch.where(nearer, middle, rows.high)
        rows.low = torch.where(at & ~seen.fooled, middle, rows.low)
        self._turn(rows, at & (rows.high - rows.low <= tolerance * rows.high))

    def _turn(self, rows: Rows, at: Tensor) -> None:
        """The next turn begins with an estimate of the boundary's normal."""
        rows.turn, rows.count = rows.turn + at, torch.where(at, 0, rows.count)
        rows.phase, rows.ayes = torch.where(at, _ESTIMATE, rows.phase), torch.where(at, 0.0, rows.ayes)
        wide = column(at, rows.x)
        rows.votes, rows.total = torch.where(wide, 0.0, rows.votes), torch.where(wide, 0.0, rows.total)

    def _estimated(self, rows: Rows, seen: Seen, at: Tensor, name: Norm) -> None:
        """Σ (φ − mean φ)·u, φ = ±1 for fooled or not; then the jump: ‖δ‖/√turn along it."""
        aye = torch.where(seen.fooled, 1.0, -1.0).to(rows.x.dtype) * at
        rows.votes, rows.ayes = rows.votes + column(aye, rows.x) * rows.direction, rows.ayes + aye
        rows.total = rows.total + column(at.to(rows.x.dtype), rows.x) * rows.direction
        full = at & (rows.count >= (self.samples * rows.turn.double().sqrt()).ceil())
        if not bool(full.any()):
            return
        mean = rows.ayes / rows.count.clamp_min(1)
        # All votes alike leave nothing after the mean is taken off; then they count as they are.
        mean = torch.where(mean.abs() == 1, 0.0, mean)
        normal = steepest(rows.votes - column(mean, rows.x) * rows.total, name)
        rows.direction = torch.where(column(full, rows.x), normal, rows.direction)
        far = norm(rows.point - rows.x, name)
        rows.jump = torch.where(full, far / rows.turn.clamp_min(1).to(far.dtype).sqrt(), rows.jump)
        rows.phase, rows.count = torch.where(full, _JUMP, rows.phase), torch.where(full, 0, rows.count)

    def _next(self, ask: Ask, rows: Rows) -> Tensor:
        """Where each phase looks next."""
        name, box, draw = ask.threat.norm, ask.model.box, ask.draws(rows, rows.k + 1)
        z = box.clamp(rows.point + column(rows.jump, rows.x) * rows.direction)
        at = rows.phase == _SEARCH
        if bool(at.any()):
            z = torch.where(column(at, z), anywhere(ask, rows, rows.k + 1), z)
        at = rows.phase == _BISECT
        if bool(at.any()):
            z = torch.where(column(at, z), project(rows.witness, rows.x, (rows.low + rows.high) / 2, name, box), z)
        at = rows.phase == _ESTIMATE
        if bool(at.any()):
            n, d = rows.x.flatten(1).shape
            direction = steepest(draw("normal", (n, d)).to(rows.x.dtype).view_as(rows.x), "l2")
            rows.direction = torch.where(column(at, z), direction, rows.direction)
            # The paper's δ: √d·θ·‖δ‖₂ in L2, d·θ·‖δ‖∞ in L∞.
            reach = self._tolerance(rows, name) * norm(rows.point - rows.x, name) * (d if name == "linf" else d**0.5)
            z = torch.where(column(at, z), box.clamp(rows.point + column(reach, z) * direction), z)
        return z


@public
def hopskipjump(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    steps: int = 5000,
    samples: int = 100,
    **options: Unpack[Options],
) -> AttackResult:
    r"""HopSkipJump: from any witness to the boundary by bisection, along its estimated normal, and back. Labels only.

    n̂ = Σ_b (φ(z + δu_b) − mean φ)·u_b with φ = ±1 for fooled or not; z ← bisect(z + ξ·v, x), v = n̂/‖n̂‖₂ or sign n̂,
    ξ = ‖z − x‖/√t, halved until the model is fooled.

    Arguments:
        model, x, y, threat, options: as for :func:`calipers.attacks.pgd`. The attack always seeks the minimal
            distortion; with an eps, witnesses beyond it do not count.
        steps: queries of the model per attempt.
        samples: queries for the first normal; turn t takes samples·√t.

    Source: "HopSkipJumpAttack: A Query-Efficient Decision-Based Attack" (Chen, Jordan & Wainwright 2020), Algorithm 2.

    Example:
        >>> model = Classifier.of(torch.nn.Identity(), shape=(2,))
        >>> x, y = torch.tensor([[0.75, 0.25]]), torch.tensor([0])
        >>> round(hopskipjump(model, x, y, Threat("linf"), steps=300, samples=10).distance.item(), 2)
        0.25
    """
    if steps < 1 or samples < 1:
        raise BadInput("steps and samples of HopSkipJump", expected="at least 1", got=f"{steps} and {samples}")
    if threat.norm not in ("linf", "l2"):
        raise BadInput("norm of HopSkipJump", expected="linf or l2", got=repr(threat.norm), hint="square takes l1 too")
    return attack(_HopSkipJump(steps, samples=samples), model, x, y, threat, **options)
