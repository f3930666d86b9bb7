"""The public edge of attacks and certificates: they take what their users hold, or say in a sentence what they need."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar, get_args, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from calipers.errors import BadInput, nearest
from calipers.models.classifier import Classifier
from calipers.models.sklearn import from_sklearn
from calipers.threats import Box, Threat, find_norm

__all__ = ["public", "understood"]

P = ParamSpec("P")
R = TypeVar("R")


def public(function: Callable[P, R]) -> Callable[P, R]:
    r"""Let a function of (model, x, y, threat) or (model, x, y, norm) be called with what its users hold.

    ``model`` may also be a bare ``nn.Module`` (its box is then [0, 1]) or a fitted scikit-learn classifier; ``x`` and
    ``y`` anything that NumPy makes an array of; ``threat`` a norm alone, and ``norm`` a threat; norms in any spelling.

    Raises:
        BadInput: for a keyword that the function does not know, and for arguments that are none of these.

    Example:
        >>> @public
        ... def first(model: Classifier, x: Tensor, y: Tensor, threat: Threat, *, steps: int = 1) -> str:
        ...     return f"{model(x).argmax(1).tolist()} {threat.norm}"
        >>> first(nn.Identity(), np.array([[0.25, 0.5]]), [1], "L_inf")
        '[1] linf'
        >>> first(nn.Identity(), [[0.25, 0.5]], [1], "l2", step=2)
        Traceback (most recent call last):
            ...
        calipers.errors.BadInput: first: expected options it knows, got 'step'; did you mean 'steps'? known: steps
    """
    name, signature = function.__name__, inspect.signature(function)

    @functools.wraps(function)
    def called(*given: P.args, **keywords: P.kwargs) -> R:
        known = _keywords(function)
        unknown = [word for word in keywords if word not in known]
        if unknown and known:
            options = known - {"model", "x", "y", "threat", "norm"}
            expected, hint = ("options it knows", nearest(unknown[0], options)) if options else ("no options", None)
            raise BadInput(name, expected=expected, got=repr(unknown[0]), hint=hint)
        try:
            bound = signature.bind(*given, **keywords)
        except TypeError as error:
            needs = [p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
            raise BadInput(name, expected=f"{name}({', '.join(needs)})", got=error) from None
        asked = bound.arguments
        asked["model"], asked["x"], y = understood(asked["model"], asked["x"], asked.get("y"))
        asked |= {} if y is None else {"y": y}
        asked |= {"threat": _threat(name, asked["threat"])} if "threat" in asked else {}
        asked |= {"norm": _norm(asked["norm"])} if "norm" in asked else {}
        with torch.inference_mode(False):
            # Tensors made in inference mode take no part in gradients; their copies do.
            asked |= {n: v.clone() for n, v in asked.items() if isinstance(v, Tensor) and v.is_inference()}
            return function(*bound.args, **bound.kwargs)

    return called


@functools.cache
def _keywords(function: Callable[..., Any]) -> frozenset[str]:
    """What may be given by name, those of ``**options: Unpack[…]`` among them; empty if anything may."""
    names: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not parameter.VAR_KEYWORD:
            names.append(parameter.name)
        elif unpacked := get_args(get_type_hints(function)[parameter.name]):
            names += unpacked[0].__annotations__
        else:
            return frozenset()
    return frozenset(names)


def understood(
    model: Any, x: Any, y: Any, box: Box | tuple[float, float] | None = None
) -> tuple[Classifier, Tensor, Any]:
    r"""A Classifier and tensors, of what somebody has.

    Arguments:
        model: a Classifier, an ``nn.Module`` that returns logits, or a fitted scikit-learn classifier.
        x: inputs, array or tensor, shape (N, \*shape).
        y: labels, shape (N,): 0…K−1, or for a scikit-learn classifier members of its ``classes_``; or None.
        box: the values an input may take; a Classifier's own, otherwise [0, 1], for scikit-learn (−∞, ∞).

    Raises:
        BadInput: for a model that is none of these, and for labels or inputs that are no numbers.

    Example:
        >>> model, x, y = understood(nn.Identity(), np.array([[0.25, 0.5]]), [1])
        >>> model.box, x.dtype, y
        (Box(0.0, 1.0), torch.float64, tensor([1]))
    """
    x = _tensor("inputs", x)
    if y is not None and np.ndim(y) == 0:
        raise BadInput("labels", expected="one for each example, shape (N,)", got="a single one",
                       hint="of one example make a batch: x[None], y[None]")  # fmt: skip
    if isinstance(model, nn.Module):
        model = Classifier.of(model, shape=tuple(x.shape[1:]), box=box, name=type(model).__name__)
    elif not isinstance(model, Classifier):
        if not hasattr(model, "predict"):
            raise BadInput("model", expected="a Classifier, an nn.Module or a fitted scikit-learn classifier",
                           got=type(model).__name__)  # fmt: skip
        y = _positions(model, y)
        model = from_sklearn(model, box=box)
    elif box is not None and not model.box.same(box if isinstance(box, Box) else Box(*box)):
        raise BadInput("box", expected=f"{model.box}, the classifier's own", got=box)
    labels = None if y is None else _tensor("labels", y)
    # Labels that are no whole numbers are left for the classifier to refuse.
    return model, x, labels if labels is None or labels.is_floating_point() else labels.long()


def _tensor(what: str, values: Any) -> Tensor:
    if isinstance(values, Tensor):
        return values
    try:
        # A copy: torch takes no array that runs backwards, and warns of one that cannot be written to.
        return torch.from_numpy(np.array(values))
    except (TypeError, ValueError) as error:
        raise BadInput(what, expected="numbers, in a tensor or an array", got=error) from None


def _positions(estimator: Any, y: Any) -> Any:
    """The places of labels among an estimator's classes."""
    if y is None or not hasattr(estimator, "classes_"):
        return y
    known: Mapping[Any, int] = {value: at for at, value in enumerate(np.asarray(estimator.classes_).tolist())}
    odd = [value for value in np.asarray(y).tolist() if value not in known]
    if odd:
        expected = f"members of classes_ of {type(estimator).__name__}"
        raise BadInput("labels", expected=expected, got=repr(odd[0]))
    return [known[value] for value in np.asarray(y).tolist()]


def _threat(who: str, given: object) -> Threat:
    if isinstance(given, Threat):
        return given
    if isinstance(given, str):
        return Threat(find_norm(given))
    got, expected = type(given).__name__, "a Threat or a norm"
    raise BadInput(f"threat of {who}", expected=expected, got=got, hint="such as Threat('linf', 0.1)")


def _norm(given: object) -> str:
    return given.norm if isinstance(given, Threat) else find_norm(given)
