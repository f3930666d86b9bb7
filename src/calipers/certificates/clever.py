"""CLEVER: a guess at equation (3)'s constant, from the largest gradients that were met. Never a bound."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from scipy.stats import weibull_max
from torch import Tensor

from calipers.certificates.certificate import Estimate, NotApplicable
from calipers.errors import BadInput
from calipers.models import Classifier, public
from calipers.runner.draws import Draws
from calipers.threats import Box, Norm, dual, sample
from calipers.threats import norm as length

__all__ = ["clever"]


@public
def clever(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    norm: Norm,
    *,
    batches: int = 500,
    samples: int = 1024,
    radius: float = 5.0,
    seed: int = 0,
    index: Tensor | None = None,
) -> Estimate:
    r"""min over j ≠ y of min(g_j(x) / L̂_j, R) with g_j = f_y − f_j, an *estimate* of the minimal distortion.

    L̂_j is the location of a reverse Weibull distribution fitted by maximum likelihood to the maxima of ‖∇g_j‖_q over
    batches of points drawn uniformly from the ball of radius R. Sampled maxima lie below the true one, so the result
    can lie above the truth, and does: it is an :class:`Estimate`, which is never a ``lower``.

    Arguments:
        model: any classifier with gradients.
        x: inputs in the box, shape (N, \*shape).
        y: labels, shape (N,).
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        batches, samples: how many maxima are fitted, and of how many points each is the maximum.
        radius: R, in the units of x; the ball is not cut by the box.
        seed, index: of the draws, which are a function of (seed, index[i], batch).

    Raises:
        NotApplicable: for L0.
        BadInput: for fewer than three batches, no samples, or R ≤ 0.

    Source: "Evaluating the Robustness of Neural Networks: An Extreme Value Theory Approach" (Weng et al. 2018),
    Algorithms 1 and 2, with its parameters.

    Example:
        >>> net = torch.nn.Linear(2, 2).double().requires_grad_(False)
        >>> _ = net.load_state_dict({"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "bias": torch.zeros(2)})
        >>> x = torch.tensor([[0.75, 0.25]], dtype=torch.float64)
        >>> found = clever(Classifier.of(net.eval(), shape=(2,)), x, torch.tensor([0]), "linf", batches=3, samples=4)
        >>> type(found).__name__, round(found.radius.item(), 6)
        ('Estimate', 0.25)
    """
    if norm == "l0":
        raise NotApplicable("norm of CLEVER", expected="linf, l2 or l1", got="'l0'")
    if batches < 3 or samples < 1 or not 0 < radius < float("inf"):
        got = f"batches={batches}, samples={samples}, radius={radius}"
        raise BadInput("CLEVER", expected="at least 3 batches, 1 sample and a finite radius > 0", got=got)
    x, y = model.check(x, y)
    where = (torch.arange(len(x)) if index is None else index).to(x.device)
    with model.frozen():
        scores = [
            _score(model, x[i : i + 1], y[i : i + 1], norm, batches, samples, radius, seed, where[i])
            for i in range(len(x))
        ]
    execution = str(model.dtype).removeprefix("torch.")
    result = torch.tensor(scores, dtype=torch.float64, device=x.device)
    return Estimate(result, norm, "clever", execution, f"nothing is proved: {batches} maxima of {samples} gradients")


def _score(
    model: Classifier, x: Tensor, y: Tensor, norm: Norm, batches: int, samples: int, radius: float, seed: int,
    where: Tensor,
) -> float:  # fmt: skip
    """One example: the smallest margin over its estimated slope."""
    with torch.no_grad():
        logits = model(x)[0].double()
    margin = logits[y] - logits
    margin[y] = torch.inf
    if bool((margin <= 0).any()):
        return 0.0
    largest = torch.stack([
        _slopes(model, x, y, norm, Draws(seed, where.expand(samples), torch.arange(samples) + b * samples), radius)
        for b in range(batches)
    ])  # fmt: skip
    slope = np.array([_location(column) for column in largest.T.numpy(force=True)])
    ratio = np.divide(margin.numpy(force=True), slope, out=np.full(len(slope), np.inf), where=slope > 0)
    return float(min(ratio.min(), radius))


def _slopes(model: Classifier, x: Tensor, y: Tensor, norm: Norm, draws: Draws, radius: float) -> Tensor:
    """max over a batch of ‖∇(f_y − f_j)‖_q, for every j: float64 (K,)."""
    whole = Box(-torch.inf, torch.inf)
    z = sample(x.expand(len(draws.example), *x.shape[1:]), radius, norm, whole, draws).requires_grad_()
    logits = model(z)
    gradients = torch.stack([
        torch.autograd.grad(logits[:, k].sum(), z, retain_graph=k + 1 < model.classes)[0] for k in range(model.classes)
    ])  # fmt: skip
    apart = gradients[int(y)] - gradients
    return torch.stack([length(one, dual(norm)).amax() for one in apart]).double()


def _location(maxima: np.ndarray) -> float:
    """The right end of a reverse Weibull distribution fitted to the maxima; the largest where they hardly differ."""
    most = float(maxima.max())
    if not most > 0 or maxima.std() <= 1e-6 * most:
        return most
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, location, _ = weibull_max.fit(maxima / most, loc=1.0, scale=float(maxima.std()) / most)
    # A fit that failed says less than the largest gradient that was met.
    return most * float(location) if np.isfinite(location) and location >= 1 else most
