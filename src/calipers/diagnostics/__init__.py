"""Can the numbers be trusted? Tests of the evaluation itself, each with evidence and a verdict.

``battery`` says what a check is; the checks stand in ``handover``, ``gradients``, ``limits`` and ``challenges``, and
are asked in that order.
"""

from calipers.diagnostics.battery import CHECKS, Depth, Evidence, ask, check

from calipers.diagnostics import handover, gradients, limits, challenges  # isort: skip  # their order is the checks'
from calipers.diagnostics.candidates import from_other, from_substitute, toward_others
from calipers.diagnostics.challenges import CHALLENGES

__all__ = [
    "CHALLENGES",
    "CHECKS",
    "Depth",
    "Evidence",
    "ask",
    "challenges",
    "check",
    "from_other",
    "from_substitute",
    "gradients",
    "handover",
    "limits",
    "toward_others",
]
