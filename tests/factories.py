"""Models by ``package.module:factory``, as a user would give them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from calipers.data import load
from calipers.models import ARCHITECTURES

__all__ = ["ends_in_softmax", "in_train_mode", "mnist_cnn", "nan_off_data", "random_mlp", "returns_nan", "slow_mlp"]


def random_mlp() -> nn.Module:
    """An untrained network for the digits."""
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)).eval()


def ends_in_softmax() -> nn.Module:
    """A network that hands over probabilities."""
    return nn.Sequential(*random_mlp(), nn.Softmax(1)).eval()


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


class _NaNOffData(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = random_mlp()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Every digit is a multiple of 1/16; an attacked one is not.
        attacked = ((x * 16).round() != x * 16).flatten(1).any(1, keepdim=True)
        return torch.where(attacked, torch.nan, self.net(x))


def nan_off_data() -> nn.Module:
    """A network that answers NaN on anything but clean digits."""
    return _NaNOffData().eval()


class _Slow(nn.Module):
    """The random network of this file with a custom forward, which no certificate reads, that takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.net = random_mlp()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Only batches that are attacked are slow: all that looks at a model from outside stays quick.
        if x.requires_grad:
            time.sleep(0.006)
        out: torch.Tensor = self.net(x)
        return out


def slow_mlp() -> nn.Module:
    """A network slow enough to be killed in mid-audit."""
    return _Slow().eval()


def in_train_mode() -> nn.Module:
    """A network that was not put in eval mode."""
    return nn.Sequential(random_mlp(), nn.Dropout()).train()
