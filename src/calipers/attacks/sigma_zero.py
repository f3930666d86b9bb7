"""σ-zero: as few coordinates as possible, by descent of a smooth count and a threshold that finds its own height."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from calipers.attacks.losses import margin
from calipers.attacks.method import Ask, Options, Rows, Seen, Steps, column
from calipers.attacks.result import AttackResult
from calipers.attacks.search import attack
from calipers.errors import BadInput
from calipers.models import Classifier, public
from calipers.threats import Threat

__all__ = ["sigma_zero"]


@dataclass(frozen=True)
class _SigmaZero(Steps):
    """δ by Adam on a normalised gradient; components below τ become 0; τ rises while the model is fooled."""

    sigma: float = 1e-3
    tau: float = 0.3
    rate: float = 0.01

    def start(self, ask: Ask, rows: Rows) -> None:
        rows.z = rows.x.clone()
        rows.one, rows.two = torch.zeros_like(rows.x), torch.zeros_like(rows.x)
        rows.tau = torch.full_like(rows.eps, self.tau)

    def step(self, ask: Ask, rows: Rows, seen: Seen) -> None:
        unit = column(ask.model.box.scale(rows.x), rows.x)
        delta = (rows.z - rows.x) / unit
        size = 0.1 + 0.9 * self.falling(rows)
        move = self._adam(rows, self._slope(rows, seen, delta, unit))
        moved = (ask.model.box.clamp(rows.x + unit * (delta - column(size, delta) * move)) - rows.x) / unit
        rows.tau = (rows.tau + torch.where(seen.fooled, self.rate, -self.rate) * size).clamp(0, 1)
        kept = moved.abs() >= column(rows.tau, moved)
        rows.z = torch.where(kept, ask.model.box.clamp(rows.x + unit * moved), rows.x)

    def _slope(self, rows: Rows, seen: Seen, delta: Tensor, unit: Tensor) -> Tensor:
        """Of max(−margin, 0) + mean(δ²/(δ² + σ)), divided by its largest entry."""
        # The margin in units of a twentieth of the clean spread, as a trained network's logits are.
        gain = column(20 / rows.scale, delta) * unit
        away = torch.where(column(seen.fooled, delta), 0.0, gain * seen.grad)
        count = 2 * self.sigma * delta / (delta.square() + self.sigma).square() / delta[0].numel()
        slope = count - away
        return slope / column(slope.flatten(1).abs().amax(1).clamp_min(1e-12), slope)

    def _adam(self, rows: Rows, slope: Tensor) -> Tensor:
        t = (rows.k + 1).to(slope.dtype)
        rows.one = 0.9 * rows.one + 0.1 * slope
        rows.two = 0.999 * rows.two + 0.001 * slope.square()
        first, second = rows.one / column(1 - 0.9**t, slope), rows.two / column(1 - 0.999**t, slope)
        return first / (second.sqrt() + 1e-8)


@public
def sigma_zero(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    steps: int = 1000,
    sigma: float = 1e-3,
    tau: float = 0.3,
    rate: float = 0.01,
    **options: Unpack[Options],
) -> AttackResult:
    r"""σ-zero, L0: min max(z_y − max_{j≠y} z_j, 0) + (1/d)·Σ δᵢ²/(δᵢ² + σ), with all |δᵢ| < τ set to 0 at every step.

    Arguments:
        model, x, y, threat, options: as for :func:`calipers.attacks.pgd`; L0 only. The attack always seeks the minimal
            distortion; with an eps, witnesses beyond it do not count.
        steps: gradient steps; 1000 in the paper.
        sigma: how sharply the smooth count counts, in squared units of the box's width; 0.001 in the paper.
        tau: the first threshold, in units of the box's width; 0.3 in the paper.
        rate: its change a step, in units of the step size, which falls along a cosine from 1 to 0.1; 0.01 in the paper.

    Source: "σ-zero: Gradient-based Optimization of ℓ0-norm Adversarial Examples" (Cinà, Villani, Pintor, Schönherr,
    Biggio & Pelillo 2024), Algorithm 1.

    Example:
        >>> net = torch.nn.Linear(2, 2).double().eval()
        >>> _ = net.load_state_dict({"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "bias": torch.zeros(2)})
        >>> model = Classifier.of(net, shape=(2,))
        >>> x = torch.tensor([[0.75, 0.25]], dtype=torch.float64)
        >>> sigma_zero(model, x, torch.tensor([0]), Threat("l0"), steps=50).distance.item()
        1.0
    """
    if steps < 1 or min(sigma, tau, rate) <= 0:
        got = f"{steps}, {sigma}, {tau} and {rate}"
        raise BadInput("steps, sigma, tau and rate of sigma-zero", expected="at least 1, above 0", got=got)
    if threat.norm != "l0":
        raise BadInput("norm of sigma-zero", expected="l0", got=repr(threat.norm), hint="fmn takes all norms")
    method = _SigmaZero(margin, steps, minimal=True, sigma=sigma, tau=tau, rate=rate)
    return attack(method, model, x, y, threat, **options)
