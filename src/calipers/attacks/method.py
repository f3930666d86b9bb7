"""What an attack is written in: the state of every slot, what is asked, what was seen, and the protocol of a method."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypedDict

import torch
from torch import Tensor

from calipers.attacks.losses import Loss, first_two
from calipers.models import Classifier
from calipers.runner.draws import Draws
from calipers.threats import Norm, Threat, dual, norm, project

__all__ = [
    "ATTEMPTS",
    "LOOKS",
    "Ask",
    "Method",
    "Options",
    "Rows",
    "Seen",
    "Steps",
    "clears",
    "column",
    "go_on",
    "likely_targets",
    "nearest_boundary",
    "reserve",
    "spread",
]

# How the one word that numbers the steps of an example is shared out.
LOOKS, ATTEMPTS = 2**20, 2**12
_SLACK = 64
_MASKED = 1e3


class Options(TypedDict, total=False):
    """Keywords every attack takes.

    seed: random draws are a function of (seed, example, step) alone.
    index: the original index of every example, shape (N,): the example's name in the draws.
    batch_size: how many examples the model sees at once.
    restarts: how often an attack starts again from another random point before it gives up on a radius.
    progress: called with the number of examples just finished.
    watch: called with the rows and what was seen, after every look.
    """

    seed: int
    index: Tensor
    batch_size: int
    restarts: int
    progress: Callable[[int], None]
    watch: Callable[[Rows, Seen], None]


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
        return Draws(self.seed, rows.index, rows.attempt * LOOKS + step)


@dataclass(frozen=True, eq=False)
class Seen:
    r"""What the model answered on ``rows.z``: logits (N, K), loss (N,), gradient (like z), and whether it was fooled.

    A loss of several columns, (N, C), has as many gradients, (N, C, \*shape), and each of them is counted.
    """

    logits: Tensor
    value: Tensor
    grad: Tensor
    fooled: Tensor


class Method(Protocol):
    r"""One attack as a state machine. ``rows`` holds, for every slot:

    ``x`` the input, ``y`` its label, ``clean`` its logits and ``scale`` their spread, ``eps`` the radius it is
    attacked at, ``z`` the next point to look at, ``k`` how many looks this attempt has had, ``attempt`` the number of
    the attempt (restart + restarts·level), ``target`` the class to reach or −1, ``best`` the distance of the nearest
    witness so far (float64); and whatever the method itself writes. A method that is done with an attempt before its
    looks are spent writes ``rows.k = looks − 2``: the next look is the last.
    """

    @property
    def looks(self) -> int:
        """Model evaluations per attempt."""

    @property
    def loss(self) -> Loss:
        """What the gradient is of."""

    @property
    def minimal(self) -> bool:
        """Whether to go on after a success, toward a nearer witness; then no radius is asked for."""

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

    def falling(self, rows: Rows, period: int | None = None) -> Tensor:
        """A cosine from 1 at the first step toward 0 at the last, of all or of every ``period``, shape (N,)."""
        steps = period or self.steps
        share = (rows.k % steps / steps).to(rows.x.dtype)
        return (1 + (math.pi * share).cos()) / 2


def clears(logits: Tensor, y: Tensor) -> Tensor:
    """Whether the label loses by more than what another batch size may change in the last bits: bool (N,)."""
    own, other = first_two(logits, y)
    return other - own > _noise(logits, own, other)


def reserve(rows: Rows) -> Tensor:
    """The margin to aim for where the boundary itself would be reached: what :func:`clears` asks, and some more."""
    own, other = first_two(rows.clean, rows.y)
    return 4 * _noise(rows.clean, own, other).maximum(torch.finfo(rows.scale.dtype).eps * rows.scale)


def spread(logits: Tensor, y: Tensor) -> Tensor:
    """max − min of the logits that matter, never 0: shape (N,).

    A class that is masked out (thousands of times as far below 0 as the label and its rival are from it) does not
    count: it would make all others look alike.

    Example:
        >>> spread(torch.tensor([[3.0, 1.0, -1.0], [3.0, 1.0, -1e9], [0.0, 0.0, 0.0]]), torch.tensor([0, 0, 0]))
        tensor([4., 2., 1.])
    """
    own, other = first_two(logits, y)
    most = own.abs().maximum(other.abs())
    counted = logits >= -_MASKED * (1 + most[:, None])
    found = logits.amax(1) - torch.where(counted, logits, torch.inf).amin(1)
    least = _SLACK * torch.finfo(logits.dtype).eps * most
    return found.maximum(torch.where(least > 0, least, (found == 0).to(found)))


def _noise(logits: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """The last bits of the two logits that are compared; of their spread, where a constant was added to all."""
    size = (logits.amax(1) - logits.amin(1)).minimum(own.abs().maximum(other.abs()))
    return _SLACK * torch.finfo(logits.dtype).eps * size


def column(values: Tensor, like: Tensor) -> Tensor:
    """One value a row, shaped to broadcast against a batch."""
    return values.view(-1, *[1] * (like.dim() - 1))


def go_on(ask: Ask, rows: Rows, fresh: Tensor) -> Tensor:
    """Where an attempt begins: at ``fresh``, but the first at another radius where the last one ended."""
    goes_on = (rows.attempt > 0) & (rows.attempt % ask.restarts == 0)
    if not bool(goes_on.any()):
        return fresh
    ended = project(rows.z, rows.x, rows.eps, ask.threat.norm, ask.model.box)
    return torch.where(column(goes_on, fresh), ended, fresh)


def nearest_boundary(seen: Seen, name: Norm) -> tuple[Tensor, Tensor]:
    """Of the columns of a look, value and gradient of the one whose linearised zero is nearest: (N,) and like z."""
    n, columns = seen.value.shape
    slope = norm(seen.grad.flatten(0, 1), dual(name)).view(n, columns)
    away = seen.value.abs() / slope.clamp_min(torch.finfo(slope.dtype).tiny)
    nearest, row = away.argmin(1), torch.arange(n, device=away.device)
    return seen.value[row, nearest], seen.grad[row, nearest]


def likely_targets(rows: Rows, targets: int) -> Tensor:
    """The class each attempt aims at: the clean input's most likely other classes in turn; −1 for untargeted."""
    if not targets:
        return rows.target
    others = rows.clean.scatter(1, rows.y[:, None], -torch.inf)
    order = others.argsort(dim=1, descending=True, stable=True)
    return order.gather(1, (rows.attempt % min(targets, others.shape[1] - 1))[:, None])[:, 0]
