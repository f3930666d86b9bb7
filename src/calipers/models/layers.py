"""The few modules that torch does not have, and a Linear that is made from its weights."""

from __future__ import annotations

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


class OneVsOne(nn.Module):
    r"""Pairwise scores to one score per class: votes plus a tie-break that never outweighs a vote.

    With s_ij > 0 a vote for i and s_ij < 0 a vote for j (i < j), and c_k the sum of the scores in favour of k:
    logit_k = votes_k + c_k / (3 (\|c_k\| + 1)). This is the aggregate that scikit-learn's SVC uses for
    ``decision_function_shape="ovr"``.

    Arguments:
        classes: K; inputs have shape (N, K(K−1)/2), the pairs in the order (0, 1), (0, 2), …, (K−2, K−1).

    Example:
        >>> OneVsOne(3)(torch.tensor([[1.0, 1.0, -1.0]])).argmax(1)
        tensor([0])
    """

    first: Tensor
    second: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        pairs = torch.triu_indices(classes, classes, offset=1)
        self.register_buffer("first", nn.functional.one_hot(pairs[0], classes).float())
        self.register_buffer("second", nn.functional.one_hot(pairs[1], classes).float())

    def forward(self, scores: Tensor) -> Tensor:
        """(N, K(K−1)/2) → (N, K)."""
        lost = (scores < 0).to(scores.dtype)
        votes = (1 - lost) @ self.first + lost @ self.second
        favour = scores @ (self.first - self.second)
        return votes + favour / (3 * (favour.abs() + 1))

    def extra_repr(self) -> str:
        """What ``repr`` shows between the brackets."""
        return f"classes={self.classes}"


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
