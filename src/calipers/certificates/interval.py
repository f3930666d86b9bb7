"""Interval bound propagation, and the largest radius it certifies."""

from __future__ import annotations

import torch
from torch import Tensor

from calipers.certificates.arithmetic import ASSUMES, Arithmetic, arithmetic_of
from calipers.certificates.certificate import Certified, NotApplicable
from calipers.certificates.domain import ball_interval
from calipers.certificates.graph import Graph, Interval, Node, size
from calipers.certificates.operators import Affine, Convolution, Rearrange, Scale
from calipers.certificates.reading import read
from calipers.certificates.search import largest_radius, lead
from calipers.models import Classifier, public
from calipers.threats import Box, Norm, dual

__all__ = ["interval", "margins", "propagate"]


@public
def interval(model: Classifier, x: Tensor, y: Tensor, norm: Norm, *, batch_size: int = 128) -> Certified:
    r"""The largest radius at which interval arithmetic still proves the label, for the model as executed.

    The ball ∩ box becomes an interval for every coordinate (in L2 and L1 the first affine layer is bounded by
    Hölder's inequality as well), every layer maps intervals to intervals outward by its rounding error, and the last
    layer bounds z_y − z_j directly. The radius is found by a bracketed secant search; it is itself proved.

    Arguments:
        model: a network of known operators.
        x: inputs in the box, shape (N, \*shape).
        y: labels, shape (N,).
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        batch_size: how many examples at once.

    Raises:
        NotApplicable: for L0, and (UnknownOperator) for a layer without a rule.

    Source: "On the Effectiveness of Interval Bound Propagation for Training Verifiably Robust Models" (Gowal et al.
    2018), equations (6)-(8); the rounding is ours.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2)).double().eval()
        >>> _ = net.load_state_dict({"0.weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "0.bias": torch.zeros(2)})
        >>> x = torch.tensor([[0.75, 0.25]], dtype=torch.float64)
        >>> round(interval(Classifier.of(net, shape=(2,)), x, torch.tensor([0]), "linf").radius.item(), 3)
        0.25
    """
    if norm == "l0":
        raise NotApplicable("norm of interval bounds", expected="linf, l2 or l1", got="'l0'")
    x, y = model.check(x, y)
    graph, arithmetic = read(model), arithmetic_of(model)
    radii = []
    for some, labels in zip(x.double().split(batch_size), y.split(batch_size), strict=True):
        radii.append(_radii(graph, some, labels, norm, model.box, arithmetic))
    return Certified(torch.cat(radii), norm, "interval", arithmetic.name, ASSUMES, model.box)


def _radii(graph: Graph, x: Tensor, y: Tensor, norm: Norm, box: Box, arithmetic: Arithmetic) -> Tensor:
    def lowest(radius: Tensor) -> Tensor:
        return margins(graph, x, y, radius, norm, box, arithmetic)

    scale = box.scale(x)
    reach = torch.full_like(scale, box.reach(norm, x[0].numel()))
    # A label that is proved on the whole box cannot be lost at any distance.
    whole = lowest(reach) > 0 if box.bounded else torch.zeros_like(scale, dtype=torch.bool)
    return torch.where(whole, torch.inf, largest_radius(lowest, lead(graph(x), y), scale))


def margins(graph: Graph, x: Tensor, y: Tensor, radius: Tensor, norm: Norm, box: Box, arithmetic: Arithmetic) -> Tensor:
    r"""min over j ≠ y of a lower bound of the executed z_y − z_j over {‖x' − x‖_p ≤ radius} ∩ box: shape (N,)."""
    last = graph.nodes[-1]
    stop = graph.last - isinstance(last.op, Affine)
    bounds, balls = propagate(graph, x, radius, norm, box, arithmetic, stop)
    if isinstance(last.op, Affine):
        before = last.inputs[0]
        lowest = _last_margins(last.op, *bounds[before], y, balls.get(before), arithmetic)
    else:
        lo, hi = bounds[graph.last]
        lowest = lo.gather(1, y[:, None]) - hi
    return lowest.scatter(1, y[:, None], torch.inf).amin(1)


def propagate(
    graph: Graph, x: Tensor, radius: Tensor, norm: Norm, box: Box, arithmetic: Arithmetic, stop: int
) -> tuple[dict[int, Interval], dict[int, _Ball]]:
    r"""Executed intervals over {‖x' − x‖_p ≤ radius} ∩ box of the nodes up to ``stop``, as far as still needed.

    In L2 and L1 the images of the ball under maps that mix no coordinates come along: an affine operator that reads
    one is bounded by Hölder's inequality as well.
    """
    bounds: dict[int, Interval] = {0: ball_interval(x, radius, box)}
    balls = {0: _Ball(x, radius, norm)} if norm != "linf" else {}
    for at, node in graph.upto(stop):
        here = graph.step(node, bounds, arithmetic)
        ball = balls.get(node.inputs[0])
        if ball is not None and isinstance(node.op, Scale | Rearrange):
            balls[at] = ball.through(node.op, size(*bounds[node.inputs[0]]), arithmetic)
        elif ball is not None and isinstance(node.op, Affine | Convolution):
            lo, hi = ball.image(node, size(*bounds[node.inputs[0]]), arithmetic)
            here = torch.maximum(here[0], lo), torch.minimum(here[1], hi)
        bounds[at] = here
        graph.forget(bounds, at)
    return bounds, balls


class _Ball:
    """What is left of an L2 or L1 ball before the first affine operator: its image under a diagonal map."""

    def __init__(self, centre: Tensor, radius: Tensor, norm: Norm) -> None:
        self.centre, self.radius, self.norm = centre, radius, norm
        self.scale, self.error = torch.ones_like(centre[:1]), torch.zeros_like(centre[:1])

    def through(self, op: Scale | Rearrange, size: Tensor, arithmetic: Arithmetic) -> _Ball:
        """The ball after an operator that mixes no coordinates."""
        after = _Ball(op(self.centre), self.radius, self.norm)
        after.scale = op.spread(self.scale)
        after.error = op.spread(self.error) + op.rounding(arithmetic, size)
        return after

    def image(self, node: Node, size: Tensor, arithmetic: Arithmetic) -> Interval:
        """Hölder's interval of an affine operator that reads this ball, as executed."""
        op = node.op
        assert isinstance(op, Affine | Convolution)
        # 1e-12 covers the float64 arithmetic of the reach itself.
        reach = op.reach(self.scale[0], dual(self.norm)) * (1 + 1e-12)
        reach = self.radius.view(-1, *[1] * len(node.shape)) * reach
        middle, slack = op(self.centre), op.rounding(arithmetic, size) + op.spread(self.error)
        return middle - reach - slack, middle + reach + slack


def _last_margins(
    last: Affine, lo: Tensor, hi: Tensor, y: Tensor, ball: _Ball | None, arithmetic: Arithmetic
) -> Tensor:
    """Lower bounds of z_y − z_j: the difference of two rows bounded as one row. Shape (N, K)."""
    error = last.rounding(arithmetic, size(lo, hi))
    middle, half = (lo + hi) / 2, (hi - lo) / 2
    centre = last(middle)
    lowest = torch.empty_like(centre)
    for label in y.unique():
        rows = (y == label).nonzero()[:, 0]
        apart = last.weight[label] - last.weight
        bound = centre[rows, label][:, None] - centre[rows] - half[rows] @ apart.abs().T
        if ball is not None:
            at = last(ball.centre[rows])
            reach = Affine(apart).reach(ball.scale[0], dual(ball.norm)) * (1 + 1e-12)
            slack = ball.error.expand_as(lo)[rows] @ apart.abs().T
            held = at[:, label][:, None] - at - ball.radius[rows, None] * reach - slack
            bound = torch.maximum(bound, held)
        lowest[rows] = bound - error[rows] - error[rows, label][:, None]
    return lowest
