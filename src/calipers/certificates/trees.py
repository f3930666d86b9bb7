"""Decision trees exactly, and forests soundly, from the distances to the cells of their leaves."""

from __future__ import annotations

import torch
from torch import Tensor

from calipers.certificates.alone import flat_box, only_module, scaler
from calipers.certificates.arithmetic import OURS, Arithmetic
from calipers.certificates.certificate import Certified
from calipers.models import Classifier, Trees, public
from calipers.threats import Norm
from calipers.threats import norm as length

__all__ = ["trees"]

Sides = tuple[Tensor, Tensor]

# The distances are right to a few roundings of float64.
_SLACK = 1e-12
# Half a spacing of float32, relatively: scikit-learn's trees round their input first.
_FLOAT32 = 2.0**-24


@public
def trees(model: Classifier, x: Tensor, y: Tensor, norm: Norm) -> Certified:
    r"""The largest r with Σ_t min over leaves of tree t within r of (value_y − value_j) > 0, for every j ≠ y.

    A leaf is a box of inputs, and how far it is in any norm can be written down. One tree: exact, up to the float32
    rounding of its input. A forest: sound, for the trees' worst leaves need not share a point. In L0 it is one
    coordinate less than the smallest number found. A scaler in front moves and stretches the boxes.

    Arguments:
        model: :class:`calipers.models.Trees`, which scikit-learn's trees and forests become.
        x: inputs in the box, shape (N, \*shape).
        y: labels, shape (N,).
        norm: any of the four.

    Raises:
        NotApplicable: for any other model.

    Example:
        >>> from sklearn.tree import DecisionTreeClassifier
        >>> from calipers.models import from_sklearn
        >>> fitted = DecisionTreeClassifier().fit([[0.0], [1.0]], [0, 1])
        >>> x = torch.tensor([[0.25]], dtype=torch.float64)
        >>> round(trees(from_sklearn(fitted), x, torch.tensor([0]), "linf").radius.item(), 6)
        0.25
    """
    x, y = model.check(x, y)
    forest = only_module(model, Trees, "trees certificate", scaled=model.dtype == torch.float64)
    mean, std = scaler(model, x.double())
    cells = [_unscaled(_cells(forest, tree, len(mean)), mean, std) for tree in range(len(forest.value))]
    box = flat_box(model, x.double())
    slack = _slack(cells, Arithmetic.of(model.dtype).unit)
    radius = torch.cat([
        _radii(cells, some.double().flatten(1), label, norm, box, slack)
        for some, label in zip(x.split(16), y.split(16), strict=True)
    ])  # fmt: skip
    return Certified(radius, norm, "trees", str(model.dtype).removeprefix("torch."), domain=model.box)


def _cells(forest: Trees, tree: int, d: int) -> tuple[Tensor, Tensor, Tensor]:
    """The leaves of one tree: lo < x ≤ hi, each (L, d), and their values (L, K); edges widened by float32 rounding."""
    feature, threshold = forest.feature[tree].tolist(), forest.threshold[tree].double()
    left, right = forest.left[tree].tolist(), forest.right[tree].tolist()
    ends = torch.full((2, d), torch.inf, dtype=torch.float64, device=threshold.device)
    ends[0] = -torch.inf
    lows, highs, leaves, waiting = [], [], [], [(0, ends)]
    while waiting:
        node, cell = waiting.pop()
        if feature[node] < 0:
            lows.append(cell[0])
            highs.append(cell[1])
            leaves.append(node)
            continue
        wide = threshold[node].abs() * _FLOAT32 * 1.01 + 1e-44
        for side, child, edge in ((1, left, threshold[node] + wide), (0, right, threshold[node] - wide)):
            below = cell.clone()
            best = torch.minimum if side else torch.maximum
            below[side, feature[node]] = best(below[side, feature[node]], edge)
            waiting.append((child[node], below))
    return torch.stack(lows), torch.stack(highs), forest.value[tree, leaves].double()


def _unscaled(cells: tuple[Tensor, Tensor, Tensor], mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same leaves as boxes of what the scaler is given, widened by what it and we can round."""
    lo, hi, value = cells
    if bool((mean == 0).all() and (std == 1).all()):
        return cells
    lo, hi = lo * std + mean, hi * std + mean
    # The scaled input errs by two roundings of its size, which is that of the edge near the edge.
    lost = [16 * OURS * (mean.abs() + side.abs()).nan_to_num(posinf=0.0) for side in (lo, hi)]
    return lo - lost[0], hi + lost[1], value


def _slack(cells: list[tuple[Tensor, Tensor, Tensor]], unit: float) -> float:
    """What rounding can do to the difference of two sums of votes: the model's own, and ours below; one tree has none.

    A sum of n terms errs by at most 2n units of the sum of their sizes while n·unit is small.
    """
    size = sum(float(value.abs().max()) for _, _, value in cells)
    leaves = sum(len(value) for _, _, value in cells)
    executed = (len(cells) + 1) * unit if len(cells) > 1 else 0.0
    return 4 * size * (executed + 2 * leaves * OURS)


def _radii(
    cells: list[tuple[Tensor, Tensor, Tensor]], x: Tensor, y: Tensor, norm: Norm, box: Sides, slack: float
) -> Tensor:
    """Sort every tree's leaves by distance; what the worst leaf so far takes away is spent in that order."""
    # The last event, at infinity, takes nothing.
    far, drop = [torch.full_like(x[:, :1], torch.inf)], [x.new_zeros(len(x), len(cells[0][2].T), 1)]
    start = torch.zeros_like(drop[0][:, :, 0])
    for lo, hi, value in cells:
        distance = _distance(x, lo, hi, norm, box)
        gain = value.T[y][:, None] - value.T  # (N, K, L)
        distance, order = distance.sort(dim=1)
        worst = gain.gather(2, order[:, None].expand_as(gain)).cummin(2).values
        start = start + worst[:, :, 0]
        far.append(distance[:, 1:])
        drop.append(worst[:, :, :-1] - worst[:, :, 1:])
    events, order = torch.cat(far, 1).sort(dim=1)
    lost = torch.cat(drop, 2).gather(2, order[:, None].expand(-1, len(cells[0][2].T), -1)).cumsum(2)
    gone = start[..., None] - lost <= slack
    gone[torch.arange(len(y)), y] = False
    gone = gone.any(1)
    radius = torch.where(gone.any(1), events.gather(1, gone.int().argmax(1, keepdim=True))[:, 0], torch.inf)
    unsure = (start <= slack).scatter(1, y[:, None], False).any(1)
    radius = (radius - 1).clamp_min(0) if norm == "l0" else radius * (1 - _SLACK)
    return torch.where(unsure, 0.0, radius)


def _distance(x: Tensor, lo: Tensor, hi: Tensor, norm: Norm, box: Sides) -> Tensor:
    """‖x − cell ∩ box‖ from below: shape (N, L); inf where they do not meet."""
    lo, hi = torch.maximum(lo, box[0]), torch.minimum(hi, box[1])
    gap = torch.maximum(lo - x[:, None], x[:, None] - hi).clamp_min(0)
    distance = length(gap.flatten(0, 1), norm).view(gap.shape[:2])
    return torch.where((lo > hi).any(1), torch.inf, distance)
