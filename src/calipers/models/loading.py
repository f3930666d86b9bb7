"""From what the user typed to a classifier: a built-in name, a plugin, a file, or package.module:factory."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from calipers.errors import BadInput, nearest
from calipers.models.architectures import ARCHITECTURES
from calipers.models.blackbox import OnnxModel
from calipers.models.classifier import Classifier
from calipers.models.factory import is_factory, made_by, plugins
from calipers.models.files import READERS, read
from calipers.models.sklearn import from_sklearn
from calipers.models.training import WEIGHTS, about, folder_of
from calipers.models.zoo import TRAINED, trained
from calipers.threats import Box

__all__ = ["load"]

Bounds = Box | tuple[float, float] | None


def load(
    spec: str,
    *,
    arch: str | None = None,
    shape: tuple[int, ...] | None = None,
    box: Bounds = None,
    class_names: Sequence[str] | None = None,
    trust: bool = False,
    examples: Callable[[], tuple[Tensor, Tensor]] | None = None,
    cache: Path | None = None,
) -> Classifier:
    r"""The classifier that ``spec`` names.

    Looked up in this order:

    - ``digits-mlp``, ``digits-linear``: trained here when they are first asked for, see :func:`trained`.
    - a plugin: an entry point of the group ``calipers.models``.
    - ``package.module:factory``: an ``nn.Module``, a Classifier, a fitted scikit-learn estimator, or something that
      returns one when called without arguments; the current directory can be imported from.
    - the folder of a training: its weights, in the architecture that was trained.
    - ``FILE.safetensors``, or a state dict ``FILE.pt`` or ``FILE.pth``, for the architecture ``arch``.
    - ``FILE.onnx``: scores or labels by onnxruntime; with gradients where onnx2torch is installed.
    - ``FILE.skops``: a scikit-learn estimator, see :func:`from_sklearn`.
    - ``.pkl``, ``.pickle``, ``.joblib``, ``.pt2``, TorchScript and whole pickled modules, only with ``trust``.

    Arguments:
        spec: one of the above.
        arch: for weights: a built-in architecture, or ``package.module:factory``.
        shape: the shape of one example, usually the data's; the model's own if it knows one. A model of flat inputs
            (d,) takes any shape of d numbers, flattened.
        box: the values an input may take; otherwise the model's own, or [0, 1].
        class_names: taken if there are K of them, otherwise the model's own.
        trust: load what can run code on loading. Nothing shields you from it: this is not a sandbox.
        examples: called for (x, y) to train a built-in model with.
        cache: a folder for the weights of built-in models.

    Raises:
        BadInput: an unknown name, a missing, damaged, foreign or refused file, weights that do not fit the
            architecture, a factory that fails, or a model that cannot take the shape.

    Example:
        >>> load("digits-mpl")
        Traceback (most recent call last):
            ...
        calipers.errors.BadInput: model: expected a built-in name, a file or package.module:factory, got 'digits-mpl';
        did you mean 'digits-mlp'? known: digits-linear, digits-mlp
    """
    if spec in TRAINED and arch is None:
        found: Any = _built_in(spec, examples, cache)
    elif spec in plugins():
        point = plugins()[spec]
        found = made_by(f"{point.module}:{point.attr}")
    elif is_factory(spec):
        found = made_by(spec)
    elif (training := folder_of(spec)) is not None:
        found = _with_weights(spec, arch or about(training).get("arch"), read(training / WEIGHTS))
        found, arch = (replace(found, name=spec) if isinstance(found, Classifier) else found), None
    elif _is_file(spec):
        found = read(Path(spec).expanduser(), trust=trust)
    elif spec in ARCHITECTURES:
        hint = f"give FILE.safetensors with --arch {spec}, or the DIR of calipers train --arch {spec} --out DIR"
        raise BadInput(f"model {spec}", expected="weights", got="an architecture, which has none", hint=hint)
    else:
        hint = nearest(spec, [*TRAINED, *plugins()])
        raise BadInput("model", expected="a built-in name, a file or package.module:factory", got=repr(spec), hint=hint)
    if isinstance(found, dict):
        found = _with_weights(spec, arch, found)
    elif arch is not None:
        raise BadInput(f"--arch {arch}", expected="weights to put into it", got=f"{spec}, which is a whole model")
    if isinstance(found, OnnxModel) and found.labels:
        found.classes = len(class_names) if class_names else None
    return _fitted_to(_adopted(found, spec, shape, box), shape, box, class_names)


def _is_file(spec: str) -> bool:
    path = Path(spec).expanduser()
    return bool(spec) and (path.exists() or path.suffix.lower() in READERS or os.sep in spec)


def _built_in(name: str, examples: Callable[[], tuple[Tensor, Tensor]] | None, cache: Path | None) -> Classifier:
    if examples is None:
        raise BadInput(f"model {name}", expected="examples to train it with", got="none", hint="give examples=")
    return trained(name, *examples(), cache=cache)


def _with_weights(spec: str, arch: str | None, weights: dict[str, Tensor]) -> Any:
    """The architecture with these weights in it, in the weights' own dtypes."""
    known = ", ".join(sorted(ARCHITECTURES))
    if arch is None:
        raise BadInput(f"weights {spec}", expected="--arch, the network they belong to", got="none",
                       hint=f"one of {known}, or package.module:factory")  # fmt: skip
    # A new network draws its first weights from the global generator, which belongs to the caller.
    with torch.random.fork_rng(devices=[]):
        if arch in ARCHITECTURES:
            made: Any = ARCHITECTURES[arch].build()
            made = Classifier.of(made, shape=ARCHITECTURES[arch].shape, name=arch)
        elif is_factory(arch):
            made = made_by(arch)
        else:
            raise BadInput("--arch", expected="a built-in name or package.module:factory", got=repr(arch),
                           hint=nearest(arch, ARCHITECTURES))  # fmt: skip
    module = made.module if isinstance(made, Classifier) else made
    if not isinstance(module, nn.Module):
        raise BadInput(f"--arch {arch}", expected="an nn.Module or a Classifier", got=type(made).__name__)
    weights = _bare(weights, module.state_dict())
    _check_keys(spec, arch, weights, module.state_dict())
    module.load_state_dict(weights, assign=True)
    module.eval()
    return Classifier.of(module, shape=made.shape, box=made.box, name=arch) if isinstance(made, Classifier) else module


def _bare(given: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefix that a wrapper (DataParallel, torch.compile, Lightning) puts before all keys."""
    for prefix in ("module.", "_orig_mod.", "model."):
        if all(key.startswith(prefix) for key in given):
            bare = {key.removeprefix(prefix): value for key, value in given.items()}
            if set(bare) == set(wanted):
                return bare
    return given


def _check_keys(spec: str, arch: str, given: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    misshapen = [
        f"{key} {tuple(given[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted
        if key in given and given[key].shape != wanted[key].shape
    ]
    lists = {
        "missing": [key for key in wanted if key not in given],
        "unexpected": [key for key in given if key not in wanted],
        "of another shape": misshapen,
    }
    faults = [f"{fault}: {', '.join(keys[:3])}{', …' if keys[3:] else ''}" for fault, keys in lists.items() if keys]
    if faults:
        raise BadInput(f"weights {spec}", expected=f"those of {arch}", got="; ".join(faults))


def _adopted(found: Any, spec: str, shape: tuple[int, ...] | None, box: Bounds) -> Classifier:
    if isinstance(found, Classifier):
        return found
    if isinstance(found, nn.Module):
        if shape is None:
            raise BadInput(f"model {spec}", expected="to know the shape of one example", got="a bare nn.Module",
                           hint="give shape= (or data), or return a Classifier")  # fmt: skip
        return Classifier.of(found, shape=shape, box=box, name=spec, origin=spec)
    if hasattr(found, "get_params") and hasattr(found, "fit"):
        return from_sklearn(found, box=box, name=spec)
    raise BadInput(f"model {spec}", expected="an nn.Module, a Classifier or a scikit-learn estimator",
                   got=type(found).__name__)  # fmt: skip


def _fitted_to(
    model: Classifier, shape: tuple[int, ...] | None, box: Bounds, class_names: Sequence[str] | None
) -> Classifier:
    """The same function of inputs of the asked shape, in the asked box."""
    bounds = model.box if box is None else box if isinstance(box, Box) else Box(*box)
    names = tuple(class_names) if class_names is not None and len(class_names) == model.classes else model.class_names
    model = replace(model, box=bounds, class_names=names)
    if shape is None or tuple(shape) == model.shape:
        return model
    parts = [*model.module] if type(model.module) is nn.Sequential else [model.module]
    flat = len(model.shape) == 1 or isinstance(parts[0], nn.Flatten)
    if not flat or torch.Size(shape).numel() != torch.Size(model.shape).numel():
        raise BadInput(f"inputs of {model.name}", expected=f"examples of shape {model.shape}", got=f"shape {shape}")
    module = model.module if isinstance(parts[0], nn.Flatten) else nn.Sequential(nn.Flatten(), *parts)
    return replace(model, module=module, shape=tuple(shape))
