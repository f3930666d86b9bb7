"""The network of the PyTorch MNIST example of 2018, as a function of its weights; fast on a CPU, one at a time.

Many of them stacked and run as one by ``torch.func`` are no faster on a CPU, since stacked convolutions run as grouped
ones, which are slow there; :func:`stacked_gradient` is kept to be timed against.
"""

from __future__ import annotations

from typing import Any

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


def logits(
    weights: Weights, x: Tensor, channels: Tensor | None = None, units: Tensor | None = None, *, quick: bool = False
) -> Tensor:
    """The scores, with the normalisation inside: (N, 1, 28, 28) → (N, 10).

    Arguments:
        weights: of one network. x: images in [0, 1]. channels, units: dropout's factors (N, 20), (N, 50), or none.
        quick: the first layer in a form that is faster on a CPU; the same numbers up to rounding.

    Example:
        >>> logits(make(torch.Generator().manual_seed(0)), torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """
    z, first = (x - 0.1307) / 0.3081, (weights["conv1.weight"], weights["conv1.bias"])
    z = _first(z, *first) if quick else F.relu(_pool(F.conv2d(z, *first)))
    z = F.conv2d(z, weights["conv2.weight"], weights["conv2.bias"])
    if channels is not None:
        z = z * channels[:, :, None, None]
    z = F.relu(_pool(z)).flatten(1)
    z = F.relu(F.linear(z, weights["fc1.weight"], weights["fc1.bias"]))
    if units is not None:
        z = z * units
    return F.linear(z, weights["fc2.weight"], weights["fc2.bias"])


def _first(z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """ReLU of 2 × 2 max pooling of a 5 × 5 convolution of one channel.

    All four outputs of a pool are channels of one 3 × 3 convolution of the image's 2 × 2 blocks, and the largest of
    four channels is taken: with the same numbers up to rounding the gradient is 1.6 times as fast on a CPU.
    """
    shifts = [F.pad(weight, (j, 1 - j, i, 1 - i)) for i in range(2) for j in range(2)]
    blocks = F.pixel_unshuffle(torch.cat(shifts), 2).contiguous(memory_format=torch.channels_last)
    z = F.pixel_unshuffle(z, 2).contiguous(memory_format=torch.channels_last)
    z = F.conv2d(z, blocks, bias.repeat(4))
    if torch.is_grad_enabled():
        largest: Tensor = _LargestOfFour.apply(z)  # type: ignore[no-untyped-call]
        return largest
    upper, lower = (torch.maximum(*half.chunk(2, 1)) for half in z.chunk(2, 1))
    return torch.maximum(upper, lower).relu_()


class _LargestOfFour(torch.autograd.Function):
    """ReLU of the largest of four groups of channels: (N, 4C, H, W) → (N, C, H, W), channels last."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        n, channels, height, width = z.shape
        largest, which = z.permute(0, 2, 3, 1).reshape(n, height, width, 4, channels // 4).max(3)
        ctx.save_for_backward(which, largest > 0)
        return largest.relu_().permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        which, positive = ctx.saved_tensors
        grad = grads[0].permute(0, 2, 3, 1) * positive
        spread = grad.new_zeros(*grad.shape[:3], 4, grad.shape[3])
        to_largest: Tensor = spread.scatter_(3, which[:, :, :, None], grad[:, :, :, None])
        return to_largest.flatten(3).permute(0, 3, 1, 2)


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
            loss = F.cross_entropy(logits(weights, x[some], *masks, quick=True), y[some])
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
            loss = F.cross_entropy(logits(weights, z, quick=True), label, reduction="sum")
            found += torch.autograd.grad(loss, z)
    return torch.cat(found)


@torch.inference_mode()
def right(weights: Weights, x: Tensor, y: Tensor) -> float:
    """The accuracy on (x, y)."""
    parts = x.contiguous(memory_format=torch.channels_last).split(_CHUNK)
    found = torch.cat([logits(weights, part, quick=True).argmax(1) for part in parts])
    return float((found == y).double().mean())


def stacked_gradient(weights: Weights, x: Tensor, y: Tensor) -> Tensor:
    """What :func:`gradient` gives, of M networks stacked along axis 0, each on the same images: (M, N, 1, 28, 28)."""

    def loss(z: Tensor, one: Weights) -> Tensor:
        return F.cross_entropy(logits(one, z), y, reduction="sum")

    found: Tensor = vmap(grad(loss), in_dims=(None, 0))(x, weights)
    return found
