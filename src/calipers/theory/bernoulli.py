"""Two multivariate Bernoulli classes: Bayes rule, L0- and L∞-optimal robust rules and their errors, in log-space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import gammaln
from torch import Tensor, nn

from calipers.errors import BadInput
from calipers.theory.checks import check_eps, norm_in
from calipers.threats import Norm

__all__ = ["BernoulliPair", "ThresholdRule", "effective_dimensions"]

LOG_HALF = math.log(0.5)


@dataclass(frozen=True)
class ThresholdRule:
    """Label 1 where at most ``threshold`` effective coordinates differ from θ₁; −1 and k are the constant rules.

    Arguments:
        threshold: s in {−1, 0, …, k}.
        error: its adversarial error.
        log_error: the logarithm, finite where the error underflows.

    Example:
        >>> BernoulliPair.of(10_000, 0.3).l0_optimum(0).error
        0.0
        >>> round(BernoulliPair.of(10_000, 0.3).l0_optimum(0).log_error, 6)
        -2236.448999
    """

    threshold: int
    error: float
    log_error: float


def effective_dimensions(theta0: Sequence[float] | NDArray[np.float64],
                         theta1: Sequence[float] | NDArray[np.float64]) -> NDArray[np.int64]:  # fmt: skip
    """The coordinates in which θ₀ and θ₁ differ; only they say anything about the label (Fact 1).

    Example:
        >>> effective_dimensions([1, 1, -1], [1, -1, 1])
        array([1, 2])
    """
    return np.flatnonzero(np.asarray(theta0) != np.asarray(theta1)).astype(np.int64)


class _Sign(nn.Module):
    """T(x) of Theorem 5: 1 where x ≥ 0, −1 elsewhere; its gradient is 0, so it blinds gradient attacks."""

    def forward(self, x: Tensor) -> Tensor:
        """Round every coordinate to ±1."""
        return torch.where(x >= 0, 1.0, -1.0).to(x)


@dataclass(frozen=True, eq=False)
class BernoulliPair:
    r"""y uniform in {0, 1}; each x_i is θ_y,i with probability ½ + t and −θ_y,i otherwise (Definition 7).

    Let k be the number of effective dimensions, D₁ the number of them in which x differs from θ₁, and
    F the distribution function of Binomial(k, ½ + t). A rule is a threshold: label 1 where D₁ ≤ s.

    L0, eps coordinates may be changed (Theorem 4, equation (12)): for 0 ≤ s ≤ k − 1 the adversarial error is

        ½·F(s + eps) + ½·F(k − s + eps − 1).

    The two constant rules, s = −1 and s = k, have error exactly ½: there is no point of the other label to move to.
    The printed sum says otherwise at s = k, namely ½ + ½·F(eps − 1), and it lacks s = −1. Printed as it stands,
    its minimum exceeds ½ once eps is large (1 at eps = k); the true optimum is min(½, min over 0 ≤ s < k) and
    never exceeds chance. Sums that run past k are cut there, because D₁ cannot leave [0, k].

    L∞ (Theorem 5): for eps < 1 rounding undoes every perturbation, and the Bayes error is reached; for eps ≥ 1 every
    point can be moved to 0 and nothing beats ½. A constant reaches ½; the printed rounding rule does
    not: for eps > 1 every sign can be turned, and it always errs.

    An L0 adversary who may leave {−1, 1}^d gains nothing, because every rule here rounds first.
    Labels are 0 and 1; 0 is the papers' −1.

    Arguments:
        theta0, theta1: θ₀ and θ₁, entries ±1, shape (d,).
        t: in the open interval (0, ½).

    Raises:
        BadInput: for entries other than ±1, equal or unlike θ, or t outside (0, ½).

    Source:
        Shaeiri, Nobahari and Rohban, Towards Deep Learning Models Resistant to Large Perturbations, 2020,
        Definition 7, Theorems 3–5, equations (6)–(14).

    Example:
        >>> pair = BernoulliPair.of(50, 0.30)
        >>> f"{pair.bayes_error:.6g}", f"{BernoulliPair.of(51, 0.10).bayes_error:.6g}"
        ('1.29363e-06', '0.0735292')
        >>> pair.largest_useful_eps("l0"), pair.l0_optimum(20)
        (15, ThresholdRule(threshold=-1, error=0.5, log_error=-0.6931471805599453))
    """

    theta0: Sequence[float] | NDArray[np.float64]
    theta1: Sequence[float] | NDArray[np.float64]
    t: float

    def __post_init__(self) -> None:
        a, b = np.asarray(self.theta0, dtype=np.float64), np.asarray(self.theta1, dtype=np.float64)
        if a.ndim != 1 or a.shape != b.shape or not (np.abs(a) == 1).all() or not (np.abs(b) == 1).all():
            raise BadInput("theta of the Bernoulli pair", expected="two vectors of one length with entries -1 and 1")
        if np.array_equal(a, b):
            raise BadInput("theta of the Bernoulli pair", expected="two vectors that differ somewhere")
        if not 0 < self.t < 0.5:
            raise BadInput("t of the Bernoulli pair", expected="a number strictly between 0 and 0.5", got=self.t)
        object.__setattr__(self, "theta0", a)
        object.__setattr__(self, "theta1", b)

    @classmethod
    def of(cls, k: int, t: float, *, d: int | None = None) -> BernoulliPair:
        """θ₁ all ones, θ₀ with −1 in the first k of d coordinates (d = k unless said otherwise)."""
        d = k if d is None else d
        if not (isinstance(k, int) and isinstance(d, int) and 1 <= k <= d):
            raise BadInput("dimensions of the pair", expected="whole numbers 1 <= k <= d", got=f"k={k}, d={d}")
        theta0 = np.ones(d)
        theta0[:k] = -1
        return cls(theta0, np.ones(d), t)

    @property
    def k(self) -> int:
        """The number of effective dimensions, ‖θ₁ − θ₀‖₀."""
        return len(effective_dimensions(self.theta0, self.theta1))

    def _log_cdf(self) -> NDArray[np.float64]:
        """log F(i) for i = −1, 0, …, k, shape (k + 2,); F(−1) = 0 and F(k) = 1 exactly."""
        k, i = self.k, np.arange(self.k + 1)
        log_choose = gammaln(k + 1) - gammaln(i + 1) - gammaln(k - i + 1)
        log_pmf = log_choose + i * math.log(0.5 + self.t) + (k - i) * math.log(0.5 - self.t)
        below = np.minimum(np.logaddexp.accumulate(log_pmf), 0.0)
        below[-1] = 0.0
        return np.concatenate([[-np.inf], below])

    def _log_errors(self, eps: float) -> NDArray[np.float64]:
        """Log adversarial error of the rules s = −1, …, k, shape (k + 2,)."""
        check_eps(eps)
        k, flips, log_cdf = self.k, math.floor(eps), self._log_cdf()
        s = np.arange(0, k)
        one = log_cdf[np.minimum(s + flips, k) + 1]
        other = log_cdf[np.minimum(k - s + flips - 1, k) + 1]
        return np.concatenate([[LOG_HALF], LOG_HALF + np.logaddexp(one, other), [LOG_HALF]])

    def threshold_error(self, threshold: int, eps: float = 0.0) -> float:
        """Adversarial error of the rule D₁ ≤ threshold when the adversary changes at most eps coordinates.

        Arguments:
            threshold: s in {−1, 0, …, k}.
            eps: how many coordinates; a fraction is rounded down.

        Example:
            >>> BernoulliPair.of(50, 0.3).threshold_error(50, eps=30)
            0.5
        """
        if not -1 <= threshold <= self.k:
            raise BadInput("threshold", expected=f"-1…{self.k}", got=threshold)
        return math.exp(self._log_errors(eps)[threshold + 1])

    def l0_optimum(self, eps: float) -> ThresholdRule:
        """The best threshold against eps changed coordinates; among equals the constant rule, then the smallest s."""
        log_errors = self._log_errors(eps)
        # s and k − 1 − s err equally often; rounding must not choose between them.
        best = int(np.flatnonzero(log_errors <= log_errors.min() + 1e-10)[0])
        return ThresholdRule(best - 1, math.exp(log_errors[best]), float(log_errors[best]))

    @property
    def log_bayes_error(self) -> float:
        """The logarithm of the Bayes error; finite for any k, e.g. −2236.4 for k = 10⁴, t = 0.3."""
        return float(self._log_errors(0)[self.k // 2 + 1])

    @property
    def bayes_error(self) -> float:
        """The least error without an adversary: (9) for even k, where ties cost ½ each way, and (10) for odd k."""
        return math.exp(self.log_bayes_error)

    def robust_error(self, eps: float, norm: Norm = "l0") -> float:
        """The least adversarial error of any threshold rule (L0, Theorem 4) or of any rule (L∞, Theorem 5)."""
        norm = norm_in("Bernoulli pair", norm, ("l0", "linf"))
        check_eps(eps)
        if norm == "linf":
            return self.bayes_error if eps < 1 else 0.5
        return self.l0_optimum(eps).error

    def largest_useful_eps(self, norm: Norm = "l0") -> float:
        """L0: the largest whole eps at which some rule beats chance. L∞: 1, below which one does."""
        norm = norm_in("Bernoulli pair", norm, ("l0", "linf"))
        if norm == "linf":
            return 1.0
        # The error never falls as eps grows, so bisection finds the last useful one.
        useful, useless = 0, self.k
        while useless - useful > 1:
            middle = (useful + useless) // 2
            useful, useless = (middle, useless) if self.l0_optimum(middle).threshold >= 0 else (useful, middle)
        return useful

    def network(self, threshold: int | None = None) -> nn.Sequential:
        """The rule D₁ ≤ threshold after rounding, as a float64 network with logits (N, 2).

        Arguments:
            threshold: s; ``None`` is the Bayes rule of Theorem 3, which is also the L∞ rule of Theorem 5.

        Example:
            >>> net = BernoulliPair.of(4, 0.3).network()
            >>> net(torch.tensor([[1.0, 1, -1, -1], [1, -1, -1, -1]], dtype=torch.float64)).argmax(1)
            tensor([1, 0])
        """
        s = self.k // 2 if threshold is None else threshold
        if not -1 <= s <= self.k:
            raise BadInput("threshold", expected=f"-1…{self.k}", got=s)
        theta = np.where(np.asarray(self.theta0) != np.asarray(self.theta1), np.asarray(self.theta1), 0.0)
        # D₁ = (k − ⟨θ₁, x⟩)/2 on ±1 inputs; class 1 wins by s + ½ − D₁, never a tie.
        layer = nn.Linear(len(theta), 2, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(np.stack([-theta, theta]) / 4))
            gap = s + 0.5 - self.k / 2
            layer.bias.copy_(torch.tensor([-gap, gap], dtype=torch.float64) / 2)
        return nn.Sequential(_Sign(), layer.requires_grad_(False))
