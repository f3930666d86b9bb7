"""The input box: the values an input may take at all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import torch
from torch import Tensor

from calipers.errors import BadInput

__all__ = ["Box"]


@dataclass(frozen=True, eq=False)
class Box:
    r"""{x : lo ≤ x ≤ hi}, elementwise; a side may be infinite.

    Arguments:
        lo, hi: numbers, or tensors of an example's shape, in the units of ``x``.

    Example:
        >>> Box(0, 1), str(Box(0, 1))
        (Box(0.0, 1.0), '[0, 1]')
        >>> Box(0, 1).clamp(torch.tensor([-0.5, 0.5, 2.0]))
        tensor([0.0000, 0.5000, 1.0000])
    """

    lo: float | Tensor = 0.0
    hi: float | Tensor = 1.0

    def __post_init__(self) -> None:
        lo, hi = self._exact
        if torch.isnan(lo).any() or torch.isnan(hi).any() or not bool((lo < hi).all()):
            raise BadInput("input box", expected="lo < hi everywhere", got=f"lo={self.lo}, hi={self.hi}")

    def __repr__(self) -> str:
        def show(side: float | Tensor) -> str:
            if isinstance(side, Tensor) and side.dim():
                return f"[{side.min().item():g}…{side.max().item():g}, {tuple(side.shape)}]"
            return str(float(side))

        return f"Box({show(self.lo)}, {show(self.hi)})"

    def __str__(self) -> str:
        lo, hi = self._exact
        widest = f"[{lo.min().item():.9g}, {hi.max().item():.9g}]"
        return widest if lo.numel() == hi.numel() == 1 else f"a box within {widest}"

    def sides(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """``lo`` and ``hi`` as tensors of the dtype and device of ``like``, broadcastable to a batch."""
        return (
            torch.as_tensor(self.lo, dtype=like.dtype, device=like.device),
            torch.as_tensor(self.hi, dtype=like.dtype, device=like.device),
        )

    def clamp(self, x: Tensor) -> Tensor:
        """The point of the box nearest to ``x``."""
        if isinstance(self.lo, Tensor) or isinstance(self.hi, Tensor):
            return x.clamp(*self.sides(x))
        return x.clamp(self.lo, self.hi)

    def same(self, other: Box) -> bool:
        """Whether the other box has the same sides."""
        own, theirs = ([side.tolist() for side in box._exact] for box in (self, other))
        return own == theirs

    def contains(self, x: Tensor) -> Tensor:
        r"""Whether each example lies in the box: x (N, \*shape) → bool (N,)."""
        lo, hi = self.sides(x)
        return ((x >= lo) & (x <= hi)).flatten(1).all(1)

    @cached_property
    def width(self) -> float:
        """The longest side, from above; ∞ if a side is infinite."""
        lo, hi = self._exact
        width = hi - lo
        # Where the difference is no float64, one step up is larger.
        exact = (lo + width == hi) & (hi - width == lo)
        return float(torch.where(exact, width, torch.nextafter(width, width.new_tensor(torch.inf))).max())

    @property
    def _exact(self) -> tuple[Tensor, Tensor]:
        """The sides in float64."""
        return torch.as_tensor(self.lo, dtype=torch.float64), torch.as_tensor(self.hi, dtype=torch.float64)

    def scale(self, x: Tensor) -> Tensor:
        r"""A length typical of each input, shape (N,): the width, or 2·max|x_n| + 1 where the box is infinite.

        Example:
            >>> Box(0, 1).scale(torch.zeros(2, 3)), Box(-math.inf, math.inf).scale(torch.tensor([[4.0], [0.5]]))
            (tensor([1., 1.]), tensor([9., 2.]))
        """
        if self.bounded:
            return torch.full((len(x),), self.width, dtype=x.dtype, device=x.device)
        return 2 * x.flatten(1).abs().amax(1) + 1

    def span(self, x: Tensor, norm: str) -> Tensor:
        """How long a step is that moves every coordinate by :meth:`scale`, shape (N,); in L0 the scale itself.

        Example:
            >>> Box(0, 1).span(torch.zeros(1, 4), "l2")
            tensor([2.])
        """
        powers = {"l2": 0.5, "l1": 1.0}
        stretch: float = x[0].numel() ** powers.get(norm, 0.0)
        return self.scale(x) * stretch

    def reach(self, norm: str, d: int) -> float:
        """The largest distance between two points of the box in a norm, from above, for inputs of d coordinates.

        Example:
            >>> Box(0, 1).reach("l2", 4)
            2.0
        """
        if norm == "l0":
            return float(d)
        power = {"linf": 0, "l2": 1, "l1": 2}[norm]
        reach: float = self.width * d ** (power / 2)
        while math.isfinite(reach) and Fraction(reach) ** 2 < Fraction(self.width) ** 2 * d**power:
            reach = math.nextafter(reach, math.inf)
        return reach

    @property
    def bounded(self) -> bool:
        """Whether every side is finite."""
        return math.isfinite(self.width)
