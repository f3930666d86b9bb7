"""Where is the boundary, what transfers? Start at ``Hyperplane``, ``svm_path``, ``max_margin`` and ``transfer``."""

from calipers.geometry.affine import (
    Hyperplane,
    LossName,
    Plane,
    Tilt,
    nearest_centroid,
    scaled_loss,
    tilt,
    tilting_plane,
)
from calipers.geometry.directions import (
    CommonSubset,
    MaxMargin,
    common_subset,
    enough,
    fools_linear,
    fools_multiclass,
    max_margin,
    pair_direction,
)
from calipers.geometry.local import LocalLinear, local_linear
from calipers.geometry.relu import Family, ReluClassifier, Section6, convex_direction, fools_any, section6
from calipers.geometry.svm_path import SvmPath, svm_path
from calipers.geometry.transfer import Transfer, Universal, transfer, universal_direction, wilson

__all__ = [
    "CommonSubset",
    "Family",
    "Hyperplane",
    "LocalLinear",
    "LossName",
    "MaxMargin",
    "Plane",
    "ReluClassifier",
    "Section6",
    "SvmPath",
    "Tilt",
    "Transfer",
    "Universal",
    "common_subset",
    "convex_direction",
    "enough",
    "fools_any",
    "fools_linear",
    "fools_multiclass",
    "local_linear",
    "max_margin",
    "nearest_centroid",
    "pair_direction",
    "scaled_loss",
    "section6",
    "svm_path",
    "tilt",
    "tilting_plane",
    "transfer",
    "universal_direction",
    "wilson",
]
