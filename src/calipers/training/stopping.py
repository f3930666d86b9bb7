"""When to stop before the last epoch: the radius has grown too far, or the network is dead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from torch import nn

from calipers.training.plan import Plan

__all__ = ["constant_answer", "gradient_reached", "stop_reason", "sudden_rise"]


def stop_reason(plan: Plan, losses: Sequence[float], classes: int, *, reached: bool) -> str | None:
    """Why the epoch just done is the last, in words; None if the training goes on.

    Arguments:
        plan: of the training.
        losses: of every epoch so far.
        classes: K; a constant answer has a loss of log K.
        reached: whether a gradient reached the first weights in this epoch.

    Example:
        >>> from calipers.training import Ascent, Schedule
        >>> plan = Plan("pgd", Schedule("constant", 0.3), Ascent("linf"), epochs=30)
        >>> stop_reason(plan, [2.303, 2.301], 10, reached=False).partition(",")[0]
        'the network is dead: in epoch 2 no gradient reached its first weights'
    """
    epoch = len(losses)
    # Weight decay may move what no gradient reaches; and before the first epoch there is nothing to go back to.
    if not reached and epoch > 1 and plan.weight_decay == 0 and constant_answer(losses[-1], classes):
        return (
            f"the network is dead: in epoch {epoch} no gradient reached its first weights, as some layer is zero (or "
            "saturated) for every example; more epochs change nothing"
        )
    if plan.schedule.kind == "iterative" and sudden_rise(losses):
        eps, last = plan.schedule(epoch - 1e-9), plan.schedule(epoch - 2)
        return (
            f"the training loss rose suddenly from {losses[-2]:.3f} to {losses[-1]:.3f} at eps = {eps:g} "
            f"(epoch {epoch}); the weights of eps = {last:g} are kept"
        )
    return None


def constant_answer(loss: float, classes: int) -> bool:
    """Whether a loss is that of a constant answer, log K up to 1 %, or more.

    Example:
        >>> constant_answer(2.301, 10), constant_answer(2.2, 10)
        (True, False)
    """
    return loss >= 0.99 * math.log(classes)


def gradient_reached(module: nn.Module) -> bool:
    """Whether the last gradient of the first weights that have one is not exactly 0.

    Example:
        >>> import torch
        >>> net = nn.Linear(2, 1)
        >>> net(torch.ones(1, 2)).sum().backward()
        >>> gradient_reached(net)
        True
    """
    first = next((p.grad for p in module.parameters() if p.grad is not None), None)
    return first is not None and bool(first.any())


def sudden_rise(losses: Sequence[float], *, least: float = 0.1, factor: float = 5.0) -> bool:
    r"""Whether the last epoch's loss rose suddenly: Δ_T > least and Δ_T > factor · median_{t<T} \|Δ_t\|.

    The paper stops "as soon as a significant sudden increase is observed" and gives no number; these are ours. Fewer
    than four losses are never enough to say.

    Arguments:
        losses: the adversarial training loss of every epoch so far, in nats.
        least: what counts as significant, in nats.
        factor: what counts as sudden, in units of the usual change.

    Example:
        >>> sudden_rise([0.30, 0.31, 0.33, 0.34, 0.36]), sudden_rise([0.30, 0.31, 0.33, 0.34, 0.90])
        (False, True)
    """
    changes = [after - before for before, after in pairwise(losses)]
    if len(changes) < 3:
        return False
    usual = median(abs(change) for change in changes[:-1])
    return changes[-1] > max(least, factor * usual)
