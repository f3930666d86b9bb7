"""The zoo of broken defences: what plain PGD, the first pass and the whole audit leave, beside the bare network."""

from __future__ import annotations

from tests.zoo.defences import ZOO, digits, inputs_of

from calipers.attacks import NoGradient, pgd
from calipers.audit import Inputs, audit
from calipers.records import Run
from calipers.threats import Threat

__all__ = ["main"]


def _audited(inputs: Inputs, eps: float) -> Run:
    return audit(inputs, norm="linf", eps=[eps], budget="quick")


def _plain_pgd(inputs: Inputs, eps: float) -> str:
    x, y = inputs.data.x, inputs.data.y
    try:
        left = ~pgd(inputs.model, x, y, Threat("linf", eps), loss="ce-raw").success
    except NoGradient:
        return "no gradient"
    return f"{100 * float(left.double().mean()):.1f}"


def main() -> None:
    """Print the table of docs/checks.md."""
    print("| defence | eps | bare network | PGD | first pass | audit | failed checks |\n|---|---|---|---|---|---|---|")
    for name, defence in ZOO.items():
        bare = _audited(inputs_of(defence.bare()) if defence.bare else digits(), defence.eps).summary
        given = inputs_of(defence.make())
        run = _audited(given, defence.eps)
        final = run.summary.threats[0].not_broken
        before = run.summary.reaction.before[0] if run.summary.reaction else final
        failed = ", ".join(f"`{check.id}`" for check in run.checks if not check.passed)
        left = f"{100 * bare.threats[0].not_broken:.1f} | {_plain_pgd(given, defence.eps)} | {100 * before:.1f}"
        print(f"| {name} | {defence.eps} | {left} | {100 * final:.1f} | {failed} |", flush=True)
