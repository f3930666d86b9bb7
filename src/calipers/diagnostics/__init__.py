"""Can the numbers be trusted? Tests of the evaluation itself, each with evidence and a verdict, and the landscape.

``battery`` says what a check is; the checks stand in ``handover``, ``gradients``, ``limits`` and ``challenges``, and
are asked in that order. ``landscape`` computes what the loss looks like, ``shape`` the numbers beside it.
"""

from calipers.diagnostics.battery import CHECKS, Depth, Evidence, ask, check

from calipers.diagnostics import handover, gradients, limits, challenges  # isort: skip  # their order is the checks'
from calipers.diagnostics.candidates import from_other, from_substitute, toward_others
from calipers.diagnostics.challenges import CHALLENGES
from calipers.diagnostics.landscape import Perturb, Plane, interpolated, plane, saliency, weights_between
from calipers.diagnostics.shape import agreement, bulge, foreground, gini, jump, roughness
from calipers.diagnostics.views import landscape_views

__all__ = [
    "CHALLENGES",
    "CHECKS",
    "Depth",
    "Evidence",
    "Perturb",
    "Plane",
    "agreement",
    "ask",
    "bulge",
    "challenges",
    "check",
    "foreground",
    "from_other",
    "from_substitute",
    "gini",
    "gradients",
    "handover",
    "interpolated",
    "jump",
    "landscape_views",
    "limits",
    "plane",
    "roughness",
    "saliency",
    "toward_others",
    "weights_between",
]
