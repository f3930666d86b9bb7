"""What figures that train share: a named training, kept in a folder and gone on with, and its curves."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from calipers.data import DataSet, load
from calipers.models import Classifier, digest
from calipers.papers.registry import Bench, Scale
from calipers.runner import Part, Work, atomic_write, merge
from calipers.training import ABOUT, Plan, Trained, best_precision, fresh, train
from calipers.training.checkpoint import CHECKPOINT, has_checkpoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Chain", "Studio", "copied", "draw_curves", "kept_by_network", "train_chains"]

# Trainings by name, to be done one after the other.
Chain = Mapping[str, Callable[[], Trained]]


def copied(model: Classifier) -> Classifier:
    """The same classifier with weights of its own, to be trained further.

    Example:
        >>> one = fresh("digits-linear")
        >>> copied(one).module is one.module
        False
    """
    return replace(model, module=copy.deepcopy(model.module))


@dataclass(frozen=True, eq=False)
class Studio:
    """Where a paper's networks are trained: data, network, and how much of it the scale allows.

    Arguments:
        scale: for the folder's name and the findings.
        data: a data set's name.
        arch: the network.
        folder: where trainings are kept; None keeps nothing.
        examples: train on the first so many; None for all.
        held_out: measure accuracy after every epoch on the first so many test examples.

    Example:
        >>> len(Studio("smoke", "digits", "digits-linear", examples=100).training)
        100
    """

    scale: Scale
    data: str
    arch: str
    folder: Path | None = None
    examples: int | None = None
    held_out: int = 500

    @cached_property
    def training(self) -> DataSet:
        """The examples that are trained on."""
        return load(self.data, split="train").take(self.examples)

    def test(self, count: int | None = None) -> DataSet:
        """The first test examples; all of them by default."""
        return self._test.take(min(count, len(self._test)) if count else None)

    @cached_property
    def _test(self) -> DataSet:
        return load(self.data)

    def fit(
        self, name: str, plan: Plan, *, start: Classifier | None = None, init: str = "torch", begun: str = ""
    ) -> Trained:
        """Train, or go on with the training of that name, or read it back if it is finished.

        Arguments:
            name: what it is kept as; it must be another one for another plan.
            plan: how; trained in bfloat16 where the device has it.
            start: initial weights, which stay as they are; fresh ones by default.
            init: how fresh ones are drawn.
            begun: the name of a training with the same beginning: where it is kept, only the rest is done.
        """
        plan = replace(plan, precision=best_precision())
        out = self._kept(name)
        shorter = self._kept(begun) if begun else None
        if out and shorter and (shorter / CHECKPOINT).is_file() and not has_checkpoint(out):
            for part in (ABOUT, CHECKPOINT):
                atomic_write(out / part, (shorter / part).read_bytes())
        # Killed before its first checkpoint, it has left nothing to go on from.
        resume = out is not None and has_checkpoint(out)
        model = copied(start) if start else fresh(self.arch, seed=plan.seed, init=init)
        held_out = self.test(self.held_out) if self.held_out else None
        return train(model, self.training, plan, held_out=held_out, out=out, resume=resume, origin={"arch": self.arch})

    def _kept(self, name: str) -> Path | None:
        """Where the training of that name is kept."""
        return self.folder / f"{self.data}-{self.arch}-{name}" if self.folder else None

    def told(self) -> str:
        """The studio in a sentence."""
        some = f"the first {self.examples} training examples of" if self.examples else "all training examples of"
        return f"{self.arch} on {some} {self.data}, mixed precision {best_precision()}"


def train_chains(bench: Bench, told: str, *chains: Chain) -> dict[str, Trained]:
    """The networks of all chains by name; several workers train chains at once, and leave them in the folder.

    Arguments:
        bench: where trainings are kept, and how many workers.
        told: how they are trained, in a sentence.
        chains: what starts from weights that another training makes belongs into the chain of the other.

    Example:
        >>> from calipers.training import Schedule
        >>> studio = Studio("smoke", "digits", "digits-linear", examples=100)
        >>> plan = Plan("pgd", Schedule("constant", 0.1), epochs=1)
        >>> list(train_chains(Bench(), studio.told(), {"at 0.1": lambda: studio.fit("0.1", plan)}))
        ['at 0.1']
    """
    if bench.trained and bench.workers > 1:
        bench.shards("trained", str([told, *map(list, chains)]), partial(_train_chain, chains), len(chains))
    return {name: make() for chain in chains for name, make in chain.items()}


def _train_chain(chains: Sequence[Chain], shard: int) -> Part:
    """One chain, into the folder of its trainings."""
    return Part({}, notes={name: len(make().metrics) for name, make in chains[shard].items()})


def kept_by_network(
    bench: Bench, stage: str, model: Classifier, what: object, work: Work, count: int
) -> dict[str, np.ndarray]:
    """The columns of a stage that measures one network, kept under its digest: other networks change nothing.

    Arguments:
        bench, stage, work, count: see :meth:`Bench.shards`.
        model: the network.
        what: everything else that determines a shard.

    Example:
        >>> from calipers.runner import Part
        >>> kept_by_network(Bench(), "twice", fresh("digits-linear"), "n", lambda i: Part({"n": np.array([2 * i])}), 3)
        {'n': array([0, 2, 4])}
    """
    network = digest(model)
    return merge(bench.shards(f"{stage}-{network[:12]}", str([network, what]), work, count)).table


def draw_curves(axis: Axes, curves: dict[str, pd.DataFrame], column: str) -> None:
    """One line a training, by epoch."""
    from matplotlib.ticker import MaxNLocator

    for name, part in curves.items():
        axis.plot(part.epoch, part[column], ".-", markersize=3, linewidth=1, label=name)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(xlabel="epoch", ylabel=column.replace("_", " "))
    axis.legend(fontsize=7, frameon=False)
