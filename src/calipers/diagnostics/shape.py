"""Numbers beside the pictures: how smooth and how convex a curve is, how sparse a map, how alike two maps."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from calipers.errors import BadInput

__all__ = ["agreement", "bulge", "foreground", "gini", "jump", "roughness"]


def jump(loss: Tensor) -> float:
    """The largest step between neighbours along the last axis, as a share of the whole range: 1 is a cliff.

    A constant has no range, and no jump.

    Example:
        >>> jump(torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0]])), jump(torch.tensor([[0.0, 0.0, 4.0, 4.0]]))
        (0.25, 1.0)
    """
    span = _range(loss)
    return float(loss.diff(dim=-1).abs().max()) / span if span else 0.0


def roughness(loss: Tensor) -> float:
    r"""How much the slope changes along the last axis: (n − 1) · mean over lines of Σ|Δ²ℓ| / range.

    That is the total variation of the slope over a unit length, for a loss of unit range. It does not change when the
    grid is refined, unless there are cliffs or noise to be found: a straight line has 0, the bowl t² on [−1, 1] 8, a
    single cliff 2(n − 1).

    Example:
        >>> t = torch.linspace(-1, 1, 101, dtype=torch.float64)
        >>> roughness(t[None]) < 1e-9, round(roughness(t[None] ** 2), 1), roughness((t[None] > 0.005).double())
        (True, 7.9, 200.0)
    """
    n, span = loss.shape[-1], _range(loss)
    if not span:
        return 0.0
    return float((n - 1) * loss.diff(n=2, dim=-1).abs().sum(-1).mean()) / span


def _range(loss: Tensor) -> float:
    if loss.shape[-1] < 3:
        raise BadInput("points along a line", expected="at least 3", got=loss.shape[-1])
    return float(loss.max() - loss.min())


def bulge(values: Tensor) -> float:
    """How far a curve rises above the largest convex curve below it, as a share of its range; a convex curve has 0.

    Arguments:
        values: the curve at evenly spaced points, shape (n,).

    Example:
        >>> bulge(torch.tensor([1.0, 0.25, 0.0])), bulge(torch.tensor([0.0, 1.0, 0.0]))
        (0.0, 1.0)
    """
    y, span = values.double().tolist(), _range(values)
    hull: list[int] = []
    for at in range(len(y)):
        # A corner on or above the chord from its predecessor to the new point is not on the lower hull.
        while len(hull) > 1 and (y[hull[-1]] - y[hull[-2]]) * (at - hull[-2]) >= (y[at] - y[hull[-2]]) * (
            hull[-1] - hull[-2]
        ):
            hull.pop()
        hull.append(at)
    below = np.interp(range(len(y)), hull, [y[at] for at in hull])
    return float(np.max(np.array(y) - below)) / span if span else 0.0


def gini(values: Tensor) -> Tensor:
    r"""The Gini index of |v| for every example: 0 if all are equal, 1 − 1/d if only one is not 0; of zeros, 0.

    G = Σ_k (2k − d − 1)·v_(k) / (d·Σ v) with v_(1) ≤ … ≤ v_(d).

    Source: "Comparing Measures of Sparsity" (Hurley & Rickard 2009), Section II.

    Example:
        >>> gini(torch.tensor([[1.0, 1.0, -1.0, 1.0], [0.0, 0.0, 5.0, 0.0]]))
        tensor([0.0000, 0.7500], dtype=torch.float64)
    """
    v = values.flatten(1).abs().double().sort(dim=1).values
    d = v.shape[1]
    rank = torch.arange(1, d + 1, dtype=v.dtype, device=v.device)
    total = v.sum(1)
    return torch.where(total > 0, ((2 * rank - d - 1) * v).sum(1) / (d * total.clamp_min(1e-300)), 0.0)


def foreground(values: Tensor, x: Tensor, above: float = 0.5) -> Tensor:
    r"""The share of |v| on features where x is larger than ``above``; 0 where v is 0 everywhere.

    Compare it with the share of such features, which a v that looks nowhere in particular would have.

    Example:
        >>> foreground(torch.tensor([[3.0, -1.0]]), torch.tensor([[0.9, 0.1]]))
        tensor([0.7500], dtype=torch.float64)
    """
    v, inside = values.flatten(1).abs().double(), (x > above).flatten(1)
    total = v.sum(1)
    return torch.where(total > 0, (v * inside).sum(1) / total.clamp_min(1e-300), 0.0)


def agreement(first: Tensor, second: Tensor) -> Tensor:
    r"""How alike two maps of every example are: the cosine ⟨u, v⟩ / (‖u‖·‖v‖), shape (N,); 0 if one is 0.

    For two sign perturbations it is the share of signs that agree, less the share that do not.

    Example:
        >>> agreement(torch.tensor([[1.0, 1.0, -1.0, 1.0]]), torch.tensor([[2.0, -2.0, -2.0, 2.0]]))
        tensor([0.5000], dtype=torch.float64)
    """
    u, v = (each.flatten(1).double() for each in (first, second))
    size = u.norm(dim=1) * v.norm(dim=1)
    return torch.where(size > 0, (u * v).sum(1) / size.clamp_min(1e-300), 0.0)
