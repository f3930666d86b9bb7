"""Built-in architectures: untrained networks by name, as the papers describe them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import nn

from calipers.models.layers import Normalize
from calipers.models.resnet import resnet18, resnet50

__all__ = ["ARCHITECTURES", "Architecture"]


class Architecture(NamedTuple):
    """How to build an untrained network, and the shape of the inputs it is meant for.

    Example:
        >>> ARCHITECTURES["digits-linear"].shape
        (1, 8, 8)
    """

    build: Callable[[], nn.Sequential]
    shape: tuple[int, ...]


def _mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    for inward, outward in pairwise(widths):
        layers += [nn.Linear(inward, outward), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _mnist_cnn() -> nn.Sequential:
    """The network of "Towards Deep Learning Models Resistant to Adversarial Attacks", Madry et al. 2018, for MNIST.

    It is the TensorFlow tutorial's, which "Towards Deep Learning Models Resistant to Large Perturbations" uses too.
    """
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(3136, 1024), nn.ReLU(), nn.Linear(1024, 10)),
    )


def _mnist_small() -> nn.Sequential:
    """The small network of "Provable defenses via the convex outer adversarial polytope", Wong & Kolter 2018."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 4, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10)),
    )


def _mnist_lenet() -> nn.Sequential:
    """MatConvNet's LeNet: inputs times 255 less a mean image (a buffer, 0 until it is set), weights 0.01·N(0, 1)."""
    net = nn.Sequential(
        Normalize(torch.zeros(1, 28, 28), torch.full((1, 28, 28), 1 / 255)),
        *(nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2)),
        *(nn.Conv2d(50, 500, 4), nn.ReLU(), nn.Conv2d(500, 10, 1), nn.Flatten()),
    )
    for layer in net:
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
    return net


ARCHITECTURES: dict[str, Architecture] = {
    "digits-linear": Architecture(partial(_mlp, 64, 10), (1, 8, 8)),
    "digits-mlp": Architecture(partial(_mlp, 64, 64, 32, 10), (1, 8, 8)),
    "mnist-cnn": Architecture(_mnist_cnn, (1, 28, 28)),
    "mnist-lenet": Architecture(_mnist_lenet, (1, 28, 28)),
    "mnist-mlp": Architecture(partial(_mlp, 784, 256, 128, 10), (1, 28, 28)),
    "mnist-mlp-512": Architecture(partial(_mlp, 784, 512, 512, 10), (1, 28, 28)),
    "mnist-small": Architecture(_mnist_small, (1, 28, 28)),
    "mnist-resnet18": Architecture(partial(resnet18, 1), (1, 28, 28)),
    "resnet18": Architecture(resnet18, (3, 32, 32)),
    "resnet50": Architecture(resnet50, (3, 32, 32)),
}
