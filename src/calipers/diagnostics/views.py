"""The landscapes that go into a run's record: the loss around its nearest, a typical and its farthest witness."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from calipers.diagnostics.landscape import plane, saliency
from calipers.diagnostics.shape import foreground, gini, jump, roughness
from calipers.models import Classifier
from calipers.records import Run
from calipers.runner.draws import Draws

__all__ = ["landscape_views", "shuffled"]

_VIEWS, _FEWEST, _MOST = 3, 13, 41
# What the views may cost: this share of the forwards that the audit itself has spent.
_SHARE = 0.05
_TOWARD, _ASIDE = (-0.5, 1.5), (-1.0, 1.0)
_STREAM = 7


def landscape_views(model: Classifier, run: Run, seed: int = 0) -> dict[str, np.ndarray]:
    r"""The arrays of :attr:`calipers.records.Run.landscape`; empty where there is no witness, or no budget to look.

    Every view is a plane through the example: one direction leads to the witness, the other is the same move with its
    features shuffled and its signs drawn anew, which has the same length in every norm.

    Arguments:
        model: the classifier.
        run: its audit. The views cost at most a twentieth of its forwards.
        seed: of the random directions.
    """
    room = math.isqrt(max(int(_SHARE * run.summary.forwards) // _VIEWS - 1, 0))
    # One more than a multiple of four: then example and witness lie on the grid.
    points = (min(_MOST, room) - 1) // 4 * 4 + 1
    if not run.witnesses or not len(run.witnesses["index"]) or points < _FEWEST:
        return {}
    index = run.witnesses["index"]
    of = run.examples.set_index("index").loc[index]
    order = np.argsort(of["upper"].to_numpy(), kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, _VIEWS).round().astype(int))]
    every = {int(at): _view(model, int(of["label"].iloc[at]), run.witnesses, int(at), points, seed) for at in chosen}
    # A broken model may answer NaN beside an example that it answers well.
    chosen = np.array([at for at, view in every.items() if np.isfinite(view["loss"]).all()], dtype=np.int64)
    if not len(chosen):
        return {}
    made = [every[int(at)] for at in chosen]
    stacked = {name: np.stack([np.asarray(view[name]) for view in made]) for name in made[0]}
    axes = {"toward": np.linspace(*_TOWARD, points), "aside": np.linspace(*_ASIDE, points)}
    return {"index": index[chosen], **axes, **stacked}


def _view(
    model: Classifier, label: int, witnesses: dict[str, np.ndarray], at: int, points: int, seed: int
) -> dict[str, np.ndarray | float]:
    clean, fooling = (torch.from_numpy(witnesses[name][at]) for name in ("clean", "adversarial"))
    y = torch.tensor(label)
    move = fooling - clean
    other = shuffled(move, Draws(seed, torch.tensor([int(witnesses["index"][at])]), step=0, stream=_STREAM))
    seen = plane(model, clean, y, move, other, toward=_TOWARD, aside=_ASIDE, points=points)
    around = saliency(model, fooling[None], y[None]).cpu().nan_to_num()
    low, high = model.box.sides(clean)
    middle = ((low + high) / 2).expand(clean.shape)
    return {
        "loss": seen.loss.float().numpy(),
        "saliency": around[0].float().numpy(),
        "jump": jump(seen.loss),
        "roughness": roughness(seen.loss),
        "gini": float(gini(around)),
        "foreground": float(foreground(around, clean[None] - middle, 0.0)) if model.box.bounded else math.nan,
    }


def shuffled(move: Tensor, draws: Draws) -> Tensor:
    r"""A random direction of the same length in every norm: the move's features in another order, with other signs.

    Arguments:
        move: shape (\*shape,).
        draws: of one example.

    Example:
        >>> other = shuffled(torch.tensor([0.0, 3.0, -4.0]), Draws(0, torch.tensor([5]), step=0))
        >>> other.abs().sort().values
        tensor([0., 3., 4.])
    """
    d = move.numel()
    order = draws.uniform(d)[0].argsort()
    sign = torch.where(draws.uniform(d)[0] < 0.5, -1.0, 1.0)
    return (move.flatten()[order.to(move.device)] * sign.to(move)).view_as(move)
