"""The cascade: cheap certificates and a cheap attack for everyone, more only where a bracket is still open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from calipers.attacks import (
    AttackResult,
    EnsembleResult,
    NoGradient,
    Options,
    affine_map,
    differentiable,
    judged,
    linear,
    refine,
)
from calipers.audit.budget import Attack, Budget
from calipers.certificates import CERTIFICATES, Certified, NotApplicable
from calipers.errors import BadInput
from calipers.models import Classifier
from calipers.threats import Norm, Threat

__all__ = ["Brackets", "SandwichBroken", "clean_logits", "close_brackets", "start_brackets"]


class SandwichBroken(RuntimeError):
    """A certificate above an attack's witness: a bug in Calipers, never the user's fault."""


@dataclass(eq=False)
class Brackets:
    r"""The brackets of some examples while they are being closed; one row per example.

    Arguments:
        index, label, predicted: int64 (N,).
        lower, upper: float64 (N,), with the names of what set them in ``certificate`` and ``attack``.
        adversarial: the witnesses, shape (N, \*shape); ``fooled`` what the model answers on them.
        forwards, gradients: what the attacks spent.
        refused: certificates that do not apply, and why.
        ended: why each ensemble ended.
    """

    index: Tensor
    label: Tensor
    predicted: Tensor
    lower: Tensor
    certificate: np.ndarray
    upper: Tensor
    attack: np.ndarray
    adversarial: Tensor
    fooled: Tensor
    forwards: Tensor
    gradients: Tensor
    refused: dict[str, str]
    ended: list[str] = field(default_factory=list)

    def raise_lower(self, bound: Certified) -> None:
        """Take a certificate's radius where it is larger. Only a proof may be handed in."""
        radius = bound.radius.cpu()
        better = (radius > self.lower) & (self.predicted == self.label)
        self.lower = torch.where(better, radius, self.lower)
        self.certificate[better.numpy()] = bound.by
        self.check()

    def lower_upper(self, some: Tensor, found: AttackResult, by: str | np.ndarray) -> None:
        """Take an attack's witnesses where they are nearer; count what it cost. An ensemble has a name for each."""
        better = found.distance.cpu() < self.upper[some]
        at = some[better]
        self.upper[at], self.adversarial[at] = found.distance.cpu()[better], found.adversarial.cpu()[better]
        self.fooled[at] = found.predicted.cpu()[better]
        self.attack[at.numpy()] = by if isinstance(by, str) else by[better.numpy()]
        self.forwards[some] += found.forwards.cpu()
        self.gradients[some] += found.gradients.cpu()
        self.check()

    def check(self) -> None:
        """Assert the sandwich: lower ≤ upper on every example."""
        broken = (self.lower > self.upper).nonzero()
        if len(broken):
            i = int(broken[0])
            raise SandwichBroken(
                f"example {int(self.index[i])}: {self.certificate[i]} certifies {float(self.lower[i])!r}, but "
                f"{self.attack[i]} found a witness at "
                f"{float(self.upper[i])!r}: this is a bug in Calipers, please report it"
            )

    def open_at(self, eps: tuple[float, ...]) -> list[tuple[Tensor, tuple[float, ...]]]:
        """The examples with an undecided radius, grouped by which of the asked radii are undecided."""
        asked = torch.tensor(eps, dtype=torch.float64)
        undecided = (self.lower[:, None] < asked) & (asked < self.upper[:, None])
        patterns = {tuple(row): None for row in undecided.tolist() if any(row)}
        return [
            (
                (undecided == torch.tensor(pattern)).all(1).nonzero()[:, 0],
                tuple(e for e, here in zip(eps, pattern, strict=True) if here),
            )
            for pattern in patterns
        ]


def close_brackets(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    budget: Budget,
    *,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int = 256,
    progress: Callable[[float], None] = lambda examples: None,
    aim: Classifier | None = None,
    begun: Brackets | None = None,
    name: str = "",
) -> Brackets:
    r"""Certify and attack every example until its bracket is decided at every asked eps, or the budget is spent.

    Every correctly classified example gets the cheap certificates and one minimal-norm attack, so every bracket has
    both jaws. Certified examples are not attacked further, attacked ones not certified further.

    Arguments:
        model: what is audited.
        x, y: inputs in the box, shape (N, \*shape), and labels.
        threat: the norm, and the asked radii as an ascending tuple; ``eps=None`` for brackets alone.
        budget: see :data:`calipers.audit.budget.BUDGETS`.
        progress: told the number of examples (in fractions) just finished.
        aim: what is attacked in the model's place, where the model's own gradients fail; the model judges.
        begun: brackets to go on with, certified already.
        name: what the attacks on ``aim`` are called: ``name/attack``.
    """
    x, y = model.check(x, y)
    brackets, aim = begun, aim or model
    if brackets is None:
        brackets = start_brackets(model, x, y, torch.arange(len(x)) if index is None else index, batch_size)
        _certify(brackets, model, x, y, threat.norm)
    right = (brackets.predicted == brackets.label).nonzero()[:, 0]
    progress(len(x) - len(right))
    if not len(right):
        return brackets

    def attack(called: str, method: Attack, some: Tensor, threat: Threat, tell: Callable[[int], None]) -> None:
        options: Options = {"seed": seed, "batch_size": batch_size, "index": brackets.index[some]}
        telling: Options = {**options, "progress": tell}
        try:
            found = method(aim, x[some], y[some], threat, **telling)
        except NoGradient as refusal:
            brackets.refused[f"{name}{called}"] = str(refusal)
            if threat.eps is not None:
                return
            called, blind = budget.first_in(threat.norm, smooth=False)
            found = blind(aim, x[some], y[some], threat, **telling)
        by: str | np.ndarray = f"{name}{called}"
        if isinstance(found, EnsembleResult):
            by = np.array([f"{name}{member}" for member in found.by], dtype=object)
            brackets.ended.append(f"{name}{called} on {len(some)} examples: {found.ended}")
        if aim is not model:
            found = judged(found.adversarial, model, x[some], y[some], threat, **options).after(found)
        if threat.eps is not None or aim is not model:
            found = refine(found, model, x[some], y[some], Threat(threat.norm), **options)
        brackets.lower_upper(some, found, by)

    smooth = differentiable(aim, x[right])
    called, first = _first_attack(aim, x[right], budget.first_in(threat.norm, smooth))
    # An example counts for a half when it has a bracket, and for the other when the bracket is decided.
    attack(called, first, right, Threat(threat.norm), lambda n: progress(n / 2))
    waiting = len(right)
    for called, closing in budget.closing_in(threat.norm, smooth).items():
        groups = brackets.open_at(threat.ladder)
        still = sum(len(some) for some, _ in groups)
        progress((waiting - still) / 2)
        waiting = still
        for some, eps in groups:
            attack(called, closing, some, Threat(threat.norm, eps), lambda n: None)
    progress(waiting / 2)
    return brackets


def clean_logits(model: Classifier, x: Tensor, index: Tensor, batch_size: int) -> Tensor:
    """The model's answers on the clean inputs, (N, K); a complaint that names the first example without a number."""
    with model.frozen(), torch.no_grad():
        logits = torch.cat([model(part) for part in x.split(batch_size)])
    bad = (~logits.isfinite()).any(1).nonzero()
    if len(bad):
        which = int(index[int(bad[0])])
        raise BadInput(f"logits of {model.name} for example {which}", expected="finite", got="NaN or infinity")
    return logits


def start_brackets(model: Classifier, x: Tensor, y: Tensor, index: Tensor, batch_size: int) -> Brackets:
    """One clean forward of everyone: what is already wrong has upper = 0."""
    predicted, n = clean_logits(model, x, index, batch_size).argmax(1).cpu(), len(x)
    label = y.cpu()
    wrong = predicted != label
    return Brackets(
        index=index.cpu(),
        label=label,
        predicted=predicted,
        lower=torch.zeros(n, dtype=torch.float64),
        certificate=np.full(n, "", dtype=object),
        upper=torch.where(wrong, 0.0, torch.inf).double(),
        attack=np.where(wrong.numpy(), "clean", "").astype(object),
        adversarial=x.cpu().clone(),
        fooled=predicted.clone(),
        forwards=torch.ones(n, dtype=torch.int64),
        gradients=torch.zeros(n, dtype=torch.int64),
        refused={},
    )


def _certify(brackets: Brackets, model: Classifier, x: Tensor, y: Tensor, norm: Norm) -> None:
    """The cheap certificates: the exact one alone where it applies, all others otherwise."""
    for name, certificate in CERTIFICATES.items():
        try:
            bound = certificate(model, x, y, norm)
        except NotApplicable as refusal:
            brackets.refused[name] = str(refusal)
            continue
        if isinstance(bound, Certified):
            brackets.raise_lower(bound)
        if name == "affine":
            break


def _first_attack(model: Classifier, x: Tensor, otherwise: tuple[str, Attack]) -> tuple[str, Attack]:
    """The exact attack on an affine model, the budget's own on any other."""
    # Classes and coordinates beyond this make the K gradients and sorts dearer than a search.
    if model.classes <= 100 and affine_map(model, x) is not None:
        return "linear", linear
    return otherwise
