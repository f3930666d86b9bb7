"""The few modules that torch does not have, and a Linear that is made from its weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from calipers.errors import BadInput

__all__ = ["Normalize", "OneVsOne", "linear", "two_classes"]


class Normalize(nn.Module):
    r"""Preprocessing that belongs to the model: (x − mean) / std.

    Arguments:
        mean, std: one number per channel, shape (C,) for inputs (N, C, H, W), or per feature, of an example's shape;
            missing trailing axes are broadcast. Every std is > 0. They are buffers, in the dtype they are given in.

    Raises:
        BadInput: if a std is not positive, or a value is not finite.

    Example:
        >>> Normalize(torch.tensor([0.5]), torch.tensor([0.25]))(torch.ones(1, 1, 1, 2))
        tensor([[[[2., 2.]]]])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        if not bool(mean.isfinite().all() and std.isfinite().all() and (std > 0).all()):
            raise BadInput("Normalize", expected="finite means and standard deviations > 0", got=f"std={std.tolist()}")
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x: Tensor) -> Tensor:
        """Every coordinate, centred and scaled: shape as ``x``."""
        return (x - _trailing(self.mean, x)) / _trailing(self.std, x)


def _trailing(value: Tensor, x: Tensor) -> Tensor:
    return value.reshape(value.shape + (1,) * (x.dim() - 1 - value.dim()))


class _Against(torch.autograd.Function):
    """1 where a score is negative, else 0; the slope is that of a step a few units wide, or no attack would get past.

    A gradient of 0 nearly everywhere says nothing; this one says which votes are the easiest to turn.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        ctx.save_for_backward(scores)
        return torch.where(scores < 0, torch.ones_like(scores), torch.zeros_like(scores))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (scores,) = ctx.saved_tensors
        slope: Tensor = -grads[0] / (2 * (1 + scores.abs()).square())
        return slope


class OneVsOne(nn.Module):
    r"""Pairwise scores to one score per class: votes, and what decides between as many votes.

    With s_ij > 0 a vote for i and s_ij < 0 a vote for j (i < j), and c_k the sum of the scores in favour of k:
    logit_k = votes_k + c_k / (3 (\|c_k\| + 1)), which never outweighs a vote. This is the aggregate that scikit-learn's
    SVC uses for ``decision_function_shape="ovr"``, and what its ``predict`` follows with ``break_ties=True``. Without,
    the first class of those with the most votes wins: logit_k = votes_k − k/(2K) + c_k / (6K (\|c_k\| + 1)).
    The gradient of a vote is that of s / (2 (1 + \|s\|)).

    Arguments:
        classes: K; inputs have shape (N, K(K−1)/2), the pairs in the order (0, 1), (0, 2), …, (K−2, K−1).
        break_ties: whether the scores decide between as many votes, or the order of the classes.

    Example:
        >>> OneVsOne(3)(torch.tensor([[1.0, 1.0, -1.0]])).argmax(1)
        tensor([0])
    """

    first: Tensor
    second: Tensor

    def __init__(self, classes: int, *, break_ties: bool = True) -> None:
        super().__init__()
        self.classes, self.break_ties = classes, break_ties
        pairs = torch.triu_indices(classes, classes, offset=1)
        self.register_buffer("first", nn.functional.one_hot(pairs[0], classes).float())
        self.register_buffer("second", nn.functional.one_hot(pairs[1], classes).float())

    def forward(self, scores: Tensor) -> Tensor:
        """(N, K(K−1)/2) → (N, K)."""
        lost: Tensor = _Against.apply(scores)  # type: ignore[no-untyped-call]
        votes = (1 - lost) @ self.first + lost @ self.second
        favour = scores @ (self.first - self.second)
        share = favour / (3 * (favour.abs() + 1))
        if self.break_ties:
            return votes + share
        order = torch.arange(self.classes, dtype=scores.dtype, device=scores.device)
        return votes + (share - order) / (2 * self.classes)

    def extra_repr(self) -> str:
        """What ``repr`` shows between the brackets."""
        return f"classes={self.classes}, break_ties={self.break_ties}"


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """``nn.Linear`` with these weights (out, in) and bias (out,), in their dtype; no random number is drawn.

    Example:
        >>> linear(torch.eye(2), torch.ones(2))(torch.zeros(1, 2)).tolist()
        [[1.0, 1.0]]
    """
    # Built without storage, so that no initialisation draws from the caller's generator.
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta", dtype=weight.dtype)
    layer.weight = nn.Parameter(weight.detach().clone())
    layer.bias = nn.Parameter(bias.detach().clone())
    return layer


def two_classes(dtype: torch.dtype = torch.float32) -> nn.Linear:
    """One logit z, shape (N, 1), to two, (-z/2, z/2): class 1 where z > 0. Certificates read it like any layer.

    Example:
        >>> net = nn.Sequential(linear(torch.tensor([[1.0, -2.0]]), torch.zeros(1)), two_classes())
        >>> net(torch.tensor([[0.5, 0.0], [0.0, 0.5]])).argmax(1)
        tensor([1, 0])
    """
    return linear(torch.tensor([[-0.5], [0.5]], dtype=dtype), torch.zeros(2, dtype=dtype))
