"""Operator norms from above: true upper bounds, never the power iteration's approach from below."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from calipers.threats import Norm

__all__ = ["convolution_norm", "matrix_norm"]

# What LAPACK's backward error and our own sums can hide, by a wide margin.
_UP = 1 + 1e-9


def matrix_norm(weight: Tensor, name: Norm) -> float:
    r"""‖W‖_{p→p}: the largest row sum (L∞), column sum (L1) or singular value (L2) of W, shape (m, n).

    Example:
        >>> w = torch.tensor([[3.0, 0.0], [4.0, 0.0]])
        >>> [round(matrix_norm(w, name), 6) for name in ("linf", "l2", "l1")]
        [4.0, 5.0, 7.0]
    """
    w = weight.double()
    if name == "linf":
        return float(w.abs().sum(1).max()) * _UP
    if name == "l1":
        return float(w.abs().sum(0).max()) * _UP
    w, unit = _near_one(w)
    gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    return math.sqrt(max(float(torch.linalg.eigvalsh(gram)[-1]), 0.0)) * _UP * unit


def _near_one(w: Tensor) -> tuple[Tensor, float]:
    """w / u and u, the power of two next to the largest entry: squares neither vanish nor overflow."""
    most = float(w.abs().max())
    unit = math.ldexp(1.0, math.frexp(most)[1]) if 0 < most < math.inf else 1.0
    return w / unit, unit


def convolution_norm(kernel: Tensor, name: Norm, groups: int = 1, dilation: tuple[int, ...] = (1, 1)) -> float:
    r"""An upper bound of ‖K∗·‖_{p→p} for any image size, stride and zero padding.

    A zero-padded, strided convolution is a compression of the convolution on all of Z², whose norm in L2 is the
    supremum over frequencies ω of the largest singular value of the symbol K̂(ω), a c_out × c_in matrix. For a unit
    vector v, ‖K̂(ω)v‖² is a trigonometric polynomial of degree k − 1 in each frequency, and the maximum of such a
    polynomial is at most its maximum on a grid of M points divided by cos(π(k − 1)/M) ("Zur Numerik der Theorie der
    trigonometrischen Polynome", Ehlich & Zeller 1964), once for each direction. The minimum with Schur's test
    √(‖K‖₁·‖K‖∞) is returned. In L∞ and L1 it is the sum of |K| over inputs or outputs.

    Arguments:
        kernel: shape (c_out, c_in / groups, k_h, k_w).

    Source of the symbol: "The Singular Values of Convolutional Layers" (Sedghi, Gupta & Long 2019).
    """
    k = kernel.double()
    rows = float(k.abs().sum((1, 2, 3)).max())
    split = k.view(groups, -1, *k.shape[1:])
    columns = float(split.abs().sum((1, 3, 4)).max())
    if name == "linf":
        return rows * _UP
    if name == "l1":
        return columns * _UP
    # Dilation only stretches the frequencies: the supremum is that of the undilated kernel.
    sides = k.shape[2:]
    grid = [16 * side if side > 1 else 1 for side in sides]
    slack = math.prod(math.cos(math.pi * (side - 1) / points) for side, points in zip(sides, grid, strict=True))
    split, unit = _near_one(split)
    symbols = torch.fft.fft2(split, s=grid).permute(0, 3, 4, 1, 2).flatten(0, 2)
    gram = symbols @ symbols.mH if symbols.shape[1] <= symbols.shape[2] else symbols.mH @ symbols
    top = math.sqrt(float(torch.linalg.eigvalsh(gram)[:, -1].max()) / slack)
    return min(top * unit, math.sqrt(rows) * math.sqrt(columns)) * _UP
