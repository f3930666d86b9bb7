"""The battery: what a check is, what it may look at, and how all are asked. The checks are in the files beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

import pandas as pd
import torch
from torch import Tensor

from calipers.attacks import find_loss
from calipers.errors import BadInput
from calipers.models import Classifier, StraightThrough
from calipers.records import Check, Verdict, status
from calipers.threats import Threat

__all__ = ["CHECKS", "Depth", "Evidence", "Finding", "Question", "ask", "check", "verdict"]

Depth = Literal["quick", "standard", "thorough"]
Finding = tuple[Verdict, str]

# How many of the examples that are still open an attack is tried on, to see whether it finds more than the audit did.
TRIED: dict[str, int] = {"quick": 8, "standard": 16, "thorough": 64}


@dataclass(frozen=True, eq=False)
class Evidence:
    r"""What a check may look at.

    Arguments:
        model: as the user handed it over; its modes are looked at before anything puts it in eval mode.
        x, y: the audited inputs and labels, shape (N, \*shape) and (N,), in the model's dtype and device.
        rows: the rows of the audit.
        threat: the norm and the asked radii.
        depth: how much may be spent; the budget's name.
        seed: of every random draw.
        other: a second model, to transfer from; the base model of an extended training.
        claimed: the clean accuracy that somebody published for this model.
    """

    model: Classifier
    x: Tensor
    y: Tensor
    rows: pd.DataFrame
    threat: Threat
    depth: Depth = "standard"
    seed: int = 0
    other: Classifier | None = None
    claimed: float | None = None
    sample: int = field(default=128, kw_only=True)

    @property
    def some(self) -> Tensor:
        """The first inputs: enough for what shows on any of them."""
        return self.x[: self.sample]

    def logits(self, x: Tensor) -> Tensor:
        """One call of the model in eval mode, in float64."""
        with self.model.frozen(), torch.no_grad():
            return self.model(x).double()

    @cached_property
    def clean(self) -> Tensor:
        """The logits of :attr:`some`."""
        return self.logits(self.some)

    @cached_property
    def right(self) -> Tensor:
        """Which of :attr:`some` are classified correctly, as positions."""
        return (self.clean.argmax(1) == self.y[: self.sample]).nonzero()[:, 0]

    @cached_property
    def spread(self) -> float:
        """max − min of the logits of an input, on average: the scale of every difference of logits."""
        return float((self.clean.amax(1) - self.clean.amin(1)).mean())

    @cached_property
    def repeat(self) -> float:
        """The largest difference between calls on the same inputs: ten, as one draw may be another's by chance."""
        few = self.some[:16]
        # In one go: leaving the frozen model puts the global generator back, and a second call would repeat the first.
        with self.model.frozen(), torch.no_grad():
            first, *again = (self.model(few).double() for _ in range(10))
        return max(float((first - other).abs().max()) for other in again)

    @cached_property
    def alone(self) -> float:
        """The largest difference between an input's logits alone and in a batch."""
        few = self.some[:16]
        return float((torch.cat([self.logits(one) for one in few.split(1)]) - self.logits(few)).abs().max())

    @property
    def is_random(self) -> bool:
        """Whether the model gives another answer when it is asked again."""
        return not self.repeat <= 1e-5 * self.spread

    @property
    def is_function(self) -> bool:
        """Whether an input alone determines its answer: not chance, and not its batch mates."""
        return not self.is_random and self.alone <= 1e-3 * self.spread

    @cached_property
    def gradients(self) -> dict[str, Tensor]:
        """d loss / d x at the inputs that are right, as autograd gives it, by loss; empty if there is none at all."""
        x, y = self.some[self.right], self.y[self.right]
        if not len(x):
            return {}
        with self.model.frozen(), torch.enable_grad():
            z = x.detach().clone().requires_grad_()
            logits = self.model(z)
            if not logits.requires_grad:
                return {}
            spread = (logits.amax(1) - logits.amin(1)).detach()
            nobody = torch.full_like(y, -1)
            values = {name: find_loss(name)(logits, y, nobody, spread).sum() for name in ("margin", "dlr", "ce-raw")}
            grads = {n: torch.autograd.grad(v, z, retain_graph=True, allow_unused=True)[0] for n, v in values.items()}
        return {name: torch.zeros_like(z) if grad is None else grad for name, grad in grads.items()}

    @cached_property
    def bridges(self) -> Counter[str] | None:
        """The steps that a straight-through pass has to bridge, and how often; None if the pass cannot be followed."""
        bridged = StraightThrough(self.model.module)
        try:
            with self.model.frozen(), torch.enable_grad():
                bridged(self.some[:4].detach().clone().requires_grad_())
        except (RuntimeError, ValueError, TypeError):
            return None
        return +bridged.met

    def still_open(self) -> tuple[float, Tensor]:
        """The asked radius at which most examples are open, and which are, as positions."""
        lower, upper = self.rows["lower"].to_numpy(), self.rows["upper"].to_numpy()
        at = {eps: (status(lower, upper, eps) == "open").nonzero()[0] for eps in self.threat.ladder}
        eps = max(at, key=lambda radius: (len(at[radius]), -radius))
        return eps, torch.from_numpy(at[eps])


@dataclass(frozen=True)
class Question:
    """One check.

    Arguments:
        id, question: its name, and what it asks.
        advice: what to do when it fails.
        answer: evidence to verdict and a sentence with numbers.
        depth: the cheapest budget that asks it.
    """

    id: str
    question: str
    advice: str
    answer: Callable[[Evidence], Finding]
    depth: Depth = "quick"


CHECKS: dict[str, Question] = {}


def check(
    name: str, question: str, advice: str, *, depth: Depth = "quick"
) -> Callable[[Callable[[Evidence], Finding]], Callable[[Evidence], Finding]]:
    """Register a function of the evidence as the check of this name.

    Arguments:
        name, question, advice, depth: see :class:`Question`.

    Raises:
        BadInput: if another function has the name.

    Example:
        >>> check("input-range", "Again?", "No.")(lambda evidence: ("passed", ""))
        Traceback (most recent call last):
            ...
        calipers.errors.BadInput: check: expected a new name, got 'input-range'
    """

    def register(answer: Callable[[Evidence], Finding]) -> Callable[[Evidence], Finding]:
        known = CHECKS.get(name)
        if known and getattr(known.answer, "__qualname__", "") != getattr(answer, "__qualname__", ""):
            raise BadInput("check", expected="a new name", got=repr(name))
        CHECKS[name] = Question(name, question, advice, answer, depth)
        return answer

    return register


def verdict(fine: bool) -> Verdict:
    """``passed`` or ``failed``."""
    return "passed" if fine else "failed"


def ask(evidence: Evidence) -> tuple[Check, ...]:
    """Ask every question that the depth allows, in the order in which they are registered."""
    depths, checks = get_args(Depth), []
    for one in CHECKS.values():
        if depths.index(one.depth) <= depths.index(evidence.depth):
            found, words = one.answer(evidence)
            checks.append(Check(id=one.id, question=one.question, verdict=found, evidence=words, advice=one.advice))
    return tuple(checks)
