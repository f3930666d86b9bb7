"""What a budget buys: which certificates and attacks everyone gets, and which only the brackets still open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from calipers.attacks import AttackResult, apgd, auto, fmn, hopskipjump, noise, pgd, reference, square
from calipers.certificates import Certified, branch, crown
from calipers.diagnostics import Depth
from calipers.errors import BadInput, nearest
from calipers.threats import Norm

__all__ = ["BUDGETS", "Attack", "Budget", "Certificate", "find_budget"]

Attack = Callable[..., AttackResult]
Certificate = Callable[..., Certified]


@dataclass(frozen=True)
class Budget:
    """One row of the price list.

    Arguments:
        depth: how deep the checks look.
        first: the minimal-norm attack everyone gets.
        closing: attacks at the asked radii, in turn, for the examples whose bracket is still open there.
        sparse: the closing attacks in L0, which APGD does not take.
        queries: of each attack on a model without gradients, which takes the place of all of these.
        again: queries of the search without gradients in the second pass, when a check has failed.
        guided: certificates that begin at the first attack's upper bound, in turn, for brackets that are not closed.
        last: one more for the examples that are still open at an asked radius after all attacks.
    """

    depth: Depth
    first: Attack
    closing: dict[str, Attack]
    sparse: dict[str, Attack]
    guided: dict[str, Certificate]
    queries: int = 1000
    again: int = 300
    last: dict[str, Certificate] = field(default_factory=dict)

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


# Backward bounds of networks with more than about 1700 units a layer take longer than the attacks.
_CROWN: dict[str, Certificate] = {"crown": partial(crown, memory=2**27, fallback=False)}

BUDGETS: dict[str, Budget] = {
    "quick": Budget(
        depth="quick",
        first=partial(fmn, steps=20),
        closing={"apgd-dlr": partial(apgd, steps=20, loss="dlr")},
        sparse={"pgd": partial(pgd, steps=20)},
        guided=_CROWN,
        queries=200,
        again=100,
    ),
    "standard": Budget(
        depth="standard",
        first=partial(fmn, steps=50),
        closing={
            "apgd-ce": partial(apgd, steps=50, loss="ce"),
            "apgd-dlr-targeted": partial(apgd, steps=50, loss="dlr", targets=3),
        },
        sparse={"pgd": partial(pgd, steps=50, restarts=2)},
        guided=_CROWN,
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
        again=2000,
        guided={"crown": partial(crown, memory=2**29, fallback=False)},
        last={"branch": partial(branch, cases=3000, memory=2**27)},
    ),
    "auto": Budget(
        depth="standard", first=partial(fmn, steps=20), closing={"auto": auto}, sparse={"auto": auto}, guided=_CROWN
    ),
    "reference": Budget(
        depth="standard",
        first=partial(fmn, steps=20),
        closing={"reference": reference},
        sparse={"auto": auto},
        queries=5000,
        again=2000,
        guided=_CROWN,
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
