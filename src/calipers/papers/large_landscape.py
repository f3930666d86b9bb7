"""Shaeiri, Nobahari and Rohban 2020, Sections 3.2, 3.3, 4 and Appendices F, H: what the loss looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from calipers.attacks import climb
from calipers.diagnostics import (
    Perturb,
    agreement,
    bulge,
    foreground,
    gini,
    interpolated,
    jump,
    plane,
    roughness,
    saliency,
)
from calipers.models import Classifier
from calipers.papers.large_perturbations import PAPER
from calipers.papers.large_training import Network, Trainings
from calipers.papers.registry import HERE, Bench, Result, Scale, figure
from calipers.papers.trainings import train_chains
from calipers.runner import Draws
from calipers.threats import Threat
from calipers.training import Plan, Schedule, fresh

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

__all__ = ["figure3", "figure4", "figure5", "figure6", "figure11", "figure13"]


@dataclass(frozen=True)
class _Look:
    """How closely a scale looks: points of ℓ(α) and their batch; points of a plane and its examples; raw steps."""

    alphas: int
    batch: int
    points: int
    examples: int
    raw_steps: int
    fine_steps: int


LOOKS: dict[Scale, _Look] = {
    "smoke": _Look(5, 16, 11, 2, 5, 5),
    "cpu": _Look(41, 128, 52, 10, 500, 200),
    # The paper's text has lost its exponents: its "104 points" are 10^4, its "502" are 50^2. 104 x 104 are enough.
    "paper": _Look(200, 512, 104, 50, 2000, 200),
}


def _pgd(
    model: Classifier, x: Tensor, y: Tensor, *, eps: float, step_size: float = 0.05, steps: int | None = None
) -> Tensor:
    """The training's signed PGD: 2.5·eps/step_size steps from a random start."""
    count = steps or max(1, round(2.5 * eps / step_size))
    return climb(model, x, y, Threat("linf", eps), steps=count, step_size=step_size)


def _curve(
    runs: Trainings, look: _Look, start: Classifier, end: Classifier, eps: float, perturb: Perturb | None = None
) -> Tensor:
    """ℓ(α) between two networks, on a batch of training data, under the training's PGD at eps (0: clean)."""
    batch = runs.studio.training.take(look.batch)
    alphas = np.linspace(0, 1, look.alphas).tolist()
    weights = start.module.state_dict(), end.module.state_dict()
    if eps == 0:
        return interpolated(end, *weights, batch.x, batch.y, alphas)
    return interpolated(end, *weights, batch.x, batch.y, alphas, perturb or partial(_pgd, eps=eps))


def _curves_result(curves: dict[str, Tensor], told: Sequence[str], panels: Sequence[Sequence[str]]) -> Result:
    count = len(next(iter(curves.values())))
    alphas = np.linspace(0, 1, count)
    table = pd.DataFrame({"alpha": alphas} | {name: loss.numpy() for name, loss in curves.items()})
    numbers = "; ".join(
        f"{name}: from {float(loss[0]):.3f} to {float(loss[-1]):.3f}, at most {float(loss.max()):.3f}, "
        f"bulge {bulge(loss):.3f}"
        for name, loss in curves.items()
    )

    def draw() -> Picture:
        from matplotlib.figure import Figure as Picture

        page = Picture(figsize=(3.2 * len(panels), 3.2), layout="constrained")
        for axis, names in zip(np.atleast_1d(page.subplots(1, len(panels))), panels, strict=True):
            for name in names:
                axis.plot(alphas, curves[name].numpy(), ".-", markersize=2, linewidth=1, label=name)
            axis.set(xlabel="α", ylabel="ℓ(α)")
            axis.legend(fontsize=7, frameon=False)
        return page

    explained = "bulge: the height above the largest convex curve below, as a share of the range; 0 is convex"
    return Result(table, (f"{numbers} ({explained}).", *told), draw)


@figure(
    "large_perturbations.figure3",
    paper=PAPER,
    claim="From random weights to trained ones the adversarial loss is convex along the line for small eps and begins "
    "to be non-convex as eps grows (0, 0.2, 0.3, 0.4).",
    long=True,
)
def figure3(scale: Scale, bench: Bench = HERE) -> Result:
    """ℓ(α) from the random initial weights of each training to its final ones, at the eps of the training."""
    runs, look = Trainings(scale, bench.trained), LOOKS[scale]
    standard = Plan("standard", Schedule("constant", 0.0), epochs=min(5, runs.size.epochs))
    trained = train_chains(
        bench,
        runs.told(),
        {"0": partial(runs.studio.fit, "standard", standard)},
        *({f"{eps:g}": partial(runs.base, eps)} for eps in (0.2, 0.3, 0.4)),
    )
    ends = {float(eps): run.model for eps, run in trained.items()}
    held = ", ".join(f"{run.metrics[-1]['robust']:.1%} at {eps}" for eps, run in trained.items() if eps != "0")
    start = fresh(runs.studio.arch, seed=0)
    curves = {f"eps = {eps:g}": _curve(runs, look, start, end, eps) for eps, end in ends.items()}
    learnt = runs.learnt({f"eps = {eps:g}": Network.usual(end, eps) for eps, end in ends.items()})
    told = (f"{runs.told()}.", learnt, f"Of the held-out examples PGD leaves the trained networks {held}.")
    return _curves_result(curves, told, [[name] for name in curves])


@figure(
    "large_perturbations.figure4",
    paper=PAPER,
    claim="From weights trained at 0.3 to those extended to 0.4, the loss at 0.4 is nearly convex along the line, "
    "the loss at 0.3 stays low (right): mode connectivity.",
    long=True,
)
def figure4(scale: Scale, bench: Bench = HERE) -> Result:
    """ℓ(α) between the two networks, under the training's PGD at both eps."""
    return _extended(scale, bench.trained, {"eps = 0.4": 0.4, "eps = 0.3": 0.3})


@figure(
    "large_perturbations.figure11",
    paper=PAPER,
    claim="As figure 4, with a more accurate PGD (200 steps of 0.005): the loss is even closer to convex.",
    long=True,
)
def figure11(scale: Scale, bench: Bench = HERE) -> Result:
    """ℓ(α) between the two networks at 0.4, under the training's PGD and under the finer one."""
    return _extended(scale, bench.trained, {"eps = 0.4, step 0.05": 0.4}, fine={"eps = 0.4, step 0.005": 0.4})


def _extended(
    scale: Scale, folder: Path | None, coarse: dict[str, float], fine: dict[str, float] | None = None
) -> Result:
    runs, look = Trainings(scale, folder), LOOKS[scale]
    start, end = runs.base(0.3).model, runs.extended(0.3, 0.4).model
    curves = {name: _curve(runs, look, start, end, eps) for name, eps in coarse.items()}
    for name, eps in (fine or {}).items():
        careful = partial(_pgd, eps=eps, step_size=0.005, steps=look.fine_steps)
        curves[name] = _curve(runs, look, start, end, eps, careful)
    learnt = runs.learnt({"0.3": Network.usual(start, 0.3), "0.3 -> 0.4": Network.usual(end, 0.4)})
    return _curves_result(curves, (f"{runs.told()}.", learnt), [[name] for name in curves])


@figure(
    "large_perturbations.figure5",
    paper=PAPER,
    claim="Along the adversarial and a random direction the loss of the networks for 0.3 and 0.4 is smooth; that of "
    "the network extended to 0.5 has sudden jumps: it hides its gradient.",
    long=True,
)
def figure5(scale: Scale, bench: Bench = HERE) -> Result:
    """The loss on the plane of sign(∂loss/∂x) and random signs, half of eps along both, for four networks."""
    runs, look = Trainings(scale, bench.trained), LOOKS[scale]
    test = runs.studio.test(look.examples)
    rows: list[dict[str, object]] = []
    first: dict[str, np.ndarray] = {}
    networks = {"0.3": Network.usual(runs.base(0.3).model, 0.3)} | runs.examined()
    for name, (model, eps, _) in networks.items():
        sign = saliency(model, test.x, test.y).sign()
        draws = Draws(0, test.index, step=0)
        random = torch.where(draws.uniform(test.x[0].numel()) < 0.5, -1.0, 1.0).view_as(test.x)
        for at in range(len(test)):
            half = eps / 2
            seen = plane(model, test.x[at], test.y[at], half * sign[at], half * random[at], points=look.points)
            first.setdefault(name, seen.loss.numpy())
            rows.append({
                "network": name, "eps": eps, "example": int(test.index[at]), "loss_clean": float(seen.loss[0, 0]),
                "loss_adversarial": float(seen.loss[0, -1]), "loss_random": float(seen.loss[-1, 0]),
                "range": float(seen.loss.max() - seen.loss.min()), "jump": jump(seen.loss),
                "roughness": roughness(seen.loss),
            })  # fmt: skip
    table = pd.DataFrame(rows)
    median = table.groupby("network", sort=False)[["jump", "roughness", "range"]].median()
    told = "; ".join(
        f"{name}: jump {row['jump']:.3f} of the range, roughness {row['roughness']:.2f}, range {row['range']:.3f}"
        for name, row in median.iterrows()
    )
    straight = 1 / (look.points - 1)
    findings = (
        f"Medians over {look.examples} test examples, {look.points} x {look.points} points each: {told} (jump: the "
        f"largest between neighbours; a straight slope's is {straight:.3f}, a cliff's 1).",
        f"{runs.told()}.",
        runs.learnt(networks),
    )
    return Result(table, findings, lambda: _draw_planes(first))


def _draw_planes(planes: dict[str, np.ndarray]) -> Picture:
    from matplotlib.figure import Figure as Picture

    page = Picture(figsize=(3.4 * len(planes), 5.6), layout="constrained")
    axes = page.subplots(2, len(planes), height_ratios=(1.3, 1))
    for (name, loss), (above, below) in zip(planes.items(), axes.T, strict=True):
        shown = above.imshow(loss, origin="lower", extent=(0, 0.5, 0, 0.5), cmap="viridis", interpolation="nearest")
        page.colorbar(shown, ax=above, shrink=0.8)
        above.set(title=name, xlabel="adversarial direction (eps)", ylabel="random direction (eps)")
        t = np.linspace(0, 0.5, len(loss))
        below.plot(t, loss[0], linewidth=1, color="tab:orange", label="adversarial")
        below.plot(t, loss[:, 0], linewidth=1, color="grey", label="random")
        below.set(xlabel="distance (eps)", ylabel="loss")
        below.legend(fontsize=7, frameon=False)
    return page


@figure(
    "large_perturbations.figure6",
    paper=PAPER,
    claim="Training at larger eps gives sparser, more meaningful saliency maps and perturbations; the raw gradient "
    "gives an interpretable attack even on the network extended to 0.5, which hides its gradient.",
    long=True,
)
def figure6(scale: Scale, bench: Bench = HERE) -> Result:
    """Saliency at the perturbed input (0.3), signed perturbations (0.45) and raw-gradient ones (0.5): two examples."""
    return _interpretability(scale, bench.trained, 2)


@figure(
    "large_perturbations.figure13",
    paper=PAPER,
    claim="As figure 6, on more examples.",
    long=True,
)
def figure13(scale: Scale, bench: Bench = HERE) -> Result:
    """Saliency and perturbations of six examples."""
    return _interpretability(scale, bench.trained, 6)


def _interpretability(scale: Scale, folder: Path | None, shown: int) -> Result:
    runs, look = Trainings(scale, folder), LOOKS[scale]
    test = runs.studio.test(max(look.examples, shown))
    x, y = test.x, test.y
    networks = {"0.3": Network.usual(runs.base(0.3).model, 0.3)} | runs.examined()
    maps: dict[str, Tensor] = {}
    told: list[str] = []
    for name, (model, eps, _) in networks.items():
        if eps < 0.5:
            maps[f"saliency, {name}"] = saliency(model, _pgd_from_x(model, x, y, eps=0.3), y)
            maps[f"sign 0.45, {name}"] = _pgd_from_x(model, x, y, eps=0.45) - x
            continue
        threat = Threat("linf", eps)
        raw = climb(model, x, y, threat, steps=look.raw_steps, step_size=5e4, raw=True, random_start=False)
        maps[f"raw {eps:g}, {name}"] = raw - x
        with torch.no_grad():
            fooled, signed = (
                float((model(z).argmax(1) != y).double().mean()) for z in (raw, _pgd(model, x, y, eps=eps))
            )
        told.append(f"On {name} the raw gradient (step 5e4, {look.raw_steps} steps) fools {100 * fooled:.0f} %, the "
                    f"training's signed PGD {100 * signed:.0f} %.")  # fmt: skip
    table = pd.DataFrame([
        {"map": name, "gini": float(gini(m).mean()), "in_foreground": float(foreground(m, x).mean()),
         "agreement_with_0.3": float(agreement(m, maps[_partner(name)]).mean())}
        for name, m in maps.items()
    ])  # fmt: skip
    share = float((x > 0.5).flatten(1).double().mean())
    rows = table.set_index("map")
    findings = (
        f"Means over {len(test)} test examples. Saliency: Gini {rows.gini['saliency, 0.3']:.3f} for 0.3, "
        f"{rows.gini['saliency, 0.3 -> 0.4']:.3f} for 0.3 -> 0.4; in the foreground "
        f"{rows.in_foreground['saliency, 0.3']:.3f} and {rows.in_foreground['saliency, 0.3 -> 0.4']:.3f}, where "
        f"{share:.3f} of the pixels are.",
        *told,
        f"{runs.told()}.",
        runs.learnt(networks),
    )
    return Result(table, findings, lambda: _draw_maps(x[:shown], {name: m[:shown] for name, m in maps.items()}))


def _partner(name: str) -> str:
    """The same map of the network trained at 0.3 alone; the raw gradient is compared with its signed perturbation."""
    return "saliency, 0.3" if name.startswith("saliency") else "sign 0.45, 0.3"


def _pgd_from_x(model: Classifier, x: Tensor, y: Tensor, *, eps: float) -> Tensor:
    """The training's PGD without its random start, as the paper's pictures have it."""
    steps = max(1, round(2.5 * eps / 0.05))
    return climb(model, x, y, Threat("linf", eps), steps=steps, step_size=0.05, random_start=False)


def _draw_maps(x: Tensor, maps: dict[str, Tensor]) -> Picture:
    from matplotlib.figure import Figure as Picture

    page = Picture(figsize=(1.5 * (1 + len(maps)), 1.55 * len(x)), layout="constrained")
    for axes, at in zip(np.atleast_2d(page.subplots(len(x), 1 + len(maps))), range(len(x)), strict=True):
        axes[0].imshow(x[at].squeeze().numpy(), cmap="gray", interpolation="nearest")
        axes[0].set_title("example" if at == 0 else "", fontsize=7)
        for axis, (name, m) in zip(axes[1:], maps.items(), strict=True):
            picture = m[at].squeeze().numpy()
            peak = float(np.abs(picture).max()) or 1.0
            axis.imshow(picture, cmap="RdBu_r", vmin=-peak, vmax=peak, interpolation="nearest")
            axis.set_title(name.replace(", ", "\n") if at == 0 else "", fontsize=7)
        for axis in axes:
            axis.set_axis_off()
    return page
