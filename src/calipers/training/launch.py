"""Lightning Fabric, set up: device, precision, and one process or several."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from calipers.errors import BadInput, nearest

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.loggers.logger import Logger

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


@contextmanager
def _silent() -> Iterator[None]:
    """Without Fabric's announcements, and its advice on settings that are not ours to change."""
    log = logging.getLogger("lightning_fabric")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def launch(
    precision: str = "32", *, processes: int = 1, device: str = "auto", tensorboard: Path | None = None
) -> Fabric:
    """A Fabric whose processes run: those of ``torchrun`` if it started this one, else ``processes`` of its own.

    Several processes start by running this program's command line again, so this must come before anything that should
    happen once. Gradients are averaged over processes; gloo on CPU, NCCL on GPU.

    Arguments:
        precision: ``"32"`` or ``"bf16"`` (mixed).
        processes: on this machine; on GPU one device each.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        tensorboard: the folder under which TensorBoard events are written, in ``tensorboard``.

    Raises:
        BadInput: a device that is not there, fewer than one process, or TensorBoard where it is not installed.
    """
    if device not in DEVICES:
        raise BadInput("device", got=repr(device), hint=nearest(device, DEVICES))
    if device == "cuda" and not torch.cuda.is_available():
        raise BadInput("device", expected="one that is there", got="'cuda', which torch cannot see", hint="use cpu")
    if processes < 1:
        raise BadInput("processes", expected="at least 1", got=processes)
    from lightning_fabric import Fabric

    elastic = torch.distributed.is_torchelastic_launched()
    if os.environ.get("LOCAL_RANK", "0") != "0" and not elastic:
        _end_with_parent()
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if elastic else processes
    nodes = int(os.environ.get("WORLD_SIZE", "1")) // here if elastic else 1
    with _silent():
        fabric = Fabric(
            accelerator="cpu" if device == "cpu" or not torch.cuda.is_available() else "cuda",
            devices=here,
            num_nodes=nodes,
            strategy="ddp" if here * nodes > 1 else "auto",
            loggers=_loggers(tensorboard),
            precision="bf16-mixed" if precision == "bf16" else "32-true",
        )
        fabric.launch()
    return fabric


def _end_with_parent() -> None:
    """Let this process, which the first one started, be killed when that one is: else it would wait for it for long."""
    if sys.platform.startswith("linux"):
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


def _loggers(folder: Path | None) -> list[Logger]:
    if folder is None:
        return []
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger

    try:
        return [TensorBoardLogger(folder, name="tensorboard", version="")]
    except ModuleNotFoundError as error:
        raise BadInput("--tensorboard", expected="TensorBoard", got="none",
                       hint="install calipers[tensorboard]") from error  # fmt: skip
