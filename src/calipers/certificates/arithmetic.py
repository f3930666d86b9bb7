"""How far a network as executed can be from real arithmetic: the error model every certificate stands on.

A dot product of n terms executed in floating point, in any order, differs from the real one by at most γ_n·Σ|w_i x_i|
with γ_n = n·u / (1 − n·u), u the unit roundoff ("Accuracy and Stability of Numerical Algorithms", Higham 2002, Section
3.1). Every bound is a sum over operators of such errors, so nothing is ever measured, only bounded.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from calipers.certificates.certificate import NotApplicable
from calipers.models import Classifier
from calipers.models.classifier import HALF

__all__ = ["ASSUMES", "OURS", "Arithmetic", "arithmetic_of"]

ASSUMES = "plain summation in any order: no Winograd or Fourier convolutions, no TF32"

# The unit roundoff of the float64 in which all bounds are computed.
OURS = 2.0**-53


@dataclass(frozen=True)
class Arithmetic:
    """A floating-point format: unit roundoff, smallest normal number and largest number.

    Example:
        >>> Arithmetic.of(torch.float32).unit
        5.960464477539063e-08
    """

    name: str
    unit: float
    tiny: float
    largest: float

    @classmethod
    def of(cls, dtype: torch.dtype) -> Arithmetic:
        """The arithmetic of a dtype."""
        form = torch.finfo(dtype)
        return cls(str(dtype).removeprefix("torch."), form.eps / 2, form.tiny, form.max)

    def dot(self, magnitude: Tensor, terms: int, back: int = 1) -> Tensor:
        r"""The error of a sum of ``terms`` products whose absolute values add up to ``magnitude``.

        Our own float64 bounds of the same sum, forwards and backwards (``back`` terms), are covered as well, and so
        are products that underflow. Where the sum could overflow, nothing is known: the error is infinite.

        Example:
            >>> bool(Arithmetic.of(torch.float32).dot(torch.ones(1), 100) > 100 * 2.0**-24)
            True
        """
        if terms * self.unit >= 0.5:
            return torch.full_like(magnitude, torch.inf)
        own = 4 * max(terms, back) * OURS
        share = terms * self.unit / (1 - terms * self.unit) + own / (1 - own)
        error = share * magnitude + terms * self.tiny
        return torch.where(magnitude * (1 + share) < self.largest, error, torch.inf)


def arithmetic_of(model: Classifier) -> Arithmetic:
    """The arithmetic in which this classifier runs here and now; a refusal where no error bound is known.

    Raises:
        NotApplicable: for half precision, autocast, TF32 and reduced-precision matrix products.
    """
    half = [dtype for dtype in (model.dtype, *(part.dtype for part in model.module.parameters())) if dtype in HALF]
    if half:
        raise NotApplicable(
            f"arithmetic of {model.name}", expected="float32 or float64 weights",
            got=str(half[0]).removeprefix("torch."), hint="call .float(): half precision has no usable bound",
        )  # fmt: skip
    device = model.device.type
    if torch.is_autocast_enabled(device):
        raise NotApplicable("arithmetic", expected="no autocast", got=f"autocast on {device}",
                            hint="certify outside torch.autocast")  # fmt: skip
    reduced = torch.get_float32_matmul_precision()
    if model.dtype == torch.float32 and reduced != "highest":
        raise NotApplicable("float32 matrix products", expected="precision 'highest'", got=repr(reduced),
                            hint="call torch.set_float32_matmul_precision('highest')")  # fmt: skip
    if device == "cuda" and model.dtype == torch.float32 and torch.backends.cudnn.allow_tf32:
        raise NotApplicable("float32 convolutions on the GPU", expected="no TF32", got="TF32 allowed",
                            hint="set torch.backends.cudnn.allow_tf32 = False")  # fmt: skip
    return Arithmetic.of(model.dtype)
