"""A network as a small graph of operators, in float64: what every certificate computes on.

A graph is a list of nodes in the order of execution; node 0 is the input, the last one the logits. An operator knows
itself in real arithmetic, over intervals, how executions of it can err, and how it stretches distances. Linear ones
know their transpose too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from calipers.certificates.arithmetic import Arithmetic
from calipers.threats import Norm

__all__ = ["Graph", "Interval", "Node", "Operator"]

Interval = tuple[Tensor, Tensor]


class Operator(Protocol):
    r"""What is asked of one operator; its inputs are batches (N, \*shape) in float64.

    ``linear`` says whether the output is an affine function of the inputs; such operators have ``bias`` and
    ``transpose`` as well (:class:`calipers.certificates.operators.Linear`).
    """

    linear: bool

    def __call__(self, *x: Tensor) -> Tensor:
        """The operator in real arithmetic."""

    def interval(self, *x: Interval) -> Interval:
        """Elementwise bounds in real arithmetic over lo ≤ x ≤ hi."""

    def rounding(self, arithmetic: Arithmetic, *size: Tensor) -> Tensor:
        """How far an execution can be from real arithmetic where |x| ≤ size."""

    def spread(self, *error: Tensor) -> Tensor:
        """How far the output can move when the inputs move by at most ``error``, elementwise."""

    def lipschitz(self, norm: Norm, *inputs: float) -> float:
        """A true Lipschitz constant of the output in ‖·‖_p, given those of the inputs."""


@dataclass(frozen=True, eq=False)
class Node:
    """One operator, the nodes it reads and the shape of its output for one example."""

    op: Operator
    inputs: tuple[int, ...]
    shape: tuple[int, ...]


class Graph:
    r"""Nodes 1…L over an input (node 0) of shape (N, \*shape).

    Arguments:
        shape: of one input.
        nodes: in the order of execution; ``nodes[i]`` is node i + 1.
    """

    def __init__(self, shape: tuple[int, ...], nodes: Sequence[Node]) -> None:
        self.shape, self.nodes = shape, tuple(nodes)
        self.last = len(self.nodes)
        last_use = {i: at for at, node in self for i in node.inputs}
        self._done = {at: [i for i, user in last_use.items() if user == at] for at, _ in self}

    def __iter__(self) -> Iterator[tuple[int, Node]]:
        """(number, node) in the order of execution."""
        return enumerate(self.nodes, 1)

    def upto(self, stop: int) -> Iterator[tuple[int, Node]]:
        """(number, node) of nodes 1…stop."""
        return enumerate(self.nodes[:stop], 1)

    def shape_of(self, at: int) -> tuple[int, ...]:
        """The shape of a node's value for one example; node 0 is the input."""
        return self.nodes[at - 1].shape if at else self.shape

    def __call__(self, x: Tensor) -> Tensor:
        """The logits in real arithmetic (float64): (N, *shape) → (N, K)."""
        values = {0: x.double()}
        for at, node in self:
            values[at] = node.op(*(values[i] for i in node.inputs))
            self.forget(values, at)
        return values[self.last]

    @staticmethod
    def step(node: Node, bounds: Mapping[int, Interval], arithmetic: Arithmetic) -> Interval:
        """One node's executed interval from those of the nodes before it."""
        here = [bounds[i] for i in node.inputs]
        error = node.op.rounding(arithmetic, *(size(*b) for b in here))
        lo, hi = node.op.interval(*here)
        return lo - error, hi + error

    def rounding(self, lo: Tensor, hi: Tensor, arithmetic: Arithmetic) -> Tensor:
        """How far the executed logits can be from the real ones, for inputs in lo ≤ x ≤ hi: shape (N, K)."""
        bounds, errors = {0: (lo, hi)}, {0: torch.zeros_like(lo)}
        for at, node in self:
            here, before = [bounds[i] for i in node.inputs], [errors[i] for i in node.inputs]
            sizes = [size(*b) + e for b, e in zip(here, before, strict=True)]
            errors[at] = node.op.spread(*before) + node.op.rounding(arithmetic, *sizes)
            bounds[at] = node.op.interval(*here)
            self.forget(bounds, at)
            self.forget(errors, at)
        return errors[self.last]

    def lipschitz(self, norm: Norm, at: int) -> float:
        """A true Lipschitz constant of node ``at`` as a function of the input, in ‖·‖_p."""
        constants = [1.0]
        for node in self.nodes[:at]:
            constants.append(node.op.lipschitz(norm, *(constants[i] for i in node.inputs)))
        return constants[at]

    def forget(self, values: dict[int, Tensor] | dict[int, Interval], at: int) -> None:
        """Drop the values that no node after ``at`` reads."""
        for i in self._done[at]:
            values.pop(i, None)


def size(lo: Tensor, hi: Tensor) -> Tensor:
    """The largest absolute value in an interval."""
    return torch.maximum(lo.abs(), hi.abs())
