"""The smoothed classifier beside the brackets: columns of their own, which never become a lower bound of the model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from calipers.certificates import smoothing
from calipers.errors import BadInput
from calipers.models import Classifier
from calipers.records import Smoothed

__all__ = ["ALPHA", "check_smooth", "smoothed_columns", "smoothed_summary"]

# How likely an example's radius may be wrong.
ALPHA = 0.001


def check_smooth(smooth: float | None, draws: int) -> tuple[float, int] | None:
    """(sigma, draws) as they go into the settings of a run; None if nothing is smoothed.

    Raises:
        BadInput: for a sigma that is not positive and finite, or fewer than 100 draws.

    Example:
        >>> check_smooth(0.25, 1000), check_smooth(None, 1000)
        ((0.25, 1000), None)
    """
    if smooth is None:
        return None
    if not 0 < smooth < float("inf"):
        raise BadInput("--smooth", expected="a finite sigma > 0", got=smooth)
    if draws < 100:
        raise BadInput("--smooth-draws", expected="at least 100", got=draws)
    return smooth, draws


def smoothed_columns(
    model: Classifier, x: torch.Tensor, y: torch.Tensor, index: torch.Tensor, smooth: tuple[float, int], seed: int
) -> dict[str, np.ndarray]:
    """What the smoothed model answers (−1: it abstains), and its L2 radius at that confidence."""
    sigma, draws = smooth
    found = smoothing(model, x, y, sigma=sigma, n0=100, n=draws, alpha=ALPHA, seed=seed, index=index)
    return {"smoothed": found.predicted.cpu().numpy(), "smoothed_radius": found.radius.cpu().numpy()}


def smoothed_summary(rows: pd.DataFrame, smooth: tuple[float, int] | None) -> Smoothed | None:
    """The smoothed columns in one record; None if there are none."""
    if smooth is None:
        return None
    answers, radius = rows["smoothed"].to_numpy(), rows["smoothed_radius"].to_numpy()
    return Smoothed(
        sigma=smooth[0],
        draws=smooth[1],
        confidence=1 - ALPHA,
        certified_accuracy=float((answers == rows["label"].to_numpy()).mean()),
        abstained=int((answers < 0).sum()),
        radius_median=float(np.median(radius)),
    )
