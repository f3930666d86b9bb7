"""Does what fools one classifier fool another? Source × target × eps, and one direction against all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from calipers.attacks import AttackResult, pgd
from calipers.errors import BadInput
from calipers.geometry.labels import classifier, examples
from calipers.models import Classifier
from calipers.threats import Box, Norm, Threat, project

__all__ = ["Transfer", "Universal", "transfer", "universal_direction", "wilson"]

Attack = Callable[[Classifier, Tensor, Tensor, Threat], AttackResult]


@dataclass(frozen=True, eq=False)
class Transfer:
    """Which target is right on what was made for which source.

    Arguments:
        sources, targets: names. eps: sizes. correct: bool, shape (S, T, E, N): example by example.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    eps: tuple[float, ...]
    correct: Tensor

    @property
    def accuracy(self) -> Tensor:
        """The fraction that is right, float64, shape (S, T, E)."""
        return self.correct.double().mean(-1)

    def interval(self, confidence: float = 0.95) -> tuple[Tensor, Tensor]:
        """Wilson's interval for every accuracy, two of shape (S, T, E); over examples, for these very classifiers."""
        return wilson(self.accuracy, self.correct.shape[-1], confidence)


def wilson(share: Tensor, n: int, confidence: float = 0.95) -> tuple[Tensor, Tensor]:
    """Wilson's score interval of a share of n independent examples (E. B. Wilson, 1927).

    Raises:
        BadInput: for n < 1, a share outside of [0, 1] or a confidence outside of (0, 1).

    Example:
        >>> low, high = wilson(torch.tensor([0.0, 0.5], dtype=torch.float64), 100)
        >>> low.round(decimals=4).tolist(), high.round(decimals=4).tolist()
        ([0.0, 0.4038], [0.037, 0.5962])
    """
    if n < 1 or not 0 < confidence < 1:
        raise BadInput("interval", expected="n >= 1 and a confidence in (0, 1)", got=f"n={n}, {confidence}")
    if not bool(((share >= 0) & (share <= 1)).all()):
        raise BadInput("share", expected="fractions in [0, 1]", got=share.tolist())
    z = torch.special.ndtri(torch.tensor((1 + confidence) / 2, dtype=torch.float64))
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (share * (1 - share) / n + z**2 / (4 * n**2)).sqrt()
    return (centre - half).clamp(0, 1), (centre + half).clamp(0, 1)


def transfer(
    sources: Sequence[Classifier], targets: Sequence[Classifier], x: Tensor, y: Tensor, eps: Sequence[float], *,
    norm: Norm = "linf", attack: Attack | None = None,
) -> Transfer:  # fmt: skip
    r"""Make adversarial examples for every source, show them to every target; one set in memory at a time.

    An example that the attack did not fool its source with stays as the attack handed it back (clean, for ours), so
    that a source's own column is its robust accuracy under that attack.

    Arguments:
        sources, targets: networks and linear models in any mix; each sees x in its own shape and dtype, in one box.
            A source needs gradients, unless the attack does not.
        x, y: examples (N, \*shape) and labels. eps: sizes in the units of x. norm: of the threat.
        attack: (model, x, y, threat) → result; PGD with its defaults unless given.

    Raises:
        BadInput: no model, no eps, a bare network or estimator, boxes or sizes that differ between the models, and as
            ``Classifier.check``.

    Example:
        >>> from calipers.models import linear
        >>> a, b = (Classifier.of(linear(torch.tensor([[1.0, s], [-1.0, -s]]), torch.zeros(2)).eval(), shape=(2,),
        ...         box=(-1.0, 1.0)) for s in (0.5, -0.5))
        >>> x = torch.tensor([[0.4, 0.0]])
        >>> transfer([a], [a, b], x, torch.tensor([0]), [0.1, 0.3]).accuracy.tolist()
        [[[1.0, 0.0], [1.0, 1.0]]]
    """
    sizes = list(eps) if isinstance(eps, Iterable) else []
    for what, some, asked in (("sources", sources, sources), ("targets", targets, targets), ("eps", sizes, eps)):
        if not isinstance(some, Sequence) or not some or None in some:
            raise BadInput(what, expected="a list of one or more", got=repr(asked))
    threats = [Threat(norm, float(size)) for size in sizes]
    _same_inputs([*sources, *targets], x, y)
    made = attack or pgd
    correct = torch.zeros(len(sources), len(targets), len(eps), len(x), dtype=torch.bool)
    for s, source in enumerate(sources):
        for e, threat in enumerate(threats):
            moved = made(source, _as(source, x), y, threat).adversarial
            for t, target in enumerate(targets):
                with target.frozen(), torch.no_grad():
                    correct[s, t, e] = target(_as(target, moved)).argmax(1).cpu() == y.cpu()
    return Transfer(tuple(m.name for m in sources), tuple(m.name for m in targets), tuple(map(float, sizes)), correct)


def _as(model: Classifier, x: Tensor) -> Tensor:
    return x.reshape(len(x), *model.shape).to(model.device, model.dtype)


def _sides(model: Classifier) -> tuple[Tensor, Tensor]:
    return model.box.sides(torch.zeros(1))


def _same_inputs(models: Sequence[Classifier], x: Tensor, y: Tensor) -> None:
    examples(x, y)
    for model in map(classifier, models):
        if any(bool((a != b).any()) for a, b in zip(_sides(model), _sides(models[0]), strict=True)):
            raise BadInput(f"box of {model.name}", expected=str(models[0].box), got=str(model.box))
        if torch.Size(model.shape).numel() != x[0].numel():
            raise BadInput(f"inputs for {model.name}", expected=f"shape {model.shape}", got=tuple(x.shape[1:]))
        model.check(_as(model, x), y)


@dataclass(frozen=True, eq=False)
class Universal:
    r"""One perturbation for all examples and all classifiers.

    Arguments:
        delta: shape \*shape, ‖delta‖ ≤ eps. fooled: the fraction of the examples that each model has right and that
            delta makes it get wrong, shape (M,); nan where it has none right.
    """

    delta: Tensor
    fooled: Tensor


def universal_direction(
    models: Sequence[Classifier], x: Tensor, y: Tensor, threat: Threat, *, steps: int = 100
) -> Universal:
    r"""Ascent on the mean margin loss, clipped once an example is fooled, over models and examples; the best seen.

    For the −1 side of linear separators Theorem 4 gives this direction in closed form; here any label and any model
    goes, and nothing is promised but what ``fooled`` counts, by a fresh call on clamped inputs. It asks what models
    have in common; :func:`calipers.attacks.universal` is the attack on one model, with a witness for every example.

    Arguments:
        models: as for :func:`transfer`. x, y: examples. threat: norm ``"linf"`` or ``"l2"``, with an eps. steps: moves.

    Raises:
        BadInput: for another norm, no eps, no step, a model without gradients, and as :func:`transfer`.

    Example:
        >>> from calipers.models import linear
        >>> net = linear(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.zeros(2)).eval()
        >>> model = Classifier.of(net, shape=(2,), box=(-1.0, 1.0))
        >>> x = torch.tensor([[0.2, 0.3], [0.4, 0.0]])
        >>> universal_direction([model], x, torch.zeros(2, dtype=torch.int64), Threat("linf", 0.5)).fooled.tolist()
        [1.0]
    """
    if not isinstance(models, Sequence) or not models:
        raise BadInput("models", expected="a list of one or more", got=repr(models))
    if steps < 1:
        raise BadInput("steps", expected="at least 1", got=steps)
    if threat.norm not in ("linf", "l2") or threat.eps is None:
        raise BadInput("threat", expected="linf or l2 with an eps", got=threat)
    _same_inputs(models, x, y)
    for model in models:
        if model.blind:
            raise BadInput(model.name, expected="a classifier with gradients", got="one without")
    x = x if x.is_floating_point() else x.to(models[0].dtype)
    centre, eps = torch.zeros_like(x[:1]), torch.tensor([threat.eps], dtype=x.dtype, device=x.device)
    delta, best = centre.clone(), centre.clone()
    found, _ = _seen(models, x, y, delta)
    for step in range(steps + 1):
        fooled, gradient = _seen(models, x, y, delta)
        if fooled.nanmean() > found.nanmean():
            best, found = delta.clone(), fooled
        move = gradient.sign() if threat.norm == "linf" else gradient / _length(gradient)
        size = 2 * threat.eps / (1 + step) ** 0.5
        delta = project(delta + size * move, centre, eps, threat.norm, Box(-torch.inf, torch.inf))
    return Universal(best[0], found)


def _length(vector: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(vector)
    return length.clamp_min(torch.finfo(vector.dtype).tiny)


def _seen(models: Sequence[Classifier], x: Tensor, y: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
    """Fooled fractions at delta, and the gradient of the clipped margin loss with respect to it."""
    fooled, total = torch.zeros(len(models)), torch.zeros_like(delta)
    for i, model in enumerate(models):
        with model.frozen():
            clean = model(_as(model, x)).argmax(1) == y
            shift = delta.detach().clone().requires_grad_()
            with torch.enable_grad():
                logits = model(_as(model, model.box.clamp(x + shift)))
                own = logits.gather(1, y[:, None])[:, 0]
                rival = logits.scatter(1, y[:, None], -torch.inf).amax(1)
                gradient = torch.autograd.grad((rival - own).clamp_max(0).mean(), shift)[0]
            total += gradient / _length(gradient)  # Every model counts alike, whatever the scale of its logits.
        fooled[i] = ((logits.argmax(1) != y) & clean).sum() / clean.sum()
    return fooled, total
