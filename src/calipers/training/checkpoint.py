"""A training that can be killed at any moment: its whole state as one safetensors file, and the one before it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from calipers.errors import BadInput
from calipers.runner.files import atomic_write

__all__ = ["CHECKPOINT", "NAMES", "PREVIOUS", "State", "has_checkpoint"]

CHECKPOINT, PREVIOUS = "checkpoint.safetensors", "checkpoint.previous.safetensors"
NAMES = (f"{CHECKPOINT}.new", CHECKPOINT, PREVIOUS)


def has_checkpoint(folder: Path) -> bool:
    """Whether a training in this folder can be gone on with."""
    return any((folder / name).is_file() for name in NAMES)


@dataclass(eq=False)
class State:
    """Where a training stands. Random draws are functions of (seed, epoch, step): no generator has to be kept.

    Arguments:
        module, optimizer: what is trained, and by what.
        epoch: finished epochs.
        step: finished steps of the next one.
        loss: the sum of its examples' losses so far.
        seconds: what its finished steps took.
        reached: whether a gradient reached the first weights in one of them.
        rows: the metrics of the finished epochs.
        before: the weights at the end of the last epoch, by name.
        stopped: why the training ended before its last epoch, if it did.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    reached: bool = False
    rows: list[dict[str, float | None]] = field(default_factory=list)
    before: dict[str, Tensor] = field(default_factory=dict)
    stopped: str | None = None

    def __post_init__(self) -> None:
        if not self.before:
            self.remember()

    def remember(self) -> None:
        """The weights as they are now are the last good ones."""
        self.before = {name: value.detach().clone() for name, value in self.module.state_dict().items()}

    def go_back(self) -> None:
        """The last good weights again."""
        self.module.load_state_dict(self.before)

    def save(self, folder: Path) -> None:
        """Write the checkpoint; the one before it is kept, so that one whole file is there at every moment.

        Raises:
            BadInput: if the disk is full or cannot be written to; the last checkpoint stays.
        """
        from safetensors.torch import save

        inner = self.optimizer.state_dict()
        tensors = {f"weights/{name}": value for name, value in self.module.state_dict().items()}
        tensors |= {f"before/{name}": value for name, value in self.before.items()}
        for number, values in inner["state"].items():
            tensors |= {f"optimizer/{number}/{name}": v for name, v in values.items() if isinstance(v, Tensor)}
        told = {"groups": inner["param_groups"], **{name: getattr(self, name) for name in _TOLD}}
        content = save({n: v.detach().cpu().contiguous() for n, v in tensors.items()}, {"state": json.dumps(told)})
        beside = folder / f"{CHECKPOINT}.new"
        atomic_write(beside, content)
        if (folder / CHECKPOINT).exists():
            (folder / CHECKPOINT).replace(folder / PREVIOUS)
        beside.replace(folder / CHECKPOINT)

    def load(self, folder: Path) -> Path:
        """Go on from the newest whole checkpoint of a folder, and say which it was.

        Raises:
            BadInput: there is none, or none that fits this network.
        """
        damaged = []
        for name in NAMES:
            if (folder / name).is_file():
                try:
                    self._restore(*_read(folder / name))
                    return folder / name
                except _Damaged as error:
                    damaged.append(f"{name} ({error})")
        got = f"only damaged ones: {', '.join(damaged)}" if damaged else "none"
        raise BadInput(f"checkpoint in {folder}", expected="a whole one", got=got, hint="--replace starts again")

    def _restore(self, tensors: dict[str, Tensor], told: dict[str, Any]) -> None:
        parts: dict[str, dict[str, Tensor]] = {"weights": {}, "before": {}}
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            part, _, rest = name.partition("/")
            if part == "optimizer":
                number, _, key = rest.partition("/")
                states.setdefault(int(number), {})[key] = value
            else:
                parts[part][rest] = value
        try:
            self.module.load_state_dict(parts["weights"])
        except RuntimeError as error:
            raise BadInput("checkpoint", expected="weights that fit the architecture", got=error) from error
        self.optimizer.load_state_dict({"state": states, "param_groups": told["groups"]})
        for weight, moments in self.optimizer.state.items():
            for name, value in moments.items():
                if value.shape == weight.shape:
                    # As the weights lie in memory: fused optimizers go through both without looking at strides.
                    moments[name] = torch.empty_like(weight).copy_(value)
        like = self.module.state_dict()
        self.before = {name: value.to(like[name].device) for name, value in parts["before"].items()}
        # Earlier checkpoints do not say whether a gradient reached the first weights.
        told = {"reached": True} | told
        for name in _TOLD:
            setattr(self, name, told[name])


_TOLD = ("epoch", "step", "loss", "seconds", "reached", "rows", "stopped")


class _Damaged(Exception):
    """A checkpoint that was interrupted or overwritten."""


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as stored:
            told = json.loads((stored.metadata() or {})["state"])
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise _Damaged(str(error).splitlines()[0]) from error
    if not math.isfinite(told.get("loss", math.nan)):
        raise _Damaged("its loss is not a number")
    return tensors, told
