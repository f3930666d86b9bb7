"""Can the numbers be trusted? Tests of the evaluation itself, each with evidence and a verdict, and the landscape."""

from calipers.diagnostics.checks import run_checks
from calipers.diagnostics.landscape import Perturb, Plane, interpolated, plane, saliency, weights_between
from calipers.diagnostics.shape import agreement, bulge, foreground, gini, jump, roughness
from calipers.diagnostics.views import landscape_views

__all__ = [
    "Perturb",
    "Plane",
    "agreement",
    "bulge",
    "foreground",
    "gini",
    "interpolated",
    "jump",
    "landscape_views",
    "plane",
    "roughness",
    "run_checks",
    "saliency",
    "weights_between",
]
