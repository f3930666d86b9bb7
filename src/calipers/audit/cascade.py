"""The cascade: cheap certificates and a cheap attack for everyone, more only where a bracket is still open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

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
from calipers.audit.budget import Attack, Budget, Certificate
from calipers.certificates import CERTIFICATES, GUIDED, Certified, NotApplicable
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
    both jaws; then the certificates that begin at an attack's distance. Certified examples are not attacked further,
    attacked ones not certified further.

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
    brackets = begun
    if brackets is None:
        brackets = start_brackets(model, x, y, torch.arange(len(x)) if index is None else index, batch_size)
        _certify(brackets, model, x, y, threat.norm)
    right = (brackets.predicted == brackets.label).nonzero()[:, 0]
    progress(len(x) - len(right))
    if not len(right):
        return brackets
    jaws = _Jaws(brackets, model, aim or model, x, y, threat.norm, budget, seed, batch_size, name)
    smooth = differentiable(jaws.aim, x[right])
    called, first = _first_attack(jaws.aim, x[right], budget.first_in(threat.norm, smooth))
    # An example counts for a half when it has a bracket, and for the other when the bracket is decided.
    jaws.attack(called, first, right, Threat(threat.norm), lambda n: progress(n / 2))
    jaws.certify(budget.guided, right)
    waiting = len(right)
    for called, closing in budget.closing_in(threat.norm, smooth).items():
        groups = brackets.open_at(threat.ladder)
        still = sum(len(some) for some, _ in groups)
        progress((waiting - still) / 2)
        waiting = still
        for some, eps in groups:
            jaws.attack(called, closing, some, Threat(threat.norm, eps), lambda n: None)
    for some, _ in brackets.open_at(threat.ladder):
        jaws.certify(budget.last, some)
    progress(waiting / 2)
    return brackets


@dataclass(frozen=True, eq=False)
class _Jaws:
    """What closes brackets from above and from below: one attack, or some certificates, for some of the examples."""

    brackets: Brackets
    model: Classifier
    aim: Classifier
    x: Tensor
    y: Tensor
    norm: Norm
    budget: Budget
    seed: int
    batch_size: int
    name: str

    def attack(self, called: str, method: Attack, some: Tensor, threat: Threat, tell: Callable[[int], None]) -> None:
        """Attack ``aim``; the model judges the witnesses, and a line search brings them nearer."""
        x, y, brackets = self.x[some], self.y[some], self.brackets
        options: Options = {"seed": self.seed, "batch_size": self.batch_size, "index": brackets.index[some]}
        telling: Options = {**options, "progress": tell}
        try:
            found = method(self.aim, x, y, threat, **telling)
        except NoGradient as refusal:
            brackets.refused[f"{self.name}{called}"] = str(refusal)
            if threat.eps is not None:
                return
            called, blind = self.budget.first_in(self.norm, smooth=False)
            found = blind(self.aim, x, y, threat, **telling)
        by: str | np.ndarray = f"{self.name}{called}"
        if isinstance(found, EnsembleResult):
            by = np.array([f"{self.name}{member}" for member in found.by], dtype=object)
            brackets.ended.append(f"{self.name}{called} on {len(some)} examples: {found.ended}")
        if self.aim is not self.model:
            found = judged(found.adversarial, self.model, x, y, threat, **options).after(found)
        if threat.eps is not None or self.aim is not self.model:
            found = refine(found, self.model, x, y, Threat(self.norm), **options)
        brackets.lower_upper(some, found, by)

    def certify(self, certificates: dict[str, Certificate], some: Tensor) -> None:
        """Certificates that are told the attack's distance, where the bracket is not closed; never of a stand-in."""
        if self.aim is not self.model:
            return
        for called, certificate in certificates.items():
            here = some[(self.brackets.lower < 0.99 * self.brackets.upper)[some]]
            if not len(here):
                return
            jaws = {"upper": self.brackets.upper[here], "lower": self.brackets.lower[here]}
            try:
                bound = certificate(self.model, self.x[here], self.y[here], self.norm, **jaws)
            except NotApplicable as refusal:
                self.brackets.refused[called] = str(refusal)
                continue
            bound.check(self.norm, self.model.box, str(self.model.dtype).removeprefix("torch."))
            radius = torch.zeros_like(self.brackets.lower).index_put((here,), bound.radius.cpu())
            self.brackets.raise_lower(replace(bound, radius=radius))


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
        if name in GUIDED:
            continue
        try:
            bound = certificate(model, x, y, norm)
        except NotApplicable as refusal:
            brackets.refused[name] = str(refusal)
            continue
        if isinstance(bound, Certified):
            bound.check(norm, model.box, str(model.dtype).removeprefix("torch."))
            brackets.raise_lower(bound)
        if name == "affine":
            break


def _first_attack(model: Classifier, x: Tensor, otherwise: tuple[str, Attack]) -> tuple[str, Attack]:
    """The exact attack on an affine model, the budget's own on any other."""
    # Classes and coordinates beyond this make the K gradients and sorts dearer than a search.
    if model.classes <= 100 and affine_map(model, x) is not None:
        return "linear", linear
    return otherwise
