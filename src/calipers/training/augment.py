"""Random crops and mirror images, the usual augmentation of small photographs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from calipers.runner.draws import Draws

__all__ = ["crop_and_flip"]


def crop_and_flip(x: Tensor, draws: Draws, *, pad: int = 4) -> Tensor:
    r"""Each image shifted by up to ``pad`` pixels either way, with zeros moved in, and mirrored half of the time.

    Arguments:
        x: images, shape (N, C, H, W).
        draws: of these examples, so that an image gets the same crop in any batch.
        pad: in pixels.

    Example:
        >>> x = torch.arange(16.0).view(1, 1, 4, 4)
        >>> crop_and_flip(x, Draws(0, torch.tensor([3]), 0), pad=0)[0, 0, 0].sort().values
        tensor([0., 1., 2., 3.])
    """
    n, _, height, width = x.shape
    chance = draws.uniform(3)
    down, right = ((chance[:, :2] * (2 * pad + 1)).long()).unbind(1)
    columns = torch.arange(width, device=x.device).expand(n, width)
    columns = torch.where(chance[:, 2:] < 0.5, columns, width - 1 - columns)
    rows = torch.arange(height, device=x.device).expand(n, height) + down[:, None]
    padded = nn.functional.pad(x, (pad,) * 4).permute(0, 2, 3, 1)
    which = torch.arange(n, device=x.device)[:, None, None]
    return padded[which, rows[:, :, None], (columns + right[:, None])[:, None, :]].permute(0, 3, 1, 2).contiguous()
