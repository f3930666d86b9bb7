"""The initial weights: fresh ones, or those of an earlier training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from calipers import models
from calipers.errors import BadInput, nearest
from calipers.models import ARCHITECTURES, Classifier
from calipers.models.training import WEIGHTS, about
from calipers.threats import Box

__all__ = ["INITIALISATIONS", "begun", "fresh", "initial", "trained_for"]

_DRAWN: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    # how weights are drawn, and what biases are
    "glorot": (nn.init.xavier_uniform_, 0.0),
    "tutorial": (partial(nn.init.trunc_normal_, std=0.1, a=-0.2, b=0.2), 0.1),
}
INITIALISATIONS = ("torch", *_DRAWN)


def fresh(
    arch: str, *, seed: int = 0, box: Box | None = None, shape: tuple[int, ...] | None = None, init: str = "torch"
) -> Classifier:
    """An untrained network, the same for the same seed; the caller's generator is left alone.

    Arguments:
        arch: a name of :data:`calipers.models.ARCHITECTURES`, or ``package.module:factory``.
        seed: of the weights.
        box: the values an input may take.
        shape: of one example; the architecture's own by default.
        init: ``"torch"``, the layers' own, ``"glorot"`` (uniform, biases 0), or ``"tutorial"``, that of the
            TensorFlow tutorial's network: N(0, 0.1²) cut at two deviations, biases 0.1.

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
        if init != "torch":
            _draw_again(module, init)
    if shape is None:
        raise BadInput(f"--arch {arch}", expected="to know the shape of one example", got="none", hint="give shape=")
    return Classifier.of(module.eval(), shape=shape, box=box, name=arch)


def _draw_again(module: nn.Module, init: str) -> None:
    draw, bias = _DRAWN[init]
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            draw(part.weight)
            if part.bias is not None:
                nn.init.constant_(part.bias, bias)


def begun(init: Path | None) -> dict[str, Any]:
    """What the ``train.json`` of a training to start from says; nothing for bare weights, or None.

    Raises:
        BadInput: if nothing is there, or the folder is not one of a training.
    """
    if init is not None and not init.exists():
        expected = f"the folder of a training, FILE.safetensors, or one of {', '.join(INITIALISATIONS)}"
        raise BadInput(f"--init {init}", expected=expected, got="nothing there")
    return about(init) if init is not None and init.is_dir() else {}


def trained_for(init: Path, norm: str | None = None) -> float:
    """The eps of the last good weights of an earlier training; 0 where none is known.

    Arguments:
        init: the folder of a training, or FILE.safetensors.
        norm: in which norm; of weights trained in another one nothing is known.

    Example:
        >>> trained_for(Path("weights-of-somebody-else.safetensors"))
        0.0
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(init / WEIGHTS if init.is_dir() else init, "pt") as stored:
            eps, _, known = (stored.metadata() or {}).get("eps", "0").partition(" ")
            return 0.0 if norm and known and known != norm else float(eps)
    except (OSError, SafetensorError, ValueError):
        return 0.0


def initial(
    init: Path | None, *, arch: str | None = None, seed: int = 0, shape: tuple[int, ...] | None = None,
    box: Box | None = None, drawn: str = "torch",
) -> Classifier:  # fmt: skip
    """Fresh weights, or those that an earlier training kept.

    Arguments:
        init: the folder of a training, or FILE.safetensors with ``arch``; None for fresh weights.
        arch: the architecture; a folder knows its own.
        seed, shape, box: as for :func:`fresh`.
        drawn: how fresh weights are drawn, the ``init`` of :func:`fresh`.

    Raises:
        BadInput: nothing there, or weights that do not fit the architecture, with the first tensors that differ.
    """
    told = begun(init)
    known = arch or told.get("arch")
    if known is None:
        raise BadInput("--arch", expected="the network to train", got="none", hint=f"one of {', '.join(ARCHITECTURES)}")
    if init is None:
        return fresh(known, seed=seed, shape=shape, box=box, init=drawn)
    file = init / WEIGHTS if init.is_dir() else init
    return replace(models.load(str(file), arch=known, shape=shape, box=box), name=known)
