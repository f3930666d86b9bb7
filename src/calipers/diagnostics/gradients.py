"""Checks of the gradient: whether there is one, whether it points uphill, and what inside the model is in its way."""

from __future__ import annotations

import torch
from torch import Tensor

from calipers.attacks import column, margin
from calipers.diagnostics.battery import Evidence, Finding, check, verdict
from calipers.threats import steepest

# More than this share of examples without a gradient is more than a few dead units.
_FEW = 0.1


@check(
    "forward-can-be-differentiated",
    "Is every step of the forward pass differentiable?",
    "The audit also took gradients past these steps (BPDA) and searched without gradients; so must every evaluation.",
)
def differentiable(e: Evidence) -> Finding:
    """The steps that a straight-through pass has to bridge."""
    if e.bridges is None:
        return "not applicable", "the forward pass cannot be followed step by step"
    steps = [f"{name} ({times}×)" if times > 1 else name for name, times in e.bridges.items()]
    if steps:
        return "failed", f"on the way from the input: {', '.join(steps)}"
    return "passed", "no rounding, comparison, cut or gradient lies on the way from the input to the outputs"


@check(
    "gradients-are-there",
    "Is there a gradient that is finite and not zero?",
    "The attacks were blind: the audit also took gradients past what stops them and searched without gradients.",
)
def there(e: Evidence) -> Finding:
    """Zero and NaN gradients of the margin."""
    if not len(e.right):
        return "not applicable", "no example is classified correctly"
    if not e.gradients:
        return "failed", "the outputs have no gradient with respect to the input at all"
    zero, nan = _without(e.gradients["margin"])
    words = f"the margin's gradient is exactly zero on {zero:.0%} and not finite on {nan:.0%} of {len(e.right)} inputs"
    return verdict(zero + nan <= _FEW), words


@check(
    "gradients-point-uphill",
    "Does a small step along the gradient raise the loss?",
    "The gradient is not that of the answer: the audit also searched without gradients.",
)
def uphill(e: Evidence) -> Finding:
    """A step of a thousandth of the box along the sign of the gradient, inside the box."""
    if not e.gradients or e.is_random:
        return "not applicable", "the model is random" if e.is_random else "there is no gradient to follow"
    x, y, grad = e.some[e.right], e.y[e.right], e.gradients["margin"].nan_to_num()
    # In units of a typical input; float32 must be able to tell the two ends apart.
    size = column(1e-3 * e.model.box.scale(x), x)
    z = e.model.box.clamp(x + size * steepest(grad, "linf"))
    moves = (grad * (z - x)).flatten(1).sum(1) > 0
    if not bool(moves.any()):
        return "not applicable", "no input has a gradient to follow"
    rises = _margin(e, z, y) > _margin(e, x, y)
    share = float(rises[moves].double().mean())
    return verdict(share >= 2 / 3), f"a small step along the gradient raises the loss on {share:.0%} of {len(x)} inputs"


@check(
    "cross-entropy-has-a-gradient",
    "Would an attack that climbs the cross-entropy see a gradient?",
    "The logits are too large for float32. Calipers climbs the margin instead, so its numbers stand; do not believe "
    "the robust accuracy of attacks on the cross-entropy.",
)
def cross_entropy(e: Evidence) -> Finding:
    """Zero gradients of the plain cross-entropy where the margin's is not zero."""
    if "margin" not in e.gradients:
        return "not applicable", "there is no gradient at all"
    seen = e.gradients["margin"].flatten(1).abs().amax(1) > 0
    if not bool(seen.any()):
        return "not applicable", "the margin has no gradient either"
    zero, _ = _without(e.gradients["ce-raw"][seen])
    top = float((e.clean.amax(1) - e.clean.amin(1)).median())
    words = f"its gradient is exactly zero on {zero:.0%} of {int(seen.sum())} inputs; the logits of one span {top:.4g}"
    return verdict(zero <= _FEW), words


@check(
    "loss-fits-the-classes",
    "Are there enough classes for the losses that were climbed?",
    "The ratio of logits needs three classes: rely on the margin.",
)
def classes(e: Evidence) -> Finding:
    """Zero gradients of DLR where the margin's is not zero."""
    if "margin" not in e.gradients:
        return "not applicable", "there is no gradient at all"
    seen = e.gradients["margin"].flatten(1).abs().amax(1) > 0
    if not bool(seen.any()):
        return "not applicable", "the margin has no gradient either"
    zero, _ = _without(e.gradients["dlr"][seen])
    own = "its own form" if e.model.classes > 2 else "the margin in its place"
    return verdict(zero <= _FEW), f"{e.model.classes} classes: DLR takes {own}; it has no gradient on {zero:.0%}"


def _without(grad: Tensor) -> tuple[float, float]:
    """The shares of gradients that are zero, and that are not finite."""
    flat = grad.flatten(1)
    bad = (~flat.isfinite()).any(1)
    zero = (flat.nan_to_num().abs().amax(1) == 0) & ~bad
    return float(zero.double().mean()), float(bad.double().mean())


def _margin(e: Evidence, x: Tensor, y: Tensor) -> Tensor:
    out = e.logits(x)
    return margin(out, y, torch.full_like(y, -1), torch.ones_like(out[:, 0]))
