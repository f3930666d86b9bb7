"""A network without branches as a few matrices: z = W_m φ(… φ(W_1 x + b_1) …) + b_m."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from calipers.certificates.activations import Activation
from calipers.certificates.arithmetic import Arithmetic
from calipers.certificates.certificate import NotApplicable
from calipers.certificates.graph import Graph, Node, Operator
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
    runs: list[list[tuple[int, Node]]] = [[]]
    activations: list[Activation] = []
    for at, node in graph:
        if node.inputs != (at - 1,):
            raise NotApplicable("chain of layers", expected="no branches", got=f"node {at} reading {node.inputs}")
        if node.op.linear:
            runs[-1].append((at, node))
        elif isinstance(node.op, Activation):
            activations.append(node.op)
            runs.append([])
        else:
            raise NotApplicable("chain of layers", expected="linear layers and activations",
                                got=type(node.op).__name__)  # fmt: skip
    stages, start = [], 0
    for run in runs:
        sizes = [torch.Size(graph.shape_of(i)).numel() for i in (start, *(at for at, _ in run))]
        if sizes[0] * max(sizes) > largest:
            raise NotApplicable("chain of layers", expected=f"matrices of at most {largest:,} entries",
                                got=f"{sizes[-1]} × {sizes[0]}")  # fmt: skip
        stages.append(multiplied(run, start, graph.shape_of(start), like))
        # After the run comes its activation, from whose values the next matrix starts.
        start += len(run) + 1
    return Chain(tuple(stages), tuple(activations))


def multiplied(run: Sequence[tuple[int, Node]], start: int, shape: tuple[int, ...], like: Tensor) -> Stage:
    r"""Linear operators applied to every unit vector, without their constants, and to zero.

    Arguments:
        run: numbered nodes, the last one the result; all that they read is among them or ``start``.
        start: the node that the matrix is a function of, with values of this shape.
        like: gives the device.

    Example:
        >>> from calipers.certificates.operators import Affine
        >>> half = Node(Affine(torch.tensor([[0.5, 0.0]]), torch.ones(1)), (0,), (1,))
        >>> multiplied([(1, half)], 0, (2,), torch.zeros(())).weight.tolist()
        [[0.5, 0.0]]
    """
    eye = torch.eye(torch.Size(shape).numel(), dtype=torch.float64, device=like.device)
    bias = {start: eye.new_zeros(1, *shape)}
    weights, errors = [], []
    for at, node in run:
        bias[at] = node.op(*(bias[i] for i in node.inputs))
    for some in eye.split(512):
        columns = {start: some.view(-1, *shape)}
        wrong = {start: torch.zeros_like(columns[start])}
        for at, node in run:
            assert isinstance(node.op, Linear)
            here = [columns[i] for i in node.inputs]
            columns[at] = node.op.apply(*here)
            wrong[at] = node.op.spread(*(wrong[i] for i in node.inputs)) + _lost(node.op, here)
        last = run[-1][0] if run else start
        weights.append(columns[last].flatten(1))
        errors.append(wrong[last].flatten(1))
    return Stage(torch.cat(weights).T.contiguous(), bias[last].flatten(), torch.cat(errors).T.contiguous())


def _lost(op: Operator, columns: list[Tensor]) -> Tensor:
    """What float64 can lose of W times these: the rounding less the part of the constants, which take no part."""
    with_constants = op.rounding(_FLOAT64, *(c.abs() for c in columns))
    lost = with_constants - op.rounding(_FLOAT64, *(torch.zeros_like(c) for c in columns))
    # Where numbers overflow nothing is known; 1e-300 is more than underflow can cost.
    return lost.nan_to_num(nan=torch.inf, posinf=torch.inf) + 1e-300
