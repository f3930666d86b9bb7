"""The checks every audit runs: each asks one question of the evaluation and answers with numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from calipers.models import Classifier, left_in_train_mode
from calipers.records import Check, Verdict, status

__all__ = ["CHECKS", "Evidence", "run_checks"]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a check may look at: the model as it was handed over, a sample of the data, and the rows of the audit."""

    model: Classifier
    x: Tensor
    y: Tensor
    rows: pd.DataFrame
    eps: tuple[float, ...]

    def logits(self, x: Tensor) -> Tensor:
        """One call of the model in eval mode, in float64."""
        with self.model.frozen(), torch.no_grad():
            return self.model(x).double()


Finding = tuple[Verdict, str]


def _verdict(fine: bool) -> Verdict:
    return "passed" if fine else "failed"


def _train_mode(e: Evidence) -> Finding:
    parts = left_in_train_mode(e.model.module)
    if not parts:
        return "passed", "every part of the model that looks at its mode was handed over in eval mode"
    return "failed", f"handed over in train mode: {', '.join(parts[:3])}; everything was evaluated in eval mode"


def _input_range(e: Evidence) -> Finding:
    if not e.model.box.bounded:
        return "not applicable", "the input box is infinite"
    low, high, width = float(e.x.min()), float(e.x.max()), e.model.box.width
    share = (high - low) / width
    return _verdict(share >= 0.2), f"the inputs span {low:.4g}…{high:.4g}, {share:.0%} of the box {e.model.box}"


def _deterministic(e: Evidence) -> Finding:
    # Both calls in one go: leaving the frozen model puts the global generator back, and the second repeats the first.
    with e.model.frozen(), torch.no_grad():
        first, again = e.model(e.x).double(), e.model(e.x).double()
    spread = float((first.amax(1) - first.amin(1)).mean())
    change = float((first - again).abs().max())
    return _verdict(change <= 1e-5 * spread), f"two calls on the same {len(e.x)} inputs differ by {change:.3g} at most"


def _batch_mates(e: Evidence) -> Finding:
    alone = torch.cat([e.logits(one) for one in e.x[:16].split(1)])
    together = e.logits(e.x)[: len(alone)]
    spread = float((together.amax(1) - together.amin(1)).mean())
    change = float((alone - together).abs().max())
    fine = change <= 1e-3 * spread
    return _verdict(fine), f"logits of {len(alone)} inputs alone and in a batch differ by {change:.3g} at most"


def _logits(e: Evidence) -> Finding:
    out = e.logits(e.x)
    inside = bool((out >= -1e-6).all() and (out <= 1 + 1e-6).all())
    total = (out.sum(1) - 1).abs().max()
    if inside and float(total) < 1e-3:
        return "failed", f"all outputs lie in [0, 1] and sum to 1 (within {float(total):.1g}): these are probabilities"
    return "passed", f"outputs range over {float(out.min()):.4g}…{float(out.max()):.4g}"


def _better_than_chance(e: Evidence) -> Finding:
    accuracy, chance = float((e.rows["predicted"] == e.rows["label"]).mean()), 1 / e.model.classes
    # Three standard errors above guessing: fewer examples must do better.
    needed = chance + 3 * (chance * (1 - chance) / len(e.rows)) ** 0.5
    fine = accuracy >= min(needed, 1.0)
    return _verdict(fine), f"clean accuracy {accuracy:.1%} on {len(e.rows)} examples; guessing gives {chance:.1%}"


def _random_noise(e: Evidence) -> Finding:
    if not e.eps:
        return "not applicable", "no radius was asked for"
    right = e.rows[e.rows["predicted"] == e.rows["label"]]
    by_noise = int((right["attack"] == "noise").sum())
    left = by_noise + sum(
        int((status(right["lower"].to_numpy(), right["upper"].to_numpy(), eps) == "open").sum()) for eps in e.eps
    )
    if not left:
        return "passed", "the attacks and certificates left no example open for noise to try"
    return _verdict(by_noise == 0), f"noise alone broke {by_noise} of the {left} cases that the attacks had left open"


def _sandwich(e: Evidence) -> Finding:
    lower, upper = e.rows["lower"].to_numpy(), e.rows["upper"].to_numpy()
    both = np.isfinite(upper) & (upper > 0) & (lower > 0)
    if not both.any():
        return "not applicable", "no example has both a certificate and a witness"
    ratio = float((lower[both] / upper[both]).max())
    return _verdict(ratio <= 1), f"lower / upper is at most {ratio:.6f} over {int(both.sum())} brackets"


# id, question, what to do when it fails, how it is answered. The next check goes here.
CHECKS: tuple[tuple[str, str, str, Callable[[Evidence], Finding]], ...] = (
    ("certificate-below-attack", "Is every certified radius below the witness that an attack found?",
     "This is a bug in Calipers: please report it.", _sandwich),
    ("random-noise-is-weaker", "Do the attacks break everything that random noise of the same size breaks?",
     "The gradients are masked or the attack stops early: audit with --budget thorough.", _random_noise),
    ("model-in-eval-mode", "Was the model handed over in eval mode?",
     "The numbers are those of eval mode; if that is the model you mean, call model.eval() first.", _train_mode),
    ("model-is-deterministic", "Does the model give the same answer twice?",
     "A random defence needs an attack on its expectation; a witness here may fail there.", _deterministic),
    ("batch-mates-do-not-matter", "Does an input get the same answer alone and in a batch?",
     "The model looks at the whole batch: audit it with the batch size it is used with.", _batch_mates),
    ("outputs-are-logits", "Are the outputs logits, not probabilities?",
     "Return the scores before the softmax: probabilities saturate and hide the gradient.", _logits),
    ("input-range", "Do the inputs fill the box the model is said to take?",
     "Check whether the data are scaled as the model expects; eps is in the same units.", _input_range),
    ("better-than-chance", "Is the model right more often than guessing?",
     "Check the order of the classes and the preprocessing.", _better_than_chance),
)  # fmt: skip


def run_checks(
    model: Classifier, x: Tensor, y: Tensor, rows: pd.DataFrame, eps: tuple[float, ...], *, sample: int = 128
) -> tuple[Check, ...]:
    r"""Ask every question, in the order of :data:`CHECKS`.

    Arguments:
        model: as the user handed it over; its modes are looked at before anything puts it in eval mode.
        x, y: the audited inputs and labels; the first ``sample`` are used.
        rows: the rows of the audit.
        eps: the asked radii.
    """
    evidence = Evidence(model, x[:sample].to(model.device, model.dtype), y[:sample], rows, eps)
    checks = []
    for name, question, advice, answer in CHECKS:
        verdict, words = answer(evidence)
        checks.append(Check(id=name, question=question, verdict=verdict, evidence=words, advice=advice))
    return tuple(checks)
