"""CROWN: linear bounds carried backwards through the graph, and the largest radius they certify."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from calipers.certificates.activations import Activation
from calipers.certificates.arithmetic import ASSUMES, OURS, Arithmetic, arithmetic_of
from calipers.certificates.certificate import Certified, NotApplicable
from calipers.certificates.domain import Domain
from calipers.certificates.graph import Graph, Interval, Node, size
from calipers.certificates.operators import Linear, Rearrange, Scale
from calipers.certificates.reading import read
from calipers.certificates.relaxations import Lines, between, dot
from calipers.certificates.search import largest_radius, lead
from calipers.models import Classifier, public
from calipers.threats import Box, Norm

__all__ = ["Bounds", "TooLarge", "carry_back", "crown", "label_rows", "memory_of"]


def memory_of(graph: Graph) -> float:
    """Bytes that the coefficients of the largest layer can take for one example: 2 rows a unit, three of a kind."""
    need = 0.0
    for _, node in graph:
        if not node.op.linear:
            at = node.inputs[0]
            widest = max(_count(graph.shape_of(i)) for i in range(at + 1))
            need = max(need, _COPIES * 2 * _count(graph.shape_of(at)) * widest)
    return need


# Bytes of a coefficient and of what is computed beside it.
_COPIES = 3.0 * 8


def _count(shape: tuple[int, ...]) -> int:
    return math.prod(shape)


class TooLarge(UserWarning):
    """Backward bounds of a layer would not fit into the memory allowed; interval bounds were used there."""


@public
def crown(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    norm: Norm,
    *,
    upper: Tensor | None = None,
    lower: Tensor | None = None,
    batch_size: int = 32,
    memory: float = 2**31,
    fallback: bool = True,
) -> Certified:
    r"""The largest radius at which backward linear bounds prove the label, for the model as executed.

    Every activation is replaced by a line below and a line above over the interval of its input, which itself comes
    from the same bound. Then z_y − z_j ≥ ⟨a_j, x'⟩ + b_j for all x', and the least value over ball ∩ box is exact. What
    rounding can do in each operator is one more term of b_j, weighted as the operator's output is.

    Arguments:
        model: a network of known operators.
        x: inputs in the box, shape (N, \*shape).
        y: labels, shape (N,).
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        upper: an attack's distances, shape (N,): where to begin; the search stops at 0.99 of them.
        batch_size: how many examples at once.
        lower: radii already proved for this model, box and norm, shape (N,); never undercut.
        memory: bytes that coefficients may take.
        fallback: a layer that needs more memory gets interval bounds, with a warning; False refuses instead.

    Raises:
        NotApplicable: for L0, for too little memory, and (UnknownOperator) for an operator without a rule.

    Source: "Efficient Neural Network Robustness Certification with General Activation Functions" (Zhang et al. 2018),
    Theorem 3.2 and Corollary 3.3; relaxations of smooth functions, box and rounding are ours.

    Example:
        >>> from calipers.models import references
        >>> ball = next(r for r in references() if r.classifier.name == "linf-ball")
        >>> crown(ball.classifier, ball.x, ball.y, "linf").radius.numpy().round(3)
        array([0.444, 0.187, 0.5  , 0.75 ])
    """
    if norm == "l0":
        raise NotApplicable("norm of CROWN", expected="linf, l2 or l1", got="'l0'")
    x, y = model.check(x, y)
    graph, arithmetic = read(model), arithmetic_of(model)
    need = memory_of(graph)
    if need > memory and not fallback:
        raise NotApplicable("memory of CROWN", expected=f"at most {memory / 1e9:.2g} GB for each example",
                            got=f"{need / 1e9:.2g} GB", hint="interval bounds stand instead")  # fmt: skip
    above = torch.full_like(x.flatten(1)[:, 0].double(), torch.inf) if upper is None else upper.to(x.device).double()
    radii = []
    for some, labels, high in zip(
        x.double().split(batch_size), y.split(batch_size), above.split(batch_size), strict=True
    ):
        radii.append(_radii(graph, some, labels, high, norm, model.box, arithmetic, memory))
    radius = torch.cat(radii)
    radius = radius if lower is None else torch.maximum(radius, lower.to(radius))
    return Certified(radius, norm, "crown", arithmetic.name, ASSUMES, model.box)


def _radii(
    graph: Graph, x: Tensor, y: Tensor, upper: Tensor, norm: Norm, box: Box, arithmetic: Arithmetic, memory: float
) -> Tensor:
    seeds = label_rows(y, graph.shape_of(graph.last)[0])

    def lowest(radius: Tensor) -> Tensor:
        bounds = Bounds(graph, Domain(x, radius, norm, box), arithmetic, memory)
        return bounds.margins(seeds).amin(1)

    scale = box.scale(x)
    radius = largest_radius(lowest, lead(graph(x), y), scale, upper=upper)
    if not box.bounded:
        return radius
    # A label that is proved on the whole box cannot be lost at any distance.
    whole = (radius > 0) & upper.isinf()
    reach = torch.full_like(scale, box.reach(norm, x[0].numel()))
    if bool(whole.any()):
        whole &= lowest(reach) > 0
    return torch.where(whole, torch.inf, radius)


def label_rows(y: Tensor, classes: int) -> Tensor:
    """The rows e_y − e_j for all j ≠ y: (N, K − 1, K), float64."""
    eye = torch.eye(classes, dtype=torch.float64, device=y.device)
    others = torch.arange(classes - 1, device=y.device) + (torch.arange(classes - 1, device=y.device) >= y[:, None])
    return eye[y][:, None] - eye[others]


class Bounds:
    """Executed intervals of every node over a domain, lines of every nonlinear one, and bounds of any linear function.

    Arguments:
        graph, domain, arithmetic: the network, where its input is, and how it is executed.
        memory: bytes for the coefficients of one layer.
        tight: False leaves all intervals to interval arithmetic; only what is asked of :meth:`lowest` is carried back.
    """

    def __init__(
        self, graph: Graph, domain: Domain, arithmetic: Arithmetic, memory: float = 2**31, *, tight: bool = True
    ) -> None:
        self.graph, self.domain, self.arithmetic, self.memory = graph, domain, arithmetic, memory
        self.intervals: dict[int, Interval] = {0: (domain.lo, domain.hi)}
        self.lines: dict[int, Lines] = {}
        self.errors: dict[int, Tensor] = {}
        read_by = {i: node.op for _, node in graph for i in node.inputs if not node.op.linear}
        for at, _ in graph:
            self._step(at)
            if tight and at in read_by and not self._exact(at):
                self._tighten(at, read_by[at])

    def _exact(self, at: int) -> bool:
        """Whether interval arithmetic is exact: one mixing of coordinates that were free of each other."""
        if self.domain.norm != "linf" or not self.graph.nodes[at - 1].op.linear:
            return False
        while at and len(self.graph.nodes[at - 1].inputs) == 1:
            (at,) = self.graph.nodes[at - 1].inputs
            if at and not isinstance(self.graph.nodes[at - 1].op, Scale | Rearrange):
                return False
        return at == 0

    def _step(self, at: int) -> None:
        """A node's interval, lines and rounding from the intervals before it."""
        node = self.graph.nodes[at - 1]
        here = [self.intervals[i] for i in node.inputs]
        self.intervals[at] = self.graph.step(node, self.intervals, self.arithmetic)
        if not node.op.linear:
            self.lines[at] = between(node.op, here[0])
        self.errors[at] = node.op.rounding(self.arithmetic, *(size(*b) for b in here)) + self._sums(at)

    def take(self, at: int, known: Interval) -> None:
        """Take a tighter interval of a node, proved elsewhere, and what follows from it."""
        self.intervals[at] = known
        for later in range(at + 1, self.graph.last + 1):
            old = self.intervals[later]
            self._step(later)
            new = self.intervals[later]
            self.intervals[later] = torch.maximum(old[0], new[0]), torch.minimum(old[1], new[1])

    def _sums(self, at: int) -> Tensor:
        """What adding up the constants of a node can lose in float64, as an error of its value."""
        node = self.graph.nodes[at - 1]
        shifts = getattr(node.op, "bias", self.domain.x.new_zeros(())).abs()
        if not node.op.linear:
            # The constants of lines are no larger than a function's values and its arguments.
            shifts = size(*self.intervals[at])
            if isinstance(node.op, Activation):
                shifts = shifts + size(*self.intervals[node.inputs[0]])
        return 4 * _count(node.shape) * OURS * shifts

    def _tighten(self, at: int, reader: object) -> None:
        """Intersect a node's interval with backward bounds, where its reader gains by it."""
        lo, hi = self.intervals[at]
        matters = torch.ones_like(lo, dtype=torch.bool)
        if isinstance(reader, Activation) and reader.kink is not None:
            # Where the sign is known already the activation is a line, and nothing is gained.
            matters = (lo < 0) & (hi > 0)
        rows = matters.flatten(1).any(0).nonzero()[:, 0]
        if not len(rows):
            return
        widest = max(_count(self.graph.shape_of(i)) for i in range(at + 1))
        need = _COPIES * 2 * len(rows) * widest
        if need > self.memory:
            warnings.warn(
                f"crown: the bounds of node {at} would take {need / 1e9:.1f} GB for each example and "
                f"{self.memory / 1e9:.1f} GB are allowed; interval bounds are used there (memory=… allows more)",
                TooLarge, stacklevel=6,
            )  # fmt: skip
            return
        seeds = lo.new_zeros(2 * len(rows), lo[0].numel())
        seeds[torch.arange(len(rows)), rows], seeds[torch.arange(len(rows)) + len(rows), rows] = 1.0, -1.0
        least = self.lowest(at, seeds.view(1, -1, *lo.shape[1:]).expand(len(lo), -1, *lo.shape[1:]))
        below, above = lo.flatten(1).clone(), hi.flatten(1).clone()
        # Only where it matters to the example itself, so that batch mates change nothing.
        mine = matters.flatten(1)[:, rows]
        below[:, rows] = torch.where(mine, torch.maximum(below[:, rows], least[:, : len(rows)]), below[:, rows])
        above[:, rows] = torch.where(mine, torch.minimum(above[:, rows], -least[:, len(rows) :]), above[:, rows])
        self.intervals[at] = below.view_as(lo), above.view_as(hi)

    def margins(self, a: Tensor) -> Tensor:
        r"""Lower bounds of ⟨a, executed logits⟩, a (N, R, K), from the input and from the last intervals: (N, R).

        Lines far apart, as of saturated functions, can lose more on the way back than intervals lose on the way there.
        """
        last = self.graph.last
        backward = self.lowest(last, a)
        if not last:
            return backward
        node = self.graph.nodes[last - 1]
        parts, step = _one_back(node, a, self.errors[last], self.lines.get(last))
        for source, part in zip(node.inputs, parts, strict=True):
            lo, hi = self.intervals[source]
            step = step + dot(part, (lo + hi) / 2) - dot(part.abs(), (hi - lo) / 2) * (1 + 1e-9)
        return torch.fmax(backward, step)

    def lowest(self, at: int, a: Tensor) -> Tensor:
        r"""Lower bounds of ⟨a, executed value of node ``at``⟩ for every row of a (N, R, \*shape): (N, R)."""
        widest = max(_count(self.graph.shape_of(i)) for i in range(at + 1))
        chunk = max(1, int(self.memory / (_COPIES * widest * len(a))))
        return torch.cat([self._lowest(at, part) for part in a.split(chunk, 1)], 1)

    def _lowest(self, at: int, a: Tensor) -> Tensor:
        coefficients, constant = carry_back(self.graph, self.errors, self.lines, at, a)
        return self.domain.lowest(coefficients) + constant


def carry_back(
    graph: Graph,
    errors: Mapping[int, Tensor],
    lines: Mapping[int, Lines],
    at: int,
    a: Tensor,
    pull: Mapping[int, tuple[Tensor, Tensor]] = MappingProxyType({}),
) -> tuple[Tensor, Tensor]:
    r"""⟨a, node ``at``⟩ ≥ ⟨coefficients, x⟩ + constant: (N, R, \*shape) and (N, R).

    Arguments:
        errors: how far each node's execution is from real arithmetic, (N, \*shape) by node.
        lines: what stands for each nonlinear node.
        a: (N, R, \*shape of the node).
        pull: coefficients (N, R, \*shape) and constants (N, R) to add at a node: multiples of what is known of it.
    """
    waiting, constant = {at: a}, a.new_zeros(a.shape[:2])
    for i in range(at, 0, -1):
        if i not in waiting:
            continue
        here, node = waiting.pop(i), graph.nodes[i - 1]
        if i in pull:
            here, constant = here + pull[i][0], constant + pull[i][1]
        parts, shift = _one_back(node, here, errors[i], lines.get(i))
        constant = constant + shift
        for source, part in zip(node.inputs, parts, strict=True):
            waiting[source] = waiting[source] + part if source in waiting else part
    return waiting[0], constant


def _one_back(node: Node, a: Tensor, error: Tensor, lines: Lines | None) -> tuple[tuple[Tensor, ...], Tensor]:
    r"""⟨a, node⟩ ≥ Σ ⟨part, input⟩ + constant: a part (N, R, \*shape) for each of its inputs, and (N, R)."""
    constant = -dot(a.abs(), error) * (1 + 1e-9)
    if isinstance(node.op, Linear):
        if hasattr(node.op, "bias"):
            constant = constant + a.flatten(2) @ node.op.bias.expand(node.shape).flatten()
        back = node.op.transpose(a.flatten(0, 1))
        return tuple(part.view(*a.shape[:2], *part.shape[1:]) for part in back), constant
    assert lines is not None
    part, shift = lines.back(a)
    return (part,), constant + shift
