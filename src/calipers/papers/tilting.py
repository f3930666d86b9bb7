"""Tanay and Griffin: the boundary of a linear classifier tilts towards the data, and adversarial examples follow."""

from __future__ import annotations

import io
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calipers.data import DataSet, load
from calipers.geometry import Hyperplane, SvmPath, Tilt, svm_path, tilt
from calipers.papers.registry import Result, Scale, figure
from calipers.papers.tilting_page import Frame, frame, page

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

__all__ = ["svm", "toy"]

PAPER = "A New Angle on L2 Regularization, T. Tanay and L. Griffin, 2018"
Floats = NDArray[np.float64]

# What the published page shows: (digits, λ) to θ, 1/‖w‖, d_adv, training and test error in percent.
PUBLISHED: dict[tuple[int, int, float], dict[str, float]] = {
    (0, 1, 1e7): {"d_adv": 3.816},
    (4, 9, 1e7): {"d_adv": 1.249},
    (3, 8, 1e7): {"d_adv": 1.823},
    (7, 9, 1e7): {"d_adv": 1.506},
    (0, 1, 1e3): {"theta": 0.710, "inv_norm_w": 1.398, "d_adv": 2.894, "err_train": 0.133, "err_test": 0.095},
    (4, 9, 1e3): {"theta": 0.698, "inv_norm_w": 0.513, "d_adv": 0.957, "err_train": 3.15, "err_test": 3.466},
    (4, 9, 1e1): {"theta": 1.274, "d_adv": 0.366, "err_train": 1.533, "err_test": 3.466},
}
CPU_PAIRS = [(0, 1), (3, 8), (4, 9), (7, 9), (1, 8)]


@dataclass(frozen=True, eq=False)
class _Pair:
    """Training and test data of two digits, in [0, 1], labels −1 and +1."""

    digits: tuple[int, int]
    x: Floats
    y: Floats
    test_x: Floats
    test_y: Floats


@figure(
    "tilting.svm-path",
    paper=PAPER,
    claim="For each pair of MNIST digits, the training error is least for small lambda and the adversarial distance "
    "greatest for large lambda; the boundary tilts from the nearest-centroid classifier as lambda falls.",
)
def svm(scale: Scale) -> Result:
    """Soft-margin linear SVMs of pairs of digits along the regularisation path, C = 25/(3λ).

    ``"paper"`` is all 45 pairs of MNIST at 81 λ, ``"cpu"`` five of them, ``"smoke"`` two pairs of the embedded digits.

    Example:
        >>> table = svm("smoke").table
        >>> bool(table.sort_values("lambda").groupby("digit0").d_adv.agg(lambda d: d.iloc[-1] > d.iloc[0]).all())
        True
    """
    lambdas = 10.0 ** (np.arange(-10, 71, 8 if scale == "smoke" else 1) / 10)
    pairs = {"smoke": [(0, 1), (4, 9)], "cpu": CPU_PAIRS, "paper": list(combinations(range(10), 2))}[scale]
    data = "digits" if scale == "smoke" else "mnist"
    train, test = load(data, split="train"), load(data, split="test")
    tables, frames, gap = [], {}, 0.0
    for digits in pairs:
        pair = _pair(train, test, digits)
        path = svm_path(pair.x, pair.y, 25 / (3 * lambdas))
        tables.append(_rows(pair, path, lambdas))
        frames[digits] = _frames(pair, path, tables[-1])
        gap = max(gap, float(path.gap.max()))
    table = pd.concat(tables, ignore_index=True)
    return Result(_rounded(table), _findings(table, gap), lambda: _draw(table), {
        "svm_path.parquet": lambda: _parquet(table),
        "svm_path.html": lambda: page(frames),
    })  # fmt: skip


def _pair(train: DataSet, test: DataSet, digits: tuple[int, int]) -> _Pair:
    """The first 3,000 training images of each class (fewer if there are fewer), and every test image."""

    def take(data: DataSet, most: int | None) -> tuple[Floats, Floats]:
        x, y = data.x.flatten(1).double().numpy(), data.y.numpy()
        rows = [np.flatnonzero(y == digit)[:most] for digit in digits]
        fewest = min(map(len, rows)) if most else None
        kept = [part[:fewest] for part in rows]
        return x[np.concatenate(kept)], np.repeat([-1.0, 1.0], [len(part) for part in kept])

    return _Pair(digits, *take(train, 3000), *take(test, None))


def _rows(pair: _Pair, path: SvmPath, lambdas: Floats) -> pd.DataFrame:
    rows = []
    for i, value in enumerate(lambdas):
        plane = Hyperplane(path.weight[i], path.bias[i])
        measured: Tilt = tilt(plane, pair.x, pair.y)
        wrong = (pair.test_y * plane.score(pair.test_x) <= 0).mean()
        rows.append({
            "digit0": pair.digits[0], "digit1": pair.digits[1], "lambda": value, "C": path.C[i],
            "theta": measured.theta, "inv_norm_w": 1 / plane.norm, "d_adv": measured.adversarial_distance,
            "err_train": 100 * measured.error, "err_test": 100 * wrong,
        })  # fmt: skip
    return pd.DataFrame(rows)


def _frames(pair: _Pair, path: SvmPath, rows: pd.DataFrame) -> list[Frame]:
    """Every half decade of λ, for the page."""
    kept = range(0, len(rows), 5 if len(rows) > 20 else 1)
    numbers = [{str(key): float(value) for key, value in rows.iloc[i].items()} for i in kept]
    planes = [Hyperplane(path.weight[i], path.bias[i]) for i in kept]
    return [frame(plane, pair.x, pair.y, told) for plane, told in zip(planes, numbers, strict=True)]


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Four significant digits: as much as a gap of 1e-4 supports, and a table that stays small."""
    return table.map(lambda value: float(f"{value:.4g}") if isinstance(value, float) else value)


def _parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, compression="zstd", index=False)
    return buffer.getvalue()


def _findings(table: pd.DataFrame, gap: float) -> tuple[str, ...]:
    sentences = [f"The largest relative duality gap of all {len(table)} models is {gap:.2g}."]
    for (a, b, value), published in PUBLISHED.items():
        same = table[(table.digit0 == a) & (table.digit1 == b) & np.isclose(table["lambda"], value)]
        if len(same):
            ours = same.iloc[0]
            told = ", ".join(f"{name} {ours[name]:.4g} (published {told:g})" for name, told in published.items())
            sentences.append(f"{a} vs {b}, lambda {value:g}: {told}.")
    by_pair = table.groupby(["digit0", "digit1"])
    best = table.loc[by_pair.err_test.idxmin()]
    last = table.loc[by_pair["lambda"].idxmax()]
    falls = by_pair.apply(lambda part: bool((part.sort_values("lambda").d_adv.diff().dropna() > -1e-3).all()))
    return (
        *sentences,
        f"d_adv rises with lambda (to 1e-3) along the whole path of {int(falls.sum())} of {len(falls)} pairs; theta at "
        f"the largest lambda is at most {last.theta.max():.1e}.",
        f"The test error is least at a lambda from {best['lambda'].min():.3g} to {best['lambda'].max():.3g}, median "
        f"{best['lambda'].median():.3g}.",
        f"At the largest lambda the training error is {last.err_train.min():.3g}% to {last.err_train.max():.3g}%: "
        "there the optimal bias is an interval, and the middle is taken, as libsvm does.",
    )


def _draw(table: pd.DataFrame) -> Picture:
    """Four measures against λ: all pairs in grey, four in colour, published as crosses; errors from 0.02% up."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(9, 5.6), layout="constrained")
    shown = [("theta", "tilting angle (rad)"), ("d_adv", "adversarial distance"),
             ("err_train", "training error (%)"), ("err_test", "test error (%)")]  # fmt: skip
    colours = {(0, 1): "tab:blue", (3, 8): "tab:green", (4, 9): "tab:red", (7, 9): "tab:purple"}
    for axis, (column, title) in zip(canvas.subplots(2, 2).flat, shown, strict=True):
        least = 0.02 if "err" in column else None
        spread = table.groupby("lambda")[column].agg(["min", "median", "max"]).clip(lower=least)
        axis.fill_between(spread.index, spread["min"], spread["max"], color="0.9", linewidth=0, label="all pairs")
        axis.plot(spread.index, spread["median"], color="0.6", linewidth=1, label="median pair")
        for (a, b), colour in colours.items():
            part = table[(table.digit0 == a) & (table.digit1 == b)]
            axis.plot(part["lambda"], part[column].clip(lower=least), color=colour, linewidth=1.2, label=f"{a} vs {b}")
        for (a, b, value), told in PUBLISHED.items():
            if column in told and ((table.digit0 == a) & (table.digit1 == b)).any():
                axis.plot(value, told[column], "x", color=colours[a, b], markersize=8, zorder=4)
        axis.set(xscale="log", xlabel="lambda", title=title, yscale="log" if "err" in column else "linear")
    canvas.axes[0].plot([], [], "x", color="black", label="published")
    canvas.axes[0].legend(frameon=False, fontsize=8)
    return canvas


@figure(
    "tilting.toy",
    paper=PAPER,
    claim="All L_theta separate the toy classes; the mirror image comes as near as one likes as theta grows. One noisy "
    "point tilts a weakly regularised SVM or logistic regression, and does not tilt a strongly regularised one.",
)
def toy(scale: Scale) -> Result:
    """A two-dimensional image space: the data lie on a line, and the boundary turns.

    Example:
        >>> table = toy("smoke").table
        >>> table[table.model == "L_theta"].mirror_distance.round(3).tolist()
        [1.2, 1.039, 0.6, 0.0]
    """
    angles = np.radians({"smoke": [0, 30, 60, 90], "cpu": range(0, 91, 10), "paper": range(91)}[scale])
    x, y = _toy_data(noisy=False)
    image = np.array([[-0.6, 0.0]])
    rows = []
    for theta in angles:
        plane = Hyperplane(np.array([np.cos(theta), np.sin(theta)]), 0.0)
        far = float(np.linalg.norm(plane.mirror(image) - image))
        rows.append({"model": "L_theta", "C": np.nan, "mirror_distance": far} | _toy_row(plane, x, y))
    noisy_x, noisy_y = _toy_data(noisy=True)
    fitted = _toy_models(noisy_x, noisy_y)
    for name, C, plane in fitted:
        far = float(np.linalg.norm(plane.mirror(image) - image))
        rows.append({"model": name, "C": C, "mirror_distance": far} | _toy_row(plane, noisy_x, noisy_y))
    table = pd.DataFrame(rows)
    gap = np.abs(table.mirror_distance[: len(angles)] - 1.2 * np.cos(angles)).max()
    told = "; ".join(
        f"{row.model}, C = {row.C:g}: theta {row.theta:.3f}, d_adv {row.d_adv:.3f}, training error {row.err_train:.2g}%"
        for row in table.iloc[len(angles) :].itertuples()
    )
    findings = (
        f"The distance between x and its mirror image is 2|x| cos(theta), to {gap:.0e}; at theta = pi/2 it is 0.",
        f"With the noisy point: {told}.",
    )
    return Result(table, findings, lambda: _draw_toy(table, fitted))


def _toy_row(plane: Hyperplane, x: Floats, y: Floats) -> dict[str, float]:
    found = tilt(plane, x, y)
    return {"theta": found.theta, "d_adv": found.adversarial_distance, "err_train": 100 * found.error}


def _toy_data(*, noisy: bool) -> tuple[Floats, Floats]:
    """Twenty images of each class on the axis b = 0; the noisy point p is of class I, on J's side, off the axis."""
    a = np.linspace(0.2, 1, 20)
    x, y = np.concatenate([-a, a])[:, None] * [1.0, 0.0], np.repeat([-1.0, 1.0], 20)
    return (np.vstack([x, [[0.25, 0.1]]]), np.append(y, -1.0)) if noisy else (x, y)


def _toy_models(x: Floats, y: Floats) -> list[tuple[str, float, Hyperplane]]:
    from sklearn.linear_model import LogisticRegression

    weak, strong = 1e5, 1.0
    path = svm_path(x, y, [weak, strong], tolerance=1e-6)
    models = [("SVM", C, Hyperplane(path.weight[i], path.bias[i])) for i, C in enumerate((weak, strong))]
    for C in (weak, strong):
        fit = LogisticRegression(C=C, max_iter=10_000).fit(x, y)
        models.append(("logistic regression", C, Hyperplane.of(fit)))
    return models


def _draw_toy(table: pd.DataFrame, fitted: list[tuple[str, float, Hyperplane]]) -> Picture:
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(9, 3.2), layout="constrained")
    left, right = canvas.subplots(1, 2)
    turned = table[table.model == "L_theta"]
    left.plot(np.degrees(turned.theta), turned.mirror_distance, color="tab:red", label="|x_m - x|")
    left.plot(np.degrees(turned.theta), turned.d_adv, color="tab:blue", label="d_adv")
    left.set(xlabel="theta (degrees)", ylabel="distance", title="L_theta")
    left.legend(frameon=False)
    x, y = _toy_data(noisy=True)
    for side, mark in ((-1, "o"), (1, "s")):
        right.plot(*x[y == side].T, mark, markersize=3, color="tab:blue" if side < 0 else "tab:red")
    for (name, C, plane), look in zip(fitted, ("k-", "k--", "g-", "g--"), strict=True):
        p, along = plane.project([[0.0, 0.0]])[0], np.array([-plane.unit[1], plane.unit[0]])
        ends = np.stack([p - 9 * along, p + 9 * along])
        right.plot(*ends.T, look, linewidth=1, label=f"{name}, C = {C:g}")
    right.set(xlim=(-1.1, 1.1), ylim=(-0.6, 0.6), title="with a noisy point of class I", xlabel="a", ylabel="b")
    right.legend(fontsize=7, loc="lower left")
    return canvas
