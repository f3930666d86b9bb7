"""The linear operators of a graph: matrices, convolutions, scalings, averages, sums, and the same numbers reshaped."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn import grad as transposed

from calipers.certificates.arithmetic import Arithmetic
from calipers.certificates.graph import Interval
from calipers.certificates.operator_norms import convolution_norm, matrix_norm
from calipers.threats import Norm, norm

__all__ = ["Affine", "Average", "BeforeLogSoftmax", "Convolution", "Linear", "LogSoftmax", "Rearrange", "Scale", "Sum"]


class Linear:
    r"""x → Σ_i W_i x_i + b. A subclass says what W and \|W\| do, and what W does transposed."""

    linear = True
    bias: Tensor

    def apply(self, *x: Tensor) -> Tensor:
        """W x."""
        raise NotImplementedError

    def spread(self, *error: Tensor) -> Tensor:
        """|W| e for e ≥ 0."""
        raise NotImplementedError

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        r"""Wᵀ a for every row of a (M, \*shape out): one tensor (M, \*shape in) for each input."""
        raise NotImplementedError

    def __call__(self, *x: Tensor) -> Tensor:
        value = self.apply(*x)
        return value + self.bias if hasattr(self, "bias") else value

    def interval(self, *x: Interval) -> Interval:
        middle = self(*((lo + hi) / 2 for lo, hi in x))
        half = self.spread(*((hi - lo) / 2 for lo, hi in x))
        return middle - half, middle + half


class Affine(Linear):
    """A matrix on the last axis: x → Wx + b, W of shape (m, n)."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight = weight.detach().double()
        self.bias = self.weight.new_zeros(len(weight)) if bias is None else bias.detach().double()

    def apply(self, *x: Tensor) -> Tensor:
        return x[0] @ self.weight.T

    def spread(self, *error: Tensor) -> Tensor:
        return error[0] @ self.weight.abs().T

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        return (a @ self.weight,)

    def rounding(self, arithmetic: Arithmetic, *size: Tensor) -> Tensor:
        m, n = self.weight.shape
        return arithmetic.dot(self.spread(*size) + self.bias.abs(), n + 2, m)

    def lipschitz(self, norm: Norm, *inputs: float) -> float:
        return inputs[0] * matrix_norm(self.weight, norm)

    def reach(self, scale: Tensor, name: Norm) -> Tensor:
        """‖row · diag(scale)‖ of every output (…, m) in the given norm, for one input of shape (…, n)."""
        rows = self.weight * scale[..., None, :]
        return norm(rows.flatten(0, -2), name).view(rows.shape[:-1])


class LogSoftmax:
    """z_j → z_j − log Σ_k exp z_k as the last step: it takes the same from every class, so no answer depends on it."""

    linear = False


class BeforeLogSoftmax(Affine):
    """The matrix before a final :class:`LogSoftmax`, with what subtracting its number can round.

    Two roundings of no more than 2·max|z| + log K, in one order or the other.
    """

    def rounding(self, arithmetic: Arithmetic, *size: Tensor) -> Tensor:
        most = (self.spread(*size) + self.bias.abs()).amax(-1, keepdim=True)
        lost = arithmetic.dot(2 * most + math.log(len(self.weight)), 4)
        return super().rounding(arithmetic, *size) + lost


class Convolution(Linear):
    """A convolution in one or two dimensions with zero padding; W of shape (out, in / groups, *kernel)."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, shape: tuple[int, ...],
        stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...], groups: int,
    ) -> None:  # fmt: skip
        self.weight, self.shape, self.groups, self.dilation = weight.detach().double(), shape, groups, dilation
        self.how = (stride, padding, dilation, groups)
        bias = self.weight.new_zeros(len(weight)) if bias is None else bias.detach().double()
        self.bias: Tensor = bias.view(-1, *[1] * len(stride))
        self._forward = F.conv2d if len(stride) == 2 else F.conv1d
        self._backward = transposed.conv2d_input if len(stride) == 2 else transposed.conv1d_input

    def apply(self, *x: Tensor) -> Tensor:
        return self._forward(x[0], self.weight, None, *self.how)

    def spread(self, *error: Tensor) -> Tensor:
        return self._forward(error[0], self.weight.abs(), None, *self.how)

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        back: Tensor = self._backward((len(a), *self.shape), self.weight, a, *self.how)  # type: ignore[no-untyped-call]
        return (back,)

    def rounding(self, arithmetic: Arithmetic, *size: Tensor) -> Tensor:
        cells = self.weight[0, 0].numel()
        n, m = self.weight.shape[1] * cells, len(self.weight) // self.groups * cells
        return arithmetic.dot(self.spread(*size) + self.bias.abs(), n + 2, m)

    def lipschitz(self, norm: Norm, *inputs: float) -> float:
        flat = self.weight.dim() == 3
        kernel, dilation = (self.weight[:, :, None], (1, *self.dilation)) if flat else (self.weight, self.dilation)
        return inputs[0] * convolution_norm(kernel, norm, self.groups, dilation)

    def reach(self, scale: Tensor, name: Norm) -> Tensor:
        """‖row · diag(scale)‖ of every output channel, from above, for one input of ``shape``."""
        channels = scale.flatten(1).amax(1).view(self.groups, -1)
        rows = channels.repeat_interleave(len(self.weight) // self.groups, 0)
        return norm(self.weight * rows.view(*rows.shape, *self.bias.shape[1:]), name).view(self.bias.shape)


class Scale(Linear):
    """x → a·x + b elementwise: normalisation, batch normalisation in eval mode, a constant added or multiplied.

    ``size`` bounds the intermediate constants: batch normalisation may be executed as (x − m)·(w/s) + b or otherwise.
    """

    def __init__(self, a: Tensor, b: Tensor, size: Tensor, terms: int = 16) -> None:
        self.a, self.bias, self.size, self.terms = a.double(), b.double(), size.double(), terms

    def apply(self, *x: Tensor) -> Tensor:
        return self.a * x[0]

    def spread(self, *error: Tensor) -> Tensor:
        return self.a.abs() * error[0]

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        return (self.a * a,)

    def rounding(self, arithmetic: Arithmetic, *size: Tensor) -> Tensor:
        return arithmetic.dot(self.spread(*size) + self.size, self.terms)

    def lipschitz(self, norm: Norm, *inputs: float) -> float:
        return inputs[0] * float(self.a.abs().max()) * (1 + 1e-12)


class Average(Linear):
    """Average pooling, adaptive or not, and means: a matrix of non-negative numbers, known by its function."""

    def __init__(self, function: Callable[[Tensor], Tensor], shape: tuple[int, ...], terms: int, like: Tensor) -> None:
        self.function, self.shape, self.terms = function, shape, terms
        ones = like.new_ones((1, *shape), dtype=torch.float64)
        row = self.function(ones)
        # ‖A‖∞ is the largest row sum, ‖A‖₁ the largest column sum, and ‖A‖₂² ≤ ‖A‖₁·‖A‖∞ (Schur's test).
        rows, columns = float(row.max()), float(self.transpose(torch.ones_like(row))[0].max())
        self.norms = {"linf": rows, "l1": columns, "l2": math.sqrt(rows * columns)}

    def apply(self, *x: Tensor) -> Tensor:
        return self.function(x[0])

    spread = apply

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            x = a.new_zeros((len(a), *self.shape), requires_grad=True)
            return torch.autograd.grad(self.function(x), x, a)

    def rounding(self, arithmetic: Arithmetic, *size: Tensor) -> Tensor:
        return arithmetic.dot(self.function(size[0]), self.terms + 2, self.terms)

    def lipschitz(self, norm: Norm, *inputs: float) -> float:
        return inputs[0] * self.norms[norm] * (1 + 1e-12)


class Rearrange(Linear):
    """The same numbers, or some of them, in another shape or order: flatten, view, permute, slices."""

    def __init__(self, forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor], Tensor]) -> None:
        self.forward, self.backward = forward, backward

    def apply(self, *x: Tensor) -> Tensor:
        return self.forward(x[0])

    def interval(self, *x: Interval) -> Interval:
        return self.forward(x[0][0]), self.forward(x[0][1])

    spread = apply

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        return (self.backward(a),)

    def rounding(self, arithmetic: Arithmetic, *size: Tensor) -> Tensor:
        return torch.zeros_like(self.forward(size[0]))

    def lipschitz(self, norm: Norm, *inputs: float) -> float:
        return inputs[0]


class Sum(Linear):
    """x, z → a·x + b·z: where branches meet."""

    def __init__(self, *weights: float) -> None:
        self.weights = weights

    def apply(self, *x: Tensor) -> Tensor:
        return self.weights[0] * x[0] + self.weights[1] * x[1]

    def spread(self, *error: Tensor) -> Tensor:
        return abs(self.weights[0]) * error[0] + abs(self.weights[1]) * error[1]

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        return self.weights[0] * a, self.weights[1] * a

    def rounding(self, arithmetic: Arithmetic, *size: Tensor) -> Tensor:
        return arithmetic.dot(self.spread(*size), 3)

    def lipschitz(self, norm: Norm, *inputs: float) -> float:
        return (abs(self.weights[0]) * inputs[0] + abs(self.weights[1]) * inputs[1]) * (1 + 1e-12)
