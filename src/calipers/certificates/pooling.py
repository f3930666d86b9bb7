"""Max pooling: the largest of every window."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from calipers.certificates.arithmetic import OURS, Arithmetic
from calipers.certificates.graph import Interval
from calipers.threats import Norm

__all__ = ["MaxPool"]


class MaxPool:
    r"""The largest of each window of coordinates.

    Arguments:
        function: the pooling, (N, \*shape) → (N, \*shape out).
        windows: int64, one row for each output of one example, in order; the flat indices of the coordinates in its
            window, −1 where there is padding.
    """

    linear = False

    def __init__(self, function: Callable[[Tensor], Tensor], windows: Tensor) -> None:
        self.function, self.windows = function, windows
        self.overlap = int(torch.bincount(windows[windows >= 0]).max())

    def __call__(self, *x: Tensor) -> Tensor:
        return self.function(x[0])

    def interval(self, *x: Interval) -> Interval:
        return self.function(x[0][0]), self.function(x[0][1])

    def rounding(self, arithmetic: Arithmetic, *size: Tensor) -> Tensor:
        return 16 * OURS * self.function(size[0])

    def spread(self, *error: Tensor) -> Tensor:
        return self.function(error[0])

    def lipschitz(self, norm: Norm, *inputs: float) -> float:
        # A coordinate can be the largest of every window it is in, and of no more.
        return inputs[0] * {"linf": 1.0, "l1": float(self.overlap), "l2": math.sqrt(self.overlap)}[norm] * (1 + 1e-12)
