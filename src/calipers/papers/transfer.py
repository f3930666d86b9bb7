"""Transferable adversarial directions: what fools one classifier, shown to the others; and where it must fail."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from calipers.data import load
from calipers.geometry import Hyperplane, fools_linear, max_margin
from calipers.geometry import section6 as counter_example
from calipers.papers.registry import HERE, Bench, Result, Scale, figure
from calipers.papers.transfer_ensemble import Weights, fit, gradient, logits, make, right, stacked_gradient
from calipers.papers.transfer_page import page
from calipers.runner import Part, merge

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

__all__ = ["figure4", "section6"]

PAPER = (
    "A Geometric Perspective on the Transferability of Adversarial Directions, Z. Charles, H. Rosenberg and "
    "D. Papailiopoulos, 2019"
)
STEPS, STEP = 40, 0.01
KINDS = ("random", "SVM", "network")


class _Size(NamedTuple):
    models: int
    train: int
    epochs: int
    test: int
    every: int  # eps = STEP · every, 2 · every, … up to 0.40


SIZES: dict[Scale, _Size] = {
    "smoke": _Size(2, 200, 10, 20, 20),
    "cpu": _Size(5, 4000, 10, 200, 4),
    "paper": _Size(50, 10_000, 10, 1000, 1),
}


@dataclass(frozen=True, eq=False)
class _Classifiers:
    """M networks, and M linear models: weights (M, 10, 784), biases (M, 10); and how many of those did not converge."""

    networks: list[Weights]
    weight: Tensor
    bias: Tensor
    unfinished: int

    def right(self, kind: str, z: Tensor, y: Tensor) -> np.ndarray:
        """The accuracy of every classifier of this kind, shape (M,)."""
        if kind == "network":
            return np.array([right(network, z, y) for network in self.networks])
        scores = torch.einsum("nd,mkd->mnk", z.flatten(1), self.weight) + self.bias[:, None]
        return (scores.argmax(2) == y).double().mean(1).numpy()


@figure(
    "transfer.figure4",
    paper=PAPER,
    claim="Adversarial examples of linear SVMs fool other SVMs most; those of networks fool networks and, less, SVMs; "
    "those of SVMs do little more to networks than random perturbations of the same size.",
    long=True,
)
def figure4(scale: Scale, bench: Bench = HERE) -> Result:
    """Accuracy of every classifier on what was made for every other: PGD, 40 steps of 0.01, no random start, in [0, 1].

    A random perturbation has ±eps in every pixel. ``"smoke"`` takes enlarged embedded digits for MNIST.

    Example:
        >>> table = figure4("smoke").table
        >>> sorted(table.perturbation.unique()), len(table)
        (['SVM', 'network', 'random'], 12)
    """
    size = SIZES[scale]
    trained = bench.shards("trained", str(size), partial(_train, scale), size.models)
    models = _Classifiers(
        networks=[{name: torch.from_numpy(part.arrays[name][0]) for name in make(_generator(0))} for part in trained],
        weight=torch.from_numpy(np.concatenate([part.arrays["svm"] for part in trained])),
        bias=torch.from_numpy(np.concatenate([part.arrays["svm.bias"] for part in trained])),
        unfinished=sum(part.notes["unfinished"] for part in trained),
    )
    shown = merge(bench.shards("shown", str(size), partial(_show, scale, models), size.models))
    # One number for every classifier, over all sources; then the mean and the extremes over the classifiers.
    each = pd.concat([pd.DataFrame(shown.table), pd.DataFrame(shown.arrays["right"])], axis=1)
    mean = each.groupby(["target", "perturbation", "eps"]).mean()
    table = pd.DataFrame({"mean": mean.mean(axis=1), "min": mean.min(axis=1), "max": mean.max(axis=1)})
    table = table.round(6).reset_index()
    notes = (
        f"{size.models} networks and {size.models} LinearSVC ({models.unfinished} of them stopped at max_iter), "
        f"{size.train} training images each, {size.test} test images for each source.",
        _speed(models, *_images("test", scale)),
    )
    return Result(
        table, (*_findings(table), *notes), lambda: _draw(table), {"transfer.figure4.html": lambda: page(table)}
    )


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _train(scale: Scale, i: int) -> Part:
    """The i-th network and the i-th linear model, each on its own random images."""
    (x, y), size, generator = _images("train", scale), SIZES[scale], _generator(i)
    own, other = (torch.randperm(len(x), generator=generator)[: size.train] for _ in range(2))
    network = fit(make(generator), x[own], y[own], epochs=size.epochs, generator=generator)
    weight, bias, unfinished = _linear_model(x[other], y[other], i)
    arrays = {name: part[None].numpy() for name, part in network.items()}
    return Part({}, {**arrays, "svm": weight[None], "svm.bias": bias[None]}, {"unfinished": unfinished})


def _show(scale: Scale, models: _Classifiers, source: int) -> Part:
    """What is made for one source, at every eps, shown to everyone: a row for each (target, perturbation, eps)."""
    (x, y), size, generator = _images("test", scale), SIZES[scale], _generator(1000 + source)
    some = torch.randperm(len(x), generator=generator)[: size.test]
    rows, shares = [], []
    for kind in KINDS:
        for k, moved in _perturbed(models, kind, source, x[some], y[some], size.every, generator):
            for target in ("SVM", "network"):
                rows.append((target, kind, round(STEP * k, 4)))
                shares.append(models.right(target, moved, y[some]))
    columns = (np.array(column) for column in zip(*rows, strict=True))
    return Part(dict(zip(("target", "perturbation", "eps"), columns, strict=True)), {"right": np.stack(shares)})


def _images(split: str, scale: Scale) -> tuple[Tensor, Tensor]:
    data = load("digits" if scale == "smoke" else "mnist", split=split)
    x = data.x.float().reshape(len(data), 1, *data.shape[-2:])
    return (F.interpolate(x, size=(28, 28), mode="nearest") if scale == "smoke" else x), data.y


def _linear_model(x: Tensor, y: Tensor, seed: int) -> tuple[np.ndarray, np.ndarray, bool]:
    """LinearSVC with its defaults: weights (10, 784), biases (10,), and whether it stopped before it converged."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", ConvergenceWarning)
        fitted = LinearSVC(random_state=seed).fit(x.flatten(1).double().numpy(), y.numpy())
    unfinished = any(issubclass(one.category, ConvergenceWarning) for one in heard)
    return fitted.coef_.astype(np.float32), fitted.intercept_.astype(np.float32), unfinished


def _perturbed(
    models: _Classifiers, kind: str, source: int, x: Tensor, y: Tensor, every: int, generator: torch.Generator
) -> Iterator[tuple[int, Tensor]]:
    """(k, what was made for ``source`` at eps = 0.01·k), one eps at a time."""
    ks = range(every, STEPS + 1, every)
    if kind == "random":
        for k in ks:
            signs = 2.0 * torch.randint(2, x.shape, generator=generator) - 1
            yield k, (x + STEP * k * signs).clamp(0, 1)
        return
    if kind == "network":

        def sign(z: Tensor) -> Tensor:
            return gradient(models.networks[source], z, y).sign()
    else:
        # The margin loss has the gradient w_j − w_y: its sign is looked up in a table of 10 × 10.
        W, b = models.weight[source], models.bias[source]
        signs = (W[:, None] - W).sign()

        def sign(z: Tensor) -> Tensor:
            scores = (z.flatten(1) @ W.T + b).scatter(1, y[:, None], -torch.inf)
            return signs[scores.argmax(1), y].view_as(z)

    yield from _pgd(sign, x, ks)


def _pgd(sign: Callable[[Tensor], Tensor], x: Tensor, ks: range) -> Iterator[tuple[int, Tensor]]:
    """PGD at every eps = 0.01·k. The first k steps do not reach the ball's edge, so all larger eps share them."""
    shared, done = x, 0
    for k in ks:
        for _ in range(k - done):
            shared = (shared + STEP * sign(shared)).clamp(0, 1)
        z, done = shared, k
        low, high = (x - STEP * k).clamp(0, 1), (x + STEP * k).clamp(0, 1)
        for _ in range(STEPS - k):
            z = (z + STEP * sign(z)).clamp(low, high)
        yield k, z


def _speed(models: _Classifiers, x: Tensor, y: Tensor) -> str:
    """Gradients a second in one process, on a slice: ours, the straightforward loop, and stacked by torch.func."""
    x, y, some = x[:200], y[:200], models.networks[:10]
    stack = {name: torch.stack([one[name] for one in some]) for name in some[0]}

    def ours() -> None:
        for one in some:
            gradient(one, x, y)

    def plain() -> None:
        for one in some:
            z = x.clone().requires_grad_()
            torch.autograd.grad(F.cross_entropy(logits(one, z), y), z)

    def stacked() -> None:
        stacked_gradient(stack, x, y)

    ways = {"here": ours, "in the straightforward loop": plain, "stacked by torch.func": stacked}
    told = []
    for name, way in ways.items():
        way()
        start = time.perf_counter()
        for _ in range(3):
            way()
        told.append(f"{3 * len(some) * len(x) / (time.perf_counter() - start):.0f} {name}")
    return f"Gradients a second of {len(some)} networks, {len(x)} images each: {', '.join(told)}."


def _findings(table: pd.DataFrame) -> tuple[str, ...]:
    means = table.pivot_table(index="eps", columns=["target", "perturbation"], values="mean")
    sentences = []
    for eps in [e for e in means.index if round(e * 100) % 10 == 0 or e == means.index[0]][:4]:
        told = ", ".join(f"{target} on {kind} {means.loc[eps, (target, kind)]:.3f}"
                         for target in ("SVM", "network") for kind in KINDS)  # fmt: skip
        sentences.append(f"eps {eps:g}: mean accuracy of {told}.")
    gap = (means["network"]["random"] - means["network"]["SVM"]).max()
    fall = (means["network"]["random"] - means["network"]["network"]).max()
    return (
        *sentences,
        f"Networks lose at most {gap:.3f} more to the SVMs' examples than to random ones, and {fall:.3f} to networks'.",
    )


def _draw(table: pd.DataFrame) -> Picture:
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(8.4, 3.2), layout="constrained")
    for axis, target in zip(canvas.subplots(1, 2, sharey=True), ("SVM", "network"), strict=True):
        for kind in KINDS:
            part = table[(table.target == target) & (table.perturbation == kind)]
            error = [part["mean"] - part["min"], part["max"] - part["mean"]]
            axis.errorbar(part.eps, part["mean"], yerr=error, label=kind, capsize=2, linewidth=1)
        axis.set(title=f"accuracy of {target}s", xlabel="eps (L-infinity)", ylim=(-0.02, 1.02))
    canvas.axes[0].legend(frameon=False, title="perturbation")
    return canvas


@figure(
    "transfer.section6",
    paper=PAPER,
    claim="The max-margin direction of a linearly separable set need not fool a two-layer ReLU network that is right "
    "on the set; the network's own direction fools every linear separator too (Corollary 17).",
)
def section6(scale: Scale) -> Result:
    """The explicit counter-example: from the −1 example, how far along either direction each classifier changes.

    Example:
        >>> section6("smoke").table.network_changes_at.tolist()
        [inf, 0.5]
    """
    found = counter_example()
    best = max_margin(found.x, found.y)
    negative, plane = found.x[found.y < 0], Hyperplane(best.weight, best.bias)
    rows = [
        {"direction": name, "v1": v[0], "v2": v[1],
         "linear_changes_at": float(fools_linear(v, plane, negative, [-1])[0]),
         "network_changes_at": float(found.network.fools(v, negative)[0])}
        for name, v in (("max margin (Theorem 4)", found.max_margin_direction),
                        ("x_beta - x_alpha (Theorem 11)", found.convex_direction))
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    findings = (
        "S = {(0, 0): -1, (2, 2): +1, (2, -2): +1}; network relu(x2 - 1) + relu(-x2 - 1) > 0; both are "
        "right on all of S.",
        f"Along w* the linear classifier changes at {rows[0]['linear_changes_at']:g} w*; the network never does.",
        f"Along v the linear classifier changes at {rows[1]['linear_changes_at']:g} v, the network at "
        f"{rows[1]['network_changes_at']:g} v.",
    )
    return Result(table, findings, _draw_section6)


def _draw_section6() -> Picture:
    from matplotlib.figure import Figure as Canvas

    found, canvas = counter_example(), Canvas(figsize=(4.6, 3.6), layout="constrained")
    axis = canvas.subplots()
    axis.axhspan(-1, 1, color="tab:blue", alpha=0.12, linewidth=0)
    for height in (-1, 1):
        axis.axhline(height, color="tab:blue", linewidth=1.2, label="network" if height > 0 else None)
    axis.axvline(1, color="tab:red", linewidth=1.2, label="max-margin linear classifier")
    for label, mark in ((1, "+"), (-1, "o")):
        axis.plot(*found.x[found.y == label].T, mark, color="black", markersize=9, markerfacecolor="none")
    for v, name in ((2 * found.max_margin_direction, "w*"), (0.8 * found.convex_direction, "v")):
        tip = float(v[0]), float(v[1])
        axis.annotate("", tip, (0, 0), arrowprops={"arrowstyle": "->"})
        axis.annotate(name, tip, (4, 4), textcoords="offset points")
    axis.set(xlim=(-1.2, 3.4), ylim=(-2.6, 2.6), xlabel="x1", ylabel="x2", aspect="equal")
    axis.legend(frameon=True, fontsize=7, loc="lower left")
    return canvas
