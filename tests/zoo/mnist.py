"""Two small networks for MNIST with stored weights: an honest robust one, and one that is robust to a weak attack only.

Both were trained by plain adversarial training (Adam, batches of 128): 8 epochs of PGD with 7 steps while eps rose to
0.3; then, for the second, on with PGD of 3 steps while eps rose to 0.5.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from calipers.audit import Inputs
from calipers.data import load
from calipers.models import Classifier

__all__ = ["mnist_inputs"]


@cache
def _net(name: str) -> nn.Module:
    with torch.random.fork_rng():
        net = nn.Sequential(
            *(nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.ReLU()),
            *(nn.Conv2d(16, 32, 5, stride=2, padding=2), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10)),
        )
    # Kept in half precision.
    weights = load_file(Path(__file__).parent / "weights" / f"{name}.safetensors")
    net.load_state_dict({key: value.float() for key, value in weights.items()})
    return net.eval().requires_grad_(False)


def mnist_inputs(name: str, examples: int) -> Inputs:
    """``"robust-0.3"`` or ``"weak-0.5"`` on the first test images."""
    test = load("mnist")
    return Inputs(Classifier.of(_net(name), shape=(1, 28, 28), name=name), test.take(examples), len(test))
