"""The exact radius of an affine classifier, with the box."""

from __future__ import annotations

import torch
from torch import Tensor

from calipers.certificates.arithmetic import ASSUMES, arithmetic_of
from calipers.certificates.certificate import Certified, UnknownOperator
from calipers.certificates.domain import ball_interval
from calipers.certificates.graph import Graph
from calipers.certificates.reading import read
from calipers.models import Classifier, public
from calipers.threats import Norm, leave_cell

__all__ = ["affine", "affine_form"]

# What the float64 arithmetic of the distance itself can lose, by a wide margin.
_DOWN = 1 - 1e-11


@public
def affine(model: Classifier, x: Tensor, y: Tensor, norm: Norm) -> Certified:
    r"""min over j ≠ y of the distance to {z_j ≥ z_y} ∩ box, less what rounding can do: exact up to that.

    Where the box does not bind this is (z_y − z_j) / ‖w_y − w_j‖_q. The reserve for rounding is the largest difference
    between executed and real logits within that distance. In L0 it is one coordinate less than the smallest number
    that suffices to change the answer.

    Arguments:
        model: a network of linear operators (matrices, convolutions, normalisation, averages, sums, reshapes).
        x: inputs in the box, shape (N, \*shape).
        y: labels, shape (N,).
        norm: any of the four.

    Raises:
        UnknownOperator: if an operator is not linear.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2)).double().eval()
        >>> _ = net.load_state_dict({"0.weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "0.bias": torch.zeros(2)})
        >>> x = torch.tensor([[0.75, 0.25]], dtype=torch.float64)
        >>> round(affine(Classifier.of(net, shape=(2,)), x, torch.tensor([0]), "l2").radius.item(), 6)
        0.353553
    """
    x, y = model.check(x, y)
    graph, arithmetic = _linear(model), arithmetic_of(model)
    centre = x.double()
    (weight, _), logits = _matrix(graph, centre), graph(centre)
    radius, _ = leave_cell(centre, weight, logits, y, norm, model.box)
    # The ball certified below lies in this one, so what rounding can do here bounds what it can do there.
    reach = torch.where(radius.isinf() | (norm == "l0"), model.box.scale(centre), radius)
    lo, hi = ball_interval(centre, reach, model.box)
    reserve = graph.rounding(lo, hi, arithmetic)
    tight = (logits + reserve).scatter(1, y[:, None], (logits - reserve).gather(1, y[:, None]))
    radius, _ = leave_cell(centre, weight, tight, y, norm, model.box)
    radius = (radius - 1).clamp_min(0) if norm == "l0" else radius * _DOWN
    if not model.box.bounded:
        # Nothing bounds the rounding beyond the ball it was looked at in; in L0 one coordinate may go anywhere.
        radius = torch.zeros_like(radius) if norm == "l0" else torch.minimum(radius, reach)
    return Certified(radius, norm, "affine", arithmetic.name, ASSUMES, model.box)


def affine_form(model: Classifier) -> tuple[Tensor, Tensor]:
    """W (K, d) and b (K,) with logits Wx + b, in float64, read from the layers: no point is tried, none is missed.

    Raises:
        NotApplicable: if an operator is not linear, or the inside of the model cannot be read.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
        >>> [tuple(part.shape) for part in affine_form(Classifier.of(net.eval(), shape=(2, 2)))]
        [(3, 4), (3,)]
    """
    return _matrix(_linear(model), torch.zeros((1, *model.shape), dtype=torch.float64, device=model.device))


def _linear(model: Classifier) -> Graph:
    graph = read(model)
    for _, node in graph:
        if not node.op.linear:
            got = getattr(node.op, "name", type(node.op).__name__)
            raise UnknownOperator("affine certificate", expected="affine operators only", got=got)
    return graph


def _matrix(graph: Graph, like: Tensor) -> tuple[Tensor, Tensor]:
    """W of the whole composition, column by column, shape (K, d); and b, shape (K,)."""
    d = like[0].numel()
    origin = graph(like.new_zeros((1, *graph.shape)))
    columns = [
        graph(part.view(-1, *graph.shape)) - origin
        for part in torch.eye(d, dtype=like.dtype, device=like.device).split(512)
    ]
    return torch.cat(columns).T.contiguous(), origin[0]
