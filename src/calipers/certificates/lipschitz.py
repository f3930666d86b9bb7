"""A strict lower bound of the minimal distortion from a global Lipschitz constant of every margin."""

from __future__ import annotations

import torch
from torch import Tensor

from calipers.certificates.certificate import Certified, NotApplicable
from calipers.certificates.interval import ball_interval
from calipers.certificates.layers import ASSUMES, Affine, Layer, read, rounding_of, unit_of
from calipers.models import Classifier
from calipers.threats import Norm, dual
from calipers.threats import norm as length

__all__ = ["lipschitz", "margin_constants"]


def lipschitz(model: Classifier, x: Tensor, y: Tensor, norm: Norm) -> Certified:
    r"""min over j ≠ c of (f_c(x) − f_j(x)) / L_j, with L_j ≥ max over z of ‖∇(f_c − f_j)(z)‖_q on the whole domain.

    L_j is ‖w_c − w_j‖_q of the last layer times the operator norms ‖·‖_{p→p} of all layers before it, each a true
    upper bound. Activations with kinks are covered: the theorem asks for continuously differentiable f, but its proof
    needs only that the margins are Lipschitz with constant L_j on a convex domain. The margin is lowered by what
    rounding can do within that radius, so that the bound holds for the model as executed. On an affine model it is
    exact up to that, where the box does not bind.

    Arguments:
        model: an ``nn.Sequential`` of known layers that ends in a Linear.
        x: inputs in the box, shape (N, \*shape).
        y: labels, shape (N,).
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.

    Raises:
        NotApplicable: for L0, and (UnknownOperator) for a layer without a rule.

    Source: "Analyzing the Robustness of Deep Learning Against Adversarial Examples" (Zhao 2018), Theorem 1,
    equation (1).
    """
    if norm == "l0":
        raise NotApplicable("norm of the Lipschitz bound", expected="linf, l2 or l1", got="'l0'")
    x, y = model.check(x, y)
    layers, centre = read(model), x.double()
    constants = margin_constants(layers, norm)[y]
    logits = centre
    for layer in layers:
        logits = layer(logits)
    own = logits.gather(1, y[:, None])
    radius = _smallest(own - logits, constants, y)
    reach = torch.where(radius.isinf(), model.box.scale(centre), radius)
    lo, hi = ball_interval(centre, reach, model.box)
    error = rounding_of(layers, lo, hi, unit_of(model.dtype))
    radius = _smallest(own - logits - error - error.gather(1, y[:, None]), constants, y)
    radius = radius * (1 - 1e-11)
    if not model.box.bounded:
        # Nothing bounds the rounding beyond the ball it was looked at in.
        radius = torch.minimum(radius, reach)
    # Beyond the farthest point of the box there is nothing left to fear.
    radius = torch.where(radius > model.box.reach(norm, centre[0].numel()), torch.inf, radius)
    return Certified(radius, norm, "lipschitz", str(model.dtype).removeprefix("torch."), ASSUMES)


def margin_constants(layers: list[Layer], norm: Norm) -> Tensor:
    r"""L[c, j] ≥ the Lipschitz constant of f_c − f_j from ‖·‖_p: shape (K, K), zero on the diagonal."""
    product = 1.0
    for layer in layers[:-1]:
        product *= layer.lipschitz(norm)
    last = layers[-1]
    if not isinstance(last, Affine) or last.conv is not None:
        raise NotApplicable("Lipschitz bound", expected="a network that ends in a Linear", got=type(last).__name__)
    rows = torch.stack([length(row - last.weight, dual(norm)) for row in last.weight])
    return rows * product * (1 + 1e-9)


def _smallest(margin: Tensor, constants: Tensor, y: Tensor) -> Tensor:
    """min over j ≠ y of margin / L, never below 0: shape (N,). A constant of 0 cannot be crossed."""
    ratio = torch.where(constants > 0, margin / constants, torch.where(margin > 0, torch.inf, 0.0))
    return ratio.scatter(1, y[:, None], torch.inf).amin(1).clamp_min(0)
