"""What the certificates of trees, neighbours and kernels share: they look for one module, and nothing before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from calipers.certificates.certificate import NotApplicable
from calipers.models import Classifier, Normalize
from calipers.models.classifier import altered

__all__ = ["flat_box", "hooked", "only_module", "parts_of", "scaler"]

Kind = TypeVar("Kind", bound=nn.Module)


def parts_of(model: Classifier) -> list[nn.Module]:
    """The modules of a plain Sequential in their order, without Flatten; anything else is one module."""
    parts = list(model.module) if type(model.module) is nn.Sequential else [model.module]
    return [part for part in parts if type(part) is not nn.Flatten] or parts


def only_module(
    model: Classifier,
    kind: type[Kind],
    what: str,
    follows: Callable[[Kind, list[nn.Module]], bool] = lambda _, rest: not rest,
    wanted: str = "",
    scaled: bool = False,
) -> Kind:
    """The one module of this kind that the model is, behind nothing but Flatten.

    Arguments:
        follows: whether the certificate knows what these modules make of it; unless given there must be none.
        wanted: what to call such a model.
        scaled: whether a scaler may stand before it, see :func:`scaler`.

    Raises:
        NotApplicable: if the model is anything else.
    """
    parts = parts_of(model)
    first, *rest = parts[1:] if scaled and len(parts) > 1 and type(parts[0]) is Normalize else parts
    if not hooked(model) and type(first) is kind and follows(first, rest):
        return first
    got = "a module with a hook" if hooked(model) else ", ".join(type(part).__name__ for part in [first, *rest[:2]])
    raise NotApplicable(what, expected=f"a model that is {wanted or f'{kind.__name__} alone'}", got=got)


def hooked(model: Classifier) -> bool:
    """Whether a part does something else than its type says."""
    return any(map(altered, model.module.modules()))


def scaler(model: Classifier, like: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the scaler in front, each (d,), in the dtype of ``like``; 0 and 1 where there is none."""
    first, d = parts_of(model)[0], torch.Size(model.shape).numel()
    if type(first) is not Normalize:
        return like.new_zeros(d), like.new_ones(d)

    def flat(value: Tensor) -> Tensor:
        value = value.to(like)
        if value.numel() in (1, d):
            return value.reshape(-1).expand(d)
        return value.reshape(value.shape + (1,) * (len(model.shape) - value.dim())).expand(model.shape).reshape(-1)

    return flat(first.mean), flat(first.std)


def flat_box(model: Classifier, like: Tensor) -> tuple[Tensor, Tensor]:
    """The sides of the box for flattened inputs, each (d,), in the dtype of ``like``."""
    lo, hi = (side.expand(model.shape).reshape(-1) for side in model.box.sides(like))
    return lo, hi
