"""DeepFool: step onto the nearest linearised boundary until it is crossed; and its super variant, made orthogonal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from calipers.attacks.losses import gaps
from calipers.attacks.method import Ask, Options, Rows, Seen, Steps, column, nearest_boundary, reserve
from calipers.attacks.result import AttackResult
from calipers.attacks.search import attack
from calipers.errors import BadInput
from calipers.models import Classifier, public
from calipers.threats import Threat, onto

__all__ = ["deepfool", "superdeepfool"]


@dataclass(frozen=True)
class _DeepFool(Steps):
    """z ← z + (1 + o)·δ, δ the smallest step inside the box onto the nearest of the linearised boundaries."""

    overshoot: float = 0.02
    orthogonal: bool = False

    def start(self, ask: Ask, rows: Rows) -> None:
        rows.z = rows.x.clone()
        rows.straight = torch.zeros_like(rows.k, dtype=torch.bool)

    def step(self, ask: Ask, rows: Rows, seen: Seen) -> None:
        value, slope = nearest_boundary(seen, ask.threat.norm)
        delta = onto(rows.z, slope, value.clamp_max(0) - reserve(rows), ask.threat.norm, ask.model.box)
        ahead = ask.model.box.clamp(rows.z + (1 + self.overshoot) * delta)
        ends = seen.fooled
        if self.orthogonal:
            # Fooled on the way: try the nearest point of the plane met there; fooled at that too: x sees it head-on.
            ends = seen.fooled & rows.straight
            rows.straight = seen.fooled & ~rows.straight
            ahead = torch.where(column(rows.straight, ahead), self._foot(ask, rows, seen), ahead)
        rows.z = torch.where(column(ends, ahead), rows.z, ahead)
        rows.k = torch.where(ends, self.looks - 2, rows.k)

    def _foot(self, ask: Ask, rows: Rows, seen: Seen) -> Tensor:
        """The nearest point to x of the boundary's plane as the class that won at z has it there."""
        w = seen.grad[:, 0]
        at_x = seen.value[:, 0] - (w * (rows.z - rows.x)).flatten(1).sum(1)
        delta = onto(rows.x, w, at_x - reserve(rows), ask.threat.norm, ask.model.box)
        return ask.model.box.clamp(rows.x + (1 + self.overshoot) * delta)


@public
def deepfool(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    steps: int = 50,
    overshoot: float = 0.02,
    candidates: int = 10,
    **options: Unpack[Options],
) -> AttackResult:
    r"""DeepFool: z ← z + (1 + o)·argmin {‖δ‖_p : some class j with z_j − z_y linearised reaches 0, z + δ in the box}.

    It stops at the first witness: quick, and not minimal. Differs from the paper where the box binds: the step is the
    smallest inside it, not a step that is clipped.

    Arguments:
        model, x, y, threat, options: as for :func:`calipers.attacks.pgd`, in L∞, L2 and L1. With an eps, witnesses
            beyond it do not count.
        steps: looks at most; 50 in the paper.
        overshoot: o; 0.02 in the paper.
        candidates: how many of the likeliest other classes are looked at, one gradient each; 10 in the paper.

    Source: "DeepFool: a simple and accurate method to fool deep neural networks" (Moosavi-Dezfooli, Fawzi & Frossard
    2016), Algorithm 2.

    Example:
        >>> net = torch.nn.Linear(2, 2).double().eval()
        >>> _ = net.load_state_dict({"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "bias": torch.zeros(2)})
        >>> model = Classifier.of(net, shape=(2,))
        >>> x = torch.tensor([[0.75, 0.25]], dtype=torch.float64)
        >>> round(deepfool(model, x, torch.tensor([0]), Threat("linf")).distance.item(), 3)
        0.25
    """
    method = _DeepFool(gaps(candidates), steps, minimal=True, overshoot=overshoot)
    return _checked(method, model, x, y, threat, options)


@public
def superdeepfool(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    steps: int = 100,
    overshoot: float = 0.02,
    candidates: int = 10,
    **options: Unpack[Options],
) -> AttackResult:
    r"""SuperDeepFool: when DeepFool arrives at z, go on from the point nearest to x of the boundary's plane at z.

    For z on the boundary, in L2 and without a box, that is the paper's x + (⟨z − x, w⟩/‖w‖²)·w, w the normal at z. It
    stops where such a point is a witness itself: then it lies from x along w, as the nearest point does. The paper has
    L2 alone, and the plane through z itself, which DeepFool may have overshot.

    Arguments:
        model, x, y, threat, steps, overshoot, candidates, options: as for :func:`deepfool`; the steps of both kinds are
            counted together.

    Source: "Revisiting DeepFool: generalization and improvement" (Abdollahpoor, Moosavi-Dezfooli, Frossard et al.
    2023), Algorithm 2: SDF(∞, 1).
    """
    method = _DeepFool(gaps(candidates), steps, minimal=True, overshoot=overshoot, orthogonal=True)
    return _checked(method, model, x, y, threat, options)


def _checked(
    method: _DeepFool, model: Classifier, x: Tensor, y: Tensor, threat: Threat, options: Options
) -> AttackResult:
    if method.steps < 1 or method.overshoot <= 0:
        got = f"{method.steps} and {method.overshoot}"
        raise BadInput("steps and overshoot of DeepFool", expected="at least 1, above 0", got=got)
    if threat.norm == "l0":
        raise BadInput("norm of DeepFool", expected="linf, l2 or l1", got="'l0'", hint="sigma_zero and fmn take l0")
    return attack(method, model, x, y, threat, **options)
