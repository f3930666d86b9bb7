"""What a budget buys: which certificates and attacks everyone gets, and which only the brackets still open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from calipers.attacks import AttackResult, apgd, fmn, noise, pgd
from calipers.certificates import Certified, branch, crown
from calipers.errors import BadInput, nearest
from calipers.threats import Norm

__all__ = ["BUDGETS", "Attack", "Budget", "Certificate", "find_budget"]

Attack = Callable[..., AttackResult]
Certificate = Callable[..., Certified]


@dataclass(frozen=True)
class Budget:
    """One row of the price list.

    Arguments:
        first: the minimal-norm attack everyone gets.
        closing: attacks at the asked radii, in turn, for the examples whose bracket is still open there.
        sparse: the closing attacks in L0, which APGD does not take.
        guided: certificates that begin at the first attack's upper bound, in turn, for brackets that are not closed.
        last: one more for the examples that are still open at an asked radius after all attacks.
    """

    first: Attack
    closing: dict[str, Attack]
    sparse: dict[str, Attack]
    guided: dict[str, Certificate]
    last: dict[str, Certificate] = field(default_factory=dict)

    def closing_in(self, norm: Norm) -> dict[str, Attack]:
        """The closing attacks of a norm; random noise comes last, as the witness no attack may be weaker than."""
        return {**(self.sparse if norm == "l0" else self.closing), "noise": partial(noise, steps=50)}


# Backward bounds of networks with more than about 1700 units a layer take longer than the attacks.
_CROWN: dict[str, Certificate] = {"crown": partial(crown, memory=2**27, fallback=False)}

BUDGETS: dict[str, Budget] = {
    "quick": Budget(
        first=partial(fmn, steps=20),
        closing={"apgd-dlr": partial(apgd, steps=20, loss="dlr")},
        sparse={"pgd": partial(pgd, steps=20)},
        guided=_CROWN,
    ),
    "standard": Budget(
        first=partial(fmn, steps=50),
        closing={
            "apgd-ce": partial(apgd, steps=50, loss="ce"),
            "apgd-dlr-targeted": partial(apgd, steps=50, loss="dlr", targets=3),
        },
        sparse={"pgd": partial(pgd, steps=50, restarts=2)},
        guided=_CROWN,
    ),
    "thorough": Budget(
        first=partial(fmn, steps=200),
        closing={
            "apgd-ce": partial(apgd, steps=100, loss="ce", restarts=5),
            "apgd-dlr-targeted": partial(apgd, steps=100, loss="dlr", targets=9),
            "pgd": partial(pgd, steps=200, restarts=5),
        },
        sparse={"pgd": partial(pgd, steps=200, restarts=10)},
        guided={"crown": partial(crown, memory=2**29, fallback=False)},
        last={"branch": partial(branch, cases=3000, memory=2**27)},
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
