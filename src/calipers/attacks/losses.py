r"""What an attack climbs. Every loss is to be maximised and, but for ``ce-raw``, blind to z → a·z + b (a > 0).

A loss is a function of logits (N, K), labels y (N,), targets (N,) with −1 for "any other class", and the spread
(max − min) of each example's clean logits (N,), and returns (N,).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from calipers.errors import BadInput, nearest

__all__ = ["LOSSES", "Loss", "ce", "ce_raw", "dlr", "find_loss", "margin"]

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

# The clean logits' spread after scaling: a trained network's is of this order, so `ce` is close to the plain loss.
_SPREAD = 20.0


def _rival(logits: Tensor, y: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """z_y and the largest other logit, or the target's where there is one."""
    own = logits.gather(1, y[:, None])[:, 0]
    others = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    if bool((target < 0).all()):
        return own, others
    return own, torch.where(target < 0, others, logits.gather(1, target.clamp_min(0)[:, None])[:, 0])


def margin(logits: Tensor, y: Tensor, target: Tensor, spread: Tensor) -> Tensor:
    r"""max_{j ≠ y} z_j − z_y, or z_t − z_y: positive exactly where the label loses.

    Source: "Towards Evaluating the Robustness of Neural Networks" (Carlini & Wagner 2017), the loss f_6.

    Example:
        >>> margin(torch.tensor([[1.0, 3.0, 0.0]]), torch.tensor([1]), torch.tensor([-1]), torch.ones(1))
        tensor([-2.])
    """
    own, other = _rival(logits, y, target)
    return other - own


def ce(logits: Tensor, y: Tensor, target: Tensor, spread: Tensor) -> Tensor:
    r"""Cross-entropy of 20·z / spread, so that neither large nor small logits make the gradient vanish.

    Untargeted −log softmax(z)_y; targeted log softmax(z)_t.
    """
    scaled = logits * (_SPREAD / spread.clamp_min(torch.finfo(logits.dtype).tiny))[:, None]
    return ce_raw(scaled, y, target, spread)


def ce_raw(logits: Tensor, y: Tensor, target: Tensor, spread: Tensor) -> Tensor:
    """Cross-entropy of the logits as they are: what most libraries climb. It saturates on confident networks."""
    scores = logits.log_softmax(1)
    own = -scores.gather(1, y[:, None])[:, 0]
    if bool((target < 0).all()):
        return own
    return torch.where(target < 0, own, scores.gather(1, target.clamp_min(0)[:, None])[:, 0])


def dlr(logits: Tensor, y: Tensor, target: Tensor, spread: Tensor) -> Tensor:
    r"""Difference of logits ratio: −(z_y − max_{j≠y} z_j) / (z_π1 − z_π3).

    Targeted: −(z_y − z_t) / (z_π1 − (z_π3 + z_π4)/2).

    Source: "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks"
    (Croce & Hein 2020), equations (6) and (7). It needs three classes (four if targeted): with fewer the ratio is
    constant, and the margin over the clean spread takes its place.
    """
    own, other = _rival(logits, y, target)
    top = logits.topk(min(4, logits.shape[1]), dim=1).values
    if logits.shape[1] < 3:
        return (other - own) / spread.clamp_min(torch.finfo(logits.dtype).tiny)
    third = top[:, 2]
    if logits.shape[1] > 3:
        third = torch.where(target < 0, third, (third + top[:, 3]) / 2)
    # 1e-6 of the spread: the published constant 1e-12 made blind to scale, so a tie of three does not explode.
    return (other - own) / (top[:, 0] - third + 1e-6 * spread)


LOSSES: dict[str, Loss] = {"margin": margin, "ce": ce, "dlr": dlr, "ce-raw": ce_raw}


def find_loss(loss: str | Loss) -> Loss:
    """A loss by name, or the callable itself."""
    if not isinstance(loss, str):
        return loss
    if loss not in LOSSES:
        raise BadInput("loss", expected="a known name or a callable", got=repr(loss), hint=nearest(loss, LOSSES))
    return LOSSES[loss]
