"""Lightning Fabric, set up: device, precision, and one process or several."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

import torch

from calipers.errors import BadInput, nearest

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["DEVICES", "best_precision", "launch"]

DEVICES = ("auto", "cpu", "cuda")


def best_precision(device: str = "auto") -> str:
    """``"bf16"`` where the processor multiplies in bfloat16, else ``"32"``.

    Example:
        >>> best_precision("cpu") in ("32", "bf16")
        True
    """
    if device != "cpu" and torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "32"


def launch(precision: str = "32", *, processes: int = 1, device: str = "auto") -> Fabric:
    """A Fabric whose processes run: those of ``torchrun`` if it started this one, else ``processes`` of its own.

    Several processes start by running this program's command line again, so this must come before anything that should
    happen once. Gradients are averaged over processes; gloo on CPU, NCCL on GPU.

    Arguments:
        precision: ``"32"`` or ``"bf16"`` (mixed).
        processes: on this machine; on GPU one device each.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Raises:
        BadInput: a device that is not there, or fewer than one process.
    """
    if device not in DEVICES:
        raise BadInput("device", got=repr(device), hint=nearest(device, DEVICES))
    if device == "cuda" and not torch.cuda.is_available():
        raise BadInput("device", expected="one that is there", got="'cuda', which torch cannot see", hint="use cpu")
    if processes < 1:
        raise BadInput("processes", expected="at least 1", got=processes)
    from lightning_fabric import Fabric

    elastic = torch.distributed.is_torchelastic_launched()
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if elastic else processes
    nodes = int(os.environ.get("WORLD_SIZE", "1")) // here if elastic else 1
    with warnings.catch_warnings():
        # Fabric's advice on settings that are not ours to change.
        warnings.simplefilter("ignore")
        fabric = Fabric(
            accelerator="cpu" if device == "cpu" or not torch.cuda.is_available() else "cuda",
            devices=here,
            num_nodes=nodes,
            strategy="ddp" if here * nodes > 1 else "auto",
            precision="bf16-mixed" if precision == "bf16" else "32-true",
        )
        fabric.launch()
    return fabric
