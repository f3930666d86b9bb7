"""Random weights for the networks of this room's tests."""

import torch
from torch import nn


def weights(net: nn.Module, seed: int, gain: float = 1.0) -> nn.Module:
    """Random weights from a generator of their own; batch statistics too."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in [*net.named_parameters(), *net.named_buffers()]:
            if (p.dtype.is_floating_point and not name.endswith(("mean", "std"))) or "running" in name:
                draw = torch.randn(p.shape, generator=g, dtype=torch.float64)
                spread = gain / max(p[0].numel(), 1) ** 0.5 if p.dim() > 1 else 0.3
                p.copy_(draw.abs() + 0.5 if "running_var" in name else draw * spread)
    return net.eval()
