"""Barati, Safabakhsh and Rahmati 2021: polynomials with adversarial regions, and hard training points."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.stats import spearmanr
from torch import Tensor, nn

from calipers.papers.registry import Result, Scale, figure
from calipers.theory import (
    Grid,
    Polynomial,
    adversarial_objective,
    adversarial_regions,
    bernstein_margin,
    chebyshev_hardness,
    chebyshev_hardness_maxima,
    chebyshev_margin,
    feature_layer,
    grid,
    hard_margin,
    hard_objective,
    nearest_label,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

__all__ = ["figure1", "figure2", "figure3", "figure4"]

PAPER = (
    "Towards Explaining Adversarial Examples Phenomenon in Artificial Neural Networks, "
    "R. Barati, R. Safabakhsh and M. Rahmati, 2021"
)


@figure(
    "pointwise.figure1",
    paper=PAPER,
    claim="The Bernstein classifiers f_n have no adversarial region. The Chebyshev classifiers g_n oscillate, agree "
    "with f_n at most half of the time, and converge only pointwise.",
)
def figure1(scale: Scale) -> Result:
    """f_n and g_n for n = 1, 3, 5, 10, 30, and how much of [0, 1] g_n gets wrong.

    Example:
        >>> figure1("smoke").table.g_wrong_length.round(4).tolist()
        [0.0, 0.7071]
    """
    degrees = {"smoke": [1, 3], "cpu": [1, 3, 5, 10, 30], "paper": [1, 3, 5, 10, 30, 60, 101, 501]}[scale]
    x = (1 - np.cos(np.linspace(0, np.pi, 20_001))) / 2
    rows = []
    for n in degrees:
        f, g = bernstein_margin(n), chebyshev_margin(n)
        regions = adversarial_regions(g)
        rows.append({
            "degree": n,
            "f_wrong_length": adversarial_regions(f).length,
            "g_wrong_length": regions.length,
            "g_agrees_with_f": 1 - regions.length,
            "g_regions": len(regions.intervals),
            "g_depth": regions.depth,
            "sup_g_minus_f": float(np.abs(g(x) - f(x)).max()),
        })  # fmt: skip
    table = pd.DataFrame(rows)
    more = table[(table.g_agrees_with_f > 0.5) & (table.degree > 1)].degree.tolist()
    findings = (
        f"f_n is wrong nowhere: the largest total length over all n is {table.f_wrong_length.max():.1g}.",
        f"g_n is wrong on {', '.join(f'{r.g_wrong_length:.4f} (n = {r.degree})' for r in table.itertuples())}.",
        f"'At most half of the time' is not so: g_n agrees with f_n on more than half of [0, 1] for n in {more} (and "
        "everywhere for n = 1); the share tends to 1/2 from above for N = 1 mod 4 and from below for N = 3 mod 4, with "
        "N the largest odd number <= n.",
        f"sup |g_n - f_n| does not fall: {table.sup_g_minus_f.iloc[-1]:.4f} at n = {table.degree.iloc[-1]} "
        "(its limit is 1 - min sin(y)/y = 1.2172): the convergence is not uniform.",
    )
    return Result(table, findings, lambda: _draw_classifiers(degrees[:5]))


def _page(rows: int, columns: int, width: float, height: float) -> tuple[Picture, NDArray[np.object_]]:
    """An empty picture, without pyplot's global state, and its axes, shape (rows, columns)."""
    from matplotlib.figure import Figure as Picture

    page = Picture(figsize=(width, height), layout="constrained")
    return page, np.asarray(page.subplots(rows, columns, squeeze=False))


def _draw_classifiers(degrees: list[int]) -> Picture:
    page, axes = _page(1, len(degrees), 2.4 * len(degrees), 2.5)
    x = (1 - np.cos(np.linspace(0, np.pi, 600))) / 2
    for axis, n in zip(axes[0], degrees, strict=True):
        g = chebyshev_margin(n)
        _shade(axis, g)
        axis.plot(x, bernstein_margin(n)(x), color="tab:blue", label="f, Bernstein")
        axis.plot(x, g(x), color="tab:red", label="g, Chebyshev")
        axis.axhline(0, color="black", linewidth=0.5)
        axis.set(title=f"n = {n}", xlabel="x", ylim=(-1.15, 1.15))
    axes[0, 0].legend(loc="upper left", fontsize=7, frameon=False)
    return page


def _shade(axis: object, classifier: Polynomial) -> None:
    """Grey bands where a classifier is wrong."""
    for low, high in adversarial_regions(classifier).intervals:
        axis.axvspan(low, high, color="0.85", linewidth=0)  # type: ignore[attr-defined]


GRIDS: tuple[Grid, ...] = ("chebyshev", "equispaced")


@figure(
    "pointwise.figure2",
    paper=PAPER,
    claim="Degree-30 Chebyshev maximum-margin classifiers converge uniformly on the Chebyshev grid C_m in the expected "
    "number of samples, but on the equispaced grid E_m not even for relatively large m; leaving out the two end points "
    "has a considerable negative effect.",
)
def figure2(scale: Scale) -> Result:
    """Hard-margin classifiers of degree 30 on C_m and E_m, with and without the end points.

    ``shortfall`` is the sup-norm error against the margin: by how much the classifier falls below 1 on the right side,
    further than ¼ from the boundary; 0 at the training points. ``sup_error`` compares the shape, at coefficients of
    length 1, with the classifier of a very fine grid.

    Example:
        >>> table = figure2("smoke").table
        >>> table[table.ends & (table.m == 64)].set_index("grid").regions.to_dict()
        {'chebyshev': 0, 'equispaced': 2}
    """
    sizes = {
        "smoke": [8, 64],
        "cpu": [8, 16, 32, 64, 128, 256],
        "paper": [*range(8, 257, 2), 320, 384, 512, 768, 1000],
    }[scale]
    x = (1 - np.cos(np.linspace(0, np.pi, 8001))) / 2
    limit = _unit(grid("chebyshev", 1000 if scale == "smoke" else 10_000), x)[1]
    rows, far = [], np.abs(x - 0.5) > 0.25
    for kind in GRIDS:
        for ends in (True, False):
            for m in sizes:
                classifier, shape = _unit(grid(kind, m, ends=ends), x)
                regions = adversarial_regions(classifier)
                rows.append({
                    "grid": kind, "ends": ends, "m": m, "wrong_length": regions.length,
                    "regions": len(regions.intervals), "depth": regions.depth,
                    "sup_error": float(np.abs(shape - limit).max() / np.abs(limit).max()),
                    "shortfall": max(0.0, 1 - float((nearest_label(x) * classifier(x))[far].min())),
                })  # fmt: skip
    table = pd.DataFrame(rows)
    return Result(table, _convergence(table), lambda: _draw_convergence(table))


def _unit(points: NDArray[np.float64], x: NDArray[np.float64]) -> tuple[Polynomial, NDArray[np.float64]]:
    """The degree-30 classifier of a grid, and its values scaled to coefficients of length 1."""
    classifier = hard_margin(points, nearest_label(points), 30)
    return classifier, classifier(x) / np.linalg.norm(np.asarray(classifier.coefficients))


def _convergence(table: pd.DataFrame) -> tuple[str, ...]:
    """From which m on each grid is never wrong again, and what leaving out the ends does."""
    sentences = []
    for (kind, ends), part in table.groupby(["grid", "ends"], sort=False):
        wrong = part[part.wrong_length > 0]
        settled = part[part.m > wrong.m.max()] if len(wrong) else part
        first = f"from m = {settled.m.iloc[0]} on" if len(settled) else f"not up to m = {part.m.iloc[-1]}"
        middle, last = part[part.m == 64].iloc[0], part.iloc[-1]
        sentences.append(
            f"{kind} grid {'with' if ends else 'without'} ends: no adversarial region {first}; at m = 64 wrong on "
            f"{middle.wrong_length:.2g}; sup-norm shortfall {middle.shortfall:.2g} at m = 64, {last.shortfall:.2g} at "
            f"m = {last.m}; distance to the limit {last.sup_error:.2g}."
        )
    wrong = table[table.m >= 24].pivot_table(index=["grid", "m"], columns="ends", values="wrong_length")
    cost = (wrong[False] - wrong[True]).groupby("grid").max()
    return (
        *sentences,
        f"From m = 24 on, leaving out the ends adds up to {cost['chebyshev']:.2g} to the misclassified length on C_m, "
        f"whose nodes crowd there, and up to {cost['equispaced']:.2g} on E_m.",
        "All m are even: on an odd grid 1/2 itself is a training point, as far from 0 as from 1, and whatever it is "
        "called moves the boundary.",
    )


def _draw_convergence(table: pd.DataFrame) -> Picture:
    from matplotlib.figure import Figure as Picture

    page = Picture(figsize=(10.4, 6.8), layout="constrained")
    top, bottom = np.asarray(page.subfigures(2, 1, height_ratios=(2, 1.1)))
    shown = [m for m in (8, 32, 64, 128) if m in set(table.m)]
    axes, x = np.asarray(top.subplots(2, len(shown), squeeze=False)), (1 - np.cos(np.linspace(0, np.pi, 300))) / 2
    for row, kind in enumerate(GRIDS):
        for axis, m in zip(axes[row], shown, strict=True):
            points = grid(kind, m)
            classifier = hard_margin(points, nearest_label(points), 30)
            _shade(axis, classifier)
            axis.plot(x, classifier(x), color="tab:red")
            axis.plot(points, nearest_label(points), ".", markersize=3, color="black")
            axis.axhline(0, color="black", linewidth=0.5)
            axis.set(title=f"{'C' if kind == 'chebyshev' else 'E'}, m = {m}", ylim=(-2.6, 2.6))
    left, right = bottom.subplots(1, 2)
    for (name, ends), part in table.groupby(["grid", "ends"], sort=False):
        colour = "tab:blue" if name == "chebyshev" else "tab:orange"
        look = {"color": colour, "linestyle": "-" if ends else ":", "linewidth": 1}
        left.plot(part.m, part.wrong_length, label=f"{name}{'' if ends else ', no ends'}", **look)
        right.plot(part.m, part.shortfall, **look)
    left.set(xscale="log", xlabel="m", title="length of the misclassified set")
    left.set_yscale("symlog", linthresh=1e-3)
    left.set_ylim(bottom=-1e-4)
    right.set(xscale="log", yscale="log", xlabel="m", title="sup-norm shortfall from the margin, |x - 1/2| > 1/4")
    left.legend(fontsize=7, frameon=False)
    return page


@figure(
    "pointwise.figure3",
    paper=PAPER,
    claim="The Chebyshev nodes are very close to the maxima of the expected loss (12), n = 10.",
)
def figure3(scale: Scale) -> Result:
    """The expected loss for n = 10, and the distance of every Chebyshev node to the nearest maximum.

    Example:
        >>> round(float(figure3("smoke").table.to_maximum.max()), 4)
        0.0127
    """
    degrees = [10] if scale != "paper" else [5, 10, 20, 40]
    table = pd.concat([_nodes(n) for n in degrees], ignore_index=True)
    ten = table[table.degree == 10]
    findings = (
        f"n = 10: a node is at most {ten.to_maximum.max():.4f} and in the median {ten.to_maximum.median():.4f} away "
        f"from a maximum, {ten.to_maximum_in_spacings.max():.2f} of the local spacing at most.",
        "The loss at every node is exactly 1/2 (to rounding "
        f"{(table.loss - 0.5).abs().max():.0e}), {ten.loss_share.min():.1%}-{ten.loss_share.max():.1%} of its maximum: "
        "'very close' holds in the middle, and least for the outermost nodes, which lie about half as far from the end "
        "as their maximum does (a ratio of 0.487 for large n).",
        "The ends 0 and 1 are minima of (12), of value 0: nothing in (12) asks for them, only the boundary does.",
    )
    return Result(table, findings, lambda: _draw_nodes(10))


def _nodes(degree: int) -> pd.DataFrame:
    """One row per root of T*_n: where it is, its loss, and the nearest maximum."""
    nodes, maxima = grid("chebyshev", degree + 2, ends=False), chebyshev_hardness_maxima(degree)
    gap = np.abs(nodes[:, None] - maxima)
    nearest = gap.argmin(1)
    at_node, at_maximum = (chebyshev_hardness(torch.from_numpy(z), degree).numpy() for z in (nodes, maxima[nearest]))
    return pd.DataFrame({
        "degree": degree, "node": nodes, "loss": at_node, "nearest_maximum": maxima[nearest],
        "to_maximum": gap.min(1), "to_maximum_in_spacings": gap.min(1) / np.abs(np.gradient(nodes)),
        "loss_share": at_node / at_maximum,
    })  # fmt: skip


def _draw_nodes(degree: int) -> Picture:
    page, axes = _page(1, 1, 5, 3)
    axis, x = axes[0, 0], (1 - np.cos(np.linspace(0, np.pi, 800))) / 2
    axis.plot(x, chebyshev_hardness(torch.from_numpy(x), degree).numpy(), color="tab:blue")
    nodes, maxima = grid("chebyshev", degree + 2), chebyshev_hardness_maxima(degree)
    for points, mark, label in ((nodes, "o", "Chebyshev nodes and ends"), (maxima, "|", "maxima")):
        value = chebyshev_hardness(torch.from_numpy(points), degree).numpy()
        axis.plot(points, value, mark, color="tab:red" if mark == "o" else "black", markersize=5, label=label)
    axis.set(xlabel="x", ylabel="expected loss (12)", title=f"n = {degree}")
    axis.legend(fontsize=7, frameon=False, loc="lower center")
    return page


@figure(
    "pointwise.figure4",
    paper=PAPER,
    claim="For a random tanh network the adversarial objective (10) follows the decision boundary; the hard objective "
    "(9) of its feature layer suggests a very different distribution.",
)
def figure4(scale: Scale) -> Result:
    """Rank correlation of both objectives with closeness to the decision boundary, over random networks.

    Example:
        >>> table = figure4("smoke").table
        >>> bool((table.adversarial > table.hard).all())
        True
    """
    seeds, side = {"smoke": (2, 60), "cpu": (5, 120), "paper": (20, 240)}[scale]
    table = pd.DataFrame([_correlate(seed, side, bias) for bias in (True, False) for seed in range(seeds)])
    findings = []
    for bias, part in table.groupby("biases", sort=False):
        adversarial, hard = part.adversarial, part.hard
        findings.append(
            f"{'Normal' if bias else 'No'} biases, {len(part)} networks: Spearman correlation with closeness to the "
            f"boundary {adversarial.mean():.3f} (from {adversarial.min():.3f} to {adversarial.max():.3f}) for the "
            f"adversarial objective, {hard.mean():.3f} (from {hard.min():.3f} to {hard.max():.3f}) for the hard one; "
            f"the first is larger in {(adversarial > hard).sum()} of {len(part)}."
        )
    return Result(table, tuple(findings), lambda: _draw_maps(0, min(side, 160)))


def _network(seed: int, biases: bool) -> nn.Sequential:
    """2-100-100-100-5, tanh, every weight standard normal."""
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for n, m in ((2, 100), (100, 100), (100, 100), (100, 5)):
        layer = nn.Linear(n, m, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(m, n, generator=generator, dtype=torch.float64))
            layer.bias.copy_(torch.randn(m, generator=generator, dtype=torch.float64) * biases)
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1]).requires_grad_(False)


def _maps(network: nn.Sequential, side: int) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Predicted class, adversarial and hard objective on a side × side grid of [−1, 1]²."""
    line = torch.linspace(-1, 1, side, dtype=torch.float64)
    x = torch.cartesian_prod(line, line)

    def square(values: Tensor) -> NDArray[np.float64]:
        return values.reshape(side, side).T.numpy()

    label = square(network(x).argmax(1)).astype(np.int64)
    return label, square(adversarial_objective(network, x)), square(hard_objective(feature_layer(network), x))


def _correlate(seed: int, side: int, biases: bool) -> dict[str, float | int | bool]:
    """Spearman's ρ of each objective with minus the distance to the nearest point of another class."""
    label, adversarial, hard = _maps(_network(seed, biases), side)
    distance = np.zeros(label.shape)
    for c in np.unique(label):
        inside = label == c
        distance[inside] = np.asarray(distance_transform_edt(inside))[inside]
    near = -distance.ravel()

    def rank(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        return float(cast(float, spearmanr(a.ravel(), b.ravel()).statistic))

    return {
        "biases": biases, "seed": seed, "classes": len(np.unique(label)), "adversarial": rank(near, adversarial),
        "hard": rank(near, hard), "adversarial_with_hard": rank(adversarial, hard),
    }  # fmt: skip


def _draw_maps(seed: int, side: int) -> Picture:
    page, axes = _page(1, 3, 9, 3.2)
    label, adversarial, hard = _maps(_network(seed, True), side)
    titles = ("output", "adversarial objective (10)", "hard objective (9), feature layer")
    line = np.linspace(-1, 1, side)
    for axis, title, values in zip(axes[0], titles, (label, adversarial, hard), strict=True):
        colours = "Set2" if values is label else "viridis"
        axis.imshow(values, origin="lower", extent=(-1, 1, -1, 1), cmap=colours, interpolation="nearest")
        if values is not label:
            for c in np.unique(label):
                axis.contour(line, line, label == c, levels=[0.5], colors="white", linewidths=0.4)
        axis.set(title=title)
    return page
