"""Within what radius is it safe? Certificates: functions of (model, x, y, norm) that return radii with a guarantee."""

from __future__ import annotations

from collections.abc import Callable

from calipers.certificates.affine import affine, affine_form
from calipers.certificates.branch import branch
from calipers.certificates.certificate import (
    Bound,
    Certified,
    Estimate,
    NotApplicable,
    Numerical,
    Probabilistic,
    UnknownOperator,
)
from calipers.certificates.clever import clever
from calipers.certificates.crown import crown
from calipers.certificates.exact import exact
from calipers.certificates.interval import interval
from calipers.certificates.kernel import kernel
from calipers.certificates.lipschitz import lipschitz, margin_constants
from calipers.certificates.local import local_lipschitz
from calipers.certificates.nearest import nearest
from calipers.certificates.operator_norms import convolution_norm, matrix_norm
from calipers.certificates.pairs import pairs
from calipers.certificates.shallow import shallow
from calipers.certificates.smoothing import smooth_predict, smoothing
from calipers.certificates.trees import trees

__all__ = [
    "CERTIFICATES",
    "GUIDED",
    "Bound",
    "Certified",
    "Estimate",
    "NotApplicable",
    "Numerical",
    "Probabilistic",
    "UnknownOperator",
    "affine",
    "affine_form",
    "branch",
    "clever",
    "convolution_norm",
    "crown",
    "exact",
    "interval",
    "kernel",
    "lipschitz",
    "local_lipschitz",
    "margin_constants",
    "matrix_norm",
    "nearest",
    "pairs",
    "shallow",
    "smooth_predict",
    "smoothing",
    "trees",
]

# These are told an attack's distance, and are the better for it; an audit runs them after its first attack.
GUIDED = ("crown",)

# In the order in which they are tried; each refuses the models it says nothing about.
CERTIFICATES: dict[str, Callable[..., Bound]] = {
    "affine": affine,
    "shallow": shallow,
    "lipschitz": lipschitz,
    "interval": interval,
    "crown": crown,
}
