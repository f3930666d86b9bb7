"""Models by ``package.module:factory``, as a user would give them."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from calipers.data import load
from calipers.models import ARCHITECTURES

__all__ = ["mnist_cnn", "random_mlp", "returns_nan"]


def random_mlp() -> nn.Module:
    """An untrained network for the digits."""
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)).eval()


def mnist_cnn() -> nn.Module:
    """The 5×5 conv 32/64 + 1024 network after one pass over 19,200 MNIST images; kept in the cache folder."""
    base = os.environ.get("XDG_CACHE_HOME")
    file = (Path(base) if base else Path.home() / ".cache") / "calipers" / "tests-mnist-cnn-1.safetensors"
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        net = ARCHITECTURES["mnist-cnn"].build()
        if file.exists():
            net.load_state_dict(load_file(file))
            return net.eval()
        train = load("mnist", split="train")
        optimizer = torch.optim.Adam(net.parameters(), 1e-3)
        for some in torch.randperm(len(train))[:19200].split(128):
            loss = nn.functional.cross_entropy(net(train.x[some]), train.y[some])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(net.state_dict(), file)
    return net.eval()


class _NaN(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = x.flatten(1)[:, :10] * 1.0
        out[x.flatten(1)[:, 20] > 0.9] = torch.nan
        return out


def returns_nan() -> nn.Module:
    """A network that answers NaN on some inputs."""
    return _NaN().eval()
