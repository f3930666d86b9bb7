"""The exact attack on an affine classifier: the nearest point of another class's half-space, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from calipers.attacks.engine import run
from calipers.attacks.losses import Loss, margin
from calipers.attacks.method import Ask, Options, Rows, Seen, column, reserve, spread
from calipers.attacks.result import AttackResult
from calipers.errors import BadInput
from calipers.models import Classifier, public
from calipers.threats import Threat, leave_cell

__all__ = ["affine_map", "linear"]

_PROBES = 32


@dataclass(frozen=True)
class _Overshoot:
    """Go to x + (1 + o)·δ, o growing fourfold from the rounding of the dtype, to be past the boundary by a hair."""

    looks: int = 12
    minimal: bool = True
    loss: Loss = margin
    gradients: int = 0
    targets: int = 0

    def start(self, ask: Ask, rows: Rows) -> None:
        rows.over = torch.full_like(rows.eps, 64 * torch.finfo(rows.x.dtype).eps)
        self._query(ask, rows)

    def step(self, ask: Ask, rows: Rows, seen: Seen) -> None:
        rows.over = 4 * rows.over
        self._query(ask, rows)

    def _query(self, ask: Ask, rows: Rows) -> None:
        rows.z = ask.model.box.clamp(rows.x + (1 + column(rows.over, rows.x)) * rows.toward)


def affine_map(model: Classifier, x: Tensor) -> tuple[Tensor, Tensor] | None:
    r"""W (K, d) and b (K,) with model(x) = Wx + b, by K gradients; None if the model is not affine on these inputs.

    The map is found by calling the model and checked on the inputs: it is good enough to aim with, not a proof.
    """
    with model.frozen():
        z = x[:1].detach().requires_grad_()
        with torch.enable_grad():
            logits = model(z)[0]
            if not logits.requires_grad:
                return None
            rows = [torch.autograd.grad(one, z, retain_graph=True, allow_unused=True)[0] for one in logits]
        weight = torch.stack([torch.zeros_like(z[0]) if row is None else row[0] for row in rows]).flatten(1)
        bias = logits.detach() - weight @ z.detach().flatten()
        with torch.no_grad():
            probe = torch.cat([x[:64], model.box.clamp(x[:64].flip(0) * 0.5), _around(model, x[:1])])
            real, linear_ = model(probe), probe.flatten(1) @ weight.T + bias
    scale = (probe.flatten(1).abs() @ weight.abs().T + bias.abs()).amax() + torch.finfo(x.dtype).tiny
    error = (real - linear_).abs().amax()
    return (weight, bias) if float(error / scale) < 1e3 * torch.finfo(x.dtype).eps else None


def _around(model: Classifier, x: Tensor) -> Tensor:
    """Points of the box, or of as wide a one around x, always the same: a map with kinks shows one of them there."""
    wide = column(model.box.scale(x), x)
    lo, hi = model.box.clamp(x - wide), model.box.clamp(x + wide)
    share = torch.rand(_PROBES, *x.shape[1:], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points: Tensor = lo + (hi - lo) * share.to(x)
    return model.box.clamp(points)


@public
def linear(model: Classifier, x: Tensor, y: Tensor, threat: Threat, **options: Unpack[Options]) -> AttackResult:
    r"""The exact minimal distortion of an affine classifier: min over j ≠ y of dist_p(x, {z_j ≥ z_y} ∩ box).

    The distance is |z_y − z_j| / ‖w_y − w_j‖_q where the box does not bind (Hölder's inequality is met with equality),
    and :func:`calipers.threats.cross` where it does. The witness oversteps by what the dtype's rounding needs.

    Arguments:
        model, x, y, threat, options: as for :func:`calipers.attacks.pgd`; all four norms.

    Raises:
        BadInput: if the model is not affine.

    Example:
        >>> net = torch.nn.Linear(2, 2).double().eval()
        >>> _ = net.load_state_dict({"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "bias": torch.zeros(2)})
        >>> model = Classifier.of(net, shape=(2,))
        >>> x = torch.tensor([[0.75, 0.25]], dtype=torch.float64)
        >>> round(linear(model, x, torch.tensor([0]), Threat("linf")).distance.item(), 6)
        0.25
    """
    x, y = model.check(x.detach(), y)
    found = affine_map(model, x)
    if found is None:
        raise BadInput(f"{model.name}", expected="an affine classifier", got="one that is not", hint="use fmn or apgd")
    weight, bias = (part.double() for part in found)
    logits = x.flatten(1).double() @ weight.T + bias
    # At a tie the way out has no length to be stretched: it leads at least to where the label loses visibly.
    least = reserve(Rows(clean=logits.to(x.dtype), y=y, scale=spread(logits.to(x.dtype), y)))
    own = logits.gather(1, y[:, None])
    logits = logits.minimum(own - least.double()[:, None]).scatter(1, y[:, None], own)
    _, toward = leave_cell(x.double(), weight, logits, y, threat.norm, model.box)
    return run(_Overshoot(), model, x, y, threat, extra={"toward": toward.to(x.dtype)}, **options)
