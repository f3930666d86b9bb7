"""The run in plain words: numbers as they are printed, and the three sentences that open the page."""

from __future__ import annotations

import math
from collections.abc import Mapping

from calipers.records import Reaction, Run, ThreatSummary
from calipers.report.band import median
from calipers.report.facts import Facts

__all__ = ["at_least", "at_most", "named", "number", "p_value", "plural", "second_pass", "sentences", "uncertified"]


def number(value: float | None, none: str = "none found") -> str:
    """A radius as it is printed: four significant digits, words for what is infinite or missing.

    Example:
        >>> number(0.0812345), number(1234.5), number(math.inf), number(None, "no median")
        ('0.08123', '1234', 'none found', 'no median')
    """
    if value is None or not math.isfinite(value):
        return none
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def named(value: object, none: str = "") -> str:
    """A method's name as it stands in a table; ``none`` where the cell is empty or missing.

    Example:
        >>> named("pgd"), named(None, "no attack"), named(math.nan)
        ('pgd', 'no attack', '')
    """
    return value if isinstance(value, str) and value else none


def at_least(fraction: float) -> str:
    """A fraction as a percentage, rounded down: what is proved is never overstated.

    Example:
        >>> at_least(2 / 3), at_least(0.57), at_least(1.0)
        ('66.6 %', '57.0 %', '100.0 %')
    """
    return f"{math.floor(fraction * 1000 + 1e-9) / 10:.1f} %"


def at_most(fraction: float) -> str:
    """A fraction as a percentage, rounded up: what is not broken is never understated.

    Example:
        >>> at_most(2 / 3), at_most(0.57), at_most(0.0)
        ('66.7 %', '57.0 %', '0.0 %')
    """
    return f"{math.ceil(fraction * 1000 - 1e-9) / 10:.1f} %"


def p_value(p: float, name: str = "") -> str:
    """A p value, rounded up: two significant digits, and never 0; as an equation if it is given a name.

    Example:
        >>> p_value(0.0421), p_value(3e-12), p_value(1.0), p_value(0.5, "p"), p_value(3e-12, "p")
        ('0.043', '< 0.0001', '1', 'p = 0.5', 'p < 0.0001')
    """
    if p < 1e-4:
        return f"{name} < 0.0001".strip()
    scale = 10.0 ** (1 - math.floor(math.log10(p)))
    rounded = f"{math.ceil(p * scale - 1e-9) / scale:.2g}"
    return f"{name} = {rounded}" if name else rounded


def plural(count: int, noun: str) -> str:
    """A count and its noun.

    Example:
        >>> plural(1, "example"), plural(12000, "example")
        ('1 example', '12,000 examples')
    """
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def second_pass(reaction: Reaction) -> str:
    """What the audit did because checks failed, and what it changed.

    Example:
        >>> print(second_pass(Reaction(causes=("a",), actions=("searched without gradients",), eps=(0.1,),
        ...                   before=(0.9,), after=(0.25,), upper_median_before=0.5, upper_median_after=0.25)))
        because of a it searched without gradients; not broken at eps 0.1: 90.0 % before, 25.0 % after
    """
    did = f"because of {', '.join(reaction.causes)} it {'; '.join(reaction.actions)}"
    changes = [
        f"not broken at eps {number(eps)}: {at_most(before)} before, {at_most(after)} after"
        for eps, before, after in zip(reaction.eps, reaction.before, reaction.after, strict=True)
    ]
    if not changes:
        before, after = number(reaction.upper_median_before), number(reaction.upper_median_after)
        changes = [f"median witness at {before} before, at {after} after"]
    return "; ".join([did, *changes])


def sentences(run: Run, facts: Facts) -> tuple[str, ...]:
    """What was asked, what was found, why nothing is certified if so, and whether to trust it: one sentence each."""
    none = uncertified(run)
    return _asked(run, facts), _found(run, facts), *([f"{none[0].upper()}{none[1:]}."] if none else []), _trusted(run)


def _asked(run: Run, facts: Facts) -> str:
    n = len(facts.lower)
    part = f" (out of {facts.size:,})" if facts.size is not None and facts.size > n else ""
    norm = f" in {facts.norm_sign}" if facts.norm else ""
    right = f"{facts.model} classifies {100 * run.summary.clean_accuracy:.1f} % correctly when nothing is changed"
    question = f"how far each input must be moved{norm} before the answer is wrong"
    return f"On {plural(n, 'example')} of {facts.data}{part}, {right}; asked was {question}."


def _found(run: Run, facts: Facts) -> str:
    bands = [
        f"at eps {number(threat.eps)}, {_between(threat)}"
        for threat in sorted(run.summary.threats, key=lambda threat: threat.eps)
    ]
    if bands:
        first = f"A{bands[0][1:]} of the examples are classified correctly whatever the change"
        return "; ".join([first, *bands[1:]]) + "."
    lower, upper = median(facts.lower), median(facts.upper)
    broken = f"half are broken at {number(upper)} or nearer" if math.isfinite(upper) else "half or more have no witness"
    safe = f"half of the examples are proved safe up to {number(lower, 'any distance')}"
    return f"No eps was asked for: {safe}, and {broken}."


def _between(threat: ThreatSummary) -> str:
    """Where robust accuracy lies; one number where nothing is open."""
    low, high = at_least(threat.proved), at_most(threat.not_broken)
    return f"at least {low} and at most {high}" if threat.open else f"{100 * threat.proved:.1f} %"


def uncertified(run: Run) -> str | None:
    """Why no example has a certified radius, by the operator that no certificate has a rule for; None if one has.

    Where every example is wrong already there is nothing to certify: then only an operator is worth a word.
    """
    if run.examples["certificate"].astype(bool).any():
        return None
    refused = run.about.get("refused")
    reasons = sorted(set(map(str, refused.values()))) if isinstance(refused, Mapping) else []
    # An operator without a rule is what stops them all; the others say which kinds of model they are for.
    operators = [reason for reason in reasons if reason.startswith("certificate: ")]
    if not operators and (run.examples["predicted"] != run.examples["label"]).all():
        return None
    why = "; ".join(operators or reasons) or "the certificates apply, but prove no radius above 0"
    return f"nothing is certified: {why.removeprefix('certificate: ')}"


def _trusted(run: Run) -> str:
    if not run.checks:
        return "No check was made, so nothing vouches for the evaluation itself."
    failed = [check.id for check in run.checks if not check.passed]
    passed = sum(check.verdict == "passed" for check in run.checks)
    if failed:
        verb = f"{len(failed)} of {plural(len(run.checks), 'check')} failed ({', '.join(failed)})"
        again = f" The audit attacked once more: {second_pass(done)}." if (done := run.summary.reaction) else ""
        return f"{verb}: do not rely on these numbers before reading what the checks found.{again}"
    silent = len(run.checks) - passed
    aside = f" ({silent} more had nothing to test)" if silent else ""
    if not run.summary.trusted:
        return f"{plural(passed, 'check')} passed{aside}, yet the audit does not call its numbers trusted."
    return (
        f"{plural(passed, 'check')} passed{aside}, none failed: nothing that was tested speaks against these numbers."
    )
