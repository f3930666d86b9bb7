"""Within what radius is it safe? Certificates: functions of (model, x, y, norm) that return radii with a guarantee."""

from __future__ import annotations

from collections.abc import Callable

from calipers.certificates.affine import affine
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
from calipers.certificates.crown import crown
from calipers.certificates.interval import interval
from calipers.certificates.lipschitz import lipschitz
from calipers.certificates.operator_norms import convolution_norm, matrix_norm

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
    "branch",
    "convolution_norm",
    "crown",
    "interval",
    "lipschitz",
    "matrix_norm",
]

# These are told an attack's distance, and are the better for it; an audit runs them after its first attack.
GUIDED = ("crown",)

CERTIFICATES: dict[str, Callable[..., Bound]] = {
    "affine": affine,
    "lipschitz": lipschitz,
    "interval": interval,
    "crown": crown,
}
