"""Convolutions with fewer multiplications: the minimal filtering of Toom, Cook and Winograd, along the rows.

One axis, m outputs of a filter of K taps: y_j = Σ_k w_k d_{j + k}. Let s(h) be the product of the polynomials w and h,
which α = m + K − 1 of its values determine: s = V⁻¹[(V_K w) ⊙ (V_m h)], V_n the Vandermonde matrix of n columns at α
points, ∞ among them. Transposed in h this is the filter, y = V_mᵀ[(V_K w) ⊙ (V⁻ᵀ d)]: α multiplications for m·K.
Taken over rows, a "number" is a row, and a multiplication a convolution along it.

Winograd 1980, "Arithmetic Complexity of Computations", theorem 6; Lavin and Gray 2016, "Fast Algorithms for
Convolutional Neural Networks", Section 4.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["RowFilter"]

# The points are these and their negatives, and ∞; of small fractions the ones with the least rounding found.
_POINTS = (0.25, 1.0, 2.5, 0.6, 1.25)
# Multiplications saved for each number that is moved, from which on it was measured to be faster.
_PAYS = 64


class _Form(NamedTuple):
    """Rows in and out of tiles, for one height."""

    gather: Tensor
    """(α·T, H): V⁻ᵀ of the rows of each of T tiles."""
    taps: list[Tensor]
    """α weights (C_out, C_in, 1, K'): V_K w."""
    spread: Tensor
    """(H_out, α·T): V_mᵀ of each tile."""


class _Rows:
    """Correlation of zero-padded (N, C, H, W) with a weight (C_out, C, K, K')."""

    def __init__(self, weight: Tensor, padding: tuple[int, int]) -> None:
        self.weight, self.padding = weight.contiguous(memory_format=torch.channels_last), padding
        self._forms: dict[int, _Form] = {}

    def outputs(self, height: int) -> int:
        """Rows that come out."""
        return height + 2 * self.padding[0] - self.weight.shape[2] + 1

    def products(self, height: int, pairs: int) -> int:
        """Products of rows with ±p for so many points p, and ∞; without any, those of the direct sum."""
        taps, rows = self.weight.shape[2], self.outputs(height)
        points = 2 * pairs + 1
        return points * -(-rows // (points - taps + 1)) if pairs else taps * rows

    def pairs(self, height: int) -> int:
        """How many points ±p take the fewest products; 0: none saves any."""
        # A tile of one output saves nothing.
        counts = [0, *(n for n in range(1, len(_POINTS) + 1) if 2 * n + 1 > self.weight.shape[2])]
        return min(counts, key=lambda count: self.products(height, count))

    def pays(self, height: int) -> bool:
        """Whether enough is saved for the rows that are moved into tiles and out."""
        c_out, c_in, _, along = self.weight.shape
        if self.outputs(height) < 1:
            return False
        ratio = self.products(height, 0) / self.products(height, self.pairs(height))
        return (ratio - 1) * along * c_in * c_out >= _PAYS * (c_in + 2 * c_out)

    def form(self, height: int) -> _Form:
        """The matrices for this height, made once."""
        if height not in self._forms:
            self._forms[height] = self._made(height)
        return self._forms[height]

    def _made(self, height: int) -> _Form:
        taps, rows = self.weight.shape[2], self.outputs(height)
        points = torch.tensor([s * p for p in _POINTS[: self.pairs(height)] for s in (1, -1)], dtype=torch.float64)
        size = len(points) + 1
        tile = size - taps + 1
        tiles = -(-rows // tile)
        inner = torch.linalg.inv(_vandermonde(points, size)).T
        # Powers of two cost no rounding, and keep what is transformed near the size of what came in.
        scale = torch.exp2(inner.abs().amax(1).log2().round())[:, None]
        inner, weights = inner / scale, _vandermonde(points, taps) * scale
        outer = _vandermonde(points, tile).T
        gather = inner.new_zeros(size, tiles, tiles * tile + taps - 1 + height)
        spread = inner.new_zeros(tiles, tile, size, tiles)
        for t in range(tiles):
            gather[:, t, t * tile : t * tile + size] = inner
            spread[t, :, :, t] = outer
        gather = gather[:, :, self.padding[0] : self.padding[0] + height].flatten(0, 1)
        filters = torch.einsum("pk,oikl->poil", weights, self.weight.double()).to(self.weight)[:, :, :, None]
        return _Form(gather.to(self.weight),
                     [w.contiguous(memory_format=torch.channels_last) for w in filters],
                     spread.view(tiles * tile, size * tiles)[:rows].to(self.weight).contiguous())  # fmt: skip

    def __call__(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C_out, H_out, W_out), channels last."""
        if not self.pairs(x.shape[2]):
            return nn.functional.conv2d(x, self.weight, padding=self.padding)
        gather, taps, spread = self.form(x.shape[2])
        n, channels, height, width = x.shape
        tiled = (gather @ x.permute(0, 2, 3, 1).reshape(n, height, width * channels)).view(
            n, len(taps), -1, width, channels
        )
        parts = [
            nn.functional.conv2d(tiled[:, i].permute(0, 3, 1, 2), w, padding=(0, self.padding[1])).permute(0, 2, 3, 1)
            for i, w in enumerate(taps)
        ]
        *_, width, channels = parts[0].shape
        rows = spread @ torch.stack(parts, 1).view(n, spread.shape[1], width * channels)
        return rows.view(n, -1, width, channels).permute(0, 3, 1, 2)


def _vandermonde(points: Tensor, columns: int) -> Tensor:
    """Powers 0 … columns − 1 of each point, and of ∞ the last coefficient."""
    powers = points[:, None] ** torch.arange(columns, dtype=points.dtype)
    return torch.cat([powers, torch.eye(columns, dtype=points.dtype)[-1:]])


class RowFilter:
    """A convolution and its input gradient by minimal filtering.

    Arguments:
        layer: a plain convolution of stride 1, padded with zeros by less than its kernel.

    Example:
        >>> layer, x = nn.Conv2d(32, 64, 5, padding=2), torch.rand(2, 32, 14, 14)
        >>> torch.allclose(RowFilter(layer)(x), layer(x), atol=1e-5)
        True
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        assert isinstance(layer.padding, tuple)
        weight, kernel = layer.weight.detach(), layer.kernel_size
        self.there = _Rows(weight, (layer.padding[0], layer.padding[1]))
        # Σ_o g_o w_{i + p − o}: a correlation with the mirrored weights.
        mirrored = weight.flip(2, 3).transpose(0, 1)
        self.back = _Rows(mirrored, (kernel[0] - 1 - layer.padding[0], kernel[1] - 1 - layer.padding[1]))
        self.bias = None if layer.bias is None else layer.bias.detach()

    @staticmethod
    def fits(layer: nn.Conv2d) -> bool:
        """Whether it can be computed so."""
        plain = (layer.dilation, layer.stride, layer.groups, layer.padding_mode) == ((1, 1), (1, 1), 1, "zeros")
        inside = isinstance(layer.padding, tuple) and all(
            p < k for p, k in zip(layer.padding, layer.kernel_size, strict=True)
        )
        return plain and inside

    def pays(self, x: Tensor) -> bool:
        """Whether it is known to be faster for these inputs; half precision is too coarse for it."""
        return x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu") and self.there.pays(x.shape[2])

    def __call__(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H_out, W_out)."""
        y: Tensor = _Filtered.apply(x, self)  # type: ignore[no-untyped-call]
        return y


class _Filtered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, by: RowFilter) -> Tensor:
        ctx.by = by
        y = by.there(x)
        return y if by.bias is None else y.add_(by.bias[:, None, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.by.back(grad), None
