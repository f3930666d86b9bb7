"""Randomised smoothing: a radius for the classifier that answers what the model most often answers under noise."""

from __future__ import annotations

from typing import NamedTuple

import torch
from scipy.stats import beta, binomtest, norm
from torch import Tensor

from calipers.certificates.certificate import Probabilistic
from calipers.errors import BadInput
from calipers.models import Classifier, public
from calipers.runner.draws import Draws

__all__ = ["lower_confidence", "smooth_predict", "smoothing"]

# How many copies of an example are drawn at once; part of what determines the draws.
_CHUNK = 100
_SELECT, _ESTIMATE, _PREDICT = 1, 2, 3  # streams: the draws that choose the class never estimate its probability


@public
def smoothing(
    model: Classifier,
    x: Tensor,
    y: Tensor | None = None,
    *,
    sigma: float = 0.25,
    n0: int = 100,
    n: int = 100_000,
    alpha: float = 0.001,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int = 1000,
) -> Probabilistic:
    r"""R = σ·Φ⁻¹(p), p a lower confidence bound of P(f(x + ε) = c), ε ~ N(0, σ²I): within R (L2) g still answers c.

    g(x) is the class that f answers most often on x + ε. c is chosen from ``n0`` draws, p from ``n`` others, exactly,
    by Clopper and Pearson. Where p ≤ 1/2 it abstains. The statement is about g, not about f, holds with probability
    1 − alpha for each example, and knows no box: f is asked outside it. It is true of real arithmetic and of
    exactly normal noise; float32 draws are rounded and end at 5.7 σ.

    Arguments:
        model: f, any classifier; no layer is looked at.
        x: inputs in the box, shape (N, \*shape).
        y: labels, shape (N,); where g answers something else the radius is 0. None certifies whatever g answers.
        sigma: σ, in the units of x.
        n0, n: how many draws choose the class, and how many estimate its probability.
        alpha: the probability that an example's radius is wrong, at most.
        seed: of the draws; row i depends on (seed, index[i]) alone.
        index: original indices of the examples, int64 (N,).
        batch_size: how many noisy copies the model sees at once.

    Raises:
        BadInput: for σ ≤ 0, alpha outside (0, 1), or fewer than one draw.

    Source: "Certified Adversarial Robustness via Randomized Smoothing" (Cohen, Rosenfeld & Kolter 2019), Theorem 1 and
    CERTIFY.

    Example:
        >>> net = torch.nn.Linear(1, 2).double().requires_grad_(False)
        >>> _ = net.load_state_dict({"weight": torch.tensor([[-1.0], [1.0]]), "bias": torch.tensor([1.0, -1.0])})
        >>> model = Classifier.of(net.eval(), shape=(1,))
        >>> bound = smoothing(model, torch.tensor([[0.5]]), torch.tensor([0]), sigma=0.5, n=1000)
        >>> bound.predicted.tolist(), bound.confidence, 0.3 < float(bound.radius) < 0.5
        ([0], 0.999, True)
    """
    x, where = _checked(model, x, y, index, sigma, alpha, min(n0, n))
    ask = _Noise(model, x, where, sigma, seed, batch_size)
    chosen = ask.counts(n0, _SELECT).argmax(1)
    hits = ask.counts(n, _ESTIMATE).gather(1, chosen[:, None])[:, 0]
    p = torch.tensor([lower_confidence(int(k), n, alpha) for k in hits], dtype=torch.float64)
    sure = (p > 0.5).to(x.device)
    radius = torch.where(sure, torch.from_numpy(sigma * norm.ppf(p.numpy())).to(x.device) * (1 - 1e-12), 0.0)
    predicted = torch.where(sure, chosen, -1)
    if y is not None:
        radius = torch.where(predicted == y.to(x.device), radius, 0.0)
    assumes = f"the smoothed classifier, sigma={sigma:g}, n={n}; no box"
    return Probabilistic(radius, "l2", "smoothing", "real", assumes, confidence=1 - alpha, predicted=predicted)


@public
def smooth_predict(
    model: Classifier,
    x: Tensor,
    *,
    sigma: float = 0.25,
    n: int = 1000,
    alpha: float = 0.001,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int = 1000,
) -> Tensor:
    r"""What g answers, int64 (N,): −1 where the two commonest answers are not told apart at level ``alpha``.

    With n_A ≥ n_B of them it answers if a binomial test rejects that each is as likely as the other.

    Arguments:
        model, x, sigma, seed, index, batch_size: as for :func:`smoothing`.
        n: how many draws.
        alpha: the probability, at most, of another answer than g's.

    Source: "Certified Adversarial Robustness via Randomized Smoothing" (Cohen, Rosenfeld & Kolter 2019), PREDICT.

    Example:
        >>> net = torch.nn.Linear(1, 2).double().requires_grad_(False)
        >>> _ = net.load_state_dict({"weight": torch.tensor([[-1.0], [1.0]]), "bias": torch.tensor([1.0, -1.0])})
        >>> smooth_predict(Classifier.of(net.eval(), shape=(1,)), torch.tensor([[0.0], [1.0]])).tolist()
        [0, -1]
    """
    x, where = _checked(model, x, None, index, sigma, alpha, n)
    counts, labels = _Noise(model, x, where, sigma, seed, batch_size).counts(n, _PREDICT).topk(2, dim=1)
    told = [a + b > 0 and binomtest(a, a + b, 0.5).pvalue <= alpha for a, b in counts.tolist()]
    return torch.where(torch.tensor(told, device=x.device), labels[:, 0], -1)


def lower_confidence(hits: int, n: int, alpha: float) -> float:
    """The Clopper–Pearson bound: p with P(at least ``hits`` of n | p) = alpha, so the truth is below it with ≤ alpha.

    Example:
        >>> round(lower_confidence(1000, 1000, 0.001), 4), lower_confidence(0, 10, 0.05)
        (0.9931, 0.0)
    """
    return float(beta.ppf(alpha, hits, n - hits + 1)) if hits > 0 else 0.0


def _checked(
    model: Classifier, x: Tensor, y: Tensor | None, index: Tensor | None, sigma: float, alpha: float, least: int
) -> tuple[Tensor, Tensor]:
    if not 0 < sigma < float("inf"):
        raise BadInput("sigma of the smoothing", expected="a finite number > 0", got=sigma)
    if not 0 < alpha < 1:
        raise BadInput("alpha of the smoothing", expected="a number between 0 and 1", got=alpha)
    if least < 1:
        raise BadInput("draws of the smoothing", expected="at least 1", got=least)
    x, _ = model.check(x, torch.zeros(len(x), dtype=torch.int64) if y is None else y)
    return x, (torch.arange(len(x)) if index is None else index).to(x.device)


class _Noise(NamedTuple):
    """Noisy copies of every example, a chunk of them at a time, whatever the batch."""

    model: Classifier
    x: Tensor
    where: Tensor
    sigma: float
    seed: int
    batch_size: int

    def counts(self, n: int, stream: int) -> Tensor:
        """How often each class is the answer: int64 (N, K). NaN logits are an answer of no class."""
        some = max(1, self.batch_size // _CHUNK)
        with self.model.frozen(), torch.no_grad():
            return torch.cat([
                self._of(x, Draws(self.seed, where, 0, stream), n)
                for x, where in zip(self.x.split(some), self.where.split(some), strict=True)
            ])  # fmt: skip

    def _of(self, x: Tensor, draws: Draws, n: int) -> Tensor:
        total = torch.zeros(len(x), self.model.classes, dtype=torch.int64, device=x.device)
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        for start in range(0, n, _CHUNK):
            copies = min(_CHUNK, n - start)
            noise = draws.normal(copies * x[0].numel(), dtype).view(len(x), copies, *x.shape[1:]).to(x.dtype)
            logits = self.model((x[:, None] + self.sigma * noise).flatten(0, 1)).unflatten(0, (len(x), copies))
            total += _answers(logits).sum(1)
        return total


def _answers(logits: Tensor) -> Tensor:
    """One for the answer, zero elsewhere; zero everywhere where a logit is NaN."""
    answers = torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1])
    return answers * (~logits.isnan().any(-1, keepdim=True))
