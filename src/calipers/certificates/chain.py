"""A network without branches as a few matrices: z = W_m φ(… φ(W_1 x + b_1) …) + b_m."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from calipers.certificates.activations import Activation
from calipers.certificates.arithmetic import Arithmetic
from calipers.certificates.certificate import NotApplicable
from calipers.certificates.graph import Graph, Node
from calipers.certificates.operators import Linear

__all__ = ["Chain", "Stage", "chain"]

_FLOAT64 = Arithmetic.of(torch.float64)


@dataclass(frozen=True, eq=False)
class Stage:
    """An affine map: weight (m, n), bias (m,), and how far a weight can be from the real product of the layers."""

    weight: Tensor
    bias: Tensor
    error: Tensor


@dataclass(frozen=True, eq=False)
class Chain:
    """``stages[0]``, ``activations[0]``, ``stages[1]``, …, ``stages[-1]``: one stage more than activations."""

    stages: tuple[Stage, ...]
    activations: tuple[Activation, ...]

    @property
    def hidden(self) -> int:
        """How many coordinates the activations have together."""
        return sum(len(stage.weight) for stage in self.stages[:-1])


def chain(graph: Graph, like: Tensor, largest: int = 2**24) -> Chain:
    r"""Multiply out every run of linear operators.

    Arguments:
        graph: the network.
        like: gives the device.
        largest: how many entries a matrix may have.

    Raises:
        NotApplicable: for branches, max pooling, and matrices that would be too large.

    Example:
        >>> from calipers.certificates.reading import read
        >>> from calipers.models import references
        >>> model = next(r.classifier for r in references() if r.classifier.name == "convolution-in-box")
        >>> [tuple(stage.weight.shape) for stage in chain(read(model), torch.zeros(())).stages]
        [(16, 16), (3, 16)]
    """
    runs: list[list[Node]] = [[]]
    activations: list[Activation] = []
    for at, node in graph:
        if node.inputs != (at - 1,):
            raise NotApplicable("chain of layers", expected="no branches", got=f"node {at} reading {node.inputs}")
        if node.op.linear:
            runs[-1].append(node)
        elif isinstance(node.op, Activation):
            activations.append(node.op)
            runs.append([])
        else:
            raise NotApplicable("chain of layers", expected="linear layers and activations",
                                got=type(node.op).__name__)  # fmt: skip
    stages, shape = [], graph.shape
    for run in runs:
        stages.append(_multiplied(run, shape, like, largest))
        shape = run[-1].shape if run else shape
    return Chain(tuple(stages), tuple(activations))


def _multiplied(run: Sequence[Node], shape: tuple[int, ...], like: Tensor, largest: int) -> Stage:
    """The operators applied to every unit vector, and to zero."""
    n = torch.Size(shape).numel()
    m = torch.Size(run[-1].shape).numel() if run else n
    if n * max(n, m, *(torch.Size(node.shape).numel() for node in run)) > largest:
        raise NotApplicable("chain of layers", expected=f"matrices of at most {largest:,} entries", got=f"{m} × {n}")
    columns = torch.eye(n, dtype=torch.float64, device=like.device).view(n, *shape)
    error, zero = torch.zeros_like(columns), torch.zeros_like(columns[:1])
    for node in run:
        op = node.op
        assert isinstance(op, Linear)
        error = op.spread(error) + node.op.rounding(_FLOAT64, columns.abs())
        columns, zero = op.apply(columns), op(zero)
    return Stage(columns.flatten(1).T.contiguous(), zero.flatten(), error.flatten(1).T.contiguous())
