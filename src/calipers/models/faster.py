"""The same function, computed faster on a CPU: pooling before ReLU, channels last, pixels in blocks, fewer products."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from calipers.models.classifier import Classifier, altered
from calipers.models.filtering import RowFilter

__all__ = ["faster"]


class _ChannelsLast(nn.Module):
    """A convolution whose weights, and with them its outputs, lie channels-last."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.layer = [layer]  # not a child: the user's own layer, whose mode and parameters are left alone
        self.weight = layer.weight.detach().to(memory_format=torch.channels_last)
        self.bias = None if layer.bias is None else layer.bias.detach()
        self.blocks = _Blocks(layer) if _is_first(layer) else None
        self.rows = RowFilter(layer) if self.blocks is None and RowFilter.fits(layer) else None

    def forward(self, x: Tensor) -> Tensor:
        (layer,) = self.layer
        if self.blocks is not None:
            apply: Callable[..., Tensor] = _FewChannels.apply
            return apply(x, self.weight, self.bias, self.blocks)
        if self.rows is not None and self.rows.pays(x):
            return self.rows(x)
        y: Tensor = layer._conv_forward(x, self.weight, self.bias)
        return y


def _is_first(layer: nn.Conv2d) -> bool:
    """A plain convolution of an image's few channels, whose input gradient leaves most of a processor's lanes idle."""
    simple = (layer.dilation, layer.groups, layer.padding_mode) == ((1, 1), 1, "zeros")
    return simple and layer.in_channels <= 3 and isinstance(layer.padding, tuple)


_PIXELS = 4  # of a block's side at least


class _Blocks:
    """The input gradient of a convolution as a convolution that gives a block of pixels at once, one a channel.

    Along one axis y_o = Σ_k w_k x_{s·o + k − p}. With blocks of b = m·s pixels the gradient at pixel b·I + i is
    Σ_t g_{m·I + t} w_{i + p − s·t}: weights of length T, from t = ⌈(p − K + 1)/s⌉ on, and stride m.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        assert isinstance(layer.padding, tuple)
        self.stride, self.padding = layer.stride, layer.padding
        axes = list(zip(layer.kernel_size, self.stride, self.padding, strict=True))
        self.size = tuple(s * -(-_PIXELS // s) for _, s, _ in axes)
        self.first = tuple(-((k - 1 - p) // s) for k, s, p in axes)
        self.last = tuple((b - 1 + p) // s for b, (_, s, p) in zip(self.size, axes, strict=True))
        weight = layer.weight.detach()
        for axis in (0, 1):
            weight = self._spread(weight, axis)
        # (C_out, C_in, T, T', b, b') -> (C_in·b·b', C_out, T, T')
        self.weight = weight.permute(1, 4, 5, 0, 2, 3).flatten(0, 2).contiguous(memory_format=torch.channels_last)

    def _spread(self, weight: Tensor, axis: int) -> Tensor:
        """One axis K of (C_out, C_in, K, K', …) becomes T, and b is put at the end."""
        first, last, size = self.first[axis], self.last[axis], self.size[axis]
        weight = weight.movedim(2 + axis, -1)
        spread = weight.new_zeros(*weight.shape[:-1], last - first + 1, size)
        for t in range(first, last + 1):
            for i in range(size):
                k = i + self.padding[axis] - self.stride[axis] * t
                if 0 <= k < weight.shape[-1]:
                    spread[..., t - first, i] = weight[..., k]
        return spread.movedim(-2, 2 + axis)

    def gather(self, grad: Tensor, height: int, width: int) -> Tensor:
        """The gradient with respect to inputs of this height and width."""
        before, behind = (-self.first[0], -self.first[1]), []
        for axis, length in ((0, height), (1, width)):
            count = -(-length // self.size[axis])
            reached = self.size[axis] // self.stride[axis] * (count - 1) + self.last[axis]
            behind.append(reached + 1 - grad.shape[2 + axis])
        steps = tuple(b // s for b, s in zip(self.size, self.stride, strict=True))
        # Under autocast the gradient is of half precision, and nothing casts in a backward.
        convolve = partial(nn.functional.conv2d, weight=self.weight.to(grad.dtype), stride=steps)
        if all(0 <= last <= first for first, last in zip(before, behind, strict=True)):
            # The convolution pads both sides alike, without a copy; more blocks than are asked are cut off below.
            blocks = convolve(grad.contiguous(memory_format=torch.channels_last), padding=before)
        else:
            padded = nn.functional.pad(grad, (before[1], behind[1], before[0], behind[0]))
            blocks = convolve(padded.contiguous(memory_format=torch.channels_last))
        n, _, rows, columns = blocks.shape
        pixels = blocks.view(n, -1, *self.size, rows, columns).permute(0, 1, 4, 2, 5, 3)
        return pixels.reshape(n, -1, rows * self.size[0], columns * self.size[1])[:, :, :height, :width]


class _FewChannels(torch.autograd.Function):
    """A convolution of few channels; its input gradient is a convolution that fills blocks of pixels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, blocks: _Blocks) -> Tensor:
        ctx.blocks, ctx.shape = blocks, x.shape[2:]
        return nn.functional.conv2d(x, weight, bias, blocks.stride, blocks.padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.blocks.gather(grad, *ctx.shape), None, None, None


def faster(model: Classifier) -> Classifier:
    r"""A classifier that computes the same logits and input gradients, in less time where that is known to be so.

    max(relu(a), relu(b)) = relu(max(a, b)), so the ReLU after a max-pooling has a fraction of the work; convolutions
    are quicker channels-last, the input gradient of the first one in blocks of pixels, and those of many channels by
    minimal filtering. Sums inside a convolution are taken in another order, so logits and gradients agree to rounding.
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
    if type(module) is nn.Sequential and not altered(module):
        yield from chain.from_iterable(_layers(part) for part in module)
    else:
        yield module


def _is_plain(layer: nn.Module) -> bool:
    """Whether it is a layer of torch itself, without parts or hooks."""
    own = type(layer).__module__.startswith("torch.nn.modules") and type(layer) is not nn.Sequential
    return own and not list(layer.children()) and not altered(layer)
