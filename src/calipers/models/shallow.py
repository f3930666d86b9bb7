"""Trees, nearest neighbours and Gaussian kernels as torch modules: what scikit-learn has and torch has not."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["NearestNeighbour", "RbfScores", "Trees"]


class Trees(nn.Module):
    r"""Decision trees that vote: the mean over trees of the values of the leaf that x falls into.

    As in scikit-learn x is rounded to float32 and goes left where x_f ≤ threshold. The output is piecewise constant
    and has no gradient: only scores and labels can be attacked.

    Arguments:
        feature: which coordinate a node looks at, int64 (T, nodes), −1 in a leaf.
        threshold: float (T, nodes).
        left, right: the children, int64 (T, nodes).
        value: what a leaf gives to every class, float (T, nodes, K).

    Example:
        >>> feature, zero = torch.tensor([[0, -1, -1]]), torch.zeros(1, 3)
        >>> left, right = torch.tensor([[1, 1, 2]]), torch.tensor([[2, 1, 2]])
        >>> value = torch.tensor([[[0.5, 0.5], [1.0, 0.0], [0.0, 1.0]]])
        >>> Trees(feature, zero, left, right, value)(torch.tensor([[-1.0], [2.0]])).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """

    no_gradient = True
    feature: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    value: Tensor

    def __init__(self, feature: Tensor, threshold: Tensor, left: Tensor, right: Tensor, value: Tensor) -> None:
        super().__init__()
        # The first one says in what dtype the model computes.
        named = {"threshold": threshold, "value": value, "feature": feature, "left": left, "right": right}
        for name, tensor in named.items():
            self.register_buffer(name, tensor)

    def forward(self, x: Tensor) -> Tensor:
        """(N, d) → (N, K)."""
        tree = torch.arange(len(self.feature), device=x.device)
        node = torch.zeros(len(x), len(tree), dtype=torch.int64, device=x.device)
        seen = x.float().to(self.threshold.dtype)
        while bool((inner := self.feature[tree, node] >= 0).any()):
            low = seen.gather(1, self.feature[tree, node].clamp_min(0)) <= self.threshold[tree, node]
            below = torch.where(low, self.left[tree, node], self.right[tree, node])
            node = torch.where(inner, below, node)
        # One tree after the other, then the division, as scikit-learn does: only so are tied votes tied here too.
        return self.value[tree, node].cumsum(1)[:, -1] / len(tree)

    def extra_repr(self) -> str:
        """What ``repr`` shows between the brackets."""
        return f"trees={self.value.shape[0]}, classes={self.value.shape[2]}"


class NearestNeighbour(nn.Module):
    r"""One nearest neighbour in L2: logit_k = −min ‖x − p‖² over the stored points p of class k.

    Arguments:
        points: shape (n, d).
        labels: int64, shape (n,); every class 0…K−1 has a point.

    Example:
        >>> NearestNeighbour(torch.tensor([[0.0], [1.0]]), torch.tensor([0, 1]))(torch.tensor([[0.25]])).tolist()
        [[-0.0625, -0.5625]]
    """

    points: Tensor
    labels: Tensor

    def __init__(self, points: Tensor, labels: Tensor) -> None:
        super().__init__()
        self.register_buffer("points", points)
        self.register_buffer("labels", labels)
        self.classes = int(labels.max()) + 1

    def forward(self, x: Tensor) -> Tensor:
        """(N, d) → (N, K)."""
        apart = torch.stack([(x[:, None] - some).square().sum(2).amin(1) for some in self.by_class()], 1)
        return -apart

    def by_class(self) -> list[Tensor]:
        """The points of every class, each (n_k, d)."""
        return [self.points[self.labels == label] for label in range(self.classes)]

    def extra_repr(self) -> str:
        """What ``repr`` shows between the brackets."""
        return f"points={len(self.points)}, classes={self.classes}"


class RbfScores(nn.Module):
    r"""Scores of a Gaussian kernel machine: s_p(x) = Σ_i a_pi exp(−γ‖x − v_i‖²) + b_p.

    Arguments:
        vectors: v, shape (n, d).
        coefficients: a, shape (P, n).
        bias: b, shape (P,).
        gamma: γ > 0.

    Example:
        >>> net = RbfScores(torch.zeros(1, 2), torch.ones(1, 1), torch.tensor([-0.5]), 1.0)
        >>> net(torch.zeros(1, 2)).tolist()
        [[0.5]]
    """

    vectors: Tensor
    coefficients: Tensor
    bias: Tensor

    def __init__(self, vectors: Tensor, coefficients: Tensor, bias: Tensor, gamma: float) -> None:
        super().__init__()
        self.register_buffer("vectors", vectors)
        self.register_buffer("coefficients", coefficients)
        self.register_buffer("bias", bias)
        self.gamma = gamma

    def forward(self, x: Tensor) -> Tensor:
        """(N, d) → (N, P)."""
        exact = torch.cdist(x, self.vectors, compute_mode="donot_use_mm_for_euclid_dist")
        return torch.exp(-self.gamma * exact.square()) @ self.coefficients.T + self.bias

    def extra_repr(self) -> str:
        """What ``repr`` shows between the brackets."""
        return f"vectors={len(self.vectors)}, scores={len(self.bias)}, gamma={self.gamma:g}"
