"""Checks of what was handed over: the model's mode, its answers, its inputs, its labels."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import binom

from calipers.diagnostics.battery import Evidence, Finding, check, verdict
from calipers.models import left_in_train_mode

# How often a model that only guesses may pass for one that knows something, or a decent one for one that does not.
LEVEL = 0.01


@check(
    "certificate-below-attack",
    "Is every certified radius below the witness that an attack found?",
    "This is a bug in Calipers: please report it.",
)
def sandwich(e: Evidence) -> Finding:
    """Lower / upper, where both are known."""
    lower, upper = e.rows["lower"].to_numpy(), e.rows["upper"].to_numpy()
    both = np.isfinite(upper) & (upper > 0) & (lower > 0)
    if not both.any():
        return "not applicable", "no example has both a certificate and a witness"
    ratio = float((lower[both] / upper[both]).max())
    return verdict(ratio <= 1), f"lower / upper is at most {ratio:.6f} over {int(both.sum())} brackets"


@check(
    "model-in-eval-mode",
    "Was the model handed over in eval mode?",
    "The numbers are those of eval mode; if that is the model you mean, call model.eval() first.",
)
def train_mode(e: Evidence) -> Finding:
    """Parts whose forward looks at the mode."""
    parts = left_in_train_mode(e.model.module)
    if not parts:
        return "passed", "every part of the model that looks at its mode was handed over in eval mode"
    return "failed", f"handed over in train mode: {', '.join(parts[:3])}; everything was evaluated in eval mode"


@check(
    "model-is-deterministic",
    "Does the model give the same answer twice?",
    "The audit attacked what the model answers on average, and so must every evaluation: state the expectation.",
)
def deterministic(e: Evidence) -> Finding:
    """Ten calls on the same inputs."""
    words = f"ten calls on the same {len(e.some[:16])} inputs differ by {e.repeat:.3g} at most"
    return verdict(not e.is_random), words


@check(
    "batch-mates-do-not-matter",
    "Does an input get the same answer alone and in a batch?",
    "The model looks at the whole batch; the audit showed it every input alone. Find the step that mixes examples.",
)
def batch_mates(e: Evidence) -> Finding:
    """Logits alone and in a batch."""
    if e.is_random:
        return "not applicable", "the model is random, so its answers differ anyway"
    words = f"logits of {len(e.some[:16])} inputs alone and in a batch differ by {e.alone:.3g} at most"
    return verdict(e.is_function), words


@check(
    "gradients-go-unnoticed",
    "Does the model answer the same when a gradient is asked for?",
    "The model looks for the signs of an attack, and so answers attackers otherwise than users.",
)
def unnoticed(e: Evidence) -> Finding:
    """Logits with and without a gradient."""
    if e.is_random:
        return "not applicable", "the model is random, so its answers differ anyway"
    with e.model.frozen(), torch.enable_grad():
        watched = e.model(e.some.detach().clone().requires_grad_()).detach().double()
    change = float((watched - e.clean).abs().max())
    words = f"logits of {len(e.some)} inputs change by {change:.3g} at most when a gradient is asked for"
    return verdict(change <= 1e-5 * e.spread), words


@check(
    "outputs-are-logits",
    "Are the outputs logits, not probabilities?",
    "Return the scores before the softmax: probabilities saturate and hide the gradient.",
)
def logits(e: Evidence) -> Finding:
    """Outputs in [0, 1] that sum to 1."""
    out = e.clean
    inside = bool((out >= -1e-6).all() and (out <= 1 + 1e-6).all())
    total = (out.sum(1) - 1).abs().max()
    if inside and float(total) < 1e-3:
        if e.model.blind:
            return "not applicable", "the outputs are probabilities, but no gradient could be hidden behind them"
        return "failed", f"all outputs lie in [0, 1] and sum to 1 (within {float(total):.1g}): these are probabilities"
    return "passed", f"outputs range over {float(out.min()):.4g}…{float(out.max()):.4g}"


@check(
    "input-range",
    "Do the inputs fill the box the model is said to take?",
    "Check whether the data are scaled as the model expects; eps is in the same units.",
)
def input_range(e: Evidence) -> Finding:
    """The span of the inputs over the width of the box."""
    if not e.model.box.bounded:
        return "not applicable", "the input box is infinite"
    low, high, width = float(e.some.min()), float(e.some.max()), e.model.box.width
    share = (high - low) / width
    return verdict(share >= 0.2), f"the inputs span {low:.4g}…{high:.4g}, {share:.0%} of the box {e.model.box}"


@check(
    "better-than-chance",
    "Is the model right more often than guessing?",
    "Check the order of the classes and the preprocessing.",
)
def better_than_chance(e: Evidence) -> Finding:
    """Two exact binomial tests: against guessing, and against half the way from guessing to always right."""
    n, chance = len(e.rows), 1 / e.model.classes
    right = round(_accuracy(e) * n)
    words = f"{right} of {n} examples are right; guessing gives {chance:.1%}"
    if (p := float(binom.sf(right - 1, n, chance))) <= LEVEL:
        return "passed", f"{words} (exact binomial test, p = {p:.2g}, level {LEVEL})"
    if binom.cdf(right, n, (1 + chance) / 2) > LEVEL:
        return "not applicable", f"{words}: too few examples to tell the two apart (p = {p:.2g}, level {LEVEL})"
    return "failed", f"{words}, and luck alone does as well with probability {p:.2g} (exact binomial test)"


@check(
    "clean-accuracy-as-claimed",
    "Is the clean accuracy what was claimed?",
    "Other weights, another preprocessing or other data than the claim's: do not compare the robust accuracies.",
)
def as_claimed(e: Evidence) -> Finding:
    """Within one point and three standard errors of the claim."""
    if e.claimed is None:
        return "not applicable", "nothing was claimed"
    accuracy, error = _accuracy(e), (e.claimed * (1 - e.claimed) / len(e.rows)) ** 0.5
    words = f"clean accuracy {accuracy:.1%} on {len(e.rows)} examples; claimed was {e.claimed:.1%}"
    return verdict(abs(accuracy - e.claimed) <= 0.01 + 3 * error), words


def _accuracy(e: Evidence) -> float:
    return float((e.rows["predicted"] == e.rows["label"]).mean())
