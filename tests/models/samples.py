"""Factories that the tests name as ``tests.models.samples:…``."""

import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from calipers.errors import BadInput
from calipers.models import Classifier, linear


def weights(scale: float = 1.0) -> torch.Tensor:
    return scale * (torch.arange(12.0).reshape(3, 4) % 5 - 2)


def net() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), linear(weights(), torch.zeros(3)))


def bare() -> nn.Linear:
    return linear(weights(), torch.zeros(3))


def flat() -> Classifier:
    return Classifier.of(bare(), shape=(4,), box=(-1, 2), name="flat", class_names=("a", "b", "c"))


def image() -> Classifier:
    return Classifier.of(nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten(), bare()), shape=(1, 2, 2))


class Net(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.inner = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x.flatten(1))


def logistic() -> LogisticRegression:
    return LogisticRegression().fit([[0.0, 0, 0, 1], [1, 2, 3, 4], [4, 3, 3, 0]] * 2, [0, 1, 2] * 2)


class Foreign(LogisticRegression):
    """A type of ours, which skops cannot know."""


ready = net()
number = 7


def needy(path: str) -> nn.Module:
    return net()


def broken() -> nn.Module:
    raise KeyError("depth")


def particular() -> nn.Module:
    raise BadInput("depth", expected="a number", got="none")
