"""Points that no gradient of the model had a hand in: from a substitute, from another model, from other inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial, reduce
from typing import Unpack

import torch
from torch import Tensor

from calipers.attacks import AttackResult, Options, climb, column, judged
from calipers.models import Classifier
from calipers.threats import Box, Threat, norm, project, steepest

__all__ = ["Attack", "from_other", "from_substitute", "toward_others"]

Attack = Callable[..., AttackResult]

# Of a large data set, the first so many inputs are learned from and gone toward.
_CROWD = 1000


def from_substitute(model: Classifier, x: Tensor, *, ridge: float = 1e-2) -> Attack:
    r"""One step at eps against each other class of a linear substitute, fitted to the model's answers on ``x``.

    W, b = argmin Σ_n ‖W x_n + b − onehot(argmax f(x_n))‖² + ridge·N·‖W‖².

    Arguments:
        model: whose answers are learned; no gradient is taken.
        x: the inputs it is asked about, shape (N, \*shape); the first 1000 are used.

    Source: "Practical Black-Box Attacks against Machine Learning" (Papernot et al. 2017), Section 4, with a linear
    substitute and no augmentation.
    """
    x = x[:_CROWD]
    with model.frozen(), torch.no_grad():
        answers = torch.cat([model(part).argmax(1) for part in x.split(256)])
    flat, told = x.flatten(1).double(), torch.nn.functional.one_hot(answers, model.classes).double()
    a, b = flat - flat.mean(0), told - told.mean(0)
    # Whichever of the two systems is smaller: AᵀA of the coordinates, or AAᵀ of the inputs.
    gram, by_inputs = (a @ a.T, True) if len(a) < a.shape[1] else (a.T @ a, False)
    gram = gram + ridge * len(a) * torch.eye(len(gram), dtype=a.dtype, device=a.device)
    weight = a.T @ torch.linalg.solve(gram, b) if by_inputs else torch.linalg.solve(gram, a.T @ b)
    return partial(_across, weight=weight.T.to(x.dtype))


def _across(
    model: Classifier, x: Tensor, y: Tensor, threat: Threat, *, weight: Tensor, **options: Unpack[Options]
) -> AttackResult:
    """The steepest steps of length eps against each other class of an affine map (K, d)."""
    x, y = model.check(x, y)

    def points() -> Iterator[Tensor]:
        for target in range(model.classes):
            yield _stepped(x, (weight[target] - weight[y]).view_as(x), threat, model.box)

    return _nearest(points(), model, x, y, threat, options)


def _nearest(
    points: Iterator[Tensor], model: Classifier, x: Tensor, y: Tensor, threat: Threat, options: Options
) -> AttackResult:
    """The nearest witness among proposals for every example."""
    return reduce(AttackResult.better, (judged(z, model, x, y, threat, **options) for z in points))


def _stepped(x: Tensor, grad: Tensor, threat: Threat, box: Box) -> Tensor:
    """The steepest step of length eps inside the box; in L0 it goes to the side of the box."""
    lo, hi = box.sides(x)
    room, eps = torch.where(grad > 0, hi - x, x - lo), threat.ladder[-1]
    count = int(eps) if threat.norm == "l0" else max(x[0].numel() // 100, 1)
    length = column(box.scale(x), x) if threat.norm == "l0" else eps
    return project(x + length * steepest(grad, threat.norm, room, count), x, eps, threat.norm, box)


def from_other(other: Classifier, *, steps: int = 40) -> Attack:
    r"""PGD on the margin of another model, to its last step, whether it is fooled or not; this model judges.

    Arguments:
        other: any classifier of the same inputs and classes.
        steps: of size 2.5·eps/steps.

    Source: "Towards Deep Learning Models Resistant to Large Perturbations" (Shaeiri, Nobahari & Rohban 2020),
    Appendix C, 11 and 12.
    """
    return partial(_transferred, other=other, steps=steps)


def _transferred(
    model: Classifier, x: Tensor, y: Tensor, threat: Threat, *, other: Classifier, steps: int,
    **options: Unpack[Options],
) -> AttackResult:  # fmt: skip
    x, y = other.check(x, y)
    at = Threat(threat.norm, threat.ladder[-1])
    z = climb(other, x, y, at, steps=steps, loss="margin", seed=options.get("seed", 0), index=options.get("index"))
    return judged(z, model, x, y, threat, **options)


def toward_others(x: Tensor, y: Tensor, box: Box, *, neighbours: int = 3) -> Attack:
    r"""As far as eps allows toward the middle of the box, and toward the nearest inputs of other classes.

    Two inputs of different classes at distance d ≤ 2·eps share their midpoint, where any classifier is wrong about
    one of them; at eps = half the box all inputs share its middle.

    Arguments:
        x, y: the inputs to go toward, and their labels.
        box: its middle is gone toward; the inputs' mean if it is infinite.
        neighbours: how many inputs of other classes.
    """
    return partial(_toward, crowd=x[:_CROWD], labels=y[:_CROWD], neighbours=neighbours)


def _toward(
    model: Classifier, x: Tensor, y: Tensor, threat: Threat, *, crowd: Tensor, labels: Tensor, neighbours: int,
    **options: Unpack[Options],
) -> AttackResult:  # fmt: skip
    x, y = model.check(x, y)
    crowd, labels, box = crowd.to(x), labels.to(y), model.box
    lo, hi = box.sides(x)
    middle = ((lo + hi) / 2 if box.bounded else crowd.mean(0)).expand_as(x)
    far = torch.stack([norm(crowd - one, threat.norm) for one in x])
    far = far.masked_fill(labels == y[:, None], torch.inf)
    near = far.topk(min(neighbours, len(crowd)), largest=False).indices

    def points() -> Iterator[Tensor]:
        for goal in (middle, *(crowd[near[:, i]] for i in range(near.shape[1]))):
            for target in (goal, (x + goal) / 2):
                yield project(target, x, threat.ladder[-1], threat.norm, box)

    return _nearest(points(), model, x, y, threat, options)
