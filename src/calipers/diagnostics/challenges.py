"""Checks that challenge the audit: attacks of other kinds on what it left open, which must not find much more."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Unpack

import torch
from scipy.stats import binom
from torch import Tensor

from calipers.attacks import AttackResult, Options, fgsm, noise, pgd, square, zoo
from calipers.diagnostics.battery import TRIED, Depth, Evidence, Finding, check, verdict
from calipers.diagnostics.candidates import Attack, from_other, from_substitute, toward_others
from calipers.errors import BadInput
from calipers.models import Classifier
from calipers.threats import Threat

__all__ = ["CHALLENGES", "Attack"]

# How each challenger is made from the evidence, by the name of its check; None where it cannot be.
CHALLENGES: dict[str, Callable[[Evidence], Attack | None]] = {}

# A challenger may lower the robust accuracy by this much: what an honest audit leaves for others to find.
_MAY_FIND = 0.02


def challenge(
    name: str, question: str, advice: str, *, depth: Depth = "quick"
) -> Callable[[Callable[[Evidence], Attack | None]], Callable[[Evidence], Attack | None]]:
    """Register a maker of attacks as a challenger; its check tries the attack on a sample of what is open."""

    def register(make: Callable[[Evidence], Attack | None]) -> Callable[[Evidence], Attack | None]:
        CHALLENGES[name] = make
        check(name, question, advice, depth=depth)(partial(_tried, make))
        return make

    return register


def _tried(make: Callable[[Evidence], Attack | None], e: Evidence) -> Finding:
    if not e.threat.ladder:
        return "not applicable", "no radius was asked for"
    if not e.is_function:
        return "not applicable", "an input alone does not determine the answer"
    eps, left = e.still_open()
    if not len(left):
        return "passed", "the attacks and certificates left no example open to try"
    attack = make(e)
    if attack is None:
        return "not applicable", "there is nothing to make this attack of"
    share, some = len(left) / len(e.rows), left[: TRIED[e.depth]]
    index = torch.from_numpy(e.rows["index"].to_numpy()[some.numpy()])
    try:
        found = attack(e.model, e.x[some], e.y[some], Threat(e.threat.norm, eps), seed=e.seed, index=index)
    except BadInput as refusal:
        return "not applicable", str(refusal)
    broken = int(found.success.sum())
    # By chance alone, an attack that finds two points more breaks so many of the sample once in a hundred times.
    likely = float(binom.sf(broken - 1, len(some), min(_MAY_FIND / share, 1.0)))
    words = f"it broke {broken} of {len(some)} examples that were open at eps {eps:g}"
    return verdict(likely >= 0.01), words if not broken else f"{words}, where {share:.1%} are open"


_STOPPED_EARLY = "The search had stopped too early: the audit ran this attack on all that was open."
_MASKED = "The gradients are masked: the audit ran this attack on all that was open, and a search without gradients."


@challenge("one-step-is-weaker", "Is a single gradient step weaker than the attacks?", _MASKED)
def one_step(e: Evidence) -> Attack | None:
    """FGSM (Appendix C, 1)."""
    return fgsm


@challenge("transfer-is-weaker", "Are points made on another model weaker than the attacks?", _MASKED)
def transfer(e: Evidence) -> Attack | None:
    """The nearest misclassified points of a linear substitute, fitted to the model's answers (Appendix C, 11)."""
    return from_substitute(e.model, e.x)


@challenge("base-model-is-weaker", "Are attacks on the given second model weaker than attacks on this one?", _MASKED)
def semi_black_box(e: Evidence) -> Attack | None:
    """PGD on the model this one was extended from, or any other (Appendix C, 11 and 12)."""
    return None if e.other is None else from_other(e.other)


@challenge(
    "contrast-is-weaker",
    "Does fading toward grey, or toward inputs of other classes, break less than the attacks?",
    "The search had stopped too early, or eps is so large that inputs of several classes share a point.",
)
def toward(e: Evidence) -> Attack | None:
    """The middle of the box, and the nearest inputs of other classes, as far as eps allows."""
    return toward_others(e.x, e.y, e.model.box)


@challenge(
    "many-small-steps-find-no-more",
    "Do many small steps break no more than the attacks?",
    _STOPPED_EARLY,
    depth="standard",
)
def small_steps(e: Evidence) -> Attack | None:
    """PGD on the cross-entropy with steps of eps/50 (Section 3.3; Appendix C, 5)."""
    steps = 2000 if e.depth == "thorough" else 100
    return partial(_small_steps, steps=steps)


def _small_steps(
    model: Classifier, x: Tensor, y: Tensor, threat: Threat, *, steps: int, **options: Unpack[Options]
) -> AttackResult:
    size = None if threat.norm == "l0" else threat.ladder[-1] / 50
    return pgd(model, x, y, threat, steps=steps, step_size=size, loss="ce", **options)


@challenge(
    "restarts-find-no-more",
    "Do ten random restarts break no more than the attacks?",
    _STOPPED_EARLY,
    depth="thorough",
)
def restarts(e: Evidence) -> Attack | None:
    """PGD from ten random points of the ball (Appendix C, 3 and 4)."""
    return partial(pgd, restarts=10)


@challenge(
    "targets-find-no-more",
    "Does aiming at every other class break no more than the attacks?",
    _STOPPED_EARLY,
    depth="thorough",
)
def targeted(e: Evidence) -> Attack | None:
    """PGD aimed at each class in turn (Appendix C, 7)."""
    return partial(pgd, targets=min(e.model.classes - 1, 20))


@challenge(
    "raw-gradient-finds-no-more",
    "Does moving along the gradient itself, not its sign, break no more than the attacks?",
    _STOPPED_EARLY,
    depth="thorough",
)
def raw_gradient(e: Evidence) -> Attack | None:
    """PGD with steps of 5·10⁴ times the gradient of the cross-entropy (Section 3.3)."""
    return partial(pgd, raw=True, step_size=5e4, loss="ce-raw", steps=200)


@challenge(
    "gradient-free-finds-no-more",
    "Does a search without gradients break no more than the attacks?",
    _MASKED,
    depth="standard",
)
def gradient_free(e: Evidence) -> Attack | None:
    """Square (Appendix C, 10, with the search that is stronger than ZOO)."""
    return None if e.threat.norm == "l0" else partial(square, steps=1000 if e.depth == "thorough" else 100)


@challenge(
    "zoo-finds-no-more",
    "Does the ascent along estimated derivatives break no more than the attacks?",
    _MASKED,
    depth="thorough",
)
def estimated(e: Evidence) -> Attack | None:
    """ZOO (Appendix C, 10)."""
    return partial(zoo, steps=20) if e.threat.norm in ("linf", "l2") else None


@challenge(
    "brute-force-finds-no-more",
    "Do random corners of the ball break no more than the attacks?",
    _MASKED,
    depth="thorough",
)
def brute_force(e: Evidence) -> Attack | None:
    """Every coordinate at ±eps by a fair coin (Appendix C, 8)."""
    return partial(noise, steps=10_000, kind="bernoulli")
