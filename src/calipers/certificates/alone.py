"""What the certificates of trees, neighbours and kernels share: they look for one module, and nothing before it."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn

from calipers.certificates.certificate import NotApplicable
from calipers.models import Classifier

__all__ = ["flat_box", "only_module", "parts_of"]

Kind = TypeVar("Kind", bound=nn.Module)


def parts_of(model: Classifier) -> list[nn.Module]:
    """The modules of a plain Sequential in their order, without Flatten; anything else is one module."""
    parts = list(model.module) if type(model.module) is nn.Sequential else [model.module]
    return [part for part in parts if type(part) is not nn.Flatten] or parts


def only_module(model: Classifier, kind: type[Kind], what: str) -> Kind:
    """The one module of this kind that the model is, behind nothing but Flatten.

    Raises:
        NotApplicable: if the model is anything else.
    """
    parts = parts_of(model)
    hooked = any(part._forward_hooks or part._forward_pre_hooks for part in model.module.modules())
    if not hooked and type(parts[0]) is kind and (len(parts) == 1 or kind.__name__ == "RbfScores"):
        return parts[0]
    got = "a module with a hook" if hooked else ", ".join(type(part).__name__ for part in parts[:3])
    raise NotApplicable(what, expected=f"a model that is {kind.__name__} alone", got=got)


def flat_box(model: Classifier, like: Tensor) -> tuple[Tensor, Tensor]:
    """The sides of the box for flattened inputs, each (d,), in the dtype of ``like``."""
    lo, hi = (side.expand(model.shape).reshape(-1) for side in model.box.sides(like))
    return lo, hi
