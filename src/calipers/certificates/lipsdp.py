"""Lipschitz constants by semidefinite programming with diagonal multipliers, found by Adam, proved by Cholesky."""

from __future__ import annotations

import torch
from torch import Tensor

from calipers.certificates.certificate import NotApplicable
from calipers.certificates.chain import Chain, Stage
from calipers.certificates.operator_norms import matrix_norm
from calipers.certificates.slopes import slope_range
from calipers.threats import Norm

__all__ = ["lipsdp"]

_UNIT = 2.0**-53


def lipsdp(parts: Chain, rows: Tensor, norm: Norm, *, steps: int = 100, lr: float = 0.05) -> Tensor:
    r"""L_p with \|⟨u_p, h(x) − h(z)⟩\| ≤ L_p ‖x − z‖ for all x, z, for the last stage's outputs h: shape (P,).

    An activation with slopes in [0, 1] satisfies Δφ(Δφ − Δa) ≤ 0. Multipliers T_k ≥ 0 for these, and weights τ ≥ 0 of
    the input's coordinates, prove ⟨u, Δh⟩² ≤ ρ Σ τ_i Δx_i² if the block tridiagonal matrix

    [diag τ, −W₁ᵀT₁; −T₁W₁, 2T₁, −W₂ᵀT₂; …; −T_kW_k, 2T_k − vvᵀ/ρ], v = W_mᵀu, is positive semidefinite.

    Then L = √(ρ max τ) in L2 and L1, where τ = 1, and L = √(ρ Σ τ_i) in L∞, where τ is optimised too. T and τ start at
    the product of operator norms, so the result is never worse in L2; ρ = vᵀX⁻¹v, X the last Schur complement, falls by
    Adam. What is returned was factored by Cholesky with everything that rounding can hide subtracted
    first, so no optimiser is trusted.

    Arguments:
        parts: the network; at least one activation, every slope in [0, β].
        rows: u, shape (P, K): combinations of the logits.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        steps, lr: of Adam, on the logarithms of T and τ.

    Raises:
        NotApplicable: for activations that fall somewhere, and networks without activations.

    Source: "Efficient and Accurate Estimation of Lipschitz Constants for Deep Neural Networks" (Fazlyab et al. 2019),
    Theorem 2 (LipSDP-Neuron); the last step to L∞ follows "A Quantitative Geometric Approach to Neural-Network
    Smoothness" (Wang et al. 2022).

    Example:
        >>> from calipers.certificates.chain import chain
        >>> from calipers.certificates.reading import read
        >>> from calipers.models import references
        >>> model = next(r.classifier for r in references() if r.classifier.name == "l1-ball")
        >>> rows = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
        >>> round(lipsdp(chain(read(model), rows), rows, "l2").item(), 2)
        1.73
    """
    stages, vectors, doubt = _scaled(parts, rows.double())
    if not stages:
        raise NotApplicable("LipSDP", expected="at least one activation", got="an affine network")
    best, least = _descend(stages, vectors, norm, steps, lr)
    return _proved(stages, vectors, doubt, best, least, norm)


def _descend(stages: list[Stage], vectors: Tensor, norm: Norm, steps: int, lr: float) -> tuple[list[Tensor], Tensor]:
    """The logarithms of the multipliers and of τ with the least log ρ·Σ τ met, and that: one row a combination."""
    with torch.enable_grad():
        logs = _start(stages, len(vectors), free=norm == "linf")
        best = [log.detach().clone() for log in logs]
        least = torch.full_like(vectors[:, 0], torch.inf)
        optimizer = torch.optim.Adam(logs, lr=lr)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
            rho, ok = _rho(stages, vectors, logs)
            value = torch.where(ok, rho.log(), torch.inf)
            value = value + (logs[-1].logsumexp(1) if norm == "linf" else 0.0)
            better = (value < least).detach()
            least = torch.where(better, value.detach(), least)
            optimizer.zero_grad()
            torch.where(ok & value.isfinite(), value, 0.0).sum().backward()
            with torch.no_grad():
                for log, kept in zip(logs, best, strict=True):
                    kept[better] = log[better]
            optimizer.step()
            with torch.no_grad():
                for log, kept in zip(logs, best, strict=True):
                    # Whoever left the feasible set goes half the way back.
                    log[~ok] = (log[~ok] + kept[~ok]) / 2
    return best, least


def _scaled(parts: Chain, rows: Tensor) -> tuple[list[Stage], Tensor, Tensor]:
    """The stages before the activations, every activation's slopes brought to [0, 1]; v = Wᵀu, shape (P, n), ± ε."""
    stages, top = [], 1.0
    for stage, activation in zip(parts.stages, parts.activations, strict=False):
        bottom, most = slope_range(activation)
        if bottom < 0:
            raise NotApplicable("LipSDP", expected="activations that never fall", got=activation.name)
        stages.append(Stage(stage.weight * top, stage.bias, stage.error * top))
        top = most
    last = parts.stages[-1]
    doubt = rows.abs() @ (last.error + 4 * len(last.weight) * _UNIT * last.weight.abs())
    return stages, rows @ last.weight * top, doubt * top


def _start(stages: list[Stage], count: int, *, free: bool) -> list[Tensor]:
    """log T_k = −2 Σ log of the norms so far; log τ from the columns of W₁, so that its matrix has a small norm."""
    first, d = stages[0].weight, stages[0].weight.shape[1]
    tau = first.norm(dim=0) / first.norm(dim=0).mean() + 1e-3 if free else first.new_ones(d)
    log, logs = 0.0, []
    for depth, stage in enumerate(stages):
        weight = stage.weight / tau.sqrt() if depth == 0 else stage.weight
        log -= 2 * torch.tensor(max(matrix_norm(weight, "l2"), 1e-100)).log().item()
        logs.append(first.new_full((count, len(stage.weight)), log - 1e-6))
    logs.append(tau.log().expand(count, -1).clone())
    return [log.requires_grad_(at < len(stages) or free) for at, log in enumerate(logs)]


def _first(stage: Stage, t: Tensor, tau: Tensor) -> Tensor:
    """2T₁ − T₁W₁ diag(1/τ) W₁ᵀT₁: the input eliminated, shape (P, n₁, n₁)."""
    shared = bool((tau == tau[:1, :1]).all())
    gram = stage.weight @ stage.weight.T / tau[0, 0] if shared else (stage.weight / tau[:, None]) @ stage.weight.T
    return torch.diag_embed(2 * t) - t[:, :, None] * gram * t[:, None]


def _rho(stages: list[Stage], vectors: Tensor, logs: list[Tensor]) -> tuple[Tensor, Tensor]:
    """ρ = vᵀX⁻¹v, and whether every Schur complement X is positive definite: both (P,)."""
    *multipliers, tau = (log.exp() for log in logs)
    complement = _first(stages[0], multipliers[0], tau)
    ok = torch.ones(len(vectors), dtype=torch.bool, device=vectors.device)
    for stage, t in zip([*stages[1:], None], [*multipliers[1:], None], strict=True):
        # Scaled to a unit diagonal, because the layers' multipliers differ by orders of magnitude.
        size = complement.diagonal(dim1=1, dim2=2).clamp_min(1e-300).rsqrt()
        factor, info = torch.linalg.cholesky_ex(complement * size[:, :, None] * size[:, None])
        ok = ok & (info == 0)
        one = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
        factor = torch.where((info == 0)[:, None, None], factor, one)
        if stage is None or t is None:
            half = torch.linalg.solve_triangular(factor, (vectors * size)[:, :, None], upper=False)
            return half.square().sum((1, 2)), ok
        side = size[:, :, None] * stage.weight.T * t[:, None]
        half = torch.linalg.solve_triangular(factor, side, upper=False)
        complement = torch.diag_embed(2 * t) - half.mT @ half
    raise AssertionError


def _proved(
    stages: list[Stage], vectors: Tensor, doubt: Tensor, logs: list[Tensor], least: Tensor, norm: Norm
) -> Tensor:
    """√(ρ·Σ τ) or √(ρ·max τ) for the smallest ρ of a few with which the whole matrix is positive definite."""
    *multipliers, tau = (log.exp() for log in logs)
    total = tau.sum(1) * (1 + tau.shape[1] * 2 * _UNIT) if norm == "linf" else tau.amax(1)
    constant = torch.full_like(least, torch.inf)
    found = (least - (tau.sum(1).log() if norm == "linf" else 0.0)).exp()
    for spare in (1e-8, 1e-6, 1e-4, 1e-2, 1.0):
        rho = found * (1 + spare)
        fine = _is_definite(stages, vectors, doubt, multipliers, tau, rho)
        constant = torch.where(fine, torch.minimum(constant, (rho * total).sqrt()), constant)
    return constant * (1 + 1e-12)


def _is_definite(
    stages: list[Stage], vectors: Tensor, doubt: Tensor, multipliers: list[Tensor], tau: Tensor, rho: Tensor
) -> Tensor:
    """Whether the whole matrix, input eliminated, is positive definite in real arithmetic, rounding and all: (P,).

    If Cholesky's algorithm succeeds on M − cI with c beyond what rounding can have done to M and in the algorithm, M
    is positive definite ("Verification of Positive Definiteness", Rump 2006, Theorem 2.3).
    """
    sizes = [len(stage.weight) for stage in stages]
    whole = vectors.new_zeros(len(vectors), sum(sizes), sum(sizes))
    error = torch.zeros_like(whole)
    ends = torch.tensor([0, *sizes]).cumsum(0).tolist()
    unit = 8 * (sum(sizes) + stages[0].weight.shape[1] + 8) * _UNIT
    for depth, (stage, t) in enumerate(zip(stages, multipliers, strict=True)):
        here = slice(ends[depth], ends[depth + 1])
        if depth == 0:
            whole[:, here, here] = _first(stage, t, tau)
            wide = stage.weight.abs() + stage.error
            hidden = (wide / tau[:, None]) @ (unit * wide + 2 * stage.error).T
            error[:, here, here] = t[:, :, None] * hidden * t[:, None] + torch.diag_embed(unit * t)
            continue
        before = slice(ends[depth - 1], ends[depth])
        block = t[:, :, None] * stage.weight
        whole[:, here, before], whole[:, before, here] = -block, -block.mT
        whole[:, here, here] = torch.diag_embed(2 * t)
        hidden = t[:, :, None] * (unit * stage.weight.abs() + stage.error)
        error[:, here, before], error[:, before, here] = hidden, hidden.mT
        error[:, here, here] = torch.diag_embed(unit * t)
    last = slice(ends[-2], ends[-1])
    outer = vectors[:, :, None] * vectors[:, None] / rho[:, None, None]
    whole[:, last, last] -= outer
    cross = (vectors.abs() + doubt)[:, :, None] * doubt[:, None]
    error[:, last, last] += unit * outer.abs() + (cross + cross.mT) / rho[:, None, None]
    scale = whole.diagonal(dim1=1, dim2=2).clamp_min(1e-300).rsqrt()
    whole, error = (part * scale[:, :, None] * scale[:, None] for part in (whole, error))
    factoring = 4 * whole.shape[1] * (whole.shape[1] + 2) * _UNIT  # the trace, which is the size, times γ
    slack = error.sum(2).amax(1) + unit * whole.abs().sum(2).amax(1) + factoring
    spared = whole - torch.diag_embed(slack[:, None].expand(-1, whole.shape[1]))
    _, info = torch.linalg.cholesky_ex(spared)
    definite: Tensor = (info == 0) & rho.isfinite()
    return definite
