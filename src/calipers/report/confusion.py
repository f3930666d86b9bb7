"""Confusion under attack: what the model says of every class when the nearest known witness is within eps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calipers.records import Run
from calipers.report.facts import Facts
from calipers.report.words import number

__all__ = ["LARGEST", "Confusion", "confusions"]

LARGEST = 20


@dataclass(frozen=True, eq=False)
class Confusion:
    """Counts at one eps; where there are more than 20 classes, only the commonest mistakes.

    Arguments:
        heading: which eps.
        names: the classes, K names.
        counts: rows are labels, columns answers, shape (K, K); an example that no witness breaks stays on the diagonal.
        mistakes: (label, answer, count) by falling count, the twenty commonest.
    """

    heading: str
    names: tuple[str, ...]
    counts: np.ndarray
    mistakes: tuple[tuple[str, str, int], ...]

    @property
    def whole(self) -> bool:
        """Whether the matrix is small enough to print."""
        return len(self.names) <= LARGEST

    def shade(self, row: int, column: int) -> int:
        """The share of the row's examples that got this answer, in percent."""
        return round(100 * int(self.counts[row, column]) / max(int(self.counts[row].sum()), 1))


def confusions(run: Run, facts: Facts) -> list[Confusion]:
    """One confusion matrix for every asked eps; without an eps, one in which every witness counts.

    The answer is the one at the nearest witness known, or the clean one where that is wrong already. Another attack
    may find another answer: the matrix shows what was seen, not all that is possible.
    """
    label, clean = (run.examples[name].to_numpy(dtype=np.int64) for name in ("label", "predicted"))
    fooled = clean.copy()
    if run.witnesses:
        fooled[facts.witness] = run.witnesses["predicted"]
    classes = max(len(facts.class_names), int(max(label.max(), fooled.max(), clean.max())) + 1)
    names = tuple(facts.class_name(at) for at in range(classes))
    asked = [(f"at eps {number(eps)}", eps) for eps in facts.eps] or [("at the nearest witness, however far", np.inf)]
    return [_confusion(f"{word}", names, label, _answers(facts, clean, fooled, eps)) for word, eps in asked]


def _answers(facts: Facts, clean: np.ndarray, fooled: np.ndarray, eps: float) -> np.ndarray:
    broken = (facts.upper <= eps) & (facts.upper > 0) & np.isfinite(facts.upper)
    return np.where(broken, fooled, clean)


def _confusion(heading: str, names: tuple[str, ...], label: np.ndarray, answer: np.ndarray) -> Confusion:
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(counts, (label, answer), 1)
    wrong = counts * (1 - np.eye(len(names), dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")[:LARGEST]
    pairs = [(int(at) // len(names), int(at) % len(names)) for at in order if wrong.flat[at]]
    return Confusion(heading, names, counts, tuple((names[a], names[b], int(wrong[a, b])) for a, b in pairs))
