"""Ready-made candidates, judged: whatever made a point, it is a witness only if a fresh call of the model says so."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from calipers.attacks.engine import clears, column
from calipers.attacks.result import AttackResult
from calipers.models import Classifier
from calipers.threats import Threat, distance

__all__ = ["judge"]


def judge(
    model: Classifier, x: Tensor, y: Tensor, points: Iterable[Tensor], threat: Threat, *, batch_size: int = 256
) -> AttackResult:
    r"""The nearest of some given points that fools the model, inside the box and within the largest eps.

    Arguments:
        model, x, y, threat, batch_size: as for :func:`calipers.attacks.pgd`.
        points: tensors of the shape of ``x``, (N, \*shape); each is one candidate for every example.

    Example:
        >>> net = torch.nn.Linear(2, 2, bias=False).eval()
        >>> _ = net.load_state_dict({"weight": torch.eye(2)})
        >>> model = Classifier.of(net, shape=(2,))
        >>> x, y = torch.tensor([[0.6, 0.5]]), torch.tensor([0])
        >>> judge(model, x, y, [x, x + torch.tensor([[0.0, 0.25]])], Threat("linf", 0.3)).success.item()
        True
    """
    x, y = model.check(x, y)
    limit = threat.ladder[-1] if threat.ladder else math.inf
    nearest, best = x.clone(), torch.full((len(x),), math.inf, dtype=torch.float64, device=x.device)
    predicted, forwards = y.clone(), torch.zeros_like(y)
    with model.frozen(), torch.no_grad():
        for z in points:
            z = z.to(x.device, x.dtype)
            logits = torch.cat([model(part) for part in z.split(batch_size)])
            far = distance(x, z, threat.norm)
            wins = clears(logits, y) & (far <= limit) & (far < best) & model.box.contains(z)
            nearest, best = torch.where(column(wins, x), z, nearest), torch.where(wins, far, best)
            predicted = torch.where(wins, logits.argmax(1), predicted)
            forwards = forwards + 1
    return AttackResult(nearest, best, predicted, forwards, torch.zeros_like(forwards))
