"""Two Gaussian classes: the optimal robust classifier and its error in closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_ndtr
from torch import nn

from calipers.errors import BadInput
from calipers.theory.checks import check_eps, norm_in
from calipers.threats import Norm

__all__ = ["GaussianPair"]


@dataclass(frozen=True, eq=False)
class GaussianPair:
    r"""x | y ~ N(μ_y, σ²I) with both labels equally likely; no classifier does better against the adversary.

    Let m = (μ₁ − μ₀)/2. Against perturbations of norm at most eps the least error of any classifier is

        Φ(−‖v‖₂ / σ),  v = m − z,  z = argmin ‖m − z‖₂ subject to ‖z‖ ≤ eps,

    and x ↦ ⟨v, x − (μ₀ + μ₁)/2⟩ ≥ 0 reaches it. For L2, ‖v‖₂ = max(0, ‖m‖₂ − eps) and v is parallel to m: Theorem 2.
    For L∞, v is m moved towards 0 by eps in every coordinate.

    Why: the adversary may always answer y = 1 with −z and y = 0 with +z; what is left are two Gaussians 2v apart,
    whose Bayes error is Φ(−‖v‖₂/σ). The linear rule has margin ⟨v, m⟩ − eps·‖v‖_q = ‖v‖₂², so it meets the bound.
    This argument needs no continuous decision boundary, which Theorem 2 assumes. It also says what happens once
    eps ≥ ‖m‖: v = 0 and the least error is ½, whereas the theorem's formula Φ((2·eps − ‖μ₁ − μ₀‖)/2σ) would exceed ½.

    Labels are 0 and 1; 0 is the papers' −1.

    Arguments:
        mean0, mean1: μ₀ and μ₁, shape (d,), in the units of ``x``.
        sigma: σ > 0, the standard deviation of every coordinate.

    Raises:
        BadInput: if the means differ in shape, are equal or not finite, or σ is not positive.

    Source:
        Shaeiri, Nobahari and Rohban, Towards Deep Learning Models Resistant to Large Perturbations, 2020, Theorem 2;
        other norms: Bhagoji, Cullina and Mittal, Lower Bounds on Adversarial Robustness from Optimal Transport, 2019.

    Example:
        >>> pair = GaussianPair([-2.0, 0.0], [2.0, 0.0], sigma=1.0)
        >>> round(pair.bayes_error, 7), round(pair.robust_error(1.0), 6), pair.robust_error(2.0)
        (0.0227501, 0.158655, 0.5)
        >>> pair.largest_useful_eps()
        2.0
    """

    mean0: Sequence[float] | NDArray[np.float64]
    mean1: Sequence[float] | NDArray[np.float64]
    sigma: float = 1.0

    def __post_init__(self) -> None:
        a, b = np.asarray(self.mean0, dtype=np.float64), np.asarray(self.mean1, dtype=np.float64)
        if a.ndim != 1 or a.shape != b.shape or not len(a):
            raise BadInput("means of the Gaussian pair", expected="two vectors of one length",
                           got=f"shapes {a.shape} and {b.shape}")  # fmt: skip
        if not (np.isfinite(a).all() and np.isfinite(b).all()) or np.array_equal(a, b):
            raise BadInput("means of the Gaussian pair", expected="two different finite vectors")
        if not (math.isfinite(self.sigma) and self.sigma > 0):
            raise BadInput("sigma of the Gaussian pair", expected="a finite number > 0", got=self.sigma)
        object.__setattr__(self, "mean0", a)
        object.__setattr__(self, "mean1", b)

    @classmethod
    def apart(cls, distance: float, *, d: int = 1, sigma: float = 1.0) -> GaussianPair:
        """Means ‖μ₁ − μ₀‖₂ = distance apart, symmetric about 0, along the diagonal of d dimensions.

        Example:
            >>> round(GaussianPair.apart(4.0, d=20).robust_error(1.0), 6)
            0.158655
        """
        if not (isinstance(d, int) and d >= 1):
            raise BadInput("d of the Gaussian pair", expected="a whole number >= 1", got=d)
        mean = np.full(d, distance / 2 / math.sqrt(d))
        return cls(-mean, mean, sigma)

    @property
    def half(self) -> NDArray[np.float64]:
        """Half the difference of the means, (μ₁ − μ₀)/2, shape (d,)."""
        return np.asarray((np.asarray(self.mean1) - np.asarray(self.mean0)) / 2)

    def direction(self, eps: float = 0.0, norm: Norm = "l2") -> NDArray[np.float64]:
        """The normal v of the optimal robust classifier, shape (d,); 0 where no classifier is better than chance.

        Arguments:
            eps: the adversary's radius ≥ 0, in the units of ``x``.
            norm: ``"l2"`` or ``"linf"``.
        """
        check_eps(eps)
        norm = norm_in("Gaussian pair", norm, ("l2", "linf"))
        m = self.half
        if norm == "linf":
            soft: NDArray[np.float64] = np.sign(m) * np.maximum(np.abs(m) - eps, 0.0)
            return soft
        return np.asarray(m * max(0.0, 1.0 - eps / float(np.linalg.norm(m))))

    def log_robust_error(self, eps: float = 0.0, norm: Norm = "l2") -> float:
        """The logarithm of the least adversarial error; finite where the error itself underflows."""
        return float(log_ndtr(-np.linalg.norm(self.direction(eps, norm)) / self.sigma))

    def robust_error(self, eps: float = 0.0, norm: Norm = "l2") -> float:
        """The least adversarial error of any classifier: Theorem 2 for L2, and ½ once eps is too large."""
        return math.exp(self.log_robust_error(eps, norm))

    @property
    def bayes_error(self) -> float:
        """The least error without an adversary, Φ(−‖μ₁ − μ₀‖₂ / 2σ)."""
        return self.robust_error(0.0)

    def largest_useful_eps(self, norm: Norm = "l2") -> float:
        """Below this radius some classifier beats chance; from it on, none does.

        ‖μ₁ − μ₀‖ / 2 in the adversary's own norm (Remark 2 for L2).
        """
        norm = norm_in("Gaussian pair", norm, ("l2", "linf"))
        return float(np.linalg.norm(self.half, ord=2 if norm == "l2" else np.inf))

    def network(self, eps: float = 0.0, norm: Norm = "l2") -> nn.Linear:
        """The optimal robust classifier as a float64 layer with logits (N, 2): class 1 where ⟨v, x − centre⟩ ≥ 0.

        From the largest useful eps on it is the constant classifier 1.

        Example:
            >>> pair = GaussianPair.apart(4.0, d=3)
            >>> pair.network()(torch.ones(1, 3, dtype=torch.float64)).argmax(1)
            tensor([1])
        """
        v = self.direction(eps, norm)
        size = float(np.linalg.norm(v))
        unit = v / size if size else v
        centre = (np.asarray(self.mean0) + np.asarray(self.mean1)) / 2
        offset = -float(unit @ centre) if size else 1.0
        layer = nn.Linear(len(v), 2, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(np.stack([-unit, unit]) / 2))
            layer.bias.copy_(torch.tensor([-offset, offset], dtype=torch.float64) / 2)
        return layer.requires_grad_(False)
