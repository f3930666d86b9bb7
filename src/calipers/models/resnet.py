"""ResNets for 32×32 images: a 3×3 stem and no pooling before the stages."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Residual", "resnet18", "resnet50"]


class Residual(nn.Module):
    r"""ReLU(body(x) + shortcut(x)): what a ResNet is made of.

    Arguments:
        body: convolutions and normalisations.
        shortcut: the identity, or a 1×1 convolution where the shape changes.

    Example:
        >>> import torch
        >>> Residual(nn.Identity(), nn.Identity())(torch.tensor([1.0, -1.0]))
        tensor([2., 0.])
    """

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut, self.relu = body, shortcut, nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """The shape of the body's output."""
        out: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return out


def _conv(inward: int, outward: int, size: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inward, outward, size, stride=stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(outward),
    ]


def _basic(inward: int, width: int, stride: int) -> tuple[nn.Module, int]:
    body = nn.Sequential(*_conv(inward, width, 3, stride), nn.ReLU(), *_conv(width, width, 3))
    return body, width


def _bottleneck(inward: int, width: int, stride: int) -> tuple[nn.Module, int]:
    out = 4 * width
    body = nn.Sequential(
        *_conv(inward, width, 1), nn.ReLU(), *_conv(width, width, 3, stride), nn.ReLU(), *_conv(width, out, 1)
    )
    return body, out


def _resnet(bottleneck: bool, depths: tuple[int, ...], inward: int = 3) -> nn.Sequential:
    layers: list[nn.Module] = [*_conv(inward, 64, 3), nn.ReLU()]
    channels = 64
    for stage, depth in enumerate(depths):
        for place in range(depth):
            stride = 2 if stage and place == 0 else 1
            body, out = (_bottleneck if bottleneck else _basic)(channels, 64 * 2**stage, stride)
            same = stride == 1 and out == channels
            layers.append(Residual(body, nn.Identity() if same else nn.Sequential(*_conv(channels, out, 1, stride))))
            channels = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def resnet18(channels: int = 3) -> nn.Sequential:
    """ResNet-18 for CIFAR-10, or for images of other channels: 2-2-2-2 basic blocks, 11,173,962 parameters.

    Source: "Deep Residual Learning for Image Recognition" (He et al. 2016), with the stem of Section 4.2.

    Example:
        >>> sum(p.numel() for p in resnet18().parameters())
        11173962
    """
    return _resnet(False, (2, 2, 2, 2), channels)


def resnet50() -> nn.Sequential:
    """ResNet-50 for CIFAR-10: 3-4-6-3 bottleneck blocks, 23,520,842 parameters; source as :func:`resnet18`.

    Example:
        >>> sum(p.numel() for p in resnet50().parameters())
        23520842
    """
    return _resnet(True, (3, 4, 6, 3))
