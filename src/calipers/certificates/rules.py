"""Which operator each torch function is: the table where the next one is added."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from calipers.certificates import activations
from calipers.certificates.graph import Operator
from calipers.certificates.operators import Affine, Average, Convolution, LogSoftmax, Rearrange, Scale, Sum
from calipers.certificates.pooling import MaxPool

__all__ = ["RULES", "WORDS", "Refused", "Symbol"]


class Symbol(NamedTuple):
    """A node as a rule sees it: its number, the shape of one example, and its value while the model was watched."""

    node: int
    shape: tuple[int, ...]
    value: Tensor


class Refused(Exception):
    """A setting of a known function that has no rule."""


Rule = Callable[..., tuple[Operator | None, tuple[int, ...]]]
Made = tuple[Operator | None, tuple[int, ...]]


def _need(good: bool, what: str) -> None:
    if not good:
        raise Refused(what)


def _linear(x: Symbol, weight: Tensor, bias: Tensor | None = None) -> Made:
    _need(not isinstance(weight, Symbol) and not isinstance(bias, Symbol), "weights computed from the input")
    return Affine(weight, bias), (x.node,)


def _matmul(x: Symbol, weight: Tensor) -> Made:
    _need(isinstance(x, Symbol) and isinstance(weight, Tensor) and weight.dim() == 2, "needs input @ constant matrix")
    return Affine(weight.T), (x.node,)


def _addmm(bias: Tensor, x: Symbol, weight: Tensor) -> Made:
    _need(isinstance(bias, Tensor) and bias.dim() == 1, "needs a constant bias of one axis")
    return Affine(weight.T, bias), (x.node,)


def _tuple(value: Any, axes: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    return tuple(int(v) for v in (values * axes if len(values) == 1 else values))


def _convolution(axes: int) -> Rule:
    def rule(
        x: Symbol, weight: Tensor, bias: Tensor | None = None,
        stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    ) -> Made:  # fmt: skip
        _need(isinstance(weight, Tensor), "weights computed from the input")
        stretch, kernel = _tuple(dilation, axes), weight.shape[2:]
        if padding == "same":
            whole = [d * (k - 1) for d, k in zip(stretch, kernel, strict=True)]
            _need(all(w % 2 == 0 for w in whole), "padding 'same' with an even kernel")
            padding = [w // 2 for w in whole]
        pad = (0,) * axes if padding == "valid" else _tuple(padding, axes)
        return Convolution(weight, bias, x.shape, _tuple(stride, axes), pad, stretch, groups), (x.node,)

    return rule


def _batch_norm(
    x: Symbol, mean: Tensor | None, var: Tensor | None, weight: Tensor | None = None, bias: Tensor | None = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Made:  # fmt: skip
    if mean is None or var is None or training:
        raise Refused("batch normalisation that uses the batch's own statistics")
    deviation = (var.double() + eps).sqrt()
    gain = torch.ones_like(deviation) if weight is None else weight.detach().double()
    shift = torch.zeros_like(deviation) if bias is None else bias.detach().double()
    a, m = gain / deviation, mean.double()
    columns = (-1, *[1] * (len(x.shape) - 1))
    size = (a * m).abs() + shift.abs()
    return Scale(a.view(columns), (shift - a * m).view(columns), size.view(columns)), (x.node,)


def _example(value: Any, x: Symbol) -> Tensor:
    """A constant as it meets one example of x: numbers, or a tensor that broadcasts over the batch."""
    c = torch.as_tensor(value, dtype=torch.float64, device=x.value.device).detach()
    if c.dim() == len(x.shape) + 1:
        _need(c.shape[0] == 1, "a constant with a batch axis")
        c = c[0]
    _need(torch.broadcast_shapes(c.shape, x.shape) == x.shape, "a constant that enlarges its input")
    return c


def _sum(sign: float) -> Rule:
    def rule(x: Any, other: Any, *, alpha: float = 1) -> Made:
        if isinstance(x, Symbol) and isinstance(other, Symbol):
            _need(x.shape == other.shape, "a sum of different shapes")
            return Sum(1.0, sign * alpha), (x.node, other.node)
        own, constant, a, b = (x, other, 1.0, sign * alpha) if isinstance(x, Symbol) else (other, x, sign * alpha, 1.0)
        shift = b * _example(constant, own)
        return Scale(torch.full_like(shift, a), shift, shift.abs(), 4), (own.node,)

    return rule


def _reversed_difference(x: Symbol, other: Any) -> Made:
    """``other - x``, which reaches us as x.__rsub__(other)."""
    return _sum(-1.0)(other, x)


def _product(x: Any, other: Any) -> Made:
    own, constant = (x, other) if isinstance(x, Symbol) else (other, x)
    _need(not isinstance(constant, Symbol), "a product of two values that depend on the input")
    a = _example(constant, own)
    return Scale(a, torch.zeros_like(a), torch.zeros_like(a), 4), (own.node,)


def _quotient(x: Symbol, other: Any, *, rounding_mode: str | None = None) -> Made:
    _need(isinstance(x, Symbol) and not isinstance(other, Symbol) and rounding_mode is None, "division by the input")
    a = 1 / _example(other, x)
    return Scale(a, torch.zeros_like(a), torch.zeros_like(a), 4), (x.node,)


def _negative(x: Symbol) -> Made:
    return _product(x, -1.0)


def _nothing(x: Symbol, *rest: Any, **more: Any) -> Made:
    """The identity: clone, contiguous, detach, dropout in eval mode."""
    return None, (x.node,)


def _dropout(x: Symbol, p: float = 0.5, training: bool = True, inplace: bool = False) -> Made:
    _need(not training, "dropout that is left on")
    return None, (x.node,)


def _reshape(function: Callable[..., Tensor]) -> Rule:
    def rule(x: Symbol, *how: Any, **more: Any) -> Made:
        shape = tuple(function(x.value, *how, **more).shape[1:])
        return Rearrange(lambda v: v.reshape(len(v), *shape), lambda a: a.reshape(len(a), *x.shape)), (x.node,)

    return rule


def _taken(function: Callable[..., Tensor]) -> Rule:
    """Some coordinates, each at most once, in any order."""

    def rule(x: Symbol, *how: Any, **more: Any) -> Made:
        # Where the number of each coordinate goes says how to come back; what was left out comes back as 0.
        count = math.prod(x.shape)
        moved = function(torch.arange(2 * count, device=x.value.device).view(2, *x.shape), *how, **more)
        order, shape = moved[0].flatten(), tuple(moved.shape[1:])
        _need(bool((moved[1] == moved[0] + count).all()), "examples that change places")
        _need(len(order.unique()) == len(order), "a coordinate that is taken twice")
        return Rearrange(
            lambda v: v.flatten(1)[:, order].view(len(v), *shape),
            lambda a: a.new_zeros(len(a), count).index_copy(1, order, a.flatten(1)).view(len(a), *x.shape),
        ), (x.node,)

    return rule


def _getitem(x: Symbol, where: Any) -> Made:
    parts = where if isinstance(where, tuple) else (where,)
    _need(isinstance(parts[0], slice) or parts[0] is Ellipsis, "examples that change places")
    return _taken(Tensor.__getitem__)(x, parts)


def _average(axes: int) -> Rule:
    pool: Callable[..., Tensor] = F.avg_pool2d if axes == 2 else F.avg_pool1d

    def rule(
        x: Symbol, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> Made:  # fmt: skip
        _need(divisor_override is None, "divisor_override")
        kernel = _tuple(kernel_size, axes)
        how = (kernel, stride or kernel, padding, ceil_mode, count_include_pad)
        return Average(lambda v: pool(v, *how), x.shape, math.prod(kernel), x.value), (x.node,)

    return rule


def _adaptive(function: Callable[..., Tensor]) -> Rule:
    def rule(x: Symbol, output_size: Any) -> Made:
        # A cell has at most every coordinate of its channel.
        return Average(lambda v: function(v, output_size), x.shape, math.prod(x.shape[1:]), x.value), (x.node,)

    return rule


def _mean(x: Symbol, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Made:
    _need(dim is not None and dtype is None, "a mean over everything")
    axes = [d % (len(x.shape) + 1) for d in _tuple(dim, 1)]
    _need(0 not in axes, "a mean over the batch")
    terms = math.prod(x.shape[d - 1] for d in axes)
    return Average(lambda v: v.mean(axes, keepdim), x.shape, terms, x.value), (x.node,)


def _max_pool(axes: int) -> Rule:
    pool: Callable[..., Tensor] = F.max_pool2d if axes == 2 else F.max_pool1d

    def rule(
        x: Symbol, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        ceil_mode: bool = False, return_indices: bool = False,
    ) -> Made:  # fmt: skip
        _need(not return_indices and len(x.shape) == axes + 1, "indices, or an input without channels")
        kernel = _tuple(kernel_size, axes)
        how = (_tuple(stride or kernel, axes), _tuple(padding, axes), _tuple(dilation, axes))
        out = tuple(pool(x.value, kernel, *how, ceil_mode).shape[2:])
        windows = _windows(x.shape, out, kernel, *how).to(x.value.device)
        return MaxPool(lambda v: pool(v, kernel, *how, ceil_mode), windows), (x.node,)

    return rule


def _windows(
    shape: tuple[int, ...], out: tuple[int, ...],
    kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...],
) -> Tensor:  # fmt: skip
    """The flat indices of every window: (channels · outputs, cells), −1 for padding."""
    flat, inside = torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.bool)
    for side, outs, k, s, p, d in zip(shape[1:], out, kernel, stride, padding, dilation, strict=True):
        at = (torch.arange(outs) * s - p)[:, None] + torch.arange(k) * d
        good = (at >= 0) & (at < side)
        flat = (flat[:, None, :, None] * side + at[None, :, None, :]).flatten(2).flatten(0, 1)
        inside = (inside[:, None, :, None] & good[None, :, None, :]).flatten(2).flatten(0, 1)
    channels = torch.arange(shape[0])[:, None, None] * math.prod(shape[1:])
    return torch.where(inside, channels + flat, -1).flatten(0, 1)


def _pointwise(op: activations.Activation) -> Rule:
    def rule(x: Symbol, inplace: bool = False) -> Made:
        return op, (x.node,)

    return rule


def _leaky_relu(x: Symbol, negative_slope: float = 0.01, inplace: bool = False) -> Made:
    _need(0 <= negative_slope <= 1, f"negative_slope={negative_slope} outside [0, 1]")
    return activations.leaky_relu(negative_slope), (x.node,)


def _gelu(x: Symbol, approximate: str = "none") -> Made:
    return activations.gelu if approximate == "none" else activations.gelu_tanh, (x.node,)


def _softplus(x: Symbol, beta: float = 1, threshold: float = 20) -> Made:
    _need(beta > 0 and threshold >= 10, f"beta={beta}, threshold={threshold}")
    return activations.softplus(float(beta), float(threshold)), (x.node,)


def _clamp_min(x: Symbol, min: float | None = None, max: float | None = None) -> Made:
    _need(min == 0 and max is None, "limits other than max(x, 0)")
    return activations.leaky_relu(), (x.node,)


def _log_softmax(x: Symbol, dim: int | None = None, *more: Any, **options: Any) -> Made:
    _need(len(x.shape) == 1 and dim in (1, -1) and options.get("dtype") is None, "needs logits (N, K) and dim=1")
    return LogSoftmax(), (x.node,)  # type: ignore[return-value]


RULES: dict[str, Rule] = {
    "linear": _linear, "matmul": _matmul, "addmm": _addmm,
    "conv1d": _convolution(1), "conv2d": _convolution(2), "batch_norm": _batch_norm,
    "add": _sum(1.0), "sub": _sum(-1.0), "rsub": _reversed_difference,
    "mul": _product, "div": _quotient, "neg": _negative,
    "flatten": _reshape(Tensor.flatten), "view": _reshape(Tensor.reshape), "reshape": _reshape(Tensor.reshape),
    "squeeze": _reshape(Tensor.squeeze), "unsqueeze": _reshape(Tensor.unsqueeze),
    "unflatten": _reshape(Tensor.unflatten),
    "permute": _taken(Tensor.permute), "transpose": _taken(Tensor.transpose), "getitem": _getitem,
    "select": _taken(Tensor.select), "narrow": _taken(Tensor.narrow), "flip": _taken(Tensor.flip),
    "avg_pool1d": _average(1), "avg_pool2d": _average(2), "mean": _mean,
    "adaptive_avg_pool1d": _adaptive(F.adaptive_avg_pool1d), "adaptive_avg_pool2d": _adaptive(F.adaptive_avg_pool2d),
    "max_pool1d": _max_pool(1), "max_pool2d": _max_pool(2),
    "relu": _pointwise(activations.leaky_relu()), "tanh": _pointwise(activations.tanh),
    "sigmoid": _pointwise(activations.sigmoid), "silu": _pointwise(activations.silu),
    "leaky_relu": _leaky_relu, "gelu": _gelu, "softplus": _softplus, "clamp": _clamp_min, "clamp_min": _clamp_min,
    "log_softmax": _log_softmax,
    "dropout": _dropout, "dropout1d": _dropout, "dropout2d": _dropout, "feature_dropout": _dropout,
    "alpha_dropout": _dropout, "clone": _nothing, "contiguous": _nothing, "detach": _nothing, "to": _nothing,
}  # fmt: skip

# What else a function may be called: operators, in-place forms, other names of the same.
WORDS: dict[str, str] = {
    form.format(name): known
    for known, names, forms in (
        ("add", ("add",), ("__{}__", "__r{}__", "__i{}__", "{}_")),
        ("sub", ("sub", "subtract"), ("__{}__", "__i{}__", "{}_", "{}")),
        ("rsub", ("rsub",), ("__{}__",)),
        ("mul", ("mul", "multiply"), ("__{}__", "__r{}__", "__i{}__", "{}_", "{}")),
        ("div", ("truediv", "div", "divide", "true_divide"), ("__{}__", "__i{}__", "{}_", "{}")),
        ("matmul", ("__matmul__", "mm"), ("{}",)),
        ("neg", ("__neg__", "negative", "neg_"), ("{}",)),
        ("to", ("float", "double"), ("{}",)),
        ("getitem", ("getitem",), ("__{}__",)),
        ("max_pool1d", ("_max_pool1d",), ("{}",)),
        ("max_pool2d", ("_max_pool2d",), ("{}",)),
        ("transpose", ("swapaxes", "transpose_"), ("{}",)),
        *(
            (name, (name,), ("{}_",))
            for name in ("relu", "tanh", "sigmoid", "silu", "leaky_relu", "clamp", "clamp_min")
        ),
    )
    for name in names
    for form in forms
}
