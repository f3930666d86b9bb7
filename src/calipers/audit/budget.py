"""What a budget buys: which certificates and attacks everyone gets, and which only the brackets still open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from calipers.attacks import AttackResult, apgd, auto, fmn, hopskipjump, noise, pgd, reference, square
from calipers.diagnostics import Depth
from calipers.errors import BadInput, nearest
from calipers.threats import Norm

__all__ = ["BUDGETS", "Attack", "Budget", "find_budget"]

Attack = Callable[..., AttackResult]


@dataclass(frozen=True)
class Budget:
    """One row of the price list.

    Arguments:
        depth: how deep the checks look.
        first: the minimal-norm attack everyone gets.
        closing: attacks at the asked radii, in turn, for the examples whose bracket is still open there.
        sparse: the closing attacks in L0, which APGD does not take.
        queries: of each attack on a model without gradients, which takes the place of all of these.
    """

    depth: Depth
    first: Attack
    closing: dict[str, Attack]
    sparse: dict[str, Attack]
    queries: int = 1000

    def first_in(self, norm: Norm, smooth: bool = True) -> tuple[str, Attack]:
        """What everyone gets. Without gradients labels decide; in the norms they do not take, scores up a ladder."""
        if smooth:
            return "fmn", self.first
        if norm in ("linf", "l2"):
            return "hopskipjump", partial(hopskipjump, steps=self.queries)
        name, attack = self._by_scores(norm)
        return name, partial(attack, steps=max(self.queries // 10, 20))

    def closing_in(self, norm: Norm, smooth: bool = True) -> dict[str, Attack]:
        """The closing attacks of a norm; random noise comes last, as the witness no attack may be weaker than."""
        usual = self.sparse if norm == "l0" else self.closing
        if not smooth and "auto" not in usual:
            usual = dict([self._by_scores(norm)])
        return {**usual, "noise": partial(noise, steps=50)}

    def _by_scores(self, norm: Norm) -> tuple[str, Attack]:
        if norm == "l0":
            return "brute-force", partial(noise, steps=self.queries)
        return "square", partial(square, steps=self.queries)


BUDGETS: dict[str, Budget] = {
    "quick": Budget(
        depth="quick",
        first=partial(fmn, steps=20),
        closing={"apgd-dlr": partial(apgd, steps=20, loss="dlr")},
        sparse={"pgd": partial(pgd, steps=20)},
        queries=200,
    ),
    "standard": Budget(
        depth="standard",
        first=partial(fmn, steps=50),
        closing={
            "apgd-ce": partial(apgd, steps=50, loss="ce"),
            "apgd-dlr-targeted": partial(apgd, steps=50, loss="dlr", targets=3),
        },
        sparse={"pgd": partial(pgd, steps=50, restarts=2)},
    ),
    "thorough": Budget(
        depth="thorough",
        first=partial(fmn, steps=200),
        closing={
            "apgd-ce": partial(apgd, steps=100, loss="ce", restarts=5),
            "apgd-dlr-targeted": partial(apgd, steps=100, loss="dlr", targets=9),
            "pgd": partial(pgd, steps=200, restarts=5),
        },
        sparse={"pgd": partial(pgd, steps=200, restarts=10)},
        queries=10_000,
    ),
    "auto": Budget(depth="standard", first=partial(fmn, steps=20), closing={"auto": auto}, sparse={"auto": auto}),
    "reference": Budget(
        depth="standard",
        first=partial(fmn, steps=20),
        closing={"reference": reference},
        sparse={"auto": auto},
        queries=5000,
    ),
}


def find_budget(name: str) -> Budget:
    """A budget by name.

    Example:
        >>> sorted(find_budget("standard").closing_in("l2"))
        ['apgd-ce', 'apgd-dlr-targeted', 'noise']
    """
    if name not in BUDGETS:
        raise BadInput("budget", expected=", ".join(BUDGETS), got=repr(name), hint=nearest(name, BUDGETS))
    return BUDGETS[name]
