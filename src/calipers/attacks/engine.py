r"""The engine every iterative attack runs on: continuous batching of small state machines.

An attack is a :class:`Method`: ``start`` says where to look first, ``step`` where to look next; each look is one model
evaluation. The engine keeps a fixed number of slots full: it evaluates all slots in one batch, takes an example out the
moment it is fooled or out of budget, and puts the next one in. Early stopping, best-so-far, restarts, the ascending
ladder of eps, cost accounting, progress and the final judgement by a fresh call of the model are the engine's alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypedDict

import torch
from torch import Tensor

from calipers.attacks.losses import Loss
from calipers.attacks.result import AttackResult
from calipers.errors import BadInput
from calipers.models import Classifier
from calipers.runner.draws import Draws
from calipers.threats import Box, Threat, distance

__all__ = ["Ask", "Method", "NoGradient", "Options", "Rows", "Seen", "Steps", "clears", "column", "finite",
           "likely_targets", "run", "rungs"]  # fmt: skip


class NoGradient(BadInput):
    """The model's outputs do not depend on its input in a way that autograd can follow."""


class Options(TypedDict, total=False):
    """Keywords every attack takes.

    seed: random draws are a function of (seed, example, step) alone.
    index: the original index of every example, shape (N,): the example's name in the draws.
    batch_size: how many examples the model sees at once.
    restarts: how often an attack starts again from another random point before it gives up on a radius.
    progress: called with the number of examples just finished.
    """

    seed: int
    index: Tensor
    batch_size: int
    restarts: int
    progress: Callable[[int], None]


class Rows:
    """Named tensors with one row per slot; ``rows.z`` reads and writes the tensor named z."""

    def __init__(self, **tensors: Tensor) -> None:
        self.__dict__["_tensors"] = tensors

    def __getattr__(self, name: str) -> Tensor:
        try:
            tensor: Tensor = self.__dict__["_tensors"][name]
        except KeyError:
            raise AttributeError(name) from None
        return tensor

    def __setattr__(self, name: str, value: Tensor) -> None:
        self.__dict__["_tensors"][name] = value

    def __len__(self) -> int:
        return len(self.z)

    def take(self, which: Tensor) -> Rows:
        """A copy of some rows."""
        return Rows(**{name: tensor[which] for name, tensor in self.__dict__["_tensors"].items()})

    def put(self, which: Tensor, rows: Rows) -> None:
        """Overwrite some rows, name by name."""
        for name, tensor in self.__dict__["_tensors"].items():
            if len(which):
                tensor[which] = getattr(rows, name)

    def join(self, rows: Rows) -> Rows:
        """These rows and those behind them, name by name; an empty side is left out, with its names."""
        if not len(self) or not len(rows):
            return self if len(self) else rows
        return Rows(**{n: torch.cat([t, getattr(rows, n)]) for n, t in self.__dict__["_tensors"].items()})


@dataclass(frozen=True, eq=False)
class Ask:
    """What is asked of a method: the model, the norm, the seed, and how many restarts each radius gets."""

    model: Classifier
    threat: Threat
    seed: int
    restarts: int

    def draws(self, rows: Rows, step: Tensor | int) -> Draws:
        """Random numbers of these examples at this step of this attempt."""
        return Draws(self.seed, rows.index, rows.attempt * 2**20 + step)


@dataclass(frozen=True, eq=False)
class Seen:
    """What the model answered on ``rows.z``: logits (N, K), loss (N,), gradient (like z), and whether it was fooled."""

    logits: Tensor
    value: Tensor
    grad: Tensor
    fooled: Tensor


class Method(Protocol):
    r"""One attack as a state machine. ``rows`` holds, for every slot:

    ``x`` the input, ``y`` its label, ``clean`` its logits and ``scale`` their spread, ``eps`` the radius it is
    attacked at, ``z`` the next point to look at, ``k`` how many looks this attempt has had, ``attempt`` the number of
    the attempt (restart + restarts·level), ``target`` the class to reach or −1, ``best`` the distance of the nearest
    witness so far (float64); and whatever the method itself writes.
    """

    @property
    def looks(self) -> int:
        """Model evaluations per attempt."""

    @property
    def loss(self) -> Loss:
        """What the gradient is of."""

    @property
    def minimal(self) -> bool:
        """Whether to go on after a success, toward a nearer witness; then there is no ladder of eps."""

    @property
    def gradients(self) -> int:
        """How many of an attempt's looks, from the first, need a gradient."""

    @property
    def targets(self) -> int:
        """How many classes are aimed at in turn; each gets its own restarts. 0: any other class will do."""

    def start(self, ask: Ask, rows: Rows) -> None:
        """Write ``rows.z`` and the method's own fields for a new attempt; ``rows.z`` is where the last one ended."""

    def step(self, ask: Ask, rows: Rows, seen: Seen) -> None:
        """Write the next ``rows.z``."""


@dataclass(frozen=True)
class Steps:
    """What methods of gradient steps share: a look before every step, and one after the last that needs no gradient."""

    loss: Loss
    steps: int
    targets: int = 0
    minimal: bool = False

    @property
    def looks(self) -> int:
        """One more than there are steps."""
        return self.steps + 1

    @property
    def gradients(self) -> int:
        """One a step."""
        return self.steps


def clears(logits: Tensor, y: Tensor) -> Tensor:
    """Whether the label loses by more than what another batch size may change in the last bits: bool (N,)."""
    own = logits.gather(1, y[:, None])[:, 0]
    others = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    slack = 64 * torch.finfo(logits.dtype).eps * (logits.amax(1) - logits.amin(1))
    return others - own > slack


def finite(logits: Tensor, index: Tensor, model: Classifier) -> None:
    """A complaint that names the first example whose logits are no numbers."""
    if not bool(logits.isfinite().all()):
        i = int(index[(~logits.isfinite()).any(1).nonzero()[0, 0]])
        raise BadInput(f"logits of {model.name} for example {i}", expected="finite", got="NaN or infinity")


def column(values: Tensor, like: Tensor) -> Tensor:
    """One value a row, shaped to broadcast against a batch."""
    return values.view(-1, *[1] * (like.dim() - 1))


def likely_targets(rows: Rows, targets: int) -> Tensor:
    """The class each attempt aims at: the clean input's most likely other classes in turn; −1 for untargeted."""
    if not targets:
        return rows.target
    others = rows.clean.scatter(1, rows.y[:, None], -torch.inf)
    order = others.argsort(dim=1, descending=True, stable=True)
    return order.gather(1, (rows.attempt % min(targets, others.shape[1] - 1))[:, None])[:, 0]


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
) -> AttackResult:
    r"""Run one method over all examples.

    Arguments:
        method: the state machine.
        model: what is attacked; left exactly as it was found.
        x: inputs inside the model's box, shape (N, \*shape).
        y: labels, shape (N,).
        threat: norm and radius; an ascending ladder is climbed until the example falls.
        extra: further tensors with one row per example, for the method.

    Raises:
        BadInput: inputs or labels that do not fit the model; NaN or infinite logits.
    """
    x, y = model.check(x.detach(), y)
    if restarts < 1 or batch_size < 1:
        raise BadInput("restarts and batch_size", expected="at least 1", got=f"{restarts} and {batch_size}")
    ladder = () if method.minimal else rungs(x, threat, model)
    row = torch.arange(len(x), device=x.device)
    named = row if index is None else index.to(x.device)
    queue = Rows(z=x, x=x, y=y, row=row, index=named, **(extra or {}))
    attempts = restarts * max(min(method.targets, model.classes - 1), 1)
    loop = _Loop(method, Ask(model, threat, seed, attempts), queue, ladder, progress)
    with model.frozen():
        loop.run(batch_size)
        return loop.judge(batch_size)


def rungs(x: Tensor, threat: Threat, model: Classifier) -> tuple[float, ...]:
    """The radii a fixed-budget method climbs: the asked ones, or powers of two up to the whole box.

    Where the box is infinite they end at 2^10 a coordinate, whatever the inputs: batch mates must not matter.
    """
    if threat.ladder:
        return threat.ladder
    d, bounded = x[0].numel(), model.box.bounded
    reach = (model.box if bounded else Box(0.0, 2.0**10)).reach(threat.norm, d)
    count = math.ceil(math.log2(d)) if threat.norm == "l0" else 10 if bounded else 20
    return tuple(reach * 2.0**-i for i in range(count, -1, -1))


class _Loop:
    """The queue, the slots, and what has been found so far."""

    def __init__(
        self, method: Method, ask: Ask, queue: Rows, ladder: tuple[float, ...], progress: Callable[[int], None] | None
    ) -> None:
        self.method, self.ask, self.queue, self.progress = method, ask, queue, progress or (lambda finished: None)
        n, device = len(queue), queue.x.device
        self.ladder = torch.tensor(ladder or (math.inf,), dtype=torch.float64, device=device)
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
            done, again = self._record(rows, seen)
            if not bool((done | again).all()):
                self.method.step(self.ask, rows, seen)
            rows.k = rows.k + 1
            if bool(again.any()):
                self._start_again(rows, again.nonzero()[:, 0])
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
        rows.target, rows.eps = rows.k - 1, self.ladder[:1].to(rows.x.dtype).repeat(len(rows))
        rows.scale, rows.best = torch.ones_like(rows.eps), torch.full_like(self.distance[: len(rows)], math.inf)
        rows.clean = self._look(rows, clean=True).logits
        rows.scale = rows.clean.amax(1) - rows.clean.amin(1)
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
        self.gradients[rows.row] += wants
        if bool(wants.any()):
            z = rows.z.detach().requires_grad_()
            with torch.enable_grad():
                logits = self.ask.model(z)
                value = self.method.loss(logits, rows.y, rows.target, rows.scale)
                grad = _gradient(value, z, self.ask.model)
            logits, value = logits.detach(), value.detach()
        else:
            with torch.no_grad():
                logits = self.ask.model(rows.z)
                value = self.method.loss(logits, rows.y, rows.target, rows.scale)
            grad = torch.zeros_like(rows.z)
        finite(logits, rows.index, self.ask.model)
        return Seen(logits, value, grad, clears(logits, rows.y))

    def _record(self, rows: Rows, seen: Seen) -> tuple[Tensor, Tensor]:
        """Store what was found; say which slots are done and which begin another attempt."""
        if bool(seen.fooled.any()):
            at = seen.fooled.nonzero()[:, 0]
            far = distance(rows.x[at], rows.z[at], self.ask.threat.norm)
            # A fixed-budget attack's witness counts only inside the ball it was asked for; the ladder climbs on.
            nearer = (far < rows.best[at]) & (far <= self.ladder[rows.attempt[at] // self.ask.restarts])
            at, far = at[nearer], far[nearer]
            rows.best[at] = far
            self.distance[rows.row[at]], self.adversarial[rows.row[at]] = far, rows.z[at]
        caught = rows.best.isfinite() & (not self.method.minimal)
        spent = rows.k + 1 >= self.method.looks
        last = rows.attempt + 1 >= self.ask.restarts * len(self.ladder)
        done = caught | (spent & last)
        return done, spent & ~done

    def _start_again(self, rows: Rows, at: Tensor) -> None:
        """Another restart, or the next radius of the ladder."""
        some = rows.take(at)
        some.attempt = some.attempt + 1
        some.eps = self.ladder[some.attempt // self.ask.restarts].to(some.x.dtype)
        some.k = torch.zeros_like(some.k)
        self.method.start(self.ask, some)
        rows.put(at, some)

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
                self.predicted[some] = self.ask.model(self.adversarial[some]).argmax(1)
        self.forwards[found] += 1
        failed = found[(self.predicted[found] == self.queue.y[found]) | (self.distance[found] > self.limit)]
        self.distance[failed], self.adversarial[failed] = math.inf, self.queue.x[failed]
        self.predicted[failed] = self.queue.y[failed]
        return AttackResult(self.adversarial, self.distance, self.predicted, self.forwards, self.gradients)


def _gradient(value: Tensor, z: Tensor, model: Classifier) -> Tensor:
    """d value / d z, with respect to the input only."""
    if not value.requires_grad:
        raise NoGradient(
            f"{model.name} has no gradient with respect to its input",
            hint="use an attack without gradients (square, hopskipjump, zoo, spsa, noise), "
            "or check for .detach() or NumPy in forward",
        )
    (grad,) = torch.autograd.grad(value.sum(), z, allow_unused=True)
    return torch.zeros_like(z) if grad is None else grad.nan_to_num()
