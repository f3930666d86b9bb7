"""The two small built-in models that are trained on the embedded digits in seconds."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from calipers.errors import BadInput
from calipers.models.architectures import ARCHITECTURES
from calipers.models.classifier import Classifier
from calipers.models.digest import digest

__all__ = ["TRAINED", "Recipe", "trained"]


@dataclass(frozen=True)
class Recipe:
    r"""How a built-in model is trained: Adam on (1 − κ) CE(x) + κ max CE over the L∞ ball of radius eps.

    The worst case is that of interval bounds ("On the Effectiveness of Interval Bound Propagation for Training
    Verifiably Robust Models", Gowal et al. 2018, equation 12); eps grows linearly over the first half, and the
    learning rate falls linearly to 0 over all of it.

    Arguments:
        epochs, batch, lr: of Adam.
        eps: the radius of the worst case, in the units of x; 0 trains on the clean examples alone.
        kappa: the worst case's share κ.
        version: raised whenever this file's training changes, so that no old cache is taken for the new model.

    Example:
        >>> TRAINED["digits-linear"].eps
        0.0
    """

    epochs: int = 60
    batch: int = 64
    lr: float = 0.005
    eps: float = 0.0
    kappa: float = 0.5
    version: int = 1


TRAINED: dict[str, Recipe] = {"digits-linear": Recipe(epochs=40), "digits-mlp": Recipe(eps=0.05, kappa=0.3)}


def trained(name: str, x: Tensor, y: Tensor, *, seed: int = 0, cache: Path | None = None) -> Classifier:
    r"""A built-in model, trained on these examples, or read from the cache if it has been trained on them before.

    Training takes seconds, draws from a generator of its own and leaves the caller's alone. The cache is keyed by
    recipe, seed, examples and torch version, and written atomically; a damaged file in it is made again.

    Arguments:
        name: ``"digits-mlp"`` or ``"digits-linear"``.
        x: training inputs in [0, 1], 64 numbers each, shape (N, \*shape).
        y: labels 0…9, shape (N,).
        seed: of the initial weights and the order of the examples.
        cache: a folder for the weights; None trains every time.

    Raises:
        BadInput: for examples that do not fit, or a cache folder that cannot be written to.

    Example:
        >>> x, y = torch.eye(64)[:20], torch.arange(20) % 10
        >>> trained("digits-linear", x, y)(x).shape
        torch.Size([20, 10])
    """
    recipe, key = TRAINED[name], _key(name, x, y, seed)
    file = cache / f"{name}-{key[:20]}.safetensors" if cache is not None else None
    model = _empty(name, x)
    x, y = model.check(x, y)
    if file is None or not _restored(model, file):
        with _one_thread():
            _fit(model.module, x, y, recipe, torch.Generator().manual_seed(seed))
        if file is not None:
            _store(model, file)
    return replace(model, origin=f"calipers: {name}, seed {seed}, examples and recipe {key[:20]}")


def _empty(name: str, x: Tensor) -> Classifier:
    # A layer's own initialisation draws from the global generator; it is put back, and the weights are drawn again.
    with torch.random.fork_rng(devices=[]):
        module = ARCHITECTURES[name].build().eval()
    names = tuple("0123456789")
    return Classifier.of(module, shape=tuple(x.shape[1:]), name=name, class_names=names)


def _key(name: str, x: Tensor, y: Tensor, seed: int) -> str:
    recipe = {"name": name, "seed": seed, "torch": torch.__version__, "shape": list(x.shape), **asdict(TRAINED[name])}
    sha = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode())
    for tensor in (x, y):
        sha.update(str(tensor.dtype).encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()


@contextmanager
def _one_thread() -> Iterator[None]:
    """How many threads share a sum changes its last bit, and so the model: train with one, on every machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _fit(module: nn.Module, x: Tensor, y: Tensor, recipe: Recipe, generator: torch.Generator) -> None:
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.kaiming_uniform_(part.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(part.bias)
    optimizer = torch.optim.Adam(module.parameters(), lr=recipe.lr)
    batches = -(-len(x) // recipe.batch)
    for step in range(recipe.epochs * batches):
        if step % batches == 0:
            order = torch.randperm(len(x), generator=generator)
        rows = order[step % batches * recipe.batch :][: recipe.batch]
        part_done = step / (recipe.epochs * batches)
        optimizer.param_groups[0]["lr"] = recipe.lr * (1 - part_done)
        loss = _loss(module, x[rows], y[rows], recipe.eps * min(1.0, 2 * part_done), recipe.kappa)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    optimizer.zero_grad()


def _loss(module: nn.Module, x: Tensor, y: Tensor, eps: float, kappa: float) -> Tensor:
    clean = nn.functional.cross_entropy(module(x), y)
    if eps == 0:
        return clean
    lo, hi = _interval(module, (x - eps).clamp(0, 1), (x + eps).clamp(0, 1))
    worst = hi.scatter(1, y[:, None], lo.gather(1, y[:, None]))
    return (1 - kappa) * clean + kappa * nn.functional.cross_entropy(worst, y)


def _interval(module: nn.Module, lo: Tensor, hi: Tensor) -> tuple[Tensor, Tensor]:
    """Interval bounds, without care for rounding: good enough to train with, not to certify with."""
    for part in module.children():
        if isinstance(part, nn.Linear):
            middle, reach = part((lo + hi) / 2), nn.functional.linear((hi - lo) / 2, part.weight.abs())
            lo, hi = middle - reach, middle + reach
        else:
            lo, hi = part(lo), part(hi)
    return lo, hi


def _restored(model: Classifier, file: Path) -> bool:
    """Fill the module from the cache; False if there is nothing there that it can trust."""
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        return False
    try:
        with safe_open(file, "pt") as stored:
            weights = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            expected = (stored.metadata() or {}).get("digest")
        model.module.load_state_dict(weights)
    except (SafetensorError, RuntimeError, OSError):
        return False
    return digest(model) == expected


def _store(model: Classifier, file: Path) -> None:
    from safetensors.torch import save

    half_done = file.with_name(f"{file.name}.tmp{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        half_done.write_bytes(save(model.module.state_dict(), {"digest": digest(model)}))
        half_done.replace(file)
    except OSError as error:
        with suppress(OSError):
            half_done.unlink()
        raise BadInput(f"cache {file.parent}", expected="a folder that can be written to", got=error) from error
