"""Fifty small networks as one: the same architecture, their weights stacked, trained in one batch by ``torch.func``.

On one CPU core this is no faster than a loop: stacked convolutions run as grouped ones, which are slow there.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.nn import functional as F

__all__ = ["Weights", "attack_step", "fit", "logits", "make", "one_by_one"]

Weights = dict[str, Tensor]
_SHAPES = {"conv1": (10, 1, 5, 5), "conv2": (20, 10, 5, 5), "fc1": (50, 320), "fc2": (10, 50)}


def make(count: int, generator: torch.Generator) -> Weights:
    """``count`` networks with torch's default initialisation, U(−1/√fan_in, 1/√fan_in), stacked along axis 0.

    Example:
        >>> make(3, torch.Generator().manual_seed(0))["conv1.weight"].shape
        torch.Size([3, 10, 1, 5, 5])
    """
    weights = {}
    for name, shape in _SHAPES.items():
        bound = torch.Size(shape[1:]).numel() ** -0.5
        for part, size in (("weight", shape), ("bias", shape[:1])):
            weights[f"{name}.{part}"] = (2 * torch.rand(count, *size, generator=generator) - 1) * bound
    return weights


def logits(weights: Weights, x: Tensor, channels: Tensor | None = None, units: Tensor | None = None) -> Tensor:
    """One network of the PyTorch MNIST example of 2018, with its normalisation inside: (N, 1, 28, 28) → (N, 10).

    Arguments:
        weights: of one network. x: images in [0, 1]. channels, units: dropout's factors (N, 20), (N, 50), or none.

    Example:
        >>> one = {name: part[0] for name, part in make(1, torch.Generator().manual_seed(0)).items()}
        >>> logits(one, torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """
    z = (x - 0.1307) / 0.3081
    z = F.relu(F.max_pool2d(F.conv2d(z, weights["conv1.weight"], weights["conv1.bias"]), 2))
    z = F.conv2d(z, weights["conv2.weight"], weights["conv2.bias"])
    if channels is not None:
        z = z * channels[:, :, None, None]
    z = F.relu(F.max_pool2d(z, 2)).flatten(1)
    z = F.relu(F.linear(z, weights["fc1.weight"], weights["fc1.bias"]))
    if units is not None:
        z = z * units
    return F.linear(z, weights["fc2.weight"], weights["fc2.bias"])


def _loss(weights: Weights, x: Tensor, y: Tensor, channels: Tensor, units: Tensor) -> Tensor:
    return F.cross_entropy(logits(weights, x, channels, units), y)


def fit(weights: Weights, x: Tensor, y: Tensor, rows: Tensor, *, epochs: int, generator: torch.Generator) -> Weights:
    """SGD as in the example: batches of 64, learning rate 0.01, momentum 0.5, dropout ½; each network on its own rows.

    Arguments:
        weights: M networks. x, y: all images. rows: which of them each network trains on, shape (M, n).
        epochs: passes. generator: orders and dropout masks.
    """
    weights = {name: part.clone() for name, part in weights.items()}
    speed = {name: torch.zeros_like(part) for name, part in weights.items()}
    step = vmap(grad(_loss))
    for _ in range(epochs):
        order = torch.rand(rows.shape, generator=generator).argsort(1)
        for some in rows.gather(1, order).split(64, dim=1):
            masks = [2.0 * (torch.rand(*some.shape, k, generator=generator) < 0.5) for k in (20, 50)]
            for name, part in step(weights, x[some], y[some], *masks).items():
                speed[name].mul_(0.5).add_(part)
                weights[name].sub_(speed[name], alpha=0.01)
    return weights


def _sum_loss(x: Tensor, weights: Weights, y: Tensor) -> Tensor:
    return F.cross_entropy(logits(weights, x), y, reduction="sum")


def attack_step(weights: Weights, z: Tensor, y: Tensor) -> Tensor:
    """The sign of the loss's gradient for every network on its own images: (M, N, 1, 28, 28) → the same."""
    signs: Tensor = vmap(grad(_sum_loss))(z, weights, y).sign()
    return signs


def one_by_one(weights: Weights, z: Tensor, y: Tensor) -> Tensor:
    """The same as :func:`attack_step`, network after network: what it is timed against."""
    parts = [{name: part[i] for name, part in weights.items()} for i in range(len(z))]
    return torch.stack([grad(_sum_loss)(z[i], part, y[i]).sign() for i, part in enumerate(parts)])
