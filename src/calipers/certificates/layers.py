r"""A network taken apart into layers that know their intervals, their rounding errors and their Lipschitz constants.

All numbers are float64. Rounding is part of every bound: a dot product of n terms executed in floating point, in any
order, differs from the real one by at most γ_n·Σ|w_i x_i| with γ_n = n·u / (1 − n·u), u the unit roundoff ("Accuracy
and Stability of Numerical Algorithms", Higham 2002, Section 3.1). Convolutions must be summed plainly: no Winograd or
Fourier transforms, no TF32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calipers.certificates.certificate import UnknownOperator
from calipers.certificates.operator_norms import convolution_norm, matrix_norm
from calipers.models import Classifier
from calipers.models.layers import Normalize
from calipers.threats import Norm, norm

__all__ = ["ASSUMES", "Affine", "Layer", "Pointwise", "Pool", "Reshape", "Scale", "read", "rounding_of", "unit_of"]

ASSUMES = "plain summation in any order: no Winograd or Fourier convolutions, no TF32"


class Layer(Protocol):
    """What every certificate needs to know of one layer, for inputs (N, ...)."""

    def __call__(self, x: Tensor) -> Tensor:
        """The layer in real arithmetic (float64)."""

    def interval(self, lo: Tensor, hi: Tensor) -> tuple[Tensor, Tensor]:
        """Elementwise bounds of the layer in real arithmetic over lo ≤ x ≤ hi."""

    def rounding(self, size: Tensor, unit: float) -> Tensor:
        """How far execution with this unit roundoff can be from real arithmetic where |x| ≤ size."""

    def spread(self, error: Tensor) -> Tensor:
        """How far the output can move when the input moves by at most ``error``, elementwise."""

    def lipschitz(self, name: Norm) -> float:
        """A true upper bound of ‖layer(x) − layer(z)‖_p / ‖x − z‖_p."""


def unit_of(dtype: torch.dtype) -> float:
    """The unit roundoff of an execution, enlarged by what our own float64 arithmetic adds."""
    return float(torch.finfo(dtype).eps) / 2 + 4 * 2.0**-53


def _gamma(terms: int, unit: float) -> float:
    return terms * unit / (1 - terms * unit)


class Affine:
    """A matrix or a convolution: x → Wx + b."""

    def __init__(self, weight: Tensor, bias: Tensor | None, conv: nn.Conv2d | None = None) -> None:
        self.weight, self.conv = weight.detach().double(), conv
        self.bias = self.weight.new_zeros(len(self.weight)) if bias is None else bias.detach().double()
        self.terms = self.weight[0].numel() + 2

    def apply(self, weight: Tensor, x: Tensor) -> Tensor:
        """The linear part with other entries of the same shape."""
        if self.conv is None:
            return x @ weight.T
        c = self.conv
        return F.conv2d(x, weight, None, c.stride, c.padding, c.dilation, c.groups)

    def _columns(self, vector: Tensor) -> Tensor:
        return vector if self.conv is None else vector[:, None, None]

    def __call__(self, x: Tensor) -> Tensor:
        return self.apply(self.weight, x) + self._columns(self.bias)

    def interval(self, lo: Tensor, hi: Tensor) -> tuple[Tensor, Tensor]:
        middle, half = self((lo + hi) / 2), self.spread((hi - lo) / 2)
        return middle - half, middle + half

    def rounding(self, size: Tensor, unit: float) -> Tensor:
        return _gamma(self.terms, unit) * (self.spread(size) + self._columns(self.bias.abs()))

    def spread(self, error: Tensor) -> Tensor:
        return self.apply(self.weight.abs(), error)

    def lipschitz(self, name: Norm) -> float:
        if self.conv is None:
            return matrix_norm(self.weight, name)
        return convolution_norm(self.weight, name, self.conv.groups, self.conv.dilation)

    def reach(self, scale: Tensor, name: Norm) -> Tensor:
        """‖row · diag(scale)‖ of every output in the given norm; of every channel, from above, for a convolution."""
        if self.conv is None:
            return norm(self.weight * scale.flatten(), name)
        channels = scale.flatten(1).amax(1).view(self.conv.groups, -1)
        per_output = channels.repeat_interleave(len(self.weight) // self.conv.groups, 0)
        return norm(self.weight * per_output[:, :, None, None], name)[:, None, None]


class Scale:
    """x → a·x + b elementwise: normalisation, batch normalisation in eval mode."""

    def __init__(self, a: Tensor, b: Tensor, size: Tensor) -> None:
        self.a, self.b, self.size = a.double(), b.double(), size.double()

    def __call__(self, x: Tensor) -> Tensor:
        return _trailing(self.a, x) * x + _trailing(self.b, x)

    def interval(self, lo: Tensor, hi: Tensor) -> tuple[Tensor, Tensor]:
        ends = self(lo), self(hi)
        return torch.minimum(*ends), torch.maximum(*ends)

    def rounding(self, size: Tensor, unit: float) -> Tensor:
        # (x − m)/s·w + b in whatever order: under 16 roundings of terms no larger than |a|·|x| + |a·m| + |b|.
        return _gamma(16, unit) * (self.spread(size) + _trailing(self.size, size))

    def spread(self, error: Tensor) -> Tensor:
        return _trailing(self.a.abs(), error) * error

    def lipschitz(self, name: Norm) -> float:
        return float(self.a.abs().max()) * (1 + 1e-12)


def _trailing(value: Tensor, x: Tensor) -> Tensor:
    """One number a channel, shaped to broadcast against a batch."""
    return value.reshape(value.shape + (1,) * (x.dim() - 1 - value.dim()))


class Pointwise:
    """A monotone activation; ``slope`` is its largest slope, ``ulps`` its relative and absolute error in roundings."""

    def __init__(self, function: nn.Module, slope: float, ulps: int) -> None:
        self.function, self.slope, self.ulps = function, slope, ulps

    def __call__(self, x: Tensor) -> Tensor:
        value: Tensor = self.function(x)
        return value

    def interval(self, lo: Tensor, hi: Tensor) -> tuple[Tensor, Tensor]:
        return self(lo), self(hi)

    def rounding(self, size: Tensor, unit: float) -> Tensor:
        # A saturating function's value is at most 1; a piecewise linear one's at most its input.
        return self.ulps * unit * (size.clamp_max(1.0) + 1.0 if self.ulps > 1 else size)

    def spread(self, error: Tensor) -> Tensor:
        return self.slope * error

    def lipschitz(self, name: Norm) -> float:
        return self.slope


class Pool:
    """Max or average pooling."""

    def __init__(self, function: nn.MaxPool2d | nn.AvgPool2d) -> None:
        self.function, self.average = function, isinstance(function, nn.AvgPool2d)
        kernel, stride = _pair(function.kernel_size), _pair(function.stride)
        self.cells = kernel[0] * kernel[1]
        self.overlap = math.ceil(kernel[0] / stride[0]) * math.ceil(kernel[1] / stride[1])

    def __call__(self, x: Tensor) -> Tensor:
        value: Tensor = self.function(x)
        return value

    def interval(self, lo: Tensor, hi: Tensor) -> tuple[Tensor, Tensor]:
        return self(lo), self(hi)

    def rounding(self, size: Tensor, unit: float) -> Tensor:
        return (_gamma(self.cells + 2, unit) if self.average else 0.0) * self(size)

    def spread(self, error: Tensor) -> Tensor:
        return self(error)

    def lipschitz(self, name: Norm) -> float:
        # ‖A‖₁ is the largest column sum and ‖A‖∞ the largest row sum; ‖A‖₂² ≤ ‖A‖₁·‖A‖∞ (Schur's test).
        column = self.overlap / self.cells if self.average else float(self.overlap)
        return {"linf": 1.0, "l1": column, "l2": math.sqrt(column)}[name]


class Reshape:
    """Flatten: the same numbers in another shape."""

    def __init__(self, function: nn.Flatten) -> None:
        self.function = function

    def __call__(self, x: Tensor) -> Tensor:
        value: Tensor = self.function(x)
        return value

    def interval(self, lo: Tensor, hi: Tensor) -> tuple[Tensor, Tensor]:
        return self(lo), self(hi)

    def rounding(self, size: Tensor, unit: float) -> Tensor:
        return torch.zeros_like(self(size))

    def spread(self, error: Tensor) -> Tensor:
        return self(error)

    def lipschitz(self, name: Norm) -> float:
        return 1.0


def _pair(value: object) -> tuple[int, int]:
    return (value[0], value[1]) if isinstance(value, tuple) else (int(str(value)), int(str(value)))


def _normalize(part: Normalize) -> Scale:
    mean, std = part.mean.detach().double(), part.std.detach().double()
    return Scale(1 / std, -mean / std, (mean / std).abs())


def _batch_norm(part: nn.BatchNorm1d | nn.BatchNorm2d) -> Scale:
    if part.running_mean is None or part.running_var is None:
        raise UnknownOperator("certificate", got="batch normalisation without running statistics")
    mean, deviation = part.running_mean.double(), (part.running_var.double() + part.eps).sqrt()
    gain = torch.ones_like(mean) if part.weight is None else part.weight.detach().double()
    shift = torch.zeros_like(mean) if part.bias is None else part.bias.detach().double()
    a = gain / deviation
    return Scale(a, shift - a * mean, (a * mean).abs() + shift.abs())


def _affine(part: nn.Linear) -> Layer:
    return Affine(part.weight, part.bias)


def _convolution(part: nn.Conv2d) -> Layer:
    plain = part.padding_mode == "zeros" and not isinstance(part.padding, str)
    return Affine(part.weight, part.bias, part) if plain else _refuse(part)


def _nothing(part: nn.Module) -> None:
    """Dropout and the like: the identity in eval mode."""


def _flatten(part: nn.Flatten) -> Layer:
    return Reshape(part) if (part.start_dim, part.end_dim) == (1, -1) else _refuse(part)


def _leaky(part: nn.LeakyReLU) -> Layer:
    slope = part.negative_slope
    return Pointwise(nn.LeakyReLU(slope), 1.0, 1) if 0 <= slope <= 1 else _refuse(part)


def _pool(part: nn.MaxPool2d | nn.AvgPool2d) -> Layer:
    odd = part.ceil_mode or getattr(part, "return_indices", False) or getattr(part, "divisor_override", None)
    plain = not odd and _pair(part.padding) == (0, 0) and _pair(getattr(part, "dilation", 1)) == (1, 1)
    return Pool(part) if plain else _refuse(part)


# The rule of every module type, exactly that type: this is where the next operator is added.
_RULES: dict[type[nn.Module], Callable[[Any], Layer | None]] = {
    nn.Linear: _affine,
    nn.Conv2d: _convolution,
    nn.Identity: _nothing,
    nn.Dropout: _nothing,
    nn.Dropout2d: _nothing,
    nn.Flatten: _flatten,
    nn.ReLU: lambda part: Pointwise(nn.ReLU(), 1.0, 0),
    nn.LeakyReLU: _leaky,
    nn.Tanh: lambda part: Pointwise(nn.Tanh(), 1.0, 8),
    nn.Sigmoid: lambda part: Pointwise(nn.Sigmoid(), 0.25, 8),
    nn.MaxPool2d: _pool,
    nn.AvgPool2d: _pool,
    Normalize: _normalize,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
}


def _refuse(part: nn.Module) -> Layer:
    # The repr of a module with children spreads over many lines; its class says enough.
    got = type(part).__name__ if next(part.children(), None) is not None else repr(part)
    raise UnknownOperator(
        "certificate", expected="layers it has a rule for", got=got,
        hint="use an nn.Sequential of Linear, Conv2d, ReLU, pooling and the like",
    )  # fmt: skip


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    # A subclass may compute something else in forward, and a hook may change anything.
    if module._forward_hooks or module._forward_pre_hooks:
        _refuse(module)
    if type(module) is nn.Sequential:
        for part in module:
            yield from _parts(part)
    else:
        yield module


def read(model: Classifier) -> list[Layer]:
    """The layers of an ``nn.Sequential`` (nested ones too), in eval mode.

    Raises:
        UnknownOperator: for any module without a rule, by name; subclasses with a forward of their own and modules
            with hooks are among them.
    """
    layers = (_RULES.get(type(part), _refuse)(part) for part in _parts(model.module))
    return [layer for layer in layers if layer is not None]


def rounding_of(layers: list[Layer], lo: Tensor, hi: Tensor, unit: float) -> Tensor:
    """How far the executed logits can be from real arithmetic, for inputs in lo ≤ x ≤ hi: shape (N, K)."""
    error = torch.zeros_like(lo)
    for layer in layers:
        size = torch.maximum(lo.abs(), hi.abs()) + error
        error = layer.spread(error) + layer.rounding(size, unit)
        lo, hi = layer.interval(lo, hi)
    return error
