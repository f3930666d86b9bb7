"""What makes a training point hard: the objectives (8)–(12), as differentiable functions of the points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from torch import Tensor, nn

from calipers.errors import BadInput
from calipers.theory.checks import check_degree

__all__ = [
    "adversarial_objective",
    "chebyshev_hardness",
    "chebyshev_hardness_maxima",
    "feature_layer",
    "hard_objective",
    "optimal_objective",
    "self_loss",
]

Hypothesis = Callable[[Tensor], Tensor]
Learner = Callable[[Tensor, Tensor], Hypothesis]
Loss = Literal["ce", "hinge"]


def self_loss(output: Tensor, loss: Loss = "ce") -> Tensor:
    r"""L(h(x), h(x)): the loss of an output against itself; no true label enters.

    ``"ce"``: the cross-entropy of softmax(output) with itself, its entropy. ``"hinge"``: max(0, 1 − h(x)²), the form
    equation (11) uses, averaged over the outputs.

    Arguments:
        output: shape (N, K) of logits, or (N,) or (N, K) of real-valued hypotheses.
        loss: which.

    Returns:
        shape (N,).

    Example:
        >>> self_loss(torch.tensor([[0.0, 0.0], [9.0, -9.0]])).round(decimals=4)
        tensor([0.6931, 0.0000])
        >>> self_loss(torch.tensor([0.5, -2.0]), "hinge")
        tensor([0.7500, 0.0000])
    """
    if loss == "hinge":
        room = (1 - output.square()).clamp_min(0)
        return room if room.dim() == 1 else room.flatten(1).mean(1)
    if loss != "ce":
        raise BadInput("loss", expected="'ce' or 'hinge'", got=repr(loss))
    if output.dim() != 2 or output.shape[1] < 2:
        raise BadInput("output for the cross-entropy", expected="shape (N, K) with K >= 2", got=tuple(output.shape))
    log_p = output.log_softmax(1)
    # exp(log p)·log p of an impossible class is 0·(−∞): keep the logarithm finite.
    return -(log_p.exp() * log_p.clamp_min(torch.finfo(output.dtype).min)).sum(1)


def adversarial_objective(model: Hypothesis, x: Tensor, loss: Loss = "ce") -> Tensor:
    r"""L(h(x), h(x)) for one hypothesis, equation (10), per example: large near the decision boundary of h.

    Summing it over x and ascending its gradient is the paper's attack without labels and without a ball.

    Arguments:
        model: x to logits (N, K), or to values (N,).
        x: shape (N, \*shape).

    Returns:
        shape (N,), differentiable in x.

    Source:
        Barati, Safabakhsh and Rahmati, Towards Explaining Adversarial Examples Phenomenon in Artificial Neural
        Networks, 2021, equation (10).

    Example:
        >>> line = nn.Linear(1, 2, bias=False)
        >>> x = torch.zeros(1, 1)
        >>> adversarial_objective(line, x).detach().round(decimals=4)
        tensor([0.6931])
    """
    return self_loss(model(x), loss)


def hard_objective(hypotheses: Hypothesis | Sequence[Hypothesis], x: Tensor, loss: Loss = "ce") -> Tensor:
    r"""E_H[L(h(x), h(x))], equation (9), per example: how hard x is for a class of hypotheses.

    Arguments:
        hypotheses: a list, drawn from H and weighted equally; or one network whose outputs stand for H. The paper
            takes the feature layer of a network (``feature_layer``) and computes (10) for it: the entropy of the
            softmax over the features, which is not the mean of one loss per neuron.
        x: shape (N, \*shape).

    Returns:
        shape (N,), differentiable in x.

    Source:
        Barati, Safabakhsh and Rahmati, Towards Explaining Adversarial Examples Phenomenon in Artificial Neural
        Networks, 2021, equation (9) and Section IV-B.

    Example:
        >>> hard_objective([torch.cos, torch.sin], torch.tensor([0.3]), "hinge").round(decimals=4)
        tensor([0.5000])
    """
    if callable(hypotheses):
        return self_loss(hypotheses(x), loss)
    if not hypotheses:
        raise BadInput("hypotheses", expected="at least one", got=0)
    return torch.stack([self_loss(h(x), loss) for h in hypotheses]).mean(0)


def feature_layer(network: nn.Sequential) -> nn.Sequential:
    """Everything before the last linear layer: the network with its last layer replaced by the identity.

    Raises:
        BadInput: if the network has no linear layer, or nothing before it.

    Example:
        >>> feature_layer(nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 5)))(torch.zeros(1, 2)).shape
        torch.Size([1, 3])
    """
    last = max((i for i, layer in enumerate(network) if isinstance(layer, nn.Linear)), default=0)
    if last == 0:
        raise BadInput("network", expected="a Sequential with a linear layer after its features")
    return nn.Sequential(*list(network)[:last])


def optimal_objective(hypotheses: Sequence[Hypothesis], learn: Learner, x: Tensor) -> Tensor:
    r"""E_h Σ_x ‖∇(ĥ_X(x) − h(x))‖₂ with ĥ_X = A({(x, h(x))}), equation (8): 0 where X are critical points of the error.

    The integral over H is the mean over the hypotheses given.

    Arguments:
        hypotheses: functions (N, d) → (N,).
        learn: the learning rule A: points and values to a function.
        x: the training points X, shape (N, d).

    Returns:
        a scalar, differentiable in x if the learner is.

    Source:
        Barati, Safabakhsh and Rahmati, Towards Explaining Adversarial Examples Phenomenon in Artificial Neural
        Networks, 2021, equation (8).

    Example:
        >>> optimal_objective([lambda x: 3 * x[:, 0]], lambda x, y: lambda z: 0 * z[:, 0], torch.zeros(2, 1)).item()
        6.0
    """
    points = x if x.requires_grad else x.detach().clone().requires_grad_()
    sums = []
    for h in hypotheses:
        learned = learn(points, h(points))
        # The gradient is the error function's at the nodes, with the training set held fixed.
        at = points.clone()
        (slope,) = torch.autograd.grad((learned(at) - h(at)).sum(), at, create_graph=True)
        sums.append(slope.flatten(1).norm(dim=1).sum())
    return torch.stack(sums).mean()


def chebyshev_hardness(x: Tensor, degree: int) -> Tensor:
    r"""1/(n + 1)·Σ_{i=0}^n (1 − T*_i(x)²), equation (12): the hinge form of (9) for the shifted Chebyshev basis.

    With x = (1 + cos θ)/2 it is ½ − (½ + sin((2n + 1)θ)/(2 sin θ))/(2(n + 1)): 0 at both ends, exactly ½ at every root
    of T*_n, and n local maxima between. The maxima are close to the roots in the middle; the outermost lies about
    twice as far from the end as the outermost root (the factor tends to 2.05). The sum over X in (12) is separable, so
    with the printed constraint x_1 < … < x_m its supremum puts all points at the highest maximum, the outermost, and
    is not attained; "the local minima of Σ T*_i² solve (12)" needs one point per maximum.

    Arguments:
        x: points in [0, 1], any shape.
        degree: n ≥ 1.

    Returns:
        the shape of ``x``, differentiable.

    Source:
        Barati, Safabakhsh and Rahmati, Towards Explaining Adversarial Examples Phenomenon in Artificial Neural
        Networks, 2021, equations (11) and (12).

    Example:
        >>> chebyshev_hardness(torch.tensor([0.0, 0.5, 1.0]), 1)
        tensor([0.0000, 0.5000, 0.0000])
    """
    check_degree(degree)
    u = 2 * x - 1
    before, now, total = torch.ones_like(u), u, 1 - u.square()
    for _ in range(degree - 1):
        before, now = now, 2 * u * now - before
        total = total + 1 - now.square()
    return total / (degree + 1)


def chebyshev_hardness_maxima(degree: int) -> NDArray[np.float64]:
    """The n local maxima of ``chebyshev_hardness`` in (0, 1), ascending: roots of the derivative of Σ T_2i.

    Example:
        >>> chebyshev_hardness_maxima(1).round(12).tolist()
        [0.5]
    """
    check_degree(degree)
    doubled = np.zeros(2 * degree + 1)
    doubled[2::2] = 1.0
    slope = np.asarray(chebyshev.chebder(doubled))
    critical = np.sort(np.asarray(chebyshev.chebroots(slope)).real)
    curvature = chebyshev.chebval(critical, chebyshev.chebder(slope))
    return np.asarray((critical[curvature > 0] + 1) / 2)
