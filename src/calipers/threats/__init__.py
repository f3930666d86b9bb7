"""What the adversary may do: norms, balls, boxes and the moves inside them. Imports nothing of ours but errors."""

from calipers.threats.balls import inside, project, sample, steepest
from calipers.threats.box import Box
from calipers.threats.halfspace import cross, leave_cell, onto
from calipers.threats.norms import NORMS, Norm, distance, dual, find_norm, norm, norm_of
from calipers.threats.threat import Threat, radii

__all__ = [
    "NORMS",
    "Box",
    "Norm",
    "Threat",
    "cross",
    "distance",
    "dual",
    "find_norm",
    "inside",
    "leave_cell",
    "norm",
    "norm_of",
    "onto",
    "project",
    "radii",
    "sample",
    "steepest",
]
