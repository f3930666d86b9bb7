"""The exact radius of an affine classifier, with the box."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from calipers.certificates.arithmetic import ASSUMES, Arithmetic, arithmetic_of
from calipers.certificates.certificate import Certified, UnknownOperator
from calipers.certificates.chain import Stage, multiplied
from calipers.certificates.domain import ball_interval
from calipers.certificates.graph import Graph
from calipers.certificates.reading import read
from calipers.models import Classifier, public
from calipers.threats import Box, Norm, leave_cell

__all__ = ["affine", "affine_form", "form_error", "form_of", "linear_graph", "nearest_exit"]

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
    graph, arithmetic = linear_graph(model), arithmetic_of(model)
    centre = x.double()
    form = form_of(graph, centre)
    radius = nearest_exit(
        form.weight, graph(centre), lambda lo, hi: form_error(graph, form, centre, lo, hi, arithmetic), centre, y, norm,
        model.box,
    )  # fmt: skip
    return Certified(radius, norm, "affine", arithmetic.name, ASSUMES, model.box)


def nearest_exit(
    weight: Tensor, logits: Tensor, error: Callable[[Tensor, Tensor], Tensor], centre: Tensor, y: Tensor, norm: Norm,
    box: Box,
) -> Tensor:  # fmt: skip
    r"""The distance to where another of K affine scores reaches the label's, in the box, less what rounding can do.

    Arguments:
        weight: W, shape (K, d).
        logits: W x + b, shape (N, K).
        error: how far executed scores can be from those between two corners, (N, \*shape) twice → (N, K).
        centre, y, norm, box: x in float64, labels, norm and box.
    """
    radius, _ = leave_cell(centre, weight, logits, y, norm, box)
    # The ball certified below lies in this one, so what rounding can do here bounds what it can do there.
    reach = torch.where(radius.isinf() | (norm == "l0"), box.scale(centre), radius)
    reserve = error(*ball_interval(centre, reach, box))
    tight = (logits + reserve).scatter(1, y[:, None], (logits - reserve).gather(1, y[:, None]))
    radius, _ = leave_cell(centre, weight, tight, y, norm, box)
    radius = (radius - 1).clamp_min(0) if norm == "l0" else radius * _DOWN
    if box.bounded:
        return radius
    # Nothing bounds the rounding beyond the ball it was looked at in; in L0 one coordinate may go anywhere.
    return torch.zeros_like(radius) if norm == "l0" else torch.minimum(radius, reach)


def affine_form(model: Classifier) -> tuple[Tensor, Tensor]:
    """W (K, d) and b (K,) with logits Wx + b, in float64, read from the layers: no point is tried, none is missed.

    Raises:
        NotApplicable: if an operator is not linear, or the inside of the model cannot be read.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
        >>> [tuple(part.shape) for part in affine_form(Classifier.of(net.eval(), shape=(2, 2)))]
        [(3, 4), (3,)]
    """
    form = form_of(linear_graph(model), torch.zeros((), device=model.device))
    return form.weight, form.bias


def linear_graph(model: Classifier) -> Graph:
    """The graph of a model of linear operators alone.

    Raises:
        UnknownOperator: for any other, by its name.
    """
    graph = read(model)
    for _, node in graph:
        if not node.op.linear:
            got = getattr(node.op, "name", type(node.op).__name__)
            raise UnknownOperator("affine certificate", expected="affine operators only", got=got)
    return graph


def form_of(graph: Graph, like: Tensor) -> Stage:
    """The whole composition: W (K, d), b (K,) and how far W can be from the real product."""
    return multiplied(list(graph), 0, graph.shape, like)


def form_error(graph: Graph, form: Stage, centre: Tensor, lo: Tensor, hi: Tensor, arithmetic: Arithmetic) -> Tensor:
    r"""How far W x' + b is from the executed scores of an x' between two corners (N, \*shape): (N, K)."""
    moved = torch.maximum(hi - centre, centre - lo).flatten(1)
    return graph.rounding(lo, hi, arithmetic) + moved @ form.error.T
