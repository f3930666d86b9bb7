"""Equation (2): the largest R within which no margin can fall to zero at the local Lipschitz constants on the way."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from calipers.certificates.arithmetic import ASSUMES, Arithmetic, arithmetic_of
from calipers.certificates.certificate import Certified, NotApplicable
from calipers.certificates.crown import Bounds
from calipers.certificates.domain import Domain, ball_interval
from calipers.certificates.gradients import gradient_interval
from calipers.certificates.graph import Graph, Interval
from calipers.certificates.reading import read
from calipers.certificates.support import largest_loss
from calipers.models import Classifier, public
from calipers.threats import Box, Norm, dual
from calipers.threats import norm as length

__all__ = ["local_lipschitz"]


@public
def local_lipschitz(
    model: Classifier, x: Tensor, y: Tensor, norm: Norm, *, shells: int = 12, batch_size: int = 32
) -> Certified:
    r"""The largest R found with g_j(x) > ∫₀^R L_j(r) dr for all j ≠ y: at least max over R of h(R), equation (2).

    g_j = f_y − f_j, and L_j(r) bounds how fast g_j can fall within distance r. On a straight line from x to z the fall
    is at most ∫ L_j; with L_j(r) ≤ L_j(R) this is the paper's g_j(x) ≥ R·L_j(R), which one shell gives; several nested
    shells give more. Instead of a norm of the gradient its interval is kept, coordinate by coordinate, and the fall is
    maximised over ball ∩ box. The gradients are those of logits; a ReLU whose input interval touches 0 has a slope
    anywhere in [0, 1]. What rounding can do within R is taken off the margin.

    Arguments:
        model: a network of known operators.
        x: inputs in the box, shape (N, \*shape).
        y: labels, shape (N,).
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        shells: in how many steps R is approached; 1 is equation (2) as printed, with intervals.
        batch_size: how many examples at once; each carries K gradients.

    Raises:
        NotApplicable: for L0, and (UnknownOperator) for an operator without a rule.

    Source: "Analyzing the Robustness of Deep Learning Against Adversarial Examples" (Zhao 2018), equation (2), after
    "Formal Guarantees on the Robustness of a Classifier against Adversarial Manipulation" (Hein & Andriushchenko
    2017), Theorem 2.1; bounds of the slopes as in "Towards Fast Computation of Certified Robustness for ReLU Networks"
    (Weng et al. 2018), Section 4.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2)).double().eval()
        >>> _ = net.load_state_dict({"0.weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "0.bias": torch.zeros(2)})
        >>> x = torch.tensor([[0.75, 0.25]], dtype=torch.float64)
        >>> round(local_lipschitz(Classifier.of(net, shape=(2,)), x, torch.tensor([0]), "linf").radius.item(), 3)
        0.25
    """
    if norm == "l0":
        raise NotApplicable("norm of local Lipschitz bounds", expected="linf, l2 or l1", got="'l0'")
    x, y = model.check(x, y)
    graph, arithmetic = read(model), arithmetic_of(model)
    radius = torch.cat([
        _Search(graph, some, label, norm, model.box, arithmetic).radius(shells)
        for some, label in zip(x.double().split(batch_size), y.split(batch_size), strict=True)
    ])  # fmt: skip
    return Certified(radius, norm, "local-lipschitz", arithmetic.name, ASSUMES, model.box)


@dataclass(eq=False)
class _Search:
    """One batch: margins at x, and how much of them can be lost within a radius."""

    graph: Graph
    x: Tensor
    y: Tensor
    norm: Norm
    box: Box
    arithmetic: Arithmetic

    def __post_init__(self) -> None:
        logits = self.graph(self.x)
        one = torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device)
        self.rows = one[self.y][:, None] - one
        self.margin = logits.gather(1, self.y[:, None]) - logits

    def radius(self, shells: int) -> Tensor:
        """Walk outwards shell by shell; where the next does not hold, try half of it."""
        lo, hi = self.gradients(torch.zeros_like(self.margin[:, 0]))
        first = self._first_order(lo) * (1 - 1e-9)
        step = first / shells
        reach = torch.zeros_like(step)
        spent = torch.zeros_like(lo), torch.zeros_like(hi)
        failed = torch.zeros_like(step, dtype=torch.bool)
        for _ in range(4 * shells + 12):
            if bool((failed & (step <= 4e-3 * reach)).all()):
                break
            there = reach + step
            # The hull with the shell before keeps the intervals nested: the fall along a ray is then convex.
            outer = self.gradients(there)
            outer = torch.minimum(outer[0], lo), torch.maximum(outer[1], hi)
            width = step.view(-1, *[1] * (lo.dim() - 1))
            total = spent[0] + width * outer[0], spent[1] + width * outer[1]
            fine = self.holds(total, there)
            some = fine.view_as(width)
            lo, hi = torch.where(some, outer[0], lo), torch.where(some, outer[1], hi)
            spent = torch.where(some, total[0], spent[0]), torch.where(some, total[1], spent[1])
            reach, failed = torch.where(fine, there, reach), failed | ~fine
            # Farther than the gradient at x alone would allow, the steps grow until one fails.
            step = torch.where(fine, torch.where(failed | (reach < first), step, 1.5 * step), step / 2)
        # Beyond the farthest point of the box there is nothing left to fear.
        return torch.where(reach > self.box.reach(self.norm, self.x[0].numel()), torch.inf, reach)

    def gradients(self, radius: Tensor) -> Interval:
        """Bounds of ∇g_j over ball ∩ box: (N, K, *shape)."""
        bounds = Bounds(self.graph, Domain(self.x, radius, self.norm, self.box), self.arithmetic)
        return gradient_interval(self.graph, bounds.intervals, self.rows)

    def holds(self, total: Interval, radius: Tensor) -> Tensor:
        """Whether every margin outlives the fall to this radius and the rounding there: (N,). NaN does not."""
        share = radius.view(-1, *[1] * (total[0].dim() - 1)).clamp_min(1e-300)
        loss = largest_loss(total[0] / share, total[1] / share, self.x, radius, self.norm, self.box)
        error = self.graph.rounding(*ball_interval(self.x, radius, self.box), self.arithmetic)
        left = self.margin - loss - error - error.gather(1, self.y[:, None])
        return (left.scatter(1, self.y[:, None], 1.0) > 0).all(1)

    def _first_order(self, gradient: Tensor) -> Tensor:
        """Where the margins vanish if the gradients stay what they are at x; a length to start with."""
        slope = length(gradient.flatten(0, 1), dual(self.norm)).view(gradient.shape[:2])
        scale = self.box.scale(self.x)
        ratio = (self.margin / slope.clamp_min(1e-300)).scatter(1, self.y[:, None], torch.inf).amin(1)
        return torch.minimum(ratio.clamp_min(0), 4 * scale)
