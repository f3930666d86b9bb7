"""How steep an activation can be: anywhere, and over an interval."""

from __future__ import annotations

import torch
from torch import Tensor

from calipers.certificates.activations import Activation
from calipers.certificates.graph import Interval

__all__ = ["slope_range", "slopes_over"]

# What the arithmetic of a derivative loses, and softplus' switch to the identity, by a wide margin.
_SLACK = 1e-8


def slope_range(activation: Activation) -> tuple[float, float]:
    """Numbers between which every slope of the activation lies.

    Example:
        >>> from calipers.certificates.activations import leaky_relu, tanh
        >>> slope_range(leaky_relu(0.1)), slope_range(tanh)
        ((0.1, 1.0), (0.0, 1.0))
    """
    if activation.kink is not None:
        return activation.kink, 1.0
    return (0.0 if activation.valley is None else -activation.slope), activation.slope


def slopes_over(activation: Activation, ends: Interval) -> Interval:
    r"""Bounds of f′ over lo ≤ t ≤ hi, elementwise; [kink, 1] wherever the interval touches a kink at 0.

    tanh′ and sigmoid′ fall with \|t\|, softplus′ rises with t; of any other smooth f, f′ differs from its value in the
    middle by at most half the width times the largest \|f″\| there.

    Example:
        >>> from calipers.certificates.activations import leaky_relu
        >>> lo, hi = torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([-0.5, 2.0, 3.0])
        >>> slopes_over(leaky_relu(), (lo, hi))
        (tensor([0., 0., 1.]), tensor([0., 1., 1.]))
    """
    lo, hi = ends
    if activation.kink is not None:
        flat = torch.full_like(lo, activation.kink)
        return torch.where(lo > 0, 1.0, flat), torch.where(hi < 0, flat, 1.0)
    nearest = torch.where((lo <= 0) & (hi >= 0), 0.0, torch.minimum(lo.abs(), hi.abs()))
    if activation.name in ("tanh", "sigmoid"):
        least, most = _slope(activation, torch.maximum(lo.abs(), hi.abs())), _slope(activation, nearest)
    elif activation.name == "softplus":
        least, most = _slope(activation, lo), _slope(activation, hi)
    else:
        assert activation.curvature is not None
        middle, reach = _slope(activation, (lo + hi) / 2), (hi - lo) / 2 * activation.curvature(nearest)
        least, most = middle - reach, middle + reach
    bottom, top = slope_range(activation)
    return (least - _SLACK).clamp(bottom, top), (most + _SLACK).clamp(bottom, top)


def _slope(activation: Activation, t: Tensor) -> Tensor:
    with torch.enable_grad():
        t = t.detach().requires_grad_()
        return torch.autograd.grad(activation.function(t).sum(), t)[0]
