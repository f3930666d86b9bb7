"""The same function, computed faster on a CPU: max-pooling before ReLU, convolutions in channels-last memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor, nn

from calipers.models.classifier import Classifier

__all__ = ["faster"]


class _ChannelsLast(nn.Module):
    """A convolution whose weights, and with them its outputs, lie channels-last."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.layer = [layer]  # not a child: the user's own layer, whose mode and parameters are left alone
        self.weight = layer.weight.detach().to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        (layer,) = self.layer
        bias = None if layer.bias is None else layer.bias.detach()
        y: Tensor = layer._conv_forward(x, self.weight, bias)
        return y


def faster(model: Classifier) -> Classifier:
    r"""A classifier that computes the same logits and input gradients, in less time where that is known to be so.

    max(relu(a), relu(b)) = relu(max(a, b)), so the ReLU after a max-pooling has a fraction of the work; convolutions
    are quicker channels-last. Only sums inside a convolution are taken in another order, so logits agree to rounding.
    It reads ``nn.Sequential`` of float32 layers without hooks on a CPU; any other model is returned as it is. To
    search with; what is found is judged by the model itself.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2)).eval()
        >>> model, x = Classifier.of(net, shape=(1, 8, 8)), torch.rand(2, 1, 8, 8)
        >>> torch.allclose(faster(model)(x), model(x), atol=1e-5)
        True
    """
    layers = list(_layers(model.module))
    plain = all(_is_plain(layer) for layer in layers) and model.dtype == torch.float32 and model.device.type == "cpu"
    if not plain or not any(type(layer) is nn.Conv2d for layer in layers):
        return model
    for i in range(len(layers) - 1):
        first, second = layers[i : i + 2]
        if type(first) is nn.ReLU and type(second) is nn.MaxPool2d and not second.return_indices:
            layers[i : i + 2] = second, first
    quick = [_ChannelsLast(layer) if type(layer) is nn.Conv2d else layer for layer in layers]
    return replace(model, module=nn.Sequential(*quick))


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """The layers of nested Sequentials in order; anything else is a layer."""
    if type(module) is nn.Sequential and not _hooked(module):
        yield from chain.from_iterable(_layers(part) for part in module)
    else:
        yield module


def _is_plain(layer: nn.Module) -> bool:
    """Whether it is a layer of torch itself, without parts or hooks."""
    own = type(layer).__module__.startswith("torch.nn.modules") and type(layer) is not nn.Sequential
    return own and not list(layer.children()) and not _hooked(layer)


def _hooked(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )
