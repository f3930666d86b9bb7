"""A Gaussian kernel machine: each kernel value lies between those at the ball's nearest and farthest point."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from calipers.certificates.alone import only_module, scaler
from calipers.certificates.certificate import Certified, NotApplicable
from calipers.certificates.domain import ball_interval
from calipers.certificates.search import largest_radius
from calipers.models import Classifier, OneVsOne, RbfScores, public
from calipers.threats import Norm
from calipers.threats import norm as length

__all__ = ["kernel"]


@public
def kernel(model: Classifier, x: Tensor, y: Tensor, norm: Norm, *, batch_size: int = 8) -> Certified:
    r"""The largest radius at which the label still wins against every other class, pair by pair.

    ‖z − v‖₂ lies between ‖x − v‖₂ ∓ R₂, R₂ the largest L2 length in the ball, and between its smallest and largest
    value on the interval around ball ∩ box; so exp(−γ‖z − v‖²) does too, and with the signs of the coefficients every
    score s_p. Of three and more classes, a label that wins all its pairs has more votes than any other. A scaler in
    front maps the interval exactly, and R₂ to the largest L2 length of what it makes of the ball.

    Arguments:
        model: :class:`calipers.models.RbfScores` with its vote, which scikit-learn's SVC(kernel="rbf") becomes.
        x: inputs in the box, shape (N, \*shape).
        y: labels, shape (N,).
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        batch_size: how many examples at once.

    Raises:
        NotApplicable: for any other model, and for L0.

    Example:
        >>> from sklearn.svm import SVC
        >>> from calipers.models import from_sklearn
        >>> model = from_sklearn(SVC(gamma=1.0).fit([[0.0], [1.0]], [0, 1]))
        >>> x = torch.tensor([[0.25]], dtype=torch.float64)
        >>> 0.2 < kernel(model, x, torch.tensor([0]), "l2").radius.item() <= 0.25
        True
    """
    if norm == "l0":
        raise NotApplicable("norm of the kernel certificate", expected="linf, l2 or l1", got="'l0'")
    x, y = model.check(x, y)
    wanted = "RbfScores with the vote of from_sklearn"
    scores = only_module(model, RbfScores, "kernel certificate", _voted, wanted, scaled=True)
    radii = [
        _radii(model, scores, some.double(), label, norm)
        for some, label in zip(x.split(batch_size), y.split(batch_size), strict=True)
    ]
    execution = str(model.dtype).removeprefix("torch.")
    return Certified(torch.cat(radii), norm, "kernel", execution, "exp within 8 roundings", model.box)


def _voted(scores: RbfScores, rest: list[nn.Module]) -> bool:
    """Whether the label of the largest logit is what :func:`_signs` takes it for: (−f/2, f/2), or one against one."""
    pairs = len(scores.bias)
    if len(rest) != 1:
        return False
    (vote,) = rest
    if type(vote) is OneVsOne:
        return vote.classes > 2 and pairs == vote.classes * (vote.classes - 1) // 2
    if type(vote) is not nn.Linear or pairs != 1:
        return False
    constants = [] if vote.bias is None else vote.bias.tolist()
    return vote.weight.tolist() == [[-0.5], [0.5]] and not any(constants)


def _radii(model: Classifier, scores: RbfScores, x: Tensor, y: Tensor, norm: Norm) -> Tensor:
    vectors, weights, bias = scores.vectors.double(), scores.coefficients.double(), scores.bias.double()
    d, unit, tiny = vectors.shape[1], float(torch.finfo(model.dtype).eps), float(torch.finfo(model.dtype).tiny)
    mean, std = scaler(model, x)
    centre = (x.flatten(1) - mean) / std
    apart = torch.cdist(centre, vectors, compute_mode="donot_use_mm_for_euclid_dist")
    # ‖δ/σ‖₂ for ‖δ‖_p ≤ 1: in L∞ every coordinate moves, in L2 and L1 the one that is scaled up most.
    stretch = float((1 / std).norm()) if norm == "linf" else float(1 / std.min())
    scaled = not bool((mean == 0).all() and (std == 1).all())
    signs = _signs(model.classes, y)  # (N, P): which way the label wants each pair; 0 where it has no part

    def lowest(radius: Tensor) -> Tensor:
        reach = (radius * stretch)[:, None] * (1 + 1e-12)
        lo, hi = ((side.flatten(1) - mean) / std for side in ball_interval(x, radius, model.box))
        # Subtracting and dividing err by two roundings of the scaled coordinate, theirs and ours.
        blur = 4 * unit * torch.maximum(lo.abs(), hi.abs()) * scaled
        lo, hi = (lo - blur)[:, None], (hi + blur)[:, None]
        near = length(torch.maximum(lo - vectors, vectors - hi).clamp_min(0).flatten(0, 1), "l2").view_as(apart)
        far = length(torch.maximum(hi - vectors, vectors - lo).flatten(0, 1), "l2").view_as(apart)
        reach = reach + 2 * length(blur, "l2")[:, None]
        near, far = torch.maximum(near, apart - reach), torch.minimum(far, apart + reach)
        # A squared distance and its exponential, executed: relative error of the argument times the argument.
        wide = (d + 8) * unit
        most = torch.exp(-scores.gamma * near.square() * (1 - wide)) * (1 + wide) + tiny
        least = (torch.exp(-scores.gamma * far.square() * (1 + wide)) * (1 - wide) - tiny).clamp_min(0)
        up, down = weights.clamp_min(0), weights.clamp_max(0)
        slack = (len(vectors) + 8) * unit * (most @ weights.abs().T + bias.abs())
        low = least @ up.T + most @ down.T + bias - slack
        high = most @ up.T + least @ down.T + bias + slack
        won = torch.where(signs > 0, low, torch.where(signs < 0, -high, torch.inf))
        lost: Tensor = won.amin(1)
        return lost

    scale = model.box.scale(x)
    return largest_radius(lowest, lowest(torch.zeros_like(scale)), scale, looks=30)


def _signs(classes: int, y: Tensor) -> Tensor:
    """+1 where the label is the first of a pair, −1 where it is the second; one score of two classes speaks for 1."""
    if classes == 2:
        return (2 * y - 1)[:, None]
    first, second = torch.triu_indices(classes, classes, offset=1, device=y.device)
    wanted: Tensor = (y[:, None] == first).long() - (y[:, None] == second).long()
    return wanted
