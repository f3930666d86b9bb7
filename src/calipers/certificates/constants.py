"""Lipschitz constants of linear functions of a chain's last activations, from partial products of its matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from calipers.certificates.chain import Chain
from calipers.certificates.operator_norms import matrix_norm
from calipers.certificates.slopes import slope_range
from calipers.threats import Norm, dual
from calipers.threats import norm as length

__all__ = ["partial_products"]


def partial_products(parts: Chain, rows: Tensor, norm: Norm) -> Tensor:
    r"""L_p ≥ max over z of ‖∇⟨u_p, h(z)⟩‖_q for the last stage's outputs h: shape (P,).

    Every activation has slopes in [α, β], so its derivative is μI + νS with μ = (α + β)/2, ν = (β − α)/2 and S diagonal
    in [−1, 1]. Multiplying out uᵀW_m(μI + νS_{m−1})W_{m−1}…W_1 leaves products of the matrices between two S; an S
    has norm at most 1, so these are bounded one by one, each by its operator norm or by its absolute values. With all
    μ = 0 it would be the product of all norms; here matrices that cancel each other may do so.

    Arguments:
        parts: the network.
        rows: u, shape (P, K): combinations of the logits.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.

    Source: "Lipschitz Certificates for Layered Network Structures Driven by Averaged Activation Operators" (Combettes &
    Pesquet 2020), Proposition 4.3 (ii); the absolute values are ours.

    Example:
        >>> from calipers.certificates.chain import chain
        >>> from calipers.certificates.reading import read
        >>> from calipers.models import references
        >>> model = next(r.classifier for r in references() if r.classifier.name == "l1-ball")
        >>> rows = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
        >>> [round(partial_products(chain(read(model), rows), rows, p).item(), 3) for p in ("linf", "l2", "l1")]
        [3.0, 1.732, 1.0]
    """
    split = [_centre(*slope_range(activation)) for activation in parts.activations]
    # From the input to S_i inclusive: its norm, and the absolute values of its matrix.
    norms, sizes = [1.0], [torch.eye(parts.stages[0].weight.shape[1], dtype=torch.float64, device=rows.device)]
    for end, (_, radius) in enumerate(split, 1):
        spans = _spans(parts, split, end)
        norms.append(radius * sum(share * _norm(w, e, norm) * norms[at] for at, share, w, e in spans))
        sizes.append(radius * _total([share * ((w.abs() + e) @ sizes[at]) for at, share, w, e in spans]))
    spans = _spans(parts, split, len(parts.stages), rows.double())
    q = dual(norm)
    by_norm = _total([share * (length(w, q) + length(e, q)) * norms[at] for at, share, w, e in spans])
    by_size = length(_total([share * ((w.abs() + e) @ sizes[at]) for at, share, w, e in spans]), q)
    return torch.minimum(by_norm, by_size) * (1 + 1e-9)


def _total(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).sum(0)


def _centre(bottom: float, top: float) -> tuple[float, float]:
    return (top + bottom) / 2, (top - bottom) / 2


def _spans(
    parts: Chain, split: list[tuple[float, float]], end: int, rows: Tensor | None = None
) -> list[tuple[int, float, Tensor, Tensor]]:
    """For every S before stage ``end`` (0 is the input): where, Π μ, and the matrices from there to the stage."""
    last = parts.stages[end - 1]
    weight, error = last.weight, last.error
    if rows is not None:
        error = rows.abs() @ (error + 2.0**-50 * len(weight) * weight.abs())
        weight = rows @ weight
    found, share = [(end - 1, 1.0, weight, error)], 1.0
    for at in range(end - 2, -1, -1):
        share *= split[at][0]
        stage = parts.stages[at]
        error = weight.abs() @ stage.error + error @ (stage.weight.abs() + stage.error)
        error = error + 2.0**-50 * len(stage.weight) * (weight.abs() @ stage.weight.abs())
        weight = weight @ stage.weight
        found.append((at, share, weight, error))
    return found


def _norm(weight: Tensor, error: Tensor, norm: Norm) -> float:
    """The operator norm of a matrix known to within ``error``; Frobenius' norm bounds the L2 norm of that."""
    slack = float(torch.linalg.matrix_norm(error)) if norm == "l2" else matrix_norm(error, norm)
    return matrix_norm(weight, norm) + slack
