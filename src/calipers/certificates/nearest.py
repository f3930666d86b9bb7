"""The radius of one nearest neighbour: how far the nearest cell of another class's point is."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from calipers.certificates.alone import only_module
from calipers.certificates.certificate import Certified, NotApplicable
from calipers.certificates.polyhedron import distance_below, multipliers
from calipers.models import Classifier, NearestNeighbour, public
from calipers.threats import Norm, dual
from calipers.threats import norm as length

__all__ = ["nearest"]


@public
def nearest(model: Classifier, x: Tensor, y: Tensor, norm: Norm, *, solve: int = 8) -> Certified:
    r"""min over points p_j of other classes of the distance to {z : ‖z − p_j‖ ≤ ‖z − p_i‖ for all i of class y}.

    Every cell is a polyhedron: 2⟨p_j − p_i, δ⟩ ≥ ‖x − p_j‖² − ‖x − p_i‖². One of its half-spaces, the farthest, bounds
    its distance from below for all cells at once; the cells with the smallest such bound are then solved, until the
    nearest is found or ``solve`` of them have been looked at. Multipliers prove what is returned, so a solver's
    tolerance costs radius and nothing else. The box is not used.

    Arguments:
        model: :class:`calipers.models.NearestNeighbour`, which scikit-learn's KNeighborsClassifier(1) becomes.
        x: inputs in the box, shape (N, \*shape).
        y: labels, shape (N,).
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        solve: how many cells are solved at most, for each example.

    Raises:
        NotApplicable: for any other model, for L0, and for a scaler in front of the neighbours.

    Source: "Evaluating the Robustness of Nearest Neighbor Classifiers: A Primal-Dual Perspective" (Wang, Liu, Yi, Zhou
    & Hsieh 2019), Section 3.

    Example:
        >>> from calipers.models import NearestNeighbour
        >>> points = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
        >>> model = Classifier.of(NearestNeighbour(points, torch.tensor([0, 1])), shape=(2,))
        >>> x = torch.tensor([[0.25, 0.0]], dtype=torch.float64)
        >>> round(nearest(model, x, torch.tensor([0]), "l2").radius.item(), 6)
        0.25
    """
    if norm == "l0":
        raise NotApplicable("norm of the nearest-neighbour certificate", expected="linf, l2 or l1", got="'l0'")
    x, y = model.check(x, y)
    stored = only_module(model, NearestNeighbour, "nearest-neighbour certificate")
    points, labels = stored.points.double(), stored.labels
    unit = float(torch.finfo(model.dtype).eps)
    radii = []
    for centre, label in zip(x.double().flatten(1), y, strict=True):
        own, other = points[labels == label], points[labels != label]
        radii.append(_radius(centre, own, other, norm, unit, solve))
    radius = torch.tensor(radii, dtype=torch.float64, device=x.device)
    assumes = "squared distances summed plainly, in any order"
    return Certified(radius, norm, "nearest", str(model.dtype).removeprefix("torch."), assumes, model.box)


def _radius(x: Tensor, own: Tensor, other: Tensor, norm: Norm, unit: float, solve: int) -> float:
    """The smallest distance of a cell, from below."""
    mine, theirs = (own - x).square().sum(1), (other - x).square().sum(1)
    gap = theirs[:, None] - mine
    apart = torch.stack([length(p - own, dual(norm)) for p in other]).clamp_min(1e-300)
    reach = float((gap / (2 * apart)).amax(1).min().clamp_min(0))
    # What rounding can move a squared distance as far out as the radius is ever said to be.
    cap = 8 * reach
    far = float(torch.cat([mine, theirs]).amax().sqrt()) + cap * len(x) ** 0.5
    gap = gap - 2 * (len(x) + 4) * unit * far**2
    below = (gap / (2 * apart)).amax(1).clamp_min(0) * (1 - 1e-12)
    best = float("inf")
    for looked, j in enumerate(below.argsort().tolist()):
        if float(below[j]) >= best or looked == solve:
            best = min(best, float(below[j]))
            break
        rows, gaps = (2 * (other[j] - own)).numpy(force=True), gap[j].numpy(force=True)
        # Only the half-spaces that x is far from can matter much; leaving some out only lowers the bound.
        some = np.argsort(-gaps / np.maximum(np.linalg.norm(rows, axis=1), 1e-300))[:64]
        exact = distance_below(rows[some], gaps[some], multipliers(rows[some], gaps[some], norm), norm)
        best = min(best, max(exact, float(below[j])))
    return min(best, cap)
