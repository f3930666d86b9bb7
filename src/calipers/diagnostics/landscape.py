"""The loss around an example: planes, lines between weights, saliency.

Pure computation; the report and the papers draw it, with the numbers of ``shape.py`` beside it. Everything is
cross-entropy of the logits as they are, because the question is what an attack that climbs them would see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from calipers.errors import BadInput
from calipers.models import Classifier

__all__ = [
    "Perturb",
    "Plane",
    "interpolated",
    "plane",
    "saliency",
    "weights_between",
]

Perturb = Callable[[Classifier, Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Plane:
    r"""The loss on the plane x + t·first + s·second, kept inside the box.

    Arguments:
        loss: shape (len(aside), len(toward)): a row for every s, a column for every t.
        toward: the values of t, shape (T,).
        aside: the values of s, shape (S,).
    """

    loss: Tensor
    toward: Tensor
    aside: Tensor


def plane(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    first: Tensor,
    second: Tensor,
    *,
    toward: tuple[float, float] = (0.0, 1.0),
    aside: tuple[float, float] = (0.0, 1.0),
    points: int = 104,
    batch_size: int = 1024,
) -> Plane:
    r"""ℓ(t, s) = CE(f(x + t·first + s·second), y) on a square grid.

    Arguments:
        model: the classifier; its modes are left as they were.
        x: one input, shape (\*shape,), inside the box.
        y: its label, shape ().
        first, second: two directions, shape (\*shape,): say, toward a witness, and a random one of the same length.
        toward, aside: the ends of t and of s.
        points: of each axis, at least 3.
        batch_size: how many points the model sees at once.

    Returns:
        the grid; its loss is float64 on the CPU.

    Raises:
        BadInput: for fewer than 3 points, or directions of another shape.

    Source: "Towards Deep Learning Models Resistant to Large Perturbations" (Shaeiri, Nobahari & Rohban 2020), Figure 5.

    Example:
        >>> net = nn.Linear(2, 2, bias=False).eval()
        >>> _ = net.load_state_dict({"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]])})
        >>> model, x = Classifier.of(net, shape=(2,)), torch.tensor([0.5, 0.5])
        >>> plane(model, x, torch.tensor(0), torch.tensor([0.0, 0.5]), torch.tensor([0.5, 0.5]), points=3).loss[:, 0]
        tensor([0.6931, 0.6931, 0.6931], dtype=torch.float64)
    """
    if points < 3:
        raise BadInput("points of the plane", expected="at least 3", got=points)
    for name, direction in (("first", first), ("second", second)):
        if direction.shape != x.shape:
            raise BadInput(f"{name} direction", expected=f"shape {tuple(x.shape)}", got=tuple(direction.shape))
    checked, label = model.check(x[None], y.reshape(1))
    t, s = (torch.linspace(*ends, points, dtype=torch.float64) for ends in (toward, aside))
    moves = [direction.to(checked) for direction in (first, second)]
    grid = torch.cartesian_prod(s, t).to(checked)
    losses = []
    with model.frozen(), torch.no_grad():
        for part in grid.split(batch_size):
            steps = part.view(-1, 2, *[1] * x.dim())
            z = model.box.clamp(checked + steps[:, 1] * moves[0] + steps[:, 0] * moves[1])
            losses.append(_loss(model(z), label.expand(len(z))).double().cpu())
    return Plane(torch.cat(losses).view(points, points), t, s)


def _loss(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of each example, shape (N,)."""
    return nn.functional.cross_entropy(logits, y, reduction="none")


def saliency(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    r"""∂CE(f(x), y)/∂x of every example.

    Arguments:
        model: the classifier; modes, ``requires_grad`` and ``.grad`` are left as they were.
        x: inputs, shape (N, \*shape): often the perturbed ones.
        y: labels, shape (N,).

    Returns:
        shape (N, \*shape); 0 where the model cuts the gradient off.

    Example:
        >>> net = nn.Linear(2, 2, bias=False).eval()
        >>> _ = net.load_state_dict({"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]])})
        >>> saliency(Classifier.of(net, shape=(2,)), torch.tensor([[0.5, 0.5]]), torch.tensor([0]))
        tensor([[-0.5000,  0.5000]])
    """
    x, y = model.check(x, y)
    z = x.detach().clone().requires_grad_()
    with model.frozen(), torch.enable_grad():
        loss = _loss(model(z), y).sum()
        (grad,) = torch.autograd.grad(loss, z, allow_unused=True) if loss.requires_grad else (None,)
    return torch.zeros_like(x) if grad is None else grad.detach()


def weights_between(model: Classifier, start: dict[str, Tensor], end: dict[str, Tensor], alpha: float) -> nn.Module:
    """The module with weights (1 − α)·start + α·end; the model's own are not touched.

    Raises:
        BadInput: if the two sets of weights have other names or shapes than the model's.

    Example:
        >>> net = nn.Linear(1, 2, bias=False)
        >>> model = Classifier.of(net, shape=(1,))
        >>> zero, one = ({"weight": torch.full((2, 1), value)} for value in (0.0, 1.0))
        >>> weights_between(model, zero, one, 0.25)(torch.ones(1, 1))
        tensor([[0.2500, 0.2500]])
    """
    own = model.module.state_dict()
    for name, given in (("start", start), ("end", end)):
        odd = sorted(set(own) ^ set(given)) or [key for key in own if own[key].shape != given[key].shape]
        if odd:
            raise BadInput(f"{name} weights of {model.name}", expected="the names and shapes of the model",
                           got=f"something else at {odd[0]}")  # fmt: skip
    # Counters of batch normalisation are whole numbers: they have no value between two.
    mixed = {
        key: torch.lerp(start[key].to(own[key]), end[key].to(own[key]), alpha)
        if own[key].is_floating_point()
        else end[key]
        for key in own
    }
    return _Weighted(model.module, mixed)


class _Weighted(nn.Module):
    """A module called with other weights than its own."""

    def __init__(self, module: nn.Module, weights: dict[str, Tensor]) -> None:
        super().__init__()
        # In a tuple, so that the module's own weights are not counted as this one's.
        self._held = (module, {key: value.detach() for key, value in weights.items()})

    def forward(self, x: Tensor) -> Tensor:
        module, weights = self._held
        logits: Tensor = functional_call(module, weights, (x,))
        return logits


def interpolated(
    model: Classifier,
    start: dict[str, Tensor],
    end: dict[str, Tensor],
    x: Tensor,
    y: Tensor,
    alphas: Sequence[float],
    perturb: Perturb = lambda model, x, y: x,
) -> Tensor:
    r"""ℓ(α) = mean CE(f_θ(x + δ), y), θ = (1 − α)·start + α·end, δ found anew for every θ.

    Arguments:
        model: says what the architecture is; its own weights play no part.
        start, end: two state dicts.
        x, y: the examples, shapes (N, \*shape) and (N,).
        alphas: where on the line.
        perturb: (model at θ, x, y) to the perturbed inputs; none by default, which gives the clean loss.

    Returns:
        shape (len(alphas),), float64.

    Source: Shaeiri, Nobahari & Rohban 2020, Section 3.2, after "Qualitatively characterizing neural network
    optimization problems" (Goodfellow, Vinyals & Saxe 2015).

    Example:
        >>> model = Classifier.of(nn.Linear(1, 2, bias=False).eval(), shape=(1,))
        >>> zero, right = ({"weight": torch.tensor([[value], [0.0]])} for value in (0.0, 2.0))
        >>> interpolated(model, zero, right, torch.ones(1, 1), torch.tensor([0]), [0.0, 1.0])
        tensor([0.6931, 0.1269], dtype=torch.float64)
    """
    x, y = model.check(x, y)
    losses = []
    for alpha in alphas:
        module = weights_between(model, start, end, float(alpha)).eval()
        with model.frozen():
            there = Classifier(module, model.shape, model.classes, model.box, model.dtype, model.device, model.name)
            z = perturb(there, x, y)
            with torch.no_grad():
                losses.append(_loss(there(z), y).double().mean())
    return torch.stack(losses).cpu()
