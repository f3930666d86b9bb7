r"""What an attack climbs. Every loss is to be maximised and, but for ``ce-raw``, blind to z → a·z + b (a > 0).

A loss is a function of logits (N, K), labels y (N,), targets (N,) with −1 for "any other class", and the spread
(max − min, never 0) of each example's clean logits (N,), and returns (N,).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from calipers.errors import BadInput, nearest
from calipers.theory import self_loss

__all__ = [
    "LOSSES",
    "Loss",
    "ce",
    "ce_raw",
    "dlr",
    "find_loss",
    "first_two",
    "gaps",
    "hard",
    "margin",
    "probability_margin",
]

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

# The clean logits' spread after scaling: a trained network's is of this order, so `ce` is close to the plain loss.
_SPREAD = 20.0


def first_two(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The label's logit and the largest other one, (N,) each.

    Example:
        >>> first_two(torch.tensor([[1.0, 3.0, 0.0]]), torch.tensor([1]))
        (tensor([3.]), tensor([1.]))
    """
    return logits.gather(1, y[:, None])[:, 0], logits.scatter(1, y[:, None], -torch.inf).amax(1)


def _rival(logits: Tensor, y: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """z_y and the largest other logit, or the target's where there is one."""
    own, others = first_two(logits, y)
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

    Untargeted log(1 + Σ_{j≠y} exp(z_j − z_y)), which is −log softmax(z)_y without the cancellation that leaves nothing
    but rounding of a confident network's gradient; targeted log softmax(z)_t.
    """
    scaled = _scaled(logits, spread)
    own = scaled.gather(1, y[:, None])[:, 0]
    away = nn.functional.softplus(scaled.scatter(1, y[:, None], -torch.inf).logsumexp(1) - own)
    if bool((target < 0).all()):
        return away
    return torch.where(target < 0, away, scaled.log_softmax(1).gather(1, target.clamp_min(0)[:, None])[:, 0])


def probability_margin(logits: Tensor, y: Tensor, target: Tensor, spread: Tensor) -> Tensor:
    r"""max_{j ≠ y} p_j − p_y, or p_t − p_y, with p the softmax of 20·z / spread.

    Source: "Towards Million-Scale Adversarial Robustness Evaluation With Stronger Individual Attacks" (Xie, Zheng,
    Huang, Ye & Ma 2024), the probability margin attack; there with the logits as they are.
    """
    own, other = _rival(_scaled(logits, spread).softmax(1), y, target)
    return other - own


def hard(logits: Tensor, y: Tensor, target: Tensor, spread: Tensor) -> Tensor:
    r"""The hard-training-point objective L(h(x), h(x)): the entropy of softmax(20·z / spread). It uses no label.

    Source: "Towards Explaining Adversarial Examples Phenomenon in Artificial Neural Networks" (Barati, Safabakhsh &
    Rahmati 2021), equation (10). It ends on the boundary, not beyond it: a look there counts only if the label loses.
    """
    return self_loss(_scaled(logits, spread))


def _scaled(logits: Tensor, spread: Tensor) -> Tensor:
    return logits * (_SPREAD / spread)[:, None]


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
        return (other - own) / spread
    third = top[:, 2]
    if logits.shape[1] > 3:
        third = torch.where(target < 0, third, (third + top[:, 3]) / 2)
    # 1e-6 of the spread: the published constant 1e-12 made blind to scale, so a tie of three does not explode.
    return (other - own) / (top[:, 0] - third + 1e-6 * spread)


def gaps(count: int) -> Loss:
    r"""z_j − z_y for the ``count`` likeliest other classes j, the likeliest first: a loss of several columns (N, C)."""

    def loss(logits: Tensor, y: Tensor, target: Tensor, spread: Tensor) -> Tensor:
        others = logits.scatter(1, y[:, None], -torch.inf)
        return others.topk(min(count, logits.shape[1] - 1), dim=1).values - logits.gather(1, y[:, None])

    return loss


LOSSES: dict[str, Loss] = {
    "margin": margin,
    "ce": ce,
    "dlr": dlr,
    "probability-margin": probability_margin,
    "hard": hard,
    "ce-raw": ce_raw,
}


def find_loss(loss: str | Loss) -> Loss:
    """A loss by name, or the callable itself."""
    if not isinstance(loss, str):
        return loss
    if loss not in LOSSES:
        raise BadInput("loss", expected="a known name or a callable", got=repr(loss), hint=nearest(loss, LOSSES))
    return LOSSES[loss]
