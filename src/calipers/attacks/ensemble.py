"""Ensembles: ``reference``, AutoAttack as published; ``auto``, which spends evaluations where they change something."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Unpack

import torch
from torch import Tensor

from calipers.attacks.apgd import apgd
from calipers.attacks.engine import differentiable
from calipers.attacks.fab import fab
from calipers.attacks.fmn import fmn
from calipers.attacks.hopskipjump import hopskipjump
from calipers.attacks.losses import margin
from calipers.attacks.method import Options, Rows, Seen
from calipers.attacks.noise import noise
from calipers.attacks.pgd import pgd
from calipers.attacks.result import AttackResult
from calipers.attacks.search import part_of, spread
from calipers.attacks.square import square
from calipers.errors import BadInput
from calipers.models import Classifier, public
from calipers.threats import Norm, Threat, distance

__all__ = ["EnsembleResult", "Stage", "auto", "reference"]

Attack = Callable[..., AttackResult]

# How many of the nearest examples a move of ``auto`` tries before its gain is weighed again.
_BLOCK = 16


@dataclass(frozen=True)
class Stage:
    """One use of an attack in an ensemble: how many examples it was tried on and broke, and what that took."""

    attack: str
    tried: int
    broke: int
    forwards: int
    gradients: int
    seconds: float = field(compare=False)

    @property
    def evaluations(self) -> int:
        """What it took in forwards; a gradient costs two more."""
        return self.forwards + 2 * self.gradients

    def __add__(self, other: Stage) -> Stage:
        """Two uses of an attack together."""
        names = ("tried", "broke", "forwards", "gradients", "seconds")
        return Stage(self.attack, *(getattr(self, name) + getattr(other, name) for name in names))


@dataclass(frozen=True, eq=False)
class EnsembleResult(AttackResult):
    """The best witness of every example, and how it came about.

    Arguments:
        by: the attack that found each witness; "" where nothing was found.
        stages: every use of an attack, in order.
        ended: why the search ended, one sentence.
    """

    by: tuple[str, ...]
    stages: tuple[Stage, ...]
    ended: str


@dataclass(eq=False)
class _Search:
    """The examples of one call, what has been found for each, how near each came, and what each attack has cost."""

    model: Classifier
    x: Tensor
    y: Tensor
    options: Options
    found: AttackResult
    by: list[str]
    height: Tensor
    stages: list[Stage] = field(default_factory=list)

    @classmethod
    def of(cls, model: Classifier, x: Tensor, y: Tensor, options: Options) -> _Search:
        x, y = model.check(x.detach(), y)
        nothing = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        infinite = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
        found = AttackResult(x.clone(), infinite, y.clone(), nothing, nothing.clone())
        return cls(model, x, y, options, found, [""] * len(x), torch.full_like(infinite, -torch.inf))

    def standing(self, eps: float) -> Tensor:
        """The examples without a witness within eps, the nearest to the boundary first."""
        at = (self.found.distance > eps).nonzero()[:, 0]
        return at[self.height[at].argsort(descending=True, stable=True)]

    def run(self, name: str, attack: Attack, some: Tensor, eps: float | None, norm: Norm) -> Stage:
        """One attack on some examples; its witnesses count where they are nearer."""
        if not len(some):
            return Stage(name, 0, 0, 0, 0, 0.0)

        def watch(rows: Rows, seen: Seen) -> None:
            above = margin(seen.logits, rows.y, torch.full_like(rows.target, -1), rows.scale)
            height = (above / rows.scale).double()
            if eps is not None:
                # What lies beyond eps says nothing about how near the ball comes.
                height = torch.where(distance(rows.x, rows.z, norm) <= eps, height, -torch.inf)
            at = some[rows.row]
            self.height[at] = torch.maximum(self.height[at], height)

        began = time.perf_counter()
        options: Options = {**part_of(self.options, some, len(self.x)), "watch": watch}
        new = attack(self.model, self.x[some], self.y[some], Threat(norm, eps), **options)
        for i in some[new.distance < self.found.distance[some]].tolist():
            self.by[i] = name
        self.found = self.found.better(spread(new, some, self.found))
        cost = (int(new.forwards.sum()), int(new.gradients.sum()), time.perf_counter() - began)
        self.stages.append(Stage(name, len(some), int(new.success.sum()), *cost))
        return self.stages[-1]

    def result(self, ended: str) -> EnsembleResult:
        """What was found, and how."""
        if "progress" in self.options:
            self.options["progress"](len(self.x))
        parts = (self.found.adversarial, self.found.distance, self.found.predicted)
        costs = (self.found.forwards, self.found.gradients)
        return EnsembleResult(*parts, *costs, tuple(self.by), tuple(self.stages), ended)


@public
def reference(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    steps: int = 100,
    targets: int = 9,
    queries: int = 5000,
    **options: Unpack[Options],
) -> EnsembleResult:
    r"""AutoAttack's composition with its published parameters: APGD-CE, targeted APGD, targeted FAB, Square, in turn.

    Each attack sees only what those before it did not break, and drops an example the moment it falls. For numbers
    that can be put beside published ones; :func:`auto` gets there with fewer evaluations.

    Arguments:
        model, x, y, options: as for :func:`calipers.attacks.pgd`.
        threat: linf, l2 or l1, with an eps, or several as a ladder.
        steps: gradient steps of APGD-CE, and for every target of the two targeted attacks.
        targets: how many of the likeliest other classes are aimed at.
        queries: of Square.

    Raises:
        BadInput: no eps, L0, or a model without gradients.

    Source: "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks" (Croce &
    Hein 2020), Section 6: APGD-CE 100 steps, APGD-T and FAB-T 9 × 100, Square 5000 queries. With fewer than four
    classes the DLR loss gives way to the margin, where the published code refuses.

    Example:
        >>> model = Classifier.of(torch.nn.Identity(), shape=(2,))
        >>> found = reference(model, torch.tensor([[0.6, 0.5]]), torch.tensor([0]), Threat("linf", 0.1))
        >>> found.success, found.by
        (tensor([True]), ('apgd-ce',))
    """
    _check(threat, "reference")
    plan: dict[str, Attack] = {
        "apgd-ce": partial(apgd, steps=steps, loss="ce"),
        "apgd-targeted": partial(apgd, steps=steps, loss="dlr", targets=targets),
        "fab-targeted": partial(fab, steps=steps, targets=targets),
        "square": partial(square, steps=queries),
    }
    search = _Search.of(model, x, y, options)
    for eps in threat.ladder:
        for name, attack in plan.items():
            search.run(name, attack, search.standing(eps).sort().values, eps, threat.norm)
    return search.result("every attack of the plan was run on what the ones before it had not broken")


@public
def auto(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    least_gain: float = 5e-5,
    **options: Unpack[Options],
) -> EnsembleResult:
    r"""The default ensemble: few steps for all; then the nearest examples first, by the attack that gains most.

    Everyone gets a few long steps, and what stands a short APGD on the margin. How near an example came is the largest
    (max_{j ≠ y} z_j − z_y) / spread seen so far. Then, again and again, of all moves m the one with the largest
    gain_m = (broke_m + 1) / (evaluations_m + cost of its next block) is tried on the 16 nearest examples that it has
    not been tried on. It ends when the largest gain is below ``least_gain``. An evaluation is one forward; a gradient
    counts two more.

    What an example gets depends on the others in the call, by intent: a move that works on its neighbours is tried on
    it. Batch size and order change nothing.

    Arguments:
        model: without gradients, Square and HopSkipJump take the place of APGD.
        x, y, options: as for :func:`calipers.attacks.pgd`. Leave out what a certificate has decided.
        threat: a norm with an eps, or several as a ladder; without, the minimal distortion by FMN (HopSkipJump without
            gradients).
        least_gain: broken examples per evaluation, below which the search ends.

    Example:
        >>> model = Classifier.of(torch.nn.Identity(), shape=(2,))
        >>> found = auto(model, torch.tensor([[0.6, 0.5]]), torch.tensor([0]), Threat("linf", 0.1))
        >>> found.success, found.by, found.ended
        (tensor([True]), ('pgd',), 'nothing stands at eps 0.1')
    """
    if least_gain <= 0:
        raise BadInput("least_gain of auto", expected="a number > 0", got=least_gain)
    search = _Search.of(model, x, y, options)
    smooth = differentiable(model, search.x)
    if threat.eps is None:
        name, attack = ("fmn", fmn) if smooth else _blind_minimal(threat.norm)
        everyone = torch.arange(len(search.x), device=search.x.device)
        search.run(name, attack, everyone, None, threat.norm)
        return search.result(f"{name} seeks the minimal distortion; there was no eps to decide")
    ended = ""
    for eps in threat.ladder:
        first, moves = _plan(threat.norm, eps, smooth)
        for name, attack in first.items():
            search.run(name, attack, search.standing(eps).sort().values, eps, threat.norm)
        ended = _spend(search, moves, eps, threat.norm, least_gain)
    return search.result(ended)


def _blind_minimal(norm: Norm) -> tuple[str, Attack]:
    """What seeks the minimal distortion without gradients."""
    if norm in ("linf", "l2"):
        return "hopskipjump", hopskipjump
    return ("square", partial(square, steps=500)) if norm == "l1" else ("brute-force", noise)


def _plan(norm: Norm, eps: float, smooth: bool) -> tuple[dict[str, Attack], dict[str, Attack]]:
    """What everyone gets, in turn; and the moves, of which the one that gains most is tried first."""
    if norm == "l0":
        rest: dict[str, Attack] = {"pgd": partial(pgd, steps=100, restarts=3)} if smooth else {}
        return ({"fmn": partial(fmn, steps=50)} if smooth else {}), {**rest, "brute-force": partial(noise, steps=500)}
    if not smooth:
        labels: dict[str, Attack] = {} if norm == "l1" else {"hopskipjump": partial(hopskipjump, steps=2000)}
        return {"square": partial(square, steps=200)}, {"square-2000": partial(square, steps=2000), **labels}
    first: dict[str, Attack] = {
        "pgd": partial(pgd, steps=3, step_size=eps, random_start=False),
        "apgd-margin": partial(apgd, steps=20, loss="margin"),
    }
    return first, {
        "apgd-ce": partial(apgd, steps=50, loss="ce"),
        "apgd-targeted": partial(apgd, steps=50, loss="dlr", targets=4),
        "square": partial(square, steps=1000),
        "fab-targeted": partial(fab, steps=30, targets=4),
    }


def _spend(search: _Search, moves: dict[str, Attack], eps: float, norm: Norm, least: float) -> str:
    """Try the move that gains most on the nearest examples, until no move gains enough; why it ended."""
    untried = {name: torch.ones(len(search.x), dtype=torch.bool, device=search.x.device) for name in moves}
    used: dict[str, Stage] = {}

    def gain(name: str) -> float:
        if name not in used:
            return torch.inf
        stage = used[name]
        return (stage.broke + 1) / (stage.evaluations * (1 + _BLOCK / stage.tried))

    while True:
        standing = search.standing(eps)
        if not len(standing):
            return f"nothing stands at eps {eps:g}"
        waiting = {name: standing[untried[name][standing]][:_BLOCK] for name in moves}
        left = [name for name in moves if len(waiting[name])]
        if not left:
            return f"every move was tried on all {len(standing)} examples that stand at eps {eps:g}"
        name = max(left, key=gain)
        if gain(name) < least:
            promise = f"{name} promises {gain(name):.1e} broken examples an evaluation, less than {least:g}"
            return f"{len(standing)} stand at eps {eps:g}; the next move, {promise}"
        stage = search.run(name, moves[name], waiting[name], eps, norm)
        untried[name][waiting[name]] = False
        used[name] = used[name] + stage if name in used else stage


def _check(threat: Threat, name: str) -> None:
    if threat.eps is None:
        raise BadInput(
            f"threat of {name}", expected="an eps", got="none", hint="fmn and fab seek the minimal distortion"
        )
    if threat.norm == "l0":
        raise BadInput(f"norm of {name}", expected="linf, l2 or l1", got="'l0'", hint="auto takes l0")
