"""A strict lower bound of the minimal distortion from a global Lipschitz constant of every margin."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from calipers.certificates.arithmetic import ASSUMES, arithmetic_of
from calipers.certificates.certificate import Certified, NotApplicable
from calipers.certificates.chain import chain
from calipers.certificates.constants import partial_products
from calipers.certificates.domain import ball_interval
from calipers.certificates.graph import Graph
from calipers.certificates.lipsdp import lipsdp
from calipers.certificates.operators import Affine
from calipers.certificates.reading import read
from calipers.models import Classifier, public
from calipers.threats import Norm, dual
from calipers.threats import norm as length

__all__ = ["Constants", "lipschitz", "margin_constants"]

Constants = Literal["product", "partial", "sdp"]

# Pairs of classes beyond this would cost more than the better constants are worth.
_MANY_CLASSES = 100


@public
def lipschitz(
    model: Classifier, x: Tensor, y: Tensor, norm: Norm, *, constants: Constants | Tensor = "partial"
) -> Certified:
    r"""min over j ≠ c of (f_c(x) − f_j(x)) / L_j, with L_j ≥ max over z of ‖∇(f_c − f_j)(z)‖_q on the whole domain.

    On a convex domain the smallest Lipschitz constant of f_c − f_j is that maximum, so this is equation (3) as well.
    The maximum is hard to compute; L_j is a true upper bound of it, see :func:`margin_constants`. Activations with
    kinks are covered: the theorem asks for continuously differentiable f, but its proof needs only that the margins
    are Lipschitz with constant L_j on a convex domain. The margin is lowered by what rounding can do within that
    radius, so that the bound holds for the model as executed. On an affine model it is exact up to that, where the box
    does not bind.

    Arguments:
        model: a network of known operators that ends in a Linear.
        x: inputs in the box, shape (N, \*shape).
        y: labels, shape (N,).
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        constants: which constants, or the table that :func:`margin_constants` made once for many calls.

    Raises:
        NotApplicable: for L0, and (UnknownOperator) for a layer without a rule.

    Source: "Analyzing the Robustness of Deep Learning Against Adversarial Examples" (Zhao 2018), Theorem 1,
    equations (1) and (3).

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2)).double().eval()
        >>> _ = net.load_state_dict({"0.weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "0.bias": torch.zeros(2)})
        >>> x = torch.tensor([[0.75, 0.25]], dtype=torch.float64)
        >>> round(lipschitz(Classifier.of(net, shape=(2,)), x, torch.tensor([0]), "l2").radius.item(), 6)
        0.353553
    """
    if norm == "l0":
        raise NotApplicable("norm of the Lipschitz bound", expected="linf, l2 or l1", got="'l0'")
    x, y = model.check(x, y)
    graph, arithmetic, centre = read(model), arithmetic_of(model), x.double()
    table = constants if isinstance(constants, Tensor) else margin_constants(graph, norm, constants)
    logits = graph(centre)
    own = logits.gather(1, y[:, None])
    radius = _smallest(own - logits, table[y], y)
    reach = torch.where(radius.isinf(), model.box.scale(centre), radius)
    lo, hi = ball_interval(centre, reach, model.box)
    error = graph.rounding(lo, hi, arithmetic)
    radius = _smallest(own - logits - error - error.gather(1, y[:, None]), table[y], y)
    radius = radius * (1 - 1e-11)
    if not model.box.bounded:
        # Nothing bounds the rounding beyond the ball it was looked at in.
        radius = torch.minimum(radius, reach)
    # Beyond the farthest point of the box there is nothing left to fear.
    radius = torch.where(radius > model.box.reach(norm, centre[0].numel()), torch.inf, radius)
    return Certified(radius, norm, "lipschitz", arithmetic.name, ASSUMES, model.box)


def margin_constants(graph: Graph, norm: Norm, constants: Constants = "partial") -> Tensor:
    r"""L[c, j] ≥ the Lipschitz constant of f_c − f_j from ‖·‖_p, for all inputs: shape (K, K), zero on the diagonal.

    Arguments:
        graph: a network that ends in an affine operator.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        constants: ``"product"``: ‖w_c − w_j‖_q times the operator norms ‖·‖_{p→p} of everything before. ``"partial"``:
            the smaller of this and :func:`partial_products`. ``"sdp"``: the smallest of these and :func:`lipsdp`, which
            takes seconds to minutes. Networks with branches, max pooling, very large matrices or more than a hundred
            classes have the product only.

    Raises:
        NotApplicable: if the network does not end in an affine operator.

    Example:
        >>> from calipers.models import references
        >>> graph = read(next(r.classifier for r in references() if r.classifier.name == "linf-ball"))
        >>> [round(margin_constants(graph, "linf", name)[0, 1].item(), 2) for name in ("product", "partial", "sdp")]
        [32.0, 4.0, 4.0]
    """
    last = graph.nodes[-1]
    if not isinstance(last.op, Affine):
        raise NotApplicable("Lipschitz bound", expected="a network that ends in a Linear", got=type(last.op).__name__)
    weight = last.op.weight
    rows = torch.stack([length(row - weight, dual(norm)) for row in weight])
    table = rows * graph.lipschitz(norm, last.inputs[0]) * (1 + 1e-9)
    classes = len(weight)
    if constants == "product" or classes > _MANY_CLASSES:
        return table
    own, other = torch.triu_indices(classes, classes, offset=1, device=weight.device)
    unit = torch.eye(classes, dtype=torch.float64, device=weight.device)
    for method in (partial_products, lipsdp) if constants == "sdp" else (partial_products,):
        try:
            found = method(chain(graph, weight), unit[own] - unit[other], norm)
        except NotApplicable:
            continue
        table[own, other] = table[other, own] = torch.minimum(table[own, other], found)
    return table


def _smallest(margin: Tensor, constants: Tensor, y: Tensor) -> Tensor:
    """min over j ≠ y of margin / L, never below 0: shape (N,). A constant of 0 cannot be crossed."""
    ratio = torch.where(constants > 0, margin / constants, torch.where(margin > 0, torch.inf, 0.0))
    return ratio.scatter(1, y[:, None], torch.inf).amin(1).clamp_min(0)
