r"""What the audit does when a check fails: attack again what can be attacked, past what stood in the way.

A plan follows from the failed checks. The second pass runs the same cascade on a stand-in for the model, with gradients
that can be followed, and a search without gradients behind it. Every witness is judged by the model itself; by its
expectation if it is random, and on every input alone if batch mates matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from calipers.attacks import square
from calipers.audit.budget import Attack, Budget, find_budget
from calipers.audit.cascade import close_brackets
from calipers.audit.folder import SMOOTHED
from calipers.audit.inputs import Inputs
from calipers.audit.parts import brackets_of, part_of
from calipers.diagnostics import CHALLENGES, Evidence
from calipers.models import Alone, Classifier, Expected, StraightThrough
from calipers.records import Check, Reaction, Summary
from calipers.runner import Part
from calipers.threats import Threat

__all__ = ["Plan", "SecondPass", "plan_for", "told"]

# Failed checks that say that the attacks could not see where to go.
BLIND = frozenset({
    "forward-can-be-differentiated", "gradients-are-there", "gradients-point-uphill", "gradients-go-unnoticed",
    "outputs-are-logits", "random-noise-is-weaker", "everything-can-be-broken", "unbounded-attack-breaks-all",
    "no-more-than-possible",
})  # fmt: skip

_DRAWS, _JUDGES = 16, 64

Medians = tuple[float | None, float | None]


@dataclass(frozen=True, eq=False)
class Plan:
    """What is to be done differently.

    Arguments:
        causes: the failed checks that ask for it.
        bridged: take gradients past what stops them.
        random: attack and judge the expectation.
        mixed: ask about every input alone.
        challengers: attacks that found more than the audit, to be run on everything.
    """

    causes: tuple[str, ...]
    bridged: bool
    random: bool
    mixed: bool
    challengers: dict[str, Attack]

    @property
    def name(self) -> str:
        """What attacks of the second pass are called before the slash."""
        words = (("alone", self.mixed), ("eot", self.random), ("bpda", self.bridged))
        return "+".join(word for word, here in words if here) or "again"

    def judge(self, model: Classifier, seed: int) -> Classifier:
        """The model as a function: who decides what a witness is."""
        return self._standing_in(model, model.module, _JUDGES, seed ^ 1)

    def aim(self, model: Classifier, seed: int) -> Classifier:
        """What is attacked in its place."""
        return self._standing_in(model, StraightThrough(model.module) if self.bridged else model.module, _DRAWS, seed)

    def _standing_in(self, model: Classifier, module: nn.Module, draws: int, seed: int) -> Classifier:
        module = Alone(module) if self.mixed else module
        module = Expected(module, draws=draws, seed=seed) if self.random else module
        return model if module is model.module else replace(model, module=module)

    def budget(self, name: str) -> Budget:
        """The budget of the first pass, with the challengers that won and a search without gradients behind."""
        usual = find_budget(name)
        extra: dict[str, Attack] = {**self.challengers, "square": partial(square, steps=usual.again)}
        closing = {**usual.closing, **extra}
        sparse = {**usual.sparse, **self.challengers}
        return replace(usual, closing=closing, sparse=sparse)

    def actions(self, budget: str, threat: Threat) -> tuple[str, ...]:
        """In words. Square takes no L0, and needs a radius."""
        queried = bool(threat.ladder) and threat.norm != "l0"
        words = {
            "asked the model about every input alone": self.mixed,
            f"attacked the mean answer of {_DRAWS} draws and judged by that of {_JUDGES} others": self.random,
            "took gradients past the steps that have none and from the scores before a softmax": self.bridged,
            f"ran on everything: {', '.join(self.challengers)}": bool(self.challengers),
            f"searched without gradients ({find_budget(budget).again} queries of Square)": queried,
        }
        return tuple(word for word, here in words.items() if here)


def plan_for(checks: Sequence[Check], evidence: Evidence) -> Plan | None:
    """What the failed checks ask for; None if nothing can be done, or need be."""
    failed = [check.id for check in checks if not check.passed]
    # What cannot be held falls at the points that inputs share.
    asked = [*failed, "contrast-is-weaker"] if "no-more-than-possible" in failed else failed
    made = {name: CHALLENGES[name](evidence) for name in asked if name in CHALLENGES}
    challengers = {name: attack for name, attack in made.items() if attack is not None}
    random, mixed = "model-is-deterministic" in failed, "batch-mates-do-not-matter" in failed
    causes = {*BLIND, *challengers, "model-is-deterministic", "batch-mates-do-not-matter"}
    whole = tuple(name for name in failed if name in causes)
    if not whole:
        return None
    blind = bool(challengers) or not BLIND.isdisjoint(failed)
    return Plan(whole, blind and evidence.bridges is not None, random, mixed, challengers)


@dataclass(eq=False)
class SecondPass:
    """The work: shard number → the rows and witnesses of its examples after the second pass."""

    inputs: Inputs
    threat: Threat
    budget: str
    seed: int
    batch_size: int
    size: int
    plan: Plan
    parts: list[Part]

    def __call__(self, shard: int) -> Part:
        some, model, whole = slice(shard * self.size, (shard + 1) * self.size), self.inputs.model, self.inputs.data
        x, y = model.check(whole.x[some], whole.y[some])
        # Rows of a model that is no function of its input cannot be gone on with: their witnesses may have been luck.
        fresh = self.plan.random or self.plan.mixed
        brackets = close_brackets(
            self.plan.judge(model, self.seed),
            x,
            y,
            self.threat,
            self.plan.budget(self.budget),
            seed=self.seed,
            index=whole.index[some],
            batch_size=self.batch_size,
            aim=self.plan.aim(model, self.seed),
            begun=None if fresh else brackets_of(self.parts[shard], x),
            name=f"{self.plan.name}/",
        )
        part = part_of(brackets, x)
        part.table.update({name: self.parts[shard].table[name] for name in SMOOTHED if name in self.parts[shard].table})
        return part


def told(plan: Plan, budget: str, threat: Threat, before: Summary, after: Summary, uppers: Medians) -> Reaction:
    """The record of what was done and what it changed; ``uppers`` are the median witnesses before and after."""
    return Reaction(
        causes=plan.causes,
        actions=plan.actions(budget, threat),
        eps=threat.ladder,
        before=tuple(band.not_broken for band in before.threats),
        after=tuple(band.not_broken for band in after.threats),
        upper_median_before=uppers[0],
        upper_median_after=uppers[1],
    )
