"""The cascade: cheap certificates and a cheap attack for everyone, more only where a bracket is still open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from calipers.attacks import AttackResult, Options, affine_map, linear, refine
from calipers.audit.budget import Attack, Budget, Certificate
from calipers.certificates import CERTIFICATES, GUIDED, Certified, NotApplicable
from calipers.errors import BadInput
from calipers.models import Classifier
from calipers.threats import Norm, Threat

__all__ = ["Brackets", "SandwichBroken", "clean_logits", "close_brackets"]


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

    def raise_lower(self, bound: Certified) -> None:
        """Take a certificate's radius where it is larger. Only a proof may be handed in."""
        radius = bound.radius.cpu()
        better = (radius > self.lower) & (self.predicted == self.label)
        self.lower = torch.where(better, radius, self.lower)
        self.certificate[better.numpy()] = bound.by
        self.check()

    def lower_upper(self, some: Tensor, found: AttackResult, name: str) -> None:
        """Take an attack's witnesses where they are nearer; count what it cost."""
        better = found.distance.cpu() < self.upper[some]
        at = some[better]
        self.upper[at], self.adversarial[at] = found.distance.cpu()[better], found.adversarial.cpu()[better]
        self.fooled[at] = found.predicted.cpu()[better]
        self.attack[at.numpy()] = name
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
    """
    x, y = model.check(x, y)
    brackets = _start(model, x, y, torch.arange(len(x)) if index is None else index, batch_size)
    _certify(brackets, model, x, y, threat.norm)
    right = (brackets.predicted == brackets.label).nonzero()[:, 0]
    progress(len(x) - len(right))
    if not len(right):
        return brackets

    def attack(name: str, method: Attack, some: Tensor, threat: Threat, tell: Callable[[int], None]) -> None:
        options: Options = {"seed": seed, "batch_size": batch_size, "index": brackets.index[some]}
        found = method(model, x[some], y[some], threat, progress=tell, **options)
        if threat.eps is not None:
            found = refine(found, model, x[some], y[some], Threat(threat.norm), **options)
        brackets.lower_upper(some, found, name)

    name, first = _first_attack(model, x[right], budget)
    # An example counts for a half when it has a bracket, and for the other when the bracket is decided.
    attack(name, first, right, Threat(threat.norm), lambda n: progress(n / 2))

    def certify(certificates: dict[str, Certificate], some: Tensor) -> None:
        for name, certificate in certificates.items():
            loose = some[(brackets.lower < 0.99 * brackets.upper)[some]]
            if len(loose):
                _certify_from_above(brackets, name, certificate, model, x, y, threat.norm, loose)

    certify(budget.guided, right)
    waiting = len(right)
    for name, closing in budget.closing_in(threat.norm).items():
        groups = brackets.open_at(threat.ladder)
        still = sum(len(some) for some, _ in groups)
        progress((waiting - still) / 2)
        waiting = still
        for some, eps in groups:
            attack(name, closing, some, Threat(threat.norm, eps), lambda n: None)
    for some, _ in brackets.open_at(threat.ladder):
        certify(budget.last, some)
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


def _start(model: Classifier, x: Tensor, y: Tensor, index: Tensor, batch_size: int) -> Brackets:
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


def _certify_from_above(
    brackets: Brackets,
    name: str,
    certificate: Certificate,
    model: Classifier,
    x: Tensor,
    y: Tensor,
    norm: Norm,
    some: Tensor,
) -> None:
    """One more certificate for some examples, which is told the attack's distance and what is proved already."""
    upper, lower = brackets.upper[some], brackets.lower[some]
    try:
        bound = certificate(model, x[some], y[some], norm, upper=upper, lower=lower)
    except NotApplicable as refusal:
        brackets.refused[name] = str(refusal)
        return
    bound.check(norm, model.box, str(model.dtype).removeprefix("torch."))
    radius = torch.zeros_like(brackets.lower).index_put((some,), bound.radius.cpu())
    brackets.raise_lower(replace(bound, radius=radius))


def _first_attack(model: Classifier, x: Tensor, budget: Budget) -> tuple[str, Attack]:
    """The exact attack on an affine model, the budget's minimal-norm attack on any other."""
    # Classes and coordinates beyond this make the K gradients and sorts dearer than a search.
    if model.classes <= 100 and affine_map(model, x) is not None:
        return "linear", linear
    return "fmn", budget.first
