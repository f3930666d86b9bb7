"""Small networks whose exact radii are known: the truth that attacks and certificates are held against."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from calipers.models.classifier import Classifier
from calipers.models.layers import linear
from calipers.threats import NORMS, Box, Norm

__all__ = ["Reference", "references"]

# The radius of one example from its coordinates and its label.
Radius = Callable[[Sequence[float], int, Norm], float]


@dataclass(frozen=True, eq=False)
class Reference:
    r"""A classifier, examples, and how far each of them really is from another answer.

    Weights and inputs are short binary fractions, so that float32 and float64 compute the same logits without any
    rounding, and a radius holds in both.

    Arguments:
        classifier: the network.
        x: inputs in its box, shape (N, \*shape).
        y: labels, shape (N,).
        radius: for each norm, the smallest ‖z − x‖ over all z in the box where y does not lead alone; 0 where y is
            wrong to begin with, ``inf`` where the box leaves no such z. float64, shape (N,).
    """

    classifier: Classifier
    x: Tensor
    y: Tensor
    radius: dict[Norm, Tensor]


def references(dtype: torch.dtype = torch.float64) -> tuple[Reference, ...]:
    r"""All reference networks: affine with and without a binding box, K = 2, 3 and 1000, ReLU and convolution.

    Arguments:
        dtype: of weights and inputs, ``torch.float64`` or ``torch.float32``.

    Example:
        >>> for ref in references():
        ...     print(f"{ref.classifier.name}: {ref.classifier.shape}, K = {ref.classifier.classes}")
        affine-2: (5,), K = 2
        affine-3-in-box: (1, 2, 3), K = 3
        affine-1000-in-box: (2, 2, 2), K = 1000
        never: (4,), K = 2
        convolution-in-box: (1, 4, 4), K = 3
        linf-ball: (1, 2, 2), K = 2
        l1-ball: (3,), K = 2
    """
    return tuple(make(dtype) for make in (_affine_2, _affine_3, _affine_1000, _never, _convolution, _linf, _l1))


def _affine_2(dtype: torch.dtype) -> Reference:
    """(−f/2, f/2) with f = ⟨w, x⟩ + b on the whole space: the radius is |f| / ‖w‖_q."""
    net = nn.Sequential(nn.Flatten(), _signed([[1.0, -2.0, 0.5, 0.0, 1.5]], [0.25]))
    return _affine("affine-2", net, _pattern(6, 5) * 2, Box(-math.inf, math.inf), dtype)


def _affine_3(dtype: torch.dtype) -> Reference:
    """Three classes; inputs at and near the sides of the box; the last label is wrong."""
    weight = _pattern(3, 6, 17)
    net = nn.Sequential(nn.Flatten(), linear(weight, -weight.sum(1) / 2 + torch.tensor([0.5, -0.25, 0.0])))
    x = (_pattern(8, 6, 11).reshape(-1, 1, 2, 3) + 1).clamp(0.5, 1.5) - 0.5
    return _affine("affine-3-in-box", net, x, Box(0, 1), dtype, wrong_label=True)


def _affine_1000(dtype: torch.dtype) -> Reference:
    """A thousand classes of which few ever lead."""
    net = nn.Sequential(nn.Flatten(), linear(_pattern(1000, 8, 257), _pattern(1, 1000, 101)[0] / 2))
    return _affine("affine-1000-in-box", net, _pattern(4, 8, 13).reshape(-1, 2, 2, 2), Box(-1, 1), dtype)


def _never(dtype: torch.dtype) -> Reference:
    """The other class needs ⟨w, x⟩ < −5 where the box ends at −4.5: every radius is inf."""
    net = nn.Sequential(_signed([[1.0, -2.0, 0.5, -1.0]], [5.0]))
    return _affine("never", net, _pattern(3, 4), Box(-1, 1), dtype)


def _convolution(dtype: torch.dtype) -> Reference:
    """A convolution u, taken apart by ReLU into u⁺ and u⁻ and put together again: an affine function in disguise."""
    kernel, shift = _pattern(2, 4, 9).reshape(2, 1, 2, 2), _pattern(1, 2, 3)[0]
    convolution = nn.utils.skip_init(nn.Conv2d, 1, 4, 2, stride=2, dtype=torch.float64)
    with torch.no_grad():
        convolution.weight.copy_(torch.cat([kernel, -kernel]))
        assert convolution.bias is not None
        convolution.bias.copy_(torch.cat([shift, -shift]))
    mixed = _pattern(3, 8, 7)
    mixing = linear(torch.cat([mixed, -mixed], 1), torch.zeros(3, dtype=torch.float64))
    net = nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), mixing)
    with torch.no_grad():
        # All classes are nearly equal in the middle of the box, so that each leads somewhere.
        mixing.bias.sub_(net(torch.full((1, 1, 4, 4), 0.5, dtype=torch.float64))[0])
        mixing.bias.add_(torch.tensor([0.0625, 0.0, -0.03125]))
    x = ((_pattern(5, 16, 19).reshape(-1, 1, 4, 4) * 2).clamp(-1, 1) + 1) / 2
    return _affine("convolution-in-box", net.double(), x, Box(0, 1), dtype)


def _linf(dtype: torch.dtype) -> Reference:
    """f = 1 − ‖x‖_∞ in four dimensions, the maximum as max(a, b) = b + (a − b)⁺ in ReLU layers."""
    net = nn.Sequential(
        nn.Flatten(),
        linear(torch.cat([torch.eye(4), -torch.eye(4)]).double(), torch.zeros(8)),
        nn.ReLU(),
        _rows([[1, -1, 0, 0] * 2, [0, 1, 0, 0] * 2, [0, 0, 1, -1] * 2, [0, 0, 0, 1] * 2]),
        nn.ReLU(),
        _rows([[1, 1, -1, -1], [0, 0, 1, 1]]),
        nn.ReLU(),
        _signed([[-1.0, -1.0]], [1.0]),
    )
    x = torch.tensor([[0, 0, 0, 0], [0.5, -0.75, 0.25, 0], [1.5, 0.25, -1.25, 0.75], [-1.75, 0, 0.5, 0.5]])
    return _reference("linf-ball", net, x.reshape(-1, 1, 2, 2), Box(-2, 2), dtype, _linf_ball_radius)


def _l1(dtype: torch.dtype) -> Reference:
    """f = 1 − ‖x‖₁ in three dimensions, with one hidden layer."""
    net = nn.Sequential(
        linear(torch.cat([torch.eye(3), -torch.eye(3)]).double(), torch.zeros(6)),
        nn.ReLU(),
        _signed([[-1.0] * 6], [1.0]),
    )
    x = torch.tensor([[0, 0, 0], [0.25, -0.5, 0], [1.25, -0.5, 0.25], [-1.5, 1.25, 0.75]])
    return _reference("l1-ball", net, x, Box(-2, 2), dtype, _l1_ball_radius)


def _pattern(rows: int, columns: int, modulus: int = 15) -> Tensor:
    """Fractions in (−1, 1) with no visible order, the same for ever: multiples of a power of two."""
    i, j = torch.arange(rows)[:, None], torch.arange(columns)
    mixed = (7 * i * i + 13 * i * j + 31 * j * j + 3 * i + 5 * j) % modulus
    return (mixed - modulus // 2).double() / float(2 ** math.ceil(math.log2(modulus / 2)))


def _rows(weight: list[list[int]]) -> nn.Linear:
    return linear(torch.tensor(weight, dtype=torch.float64), torch.zeros(len(weight)))


def _signed(weight: list[list[float]], bias: list[float]) -> nn.Linear:
    """One score f as the two logits (−f/2, f/2)."""
    half = torch.tensor([[-0.5], [0.5]], dtype=torch.float64)
    return linear(half @ torch.tensor(weight, dtype=torch.float64), half @ torch.tensor(bias, dtype=torch.float64))


def _reference(
    name: str, net: nn.Module, x: Tensor, box: Box, dtype: torch.dtype, radius: Radius, y: Tensor | None = None
) -> Reference:
    """The radii of every example under its predicted label, or under ``y``."""
    x, net = x.double(), net.double().eval()
    with torch.no_grad():
        labels = net(x).argmax(1) if y is None else y
    rows = list(zip(x.flatten(1).tolist(), labels.tolist(), strict=True))
    table = {norm: torch.tensor([radius(*row, norm) for row in rows], dtype=torch.float64) for norm in NORMS}
    model = Classifier.of(net.to(dtype), shape=tuple(x.shape[1:]), box=box, name=name, origin="calipers reference")
    return Reference(model, x.to(dtype), labels, table)


def _affine(
    name: str, net: nn.Module, x: Tensor, box: Box, dtype: torch.dtype, *, wrong_label: bool = False
) -> Reference:
    """A network that is affine on the whole space: its weights are read off at 0 and at the unit vectors."""
    net = net.double()
    units = torch.eye(x[0].numel(), dtype=torch.float64).view(-1, *x.shape[1:])
    with torch.no_grad():
        bias = net(torch.zeros_like(units[:1]))[0]
        weight = (net(units) - bias).T
        y = net(x.double()).argmax(1)
    if wrong_label:
        y[-1] = (y[-1] + 1) % len(bias)
    lo, hi = (float(side) for side in (box.lo, box.hi))

    def radius(row: Sequence[float], label: int, norm: Norm) -> float:
        logits = weight @ torch.tensor(row, dtype=torch.float64) + bias
        best = math.inf
        for j in range(len(bias)):
            slopes = (weight[j] - weight[label]).tolist()
            rooms = [hi - v if w > 0 else v - lo for v, w in zip(row, slopes, strict=True)]
            if j != label:
                best = min(best, _crossing(float(logits[label] - logits[j]), slopes, rooms, norm))
        return best

    return _reference(name, net, x, box, dtype, radius, y)


def _crossing(gap: float, slopes: Sequence[float], rooms: Sequence[float], norm: Norm) -> float:
    """min ‖δ‖ subject to Σ |w_i| δ_i ≥ gap and 0 ≤ δ_i ≤ room_i, one coordinate after the other."""
    if gap <= 0:
        return 0.0
    free = [(abs(w), room) for w, room in zip(slopes, rooms, strict=True) if w != 0 and room > 0]
    if norm in ("l1", "l0"):
        return _greedy(gap, free, norm)
    # L∞ moves every coordinate by t, L2 by t·|w_i|, until its room is used up.
    power = 0 if norm == "linf" else 1
    t, rate = 0.0, sum(w * w**power for w, _ in free)
    for w, room in sorted(free, key=lambda pair: pair[1] / pair[0] ** power):
        stop = room / w**power
        if gap <= rate * (stop - t):
            t += gap / rate
            return t if norm == "linf" else math.hypot(*(min(t * v, r) for v, r in free))
        gap -= rate * (stop - t)
        t, rate = stop, rate - w * w**power
    return math.inf


def _greedy(gap: float, free: list[tuple[float, float]], norm: Norm) -> float:
    spent = 0.0
    for w, room in sorted(free, key=lambda pair: pair[0] if norm == "l1" else pair[0] * pair[1], reverse=True):
        if gap <= w * room:
            return spent + (gap / w if norm == "l1" else 1)
        gap -= w * room
        spent += room if norm == "l1" else 1
    return math.inf


def _linf_ball_radius(row: Sequence[float], _: int, norm: Norm) -> float:
    """To ‖z‖_∞ = 1: from inside one coordinate must grow, from outside every coordinate beyond 1 must shrink."""
    inside = 1 - max(abs(v) for v in row)
    beyond = [max(abs(v) - 1, 0.0) for v in row]
    if inside >= 0:
        return 1.0 if norm == "l0" else inside
    return {
        "linf": max(beyond),
        "l2": math.hypot(*beyond),
        "l1": sum(beyond),
        "l0": float(sum(v > 0 for v in beyond)),
    }[norm]


def _l1_ball_radius(row: Sequence[float], _: int, norm: Norm) -> float:
    """To Σ|z_i| = 1: inside any coordinate may grow for ever, outside each may shrink to 0."""
    sizes = [abs(v) for v in row]
    over = sum(sizes) - 1
    return _crossing(abs(over), [1.0] * len(row), sizes if over > 0 else [math.inf] * len(row), norm)
