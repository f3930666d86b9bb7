"""A strict lower bound of the minimal distortion from a global Lipschitz constant of every margin."""

from __future__ import annotations

import torch
from torch import Tensor

from calipers.certificates.arithmetic import ASSUMES, arithmetic_of
from calipers.certificates.certificate import Certified, NotApplicable
from calipers.certificates.graph import Graph
from calipers.certificates.interval import ball_interval
from calipers.certificates.operators import Affine
from calipers.certificates.reading import read
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
        model: a network of known operators that ends in a Linear.
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
    graph, arithmetic, centre = read(model), arithmetic_of(model), x.double()
    constants = margin_constants(graph, norm)[y]
    logits = graph(centre)
    own = logits.gather(1, y[:, None])
    radius = _smallest(own - logits, constants, y)
    reach = torch.where(radius.isinf(), model.box.scale(centre), radius)
    lo, hi = ball_interval(centre, reach, model.box)
    error = graph.rounding(lo, hi, arithmetic)
    radius = _smallest(own - logits - error - error.gather(1, y[:, None]), constants, y)
    radius = radius * (1 - 1e-11)
    if not model.box.bounded:
        # Nothing bounds the rounding beyond the ball it was looked at in.
        radius = torch.minimum(radius, reach)
    # Beyond the farthest point of the box there is nothing left to fear.
    radius = torch.where(radius > model.box.reach(norm, centre[0].numel()), torch.inf, radius)
    return Certified(radius, norm, "lipschitz", arithmetic.name, ASSUMES)


def margin_constants(graph: Graph, norm: Norm) -> Tensor:
    r"""L[c, j] ≥ the Lipschitz constant of f_c − f_j from ‖·‖_p: shape (K, K), zero on the diagonal."""
    last = graph.nodes[-1]
    if not isinstance(last.op, Affine):
        raise NotApplicable("Lipschitz bound", expected="a network that ends in a Linear", got=type(last.op).__name__)
    weight = last.op.weight
    rows = torch.stack([length(row - weight, dual(norm)) for row in weight])
    return rows * graph.lipschitz(norm, last.inputs[0]) * (1 + 1e-9)


def _smallest(margin: Tensor, constants: Tensor, y: Tensor) -> Tensor:
    """min over j ≠ y of margin / L, never below 0: shape (N,). A constant of 0 cannot be crossed."""
    ratio = torch.where(constants > 0, margin / constants, torch.where(margin > 0, torch.inf, 0.0))
    return ratio.scatter(1, y[:, None], torch.inf).amin(1).clamp_min(0)
