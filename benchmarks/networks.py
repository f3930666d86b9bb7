"""The networks of the benchmarks, and the images they get right."""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from tests.factories import mnist_cnn
from torch import Tensor, nn

from calipers.data import load
from calipers.models import ARCHITECTURES

__all__ = ["correct", "mlp", "named", "networks", "robust_cnn", "undefended_cnn"]

undefended_cnn = mnist_cnn


def robust_cnn(file: str) -> nn.Module:
    """The same architecture with weights of adversarial training, from a file that `calipers train` has written."""
    net = ARCHITECTURES["mnist-cnn"].build()
    net.load_state_dict(load_file(file))
    return net.eval()


def networks(robust: str | None) -> list[str]:
    """The names of the networks there are; the robust one needs a file."""
    return ["mlp", "undefended", *(["robust"] if robust else [])]


def named(name: str, robust: str | None) -> nn.Module:
    """A network by its name; no gradients of weights: peers need not pay for what they do not use."""
    if name == "robust" and robust is None:
        raise SystemExit("the robust network needs its weights: a file that `calipers train --arch mnist-cnn` wrote")
    net = (
        {"mlp": mlp, "undefended": undefended_cnn}[name]() if robust is None or name != "robust" else robust_cnn(robust)
    )
    return net.requires_grad_(False)


def mlp(width: int = 64, images: int = 20000) -> nn.Module:
    """784-64-10, trained for a minute's fraction on MNIST."""
    train = load("mnist", split="train")
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))
        optimizer = torch.optim.Adam(net.parameters(), 2e-3)
        for some in torch.randperm(len(train))[:images].split(128):
            loss = nn.functional.cross_entropy(net(train.x[some]), train.y[some])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval()


def correct(net: nn.Module, examples: int) -> tuple[Tensor, Tensor]:
    """The first MNIST test images that the network gets right."""
    data = load("mnist")
    x, y = data.x[: 2 * examples], data.y[: 2 * examples]
    with torch.no_grad():
        right = net(x).argmax(1) == y
    return x[right][:examples], y[right][:examples]
