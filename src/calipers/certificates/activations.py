"""Activations: what is known of each function of one variable, for values, intervals, rounding and straight lines."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from calipers.certificates.arithmetic import OURS, Arithmetic
from calipers.certificates.graph import Interval
from calipers.threats import Norm

__all__ = ["Activation", "gelu", "gelu_tanh", "leaky_relu", "sigmoid", "silu", "softplus", "tanh"]


@dataclass(frozen=True, eq=False)
class Activation:
    r"""A function applied to every coordinate.

    Arguments:
        name: what it is called.
        function: f itself.
        slope: the largest \|f′\|.
        slack, base: the error of an execution is at most ``slack``·unit·(``base`` + \|x\|), besides ``jump``.
        curvature: for smooth f, a bound of \|f″\| on {t : \|t\| ≥ s} that does not rise with s.
        kink: for f piecewise linear with its kink at 0, the slope left of it; None for smooth f.
        valley: where f, falling before and rising after, is least, and a number below that least value; None for
            functions that only rise.
        jump: how far f as torch computes it is from the formula (softplus switches to x where x is large).
    """

    name: str
    function: Callable[[Tensor], Tensor]
    slope: float = 1.0
    slack: int = 8
    curvature: Callable[[Tensor], Tensor] | None = None
    kink: float | None = None
    valley: tuple[float, float] | None = None
    jump: float = 0.0
    base: float = 1.0

    linear = False

    def __call__(self, *x: Tensor) -> Tensor:
        return self.function(x[0])

    def interval(self, *x: Interval) -> Interval:
        lo, hi = x[0]
        at_lo, at_hi = self.function(lo), self.function(hi)
        if self.valley is None:
            return at_lo, at_hi
        where, least = self.valley
        inside = (lo < where + 1e-3) & (where - 1e-3 < hi)
        return torch.where(inside, least, torch.minimum(at_lo, at_hi)), torch.maximum(at_lo, at_hi)

    def rounding(self, arithmetic: Arithmetic, *size: Tensor) -> Tensor:
        if self.kink is not None:
            # The sign is read off; the slope is rounded to the format, and so is one product.
            executed = 3 * arithmetic.unit * self.kink if self.kink not in (0.0, 1.0) else 0.0
            return (executed + 16 * OURS) * size[0] + arithmetic.tiny
        return (self.slack * arithmetic.unit + 16 * OURS) * (self.base + size[0]) + self.jump

    def spread(self, *error: Tensor) -> Tensor:
        return self.slope * error[0]

    def lipschitz(self, norm: Norm, *inputs: float) -> float:
        return inputs[0] * self.slope * (1 + 1e-12)


def leaky_relu(slope: float = 0.0) -> Activation:
    """max(x, slope·x), for 0 ≤ slope ≤ 1; ReLU where the slope is 0."""
    return Activation("relu" if slope == 0 else "leaky_relu", lambda t: F.leaky_relu(t, slope), kink=slope)


def _tanh_curvature(s: Tensor) -> Tensor:
    # |tanh″| = 2 tanh sech² peaks at 0.6585 with 4/(3√3).
    return torch.where(s < 0.66, 4 / (3 * math.sqrt(3)), 2 * torch.tanh(s) / torch.cosh(s).square())


def _gelu_curvature(s: Tensor) -> Tensor:
    # |φ(t)(2 − t²)| ≤ φ(s)(2 + s²), whose derivative is −s³φ(s).
    return torch.exp(-s.square() / 2) / math.sqrt(2 * math.pi) * (2 + s.square())


def _silu_curvature(s: Tensor) -> Tensor:
    # |σ′(t)(2 − t·tanh(t/2))| ≤ σ′(s)(2 + s·tanh(s/2)), which falls because sinh·cosh(s/2) ≥ s/2.
    return (2 + s * torch.tanh(s / 2)) / (4 * torch.cosh(s / 2).square())


def _gelu_tanh_curvature(s: Tensor) -> Tensor:
    # f″ = sech²u·(u′ + t·u″/2 − t·u′²·tanh u); the constant is its largest value anywhere, from above.
    k, a = math.sqrt(2 / math.pi), 0.044715
    u, du = k * (s + a * s**3), k * (1 + 3 * a * s.square())
    tail = (du + 3 * k * a * s.square() + s * du.square()) / torch.cosh(u.clamp_max(300)).square()
    return torch.where(s < 1.0, 0.8, tail.clamp_max(0.8))


tanh = Activation("tanh", torch.tanh, curvature=_tanh_curvature)
sigmoid = Activation("sigmoid", torch.sigmoid, slope=0.25, curvature=lambda s: _tanh_curvature(s / 2) / 8)
gelu = Activation("gelu", F.gelu, slope=1.13, slack=16, curvature=_gelu_curvature, valley=(-0.7517915, -0.1699713))
gelu_tanh = Activation(
    "gelu (tanh)", lambda t: F.gelu(t, approximate="tanh"), slope=1.13, slack=32, curvature=_gelu_tanh_curvature,
    valley=(-0.7524614, -0.1700408),
)  # fmt: skip
silu = Activation("silu", F.silu, slope=1.1, slack=16, curvature=_silu_curvature, valley=(-1.2784645, -0.2784646))


def softplus(beta: float, threshold: float) -> Activation:
    """log(1 + exp(βx)) / β, and x itself where βx > threshold, as torch has it."""
    return Activation(
        "softplus", lambda t: F.softplus(t, beta, threshold), slack=16, base=max(1.0, 1 / beta),
        jump=math.log1p(math.exp(-threshold)) / beta,
        curvature=lambda s: beta / 4 / torch.cosh((beta * s / 2).clamp_max(300)).square(),
    )  # fmt: skip
