"""The network of the PyTorch MNIST example of 2018, as a function of its weights; fast on a CPU, one at a time.

Many of them stacked and run as one by ``torch.func`` are no faster on a CPU, since stacked convolutions run as grouped
ones, which are slow there; :func:`stacked_gradient` is kept to be timed against.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.nn import functional as F

__all__ = ["Weights", "fit", "gradient", "logits", "make", "right", "stacked_gradient"]

Weights = dict[str, Tensor]
_SHAPES = {"conv1": (10, 1, 5, 5), "conv2": (20, 10, 5, 5), "fc1": (50, 320), "fc2": (10, 50)}
# So many images at once stay in the processor's cache.
_CHUNK = 250


def make(generator: torch.Generator) -> Weights:
    """A network with torch's default initialisation, U(−1/√fan_in, 1/√fan_in).

    Example:
        >>> make(torch.Generator().manual_seed(0))["conv1.weight"].shape
        torch.Size([10, 1, 5, 5])
    """
    weights = {}
    for name, shape in _SHAPES.items():
        bound = torch.Size(shape[1:]).numel() ** -0.5
        for part, size in (("weight", shape), ("bias", shape[:1])):
            weights[f"{name}.{part}"] = (2 * torch.rand(size, generator=generator) - 1) * bound
    return weights


def logits(weights: Weights, x: Tensor, channels: Tensor | None = None, units: Tensor | None = None) -> Tensor:
    """The scores, with the normalisation inside: (N, 1, 28, 28) → (N, 10).

    Arguments:
        weights: of one network. x: images in [0, 1]. channels, units: dropout's factors (N, 20), (N, 50), or none.

    Example:
        >>> logits(make(torch.Generator().manual_seed(0)), torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """
    z = (x - 0.1307) / 0.3081
    z = F.relu(_pool(F.conv2d(z, weights["conv1.weight"], weights["conv1.bias"])))
    z = F.conv2d(z, weights["conv2.weight"], weights["conv2.bias"])
    if channels is not None:
        z = z * channels[:, :, None, None]
    z = F.relu(_pool(z)).flatten(1)
    z = F.relu(F.linear(z, weights["fc1.weight"], weights["fc1.bias"]))
    if units is not None:
        z = z * units
    return F.linear(z, weights["fc2.weight"], weights["fc2.bias"])


def _pool(z: Tensor) -> Tensor:
    """2 × 2 max pooling; without gradients as two maxima, twice as fast as the kernel and the same numbers."""
    if torch.is_grad_enabled():
        return F.max_pool2d(z, 2)
    z = torch.maximum(z[:, :, ::2], z[:, :, 1::2])
    return torch.maximum(z[..., ::2], z[..., 1::2])


def fit(weights: Weights, x: Tensor, y: Tensor, *, epochs: int, generator: torch.Generator) -> Weights:
    """SGD as in the example: batches of 64, learning rate 0.01, momentum 0.5, dropout ½.

    Arguments:
        weights: to start from. x, y: what to train on. epochs: passes. generator: orders and dropout masks.
    """
    weights = {name: part.clone().requires_grad_() for name, part in weights.items()}
    optimizer = torch.optim.SGD(weights.values(), lr=0.01, momentum=0.5)
    for _ in range(epochs):
        for some in torch.randperm(len(x), generator=generator).split(64):
            masks = [2.0 * (torch.rand(len(some), k, generator=generator) < 0.5) for k in (20, 50)]
            loss = F.cross_entropy(logits(weights, x[some], *masks), y[some])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return {name: part.detach() for name, part in weights.items()}


def gradient(weights: Weights, x: Tensor, y: Tensor) -> Tensor:
    """∇ₓ of the summed cross-entropy, like x; some images at a time, with the channels last."""
    found = []
    for part, label in zip(x.split(_CHUNK), y.split(_CHUNK), strict=True):
        with torch.enable_grad():
            z = part.contiguous(memory_format=torch.channels_last).requires_grad_()
            loss = F.cross_entropy(logits(weights, z), label, reduction="sum")
            found += torch.autograd.grad(loss, z)
    return torch.cat(found)


@torch.inference_mode()
def right(weights: Weights, x: Tensor, y: Tensor) -> float:
    """The accuracy on (x, y)."""
    parts = x.contiguous(memory_format=torch.channels_last).split(_CHUNK)
    return float((torch.cat([logits(weights, part).argmax(1) for part in parts]) == y).float().mean())


def stacked_gradient(weights: Weights, x: Tensor, y: Tensor) -> Tensor:
    """What :func:`gradient` gives, of M networks stacked along axis 0, each on the same images: (M, N, 1, 28, 28)."""

    def loss(z: Tensor, one: Weights) -> Tensor:
        return F.cross_entropy(logits(one, z), y, reduction="sum")

    found: Tensor = vmap(grad(loss), in_dims=(None, 0))(x, weights)
    return found
