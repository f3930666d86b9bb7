"""Interval bound propagation, and the largest radius it certifies."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from calipers.certificates.certificate import Certified, NotApplicable
from calipers.certificates.layers import ASSUMES, Affine, Layer, Reshape, Scale, read, unit_of
from calipers.models import Classifier
from calipers.threats import Box, Norm, dual

__all__ = ["interval", "largest_radius", "margins"]


def interval(model: Classifier, x: Tensor, y: Tensor, norm: Norm, *, batch_size: int = 128) -> Certified:
    r"""The largest radius at which interval arithmetic still proves the label, for the model as executed.

    The ball ∩ box becomes an interval for every coordinate (in L2 and L1 the first affine layer is bounded by
    Hölder's inequality as well), every layer maps intervals to intervals outward by its rounding error, and the last
    layer bounds z_y − z_j directly. The radius is found by a bracketed secant search; it is itself proved.

    Arguments:
        model: an ``nn.Sequential`` of known layers.
        x: inputs in the box, shape (N, \*shape).
        y: labels, shape (N,).
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        batch_size: how many examples at once.

    Raises:
        NotApplicable: for L0, and (UnknownOperator) for a layer without a rule.

    Source: "On the Effectiveness of Interval Bound Propagation for Training Verifiably Robust Models" (Gowal et al.
    2018), equations (6)-(8); the rounding is ours.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2)).double().eval()
        >>> _ = net.load_state_dict({"0.weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "0.bias": torch.zeros(2)})
        >>> x = torch.tensor([[0.75, 0.25]], dtype=torch.float64)
        >>> round(interval(Classifier.of(net, shape=(2,)), x, torch.tensor([0]), "linf").radius.item(), 3)
        0.25
    """
    if norm == "l0":
        raise NotApplicable("norm of interval bounds", expected="linf, l2 or l1", got="'l0'")
    x, y = model.check(x, y)
    layers, unit = read(model), unit_of(model.dtype)
    radii = []
    for some, labels in zip(x.double().split(batch_size), y.split(batch_size), strict=True):
        radii.append(_radii(layers, some, labels, norm, model.box, unit))
    return Certified(torch.cat(radii), norm, "interval", str(model.dtype).removeprefix("torch."), ASSUMES)


def _radii(layers: list[Layer], x: Tensor, y: Tensor, norm: Norm, box: Box, unit: float) -> Tensor:
    def lowest(radius: Tensor) -> Tensor:
        return margins(layers, x, y, radius, norm, box, unit)

    scale = box.scale(x)
    reach = torch.full_like(scale, box.reach(norm, x[0].numel()))
    # A label that is proved on the whole box cannot be lost at any distance.
    whole = lowest(reach) > 0 if box.bounded else torch.zeros_like(scale, dtype=torch.bool)
    return torch.where(whole, torch.inf, largest_radius(lowest, scale))


def largest_radius(lowest: Callable[[Tensor], Tensor], scale: Tensor, looks: int = 12) -> Tensor:
    """The largest radius found with lowest(radius) > 0, for a function that does not rise with the radius.

    A secant step (damped where one end stays, as in the Illinois rule) inside a bracket whose lower end is proved.
    """
    low, high = torch.zeros_like(scale), torch.full_like(scale, torch.inf)
    clean = lowest(low)
    at_low, at_high, guess = clean, torch.full_like(scale, -1.0), scale * 2.0**-16
    before = torch.ones_like(scale, dtype=torch.bool)
    for _ in range(looks):
        value = lowest(guess)
        good = value > 0
        # An end that stays for the second time counts half, so that both ends move.
        stays = torch.where(good == before, 0.5, 1.0)
        at_high, at_low = torch.where(good, at_high * stays, value), torch.where(good, value, at_low * stays)
        before = good
        low, high = torch.where(good, guess, low), torch.where(good, high, guess)
        if bool(((clean <= 0) | (high - low <= 1e-3 * low)).all()):
            break
        share = at_low / (at_low - at_high).clamp_min(1e-300)
        # Until something fails, aim a little past where the line through the clean margin meets zero.
        beyond = 1.01 * low * clean / (clean - value).clamp_min(1e-300)
        farther = torch.minimum(torch.maximum(beyond, 1.01 * low), 4 * scale)
        # Never quite at an end: a zero there must still be passed to be known.
        guess = torch.where(high.isinf(), farther, low + (high - low) * share.clamp(1e-3, 1 - 1e-4))
    return torch.where(clean > 0, low, 0.0)


def margins(layers: list[Layer], x: Tensor, y: Tensor, radius: Tensor, norm: Norm, box: Box, unit: float) -> Tensor:
    r"""min over j ≠ y of a lower bound of the executed z_y − z_j over {‖x' − x‖_p ≤ radius} ∩ box: shape (N,)."""
    lo, hi = ball_interval(x, radius, box)
    ball = _Ball(x, radius, norm) if norm != "linf" else None
    for layer in layers[:-1]:
        lo, hi, ball = _through(layer, lo, hi, ball, unit)
    last = layers[-1]
    if not (isinstance(last, Affine) and last.conv is None):
        lo, hi, _ = _through(last, lo, hi, ball, unit)
        own = lo.gather(1, y[:, None])
        return (own - hi).scatter(1, y[:, None], torch.inf).amin(1)
    return _last_margins(last, lo, hi, y, ball, unit).scatter(1, y[:, None], torch.inf).amin(1)


def ball_interval(x: Tensor, radius: Tensor, box: Box) -> tuple[Tensor, Tensor]:
    """The smallest box around ball ∩ box, rounded outward."""
    r = radius.view(-1, *[1] * (x.dim() - 1))
    down, up = torch.full_like(x, -torch.inf), torch.full_like(x, torch.inf)
    return box.clamp(torch.nextafter(x - r, down)), box.clamp(torch.nextafter(x + r, up))


class _Ball:
    """What is left of an L2 or L1 ball before the first affine layer: its image under a diagonal map."""

    def __init__(self, centre: Tensor, radius: Tensor, norm: Norm) -> None:
        self.centre, self.radius, self.norm = centre, radius, norm
        self.scale, self.error = torch.ones_like(centre[:1]), torch.zeros_like(centre[:1])

    def through(self, layer: Scale | Reshape, size: Tensor, unit: float) -> _Ball:
        """The ball after a layer that mixes no coordinates."""
        after = _Ball(layer(self.centre), self.radius, self.norm)
        after.scale = layer.spread(self.scale)
        after.error = layer.spread(self.error) + layer.rounding(size, unit)
        return after


def _through(
    layer: Layer, lo: Tensor, hi: Tensor, ball: _Ball | None, unit: float
) -> tuple[Tensor, Tensor, _Ball | None]:
    """The executed layer's interval, intersected with Hölder's where the ball still has its shape."""
    size = torch.maximum(lo.abs(), hi.abs())
    error = layer.rounding(size, unit)
    low, high = layer.interval(lo, hi)
    low, high = low - error, high + error
    if ball is None:
        return low, high, None
    if isinstance(layer, Scale | Reshape):
        return low, high, ball.through(layer, size, unit)
    if isinstance(layer, Affine):
        reach = layer.reach(ball.scale, dual(ball.norm))
        reach = reach * ball.radius.view(-1, *[1] * reach.dim()) if reach.dim() > 1 else ball.radius[:, None] * reach
        middle, slack = layer(ball.centre), error + layer.spread(ball.error)
        # 1e-12 covers the float64 arithmetic of the reach itself.
        reach = reach * (1 + 1e-12)
        low, high = torch.maximum(low, middle - reach - slack), torch.minimum(high, middle + reach + slack)
    return low, high, None


def _last_margins(last: Affine, lo: Tensor, hi: Tensor, y: Tensor, ball: _Ball | None, unit: float) -> Tensor:
    """Lower bounds of z_y − z_j: the difference of two rows bounded as one row. Shape (N, K)."""
    error = last.rounding(torch.maximum(lo.abs(), hi.abs()), unit)
    middle, half = (lo + hi) / 2, (hi - lo) / 2
    centre = last(middle)
    lowest = torch.empty_like(centre)
    for label in y.unique():
        rows = (y == label).nonzero()[:, 0]
        apart = last.weight[label] - last.weight
        bound = centre[rows, label][:, None] - centre[rows] - half[rows] @ apart.abs().T
        if ball is not None:
            at = last(ball.centre[rows])
            reach = Affine(apart, None).reach(ball.scale, dual(ball.norm)) * (1 + 1e-12)
            slack = ball.error.expand_as(lo)[rows] @ apart.abs().T
            held = at[:, label][:, None] - at - ball.radius[rows, None] * reach - slack
            bound = torch.maximum(bound, held)
        lowest[rows] = bound - error[rows] - error[rows, label][:, None]
    return lowest
