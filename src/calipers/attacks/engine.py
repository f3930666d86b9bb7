r"""The engine every iterative attack runs on: continuous batching of small state machines.

An attack is a :class:`Method`: ``start`` says where to look first, ``step`` where to look next; each look is one model
evaluation. The engine keeps a fixed number of slots full: it evaluates all slots in one batch, takes an example out the
moment it is fooled or out of budget, and puts the next one in. Early stopping, best-so-far, restarts, the radii, cost
accounting, progress and the final judgement by a fresh call of the model are the engine's alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from calipers.attacks.method import (
    ATTEMPTS,
    LOOKS,
    Ask,
    Method,
    Options,
    Rows,
    Seen,
    Steps,
    clears,
    column,
    likely_targets,
    spread,
)
from calipers.attacks.radii import Bisection, Ladder, Radii
from calipers.attacks.result import AttackResult
from calipers.errors import BadInput
from calipers.models import Classifier, faster
from calipers.threats import Threat, distance, norm

__all__ = ["Ask", "Method", "NoGradient", "Options", "Rows", "Seen", "Steps", "clears", "column", "differentiable",
           "finite", "likely_targets", "run"]  # fmt: skip


class NoGradient(BadInput):
    """The model's outputs do not depend on its input in a way that autograd can follow."""


def run(
    method: Method,
    model: Classifier,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    extra: dict[str, Tensor] | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int = 256,
    restarts: int = 1,
    progress: Callable[[int], None] | None = None,
    watch: Callable[[Rows, Seen], None] | None = None,
) -> AttackResult:
    r"""Run one method over all examples.

    Arguments:
        method: the state machine.
        model: what is attacked; left exactly as it was found.
        x: inputs inside the model's box, shape (N, \*shape).
        y: labels, shape (N,).
        threat: norm and radius; an ascending ladder is climbed until the example falls; without an eps a method that
            does not seek the minimal distortion itself is asked at one radius after another, see :class:`Bisection`.
        extra: further tensors with one row per example, for the method.

    Raises:
        BadInput: inputs or labels that do not fit the model; NaN or infinite logits.
    """
    x, y = model.check(x.detach(), y)
    if not isinstance(method.looks, int):
        raise BadInput("steps", expected="a whole number", got=type(method.looks).__name__)
    for what, count, least in (
        ("targets", method.targets, 0),
        ("restarts", restarts, 1),
        ("batch_size", batch_size, 1),
    ):
        if not isinstance(count, int) or count < least:
            raise BadInput(what, expected=f"a whole number of at least {least}", got=repr(count))
    if not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise BadInput("seed", expected="a whole number from 0 to 2^64 - 1", got=repr(seed))
    radii: Radii = (
        Bisection(threat, model)
        if not (method.minimal or threat.ladder)
        else Ladder((math.inf,) if method.minimal else threat.ladder)
    )
    row = torch.arange(len(x), device=x.device)
    named = row if index is None else torch.as_tensor(index, device=x.device)
    if named.shape != row.shape or named.dtype != torch.int64:
        raise BadInput("index", expected=f"{len(x)} whole numbers", got=f"{named.dtype} of shape {tuple(named.shape)}")
    queue = Rows(z=x, x=x, y=y, row=row, index=named, **(extra or {}))
    attempts = restarts * max(min(method.targets, model.classes - 1), 1)
    if attempts * radii.levels > ATTEMPTS or method.looks >= LOOKS:
        raise BadInput("attempts at an example (restarts × targets × radii) and looks of one",
                       expected=f"at most {ATTEMPTS} and {LOOKS - 1}, for which there are random numbers",
                       got=f"{attempts * radii.levels} and {method.looks}")  # fmt: skip
    loop = _Loop(model, method, Ask(faster(model), threat, seed, attempts), queue, radii, progress)
    loop.watch = watch
    with model.frozen():
        loop.run(batch_size)
        return loop.judge(batch_size)


class _Loop:
    """The queue, the slots, and what has been found so far."""

    def __init__(
        self,
        model: Classifier,
        method: Method,
        ask: Ask,
        queue: Rows,
        radii: Radii,
        progress: Callable[[int], None] | None,
    ) -> None:
        # Searched on ask.model, which may be a faster form of it; judged, before and after, on the model itself.
        self.model, self.method, self.ask, self.queue, self.radii = model, method, ask, queue, radii
        self.progress = progress or (lambda finished: None)
        self.watch: Callable[[Rows, Seen], None] | None = None
        n, device = len(queue), queue.x.device
        self.limit = ask.threat.ladder[-1] if ask.threat.ladder else math.inf
        self.admitted, self.waiting = 0, queue.take(queue.row[:0])
        self.adversarial, self.predicted = queue.x.clone(), queue.y.clone()
        self.distance = torch.full((n,), math.inf, dtype=torch.float64, device=device)
        self.lost = torch.zeros(n, dtype=torch.bool, device=device)
        self.forwards = torch.zeros(n, dtype=torch.int64, device=device)
        self.gradients = torch.zeros_like(self.forwards)

    def run(self, slots: int) -> None:
        """Until the queue and the slots are empty: look, record, step, start again, replace."""
        rows = self._next(slots, slots)
        while len(rows):
            seen = self._look(rows)
            if self.watch is not None:
                self.watch(rows, seen)
            done, again = self._record(rows, seen)
            # Taken before the step, which is not theirs: what it writes must not depend on the neighbours.
            anew = self._anew(rows.take(again)) if len(again) else None
            if int(done.sum()) + len(again) < len(rows):
                self.method.step(self.ask, rows, seen)
            rows.k = rows.k + 1
            if anew is not None:
                rows.put(again, anew)
            rows = self._replace(rows, done, slots)

    def _next(self, count: int, slots: int) -> Rows:
        """The next examples, at the start of their first attempt; the queue is looked at in whole batches."""
        while len(self.waiting) < count and self.admitted < len(self.queue):
            self.waiting = self.waiting.join(self._admit(slots))
        place = torch.arange(len(self.waiting), device=self.waiting.row.device)
        taken, self.waiting = self.waiting.take(place[:count]), self.waiting.take(place[count:])
        return taken

    def _admit(self, count: int) -> Rows:
        """Look at the clean inputs of the next examples; those already wrong are done, the others start."""
        rows = self.queue.take(self.queue.row[self.admitted : self.admitted + count])
        self.admitted += len(rows)
        rows.k, rows.attempt = torch.zeros_like(rows.row), torch.zeros_like(rows.row)
        rows.target, rows.best = rows.k - 1, torch.full_like(self.distance[: len(rows)], math.inf)
        self.radii.first(rows)
        rows.eps, rows.scale = rows.asked.to(rows.x.dtype), torch.ones_like(rows.asked, dtype=rows.x.dtype)
        rows.clean = self._look(rows, clean=True).logits
        rows.scale = spread(rows.clean, rows.y)
        self.predicted[rows.row] = rows.clean.argmax(1)
        right = self.predicted[rows.row] == rows.y
        self.distance[rows.row[~right]], self.lost[rows.row[~right]] = 0.0, True
        self.progress(int((~right).sum()))
        rows = rows.take(right.nonzero()[:, 0])
        if len(rows):
            self.method.start(self.ask, rows)
        return rows

    def _look(self, rows: Rows, clean: bool = False) -> Seen:
        """One model evaluation of every slot, with a gradient if any slot needs one."""
        wants = (rows.k < self.method.gradients) & (not clean)
        self.forwards[rows.row] += 1
        if bool(wants.any()):
            z = rows.z.detach().requires_grad_()
            with torch.enable_grad():
                logits = self.ask.model(z)
                value = self.method.loss(logits, rows.y, rows.target, rows.scale)
                grad = _gradient(value, z, self.ask.model)
            logits, value = logits.detach(), value.detach()
            self.gradients[rows.row] += wants * (value.shape[1] if value.dim() > 1 else 1)
        else:
            with torch.no_grad():
                logits = (self.model if clean else self.ask.model)(rows.z)
                value = self.method.loss(logits, rows.y, rows.target, rows.scale)
            grad = torch.zeros_like(rows.z[:1]).expand_as(rows.z)
        finite(logits, rows.index, self.ask.model)
        return Seen(logits, value, grad, clears(logits, rows.y))

    def _record(self, rows: Rows, seen: Seen) -> tuple[Tensor, Tensor]:
        """Store what was found; say which slots are done (a mask) and which begin another attempt (their places)."""
        fell = torch.zeros_like(seen.fooled)
        if bool(seen.fooled.any()):
            at = self._nearer(rows, seen.fooled.nonzero()[:, 0])
            far = distance(rows.x[at], rows.z[at], self.ask.threat.norm)
            # A fixed-budget attack's witness counts only inside the ball it was asked for.
            nearer = (far < rows.best[at]) & (far <= rows.asked[at])
            at, far = at[nearer], far[nearer]
            rows.best[at], fell[at] = far, not self.method.minimal
            self.distance[rows.row[at]], self.adversarial[rows.row[at]] = far, rows.z[at]
        ended = fell | (rows.k + 1 >= self.method.looks)
        if not bool(ended.any()):
            return ended, rows.row[:0]
        level, restart = rows.attempt // self.ask.restarts, rows.attempt % self.ask.restarts
        over = fell | (ended & (restart + 1 >= self.ask.restarts))
        asked, low, last = self.radii.next(rows, level, fell)
        rows.asked, rows.low = torch.where(over, asked, rows.asked), torch.where(over, low, rows.low)
        rows.attempt = torch.where(over, (level + 1) * self.ask.restarts, rows.attempt + ended)
        done = over & last
        return done, (ended & ~done).nonzero()[:, 0]

    def _nearer(self, rows: Rows, at: Tensor) -> Tensor:
        """Of these slots those that may be nearer than their best witness, as far as the dtype's rounding can tell."""
        rough = norm(rows.z[at] - rows.x[at], self.ask.threat.norm)
        slack = 1 + 4 * rows.x[0].numel() * torch.finfo(rough.dtype).eps
        return at[rough <= slack * rows.best[at]]

    def _anew(self, rows: Rows) -> Rows:
        """These slots at the start of their next attempt: another restart, or another radius."""
        rows.k, rows.eps = torch.zeros_like(rows.k), rows.asked.to(rows.x.dtype)
        self.method.start(self.ask, rows)
        return rows

    def _replace(self, rows: Rows, done: Tensor, slots: int) -> Rows:
        """Fill the slots that are done with the next examples; drop those for which none is left."""
        free = done.nonzero()[:, 0]
        if not len(free):
            return rows
        self.progress(len(free))
        newcomers = self._next(len(free), slots)
        filled = len(newcomers)
        rows.put(free[:filled], newcomers)
        if filled < len(free):
            stay = torch.ones(len(rows), dtype=torch.bool, device=done.device)
            stay[free[filled:]] = False
            rows = rows.take(stay)
        return rows

    def judge(self, batch_size: int) -> AttackResult:
        """Call the model again on every witness; one that does not fool it now, or is too far, is none."""
        # A witness at distance 0 is one that the model was right about at first: it is judged like any other.
        found = (self.distance.isfinite() & ~self.lost).nonzero()[:, 0]
        with torch.no_grad():
            for some in found.split(batch_size) if len(found) else ():
                self.predicted[some] = self.model(self.adversarial[some]).argmax(1)
        self.forwards[found] += 1
        failed = found[(self.predicted[found] == self.queue.y[found]) | (self.distance[found] > self.limit)]
        self.distance[failed], self.adversarial[failed] = math.inf, self.queue.x[failed]
        self.predicted[failed] = self.queue.y[failed]
        return AttackResult(self.adversarial, self.distance, self.predicted, self.forwards, self.gradients)


def differentiable(model: Classifier, x: Tensor) -> bool:
    """Whether the logits of ``x`` carry a gradient back to it; one forward of one example."""
    with model.frozen(), torch.enable_grad():
        return model(x[:1].detach().clone().requires_grad_()).requires_grad


def finite(logits: Tensor, index: Tensor, model: Classifier) -> None:
    """A complaint that names the first example whose logits are no numbers."""
    if not bool(logits.isfinite().all()):
        i = int(index[(~logits.isfinite()).any(1).nonzero()[0, 0]])
        raise BadInput(f"logits of {model.name} for example {i}", expected="finite", got="NaN or infinity")


def _gradient(value: Tensor, z: Tensor, model: Classifier) -> Tensor:
    """d value / d z, with respect to the input only; one for every column of the value."""
    if not value.requires_grad:
        raise NoGradient(
            f"{model.name} has no gradient with respect to its input",
            hint="use an attack without gradients (square, hopskipjump, zoo, spsa, noise), "
            "or check for .detach() or NumPy in forward",
        )
    columns = value.unbind(1) if value.dim() > 1 else (value,)
    grads = [
        torch.autograd.grad(one.sum(), z, retain_graph=one is not columns[-1], allow_unused=True)[0] for one in columns
    ]
    found = [torch.zeros_like(z) if grad is None else grad.nan_to_num() for grad in grads]
    return torch.stack(found, 1) if value.dim() > 1 else found[0]
