"""The main job: plan, cascade, run folder, verdict. Start at ``audit``."""

from calipers.audit.audit import EpsBeyondBox, Progress, audit, check_request, summarise
from calipers.audit.budget import BUDGETS, Budget, find_budget
from calipers.audit.cascade import Brackets, SandwichBroken, close_brackets
from calipers.audit.folder import read_run
from calipers.audit.inputs import Inputs, open_inputs

__all__ = [
    "BUDGETS",
    "Brackets",
    "Budget",
    "EpsBeyondBox",
    "Inputs",
    "Progress",
    "SandwichBroken",
    "audit",
    "check_request",
    "close_brackets",
    "find_budget",
    "open_inputs",
    "read_run",
    "summarise",
]
