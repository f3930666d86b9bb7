"""Shaeiri, Nobahari and Rohban 2020, Appendix C and Section 3.3: twelve sanity checks of two robust MNIST models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
from torch import Tensor

from calipers import data
from calipers.attacks import AttackResult, fgsm, noise, pgd, zoo
from calipers.diagnostics.candidates import from_other
from calipers.errors import BadInput
from calipers.models import Classifier, load
from calipers.papers.registry import Result, Scale, figure
from calipers.threats import Threat

__all__ = ["Subject", "appendix_c", "checks_of"]

PAPER = "Towards Deep Learning Models Resistant to Large Perturbations, A. Shaeiri, R. Nobahari and M. H. Rohban, 2020"
Attack = Callable[..., AttackResult]

# Images attacked, steps of the long attacks, restarts, random corners an image, classes aimed at, steps of ZOO.
_SIZES = {
    "smoke": (4, 20, 2, 128, 1, 1),
    "cpu": (100, 300, 5, 10_000, 9, 20),
    "paper": (10_000, 2000, 10, 10**8, 9, 1000),
}


@dataclass(frozen=True)
class Subject:
    """A model under examination.

    Arguments:
        model: the classifier, in eval mode.
        eps: the radius it was extended to.
        base: the model its training began with, for the semi-black-box check; None if it is not known.
        published: the paper's robust accuracy by check, where it states one.
    """

    model: Classifier
    eps: float
    base: Classifier | None = None
    published: Mapping[str, float] | None = None


# What the paper states of its 0.3 → 0.4 and 0.3 → 0.5 models (Appendix C, Section 3.3).
PUBLISHED = {
    0.4: {"training PGD": 0.89, "PGD, steps of 0.01": 0.90, "raw gradient": 0.90},
    0.5: {"training PGD": 0.80, "PGD, steps of 0.01": 0.30, "raw gradient": 0.17},
}


def training_pgd(eps: float, **more: object) -> Attack:
    """Signed PGD on the cross-entropy with steps of 0.05, 2.5·eps/0.05 of them, from a random start (Section 3.1.1).

    Example:
        >>> training_pgd(0.4).keywords["steps"]
        20
    """
    return partial(pgd, **({"steps": max(round(2.5 * eps / 0.05), 1), "step_size": 0.05, "loss": "ce-raw"} | more))


def attacks_of(subject: Subject, scale: Scale) -> dict[str, tuple[float, Attack]]:
    """Every check as a radius and an attack at it, in the paper's order; those that need a base model only with one."""
    eps, (_, long, restarts, corners, targets, zoo_steps) = subject.eps, _SIZES[scale]
    usual = training_pgd(eps)
    listed: dict[str, tuple[float, Attack]] = {
        "training PGD": (eps, usual),
        "1 one step": (eps, partial(fgsm, loss="ce-raw")),
        "2 unbounded": (1.0, training_pgd(1.0)),
        "3 no random offset": (eps, training_pgd(eps, random_start=False)),
        f"4 {restarts} restarts": (eps, training_pgd(eps, restarts=restarts)),
        f"5 {long} steps": (eps, training_pgd(eps, steps=long)),
        **{f"6 eps {part * eps:.3g}": (part * eps, training_pgd(part * eps)) for part in (0.5, 0.75, 1.25)},
        f"7 targeted, {targets} classes": (eps, training_pgd(eps, targets=targets)),
        f"8 {corners:.0e} random corners": (eps, partial(noise, steps=corners, kind="bernoulli")),
        f"10 ZOO, {zoo_steps} steps": (eps, partial(zoo, steps=zoo_steps)),
    }
    if subject.base is not None:
        listed["12 made on the base model"] = (eps, from_other(subject.base))
    small = max(long // 2, 1)
    listed[f"PGD, steps of 0.01, {small}"] = (eps, training_pgd(eps, steps=max(small, 50), step_size=0.01))
    listed[f"raw gradient, {long} steps"] = (eps, training_pgd(eps, steps=long, step_size=5e4, raw=True))
    return listed


def checks_of(subject: Subject, x: Tensor, y: Tensor, scale: Scale) -> pd.DataFrame:
    """One row a check: the accuracy that its attack leaves, beside the paper's.

    Example:
        >>> from calipers.models import references
        >>> r = references()[0]
        >>> table = checks_of(Subject(r.classifier, 0.1), r.x[:2].clamp(0, 1), r.y[:2], "smoke")
        >>> bool(table.robust_accuracy.between(0, 1).all())
        True
    """
    rows = []
    for name, (eps, attack) in attacks_of(subject, scale).items():
        found = attack(subject.model, x, y, Threat("linf", eps))
        stated = [v for key, v in (subject.published or {}).items() if key in name]
        rows.append({
            "model": subject.model.name, "check": name, "eps": eps, "images": len(x),
            "robust_accuracy": 1 - float(found.success.double().mean()),
            "published": stated[0] if stated else None,
        })  # fmt: skip
    return pd.DataFrame(rows)
