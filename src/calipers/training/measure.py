"""What a trained model withstands, on data it has not seen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from calipers.attacks import apgd, pgd
from calipers.models import Classifier, as_they_were
from calipers.threats import Norm, Threat

__all__ = ["Withstands", "accuracy", "robust_accuracy", "withstands"]


def accuracy(model: Classifier, x: Tensor, y: Tensor, *, batch_size: int = 256) -> float:
    """The fraction that is right, in eval mode.

    Example:
        >>> model = Classifier.of(torch.nn.Identity(), shape=(2,))
        >>> accuracy(model, torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([1, 1]))
        0.5
    """
    x, y = model.check(x, y)
    with as_they_were(model.module), torch.no_grad():
        right = [model(a).argmax(1) == b for a, b in zip(x.split(batch_size), y.split(batch_size), strict=True)]
    return float(torch.cat(right).double().mean())


def robust_accuracy(model: Classifier, x: Tensor, y: Tensor, threat: Threat, *, steps: int = 20) -> float:
    """The fraction that PGD on the cross-entropy with a random start does not break: an upper bound, and a quick one.

    Example:
        >>> model = Classifier.of(torch.nn.Identity(), shape=(2,))
        >>> x, y = torch.tensor([[0.0, 1.0], [0.5, 0.6]]), torch.tensor([1, 1])
        >>> robust_accuracy(model, x, y, Threat("linf", 0.1))
        0.5
    """
    with as_they_were(model.module):
        return 1 - float(pgd(model, x, y, threat, steps=steps, loss="ce-raw").success.double().mean())


@dataclass(frozen=True)
class Withstands:
    """One line of the table a training ends with: fractions of the examples.

    Arguments:
        eps: the radius; 0 for the clean examples.
        pgd: not broken by PGD with 40 steps on the cross-entropy.
        not_broken: not broken by that, nor by APGD with 50 steps on the cross-entropy and on the DLR loss.
    """

    eps: float
    pgd: float
    not_broken: float


def withstands(model: Classifier, x: Tensor, y: Tensor, norm: Norm, eps: tuple[float, ...]) -> tuple[Withstands, ...]:
    r"""Clean accuracy, then at every eps what is left by PGD and by APGD after it: upper bounds, both of them.

    Arguments:
        model: the trained model.
        x, y: held-out examples, (N, \*shape) and (N,).
        norm, eps: what the adversary may do.

    Example:
        >>> model = Classifier.of(torch.nn.Identity(), shape=(2,))
        >>> x, y = torch.tensor([[0.0, 1.0], [0.5, 0.6]]), torch.tensor([1, 1])
        >>> [(line.eps, line.not_broken) for line in withstands(model, x, y, "linf", (0.1,))]
        [(0.0, 1.0), (0.1, 0.5)]
    """
    x, y = model.check(x, y)
    clean = accuracy(model, x, y)
    lines = [Withstands(0.0, clean, clean)]
    with as_they_were(model.module):
        for radius in eps:
            threat = Threat(norm, radius)
            left = ~pgd(model, x, y, threat, steps=40, loss="ce-raw").success
            first = float(left.double().mean())
            for loss in ("ce", "dlr"):
                some = left.nonzero()[:, 0]
                if len(some):
                    left[some] = ~apgd(model, x[some], y[some], threat, steps=50, loss=loss).success
            lines.append(Withstands(radius, first, float(left.double().mean())))
    return tuple(lines)
