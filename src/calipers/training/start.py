"""The initial weights: fresh ones, or those of an earlier training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from calipers import models
from calipers.errors import BadInput, nearest
from calipers.models import ARCHITECTURES, Classifier
from calipers.threats import Box

__all__ = ["INITIALISATIONS", "earlier", "fresh"]

INITIALISATIONS = ("torch", "glorot")


def fresh(
    arch: str, *, seed: int = 0, box: Box | None = None, shape: tuple[int, ...] | None = None, init: str = "torch"
) -> Classifier:
    """An untrained network, the same for the same seed; the caller's generator is left alone.

    Arguments:
        arch: a name of :data:`calipers.models.ARCHITECTURES`, or ``package.module:factory``.
        seed: of the weights.
        box: the values an input may take.
        shape: of one example; the architecture's own by default.
        init: ``"torch"``, the layers' own, or ``"glorot"`` (uniform, biases 0).

    Raises:
        BadInput: for an unknown name, or a factory that fails.

    Example:
        >>> a, b = fresh("digits-mlp", seed=1), fresh("digits-mlp", seed=1)
        >>> torch.equal(a.module[1].weight, b.module[1].weight)
        True
    """
    if init not in INITIALISATIONS:
        raise BadInput("initial weights", got=repr(init), hint=nearest(init, INITIALISATIONS))
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(seed)
        if arch in ARCHITECTURES:
            module: Any = ARCHITECTURES[arch].build()
            shape = shape or ARCHITECTURES[arch].shape
        elif ":" in arch:
            module = models.made_by(arch)
        else:
            raise BadInput("--arch", expected="a built-in name or package.module:factory", got=repr(arch),
                           hint=nearest(arch, ARCHITECTURES))  # fmt: skip
        if isinstance(module, Classifier):
            module, shape = module.module, shape or module.shape
        if not isinstance(module, nn.Module):
            raise BadInput(f"--arch {arch}", expected="an nn.Module or a Classifier", got=type(module).__name__)
        if init == "glorot":
            _glorot(module)
    if shape is None:
        raise BadInput(f"--arch {arch}", expected="to know the shape of one example", got="none", hint="give shape=")
    return Classifier.of(module.eval(), shape=shape, box=box, name=arch)


def _glorot(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def earlier(init: Path, *, arch: str | None = None, shape: tuple[int, ...] | None = None,
            box: Box | None = None) -> tuple[Classifier, dict[str, Any]]:  # fmt: skip
    """The weights of an earlier training as a classifier, and its ``train.json`` (empty for a file of weights).

    Arguments:
        init: the folder of a training, or FILE.safetensors.
        arch: the architecture; a folder knows its own.
        shape, box: as for :func:`fresh`.

    Raises:
        BadInput: nothing there, or weights that do not fit the architecture, with the first tensor that differs.
    """
    from calipers.training.loop import ABOUT, WEIGHTS

    about: dict[str, Any] = {}
    file = init
    if init.is_dir():
        file = init / WEIGHTS
        try:
            about = json.loads((init / ABOUT).read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise BadInput(f"--init {init}", expected="the folder of a training", got=error) from error
    known = arch or about.get("arch")
    if known is None:
        raise BadInput(f"--init {init}", expected="--arch, the network the weights belong to", got="none")
    return models.load(str(file), arch=known, shape=shape, box=box), about
