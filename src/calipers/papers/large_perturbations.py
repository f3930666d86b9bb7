"""Shaeiri, Nobahari and Rohban 2020, Section 5: optimal robust classifiers, each theorem held against simulation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import binom
from torch import Tensor, nn

from calipers.attacks import linear, noise
from calipers.data.synthetic import synthetic
from calipers.models import Classifier
from calipers.papers.registry import Result, Scale, figure
from calipers.theory import (
    BernoulliPair,
    FiniteDistribution,
    GaussianPair,
    distribution_of_graph,
    graph,
    graph_distance,
    optimal_robust,
)
from calipers.threats import Box, Norm, Threat

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

__all__ = ["Attack", "compare", "engine", "figure12", "optimal_adversary", "random_search", "theorems"]

PAPER = "Towards Deep Learning Models Resistant to Large Perturbations, A. Shaeiri, R. Nobahari and M. H. Rohban, 2020"
Attack = Callable[[nn.Module, Tensor, Tensor, Norm, float], Tensor]


@figure(
    "large_perturbations.figure12",
    paper=PAPER,
    claim="The adversarial error (12) of threshold rules against L0 perturbations, for every threshold s and eps, "
    "k = 50, t = 0.30, shows up to which eps a rule beats chance.",
)
def figure12(scale: Scale) -> Result:
    """L0 error against the threshold and eps: equation (12) as printed, and as it holds.

    Example:
        >>> table = figure12("smoke").table
        >>> table[(table.threshold == 10) & (table.eps == 10)][["error", "printed"]].round(4).values.tolist()
        [[0.5, 0.9463]]
    """
    k, t = (10 if scale == "smoke" else 50), 0.30
    pair = BernoulliPair.of(k, t)
    table = pd.DataFrame([
        {"eps": eps, "threshold": s, "error": pair.threshold_error(s, eps), "printed": _printed(k, t, s, eps)}
        for eps in range(k + 1) for s in range(-1, k + 1)
    ])  # fmt: skip
    best = [pair.l0_optimum(eps) for eps in range(k + 1)]
    over = table[(table.printed - table.error).abs() > 1e-12]
    printed = table.groupby("eps").printed.min()
    last = int(pair.largest_useful_eps("l0"))
    findings = (
        f"A rule beats chance up to eps = {last} of k = {k} coordinates (k*t = {k * t:g}), where it errs with "
        f"probability {best[last].error:.6f}; from eps = {last + 1} on nothing beats a constant rule's 1/2.",
        f"The best threshold of every useful eps is in the middle: s = {sorted({b.threshold for b in best[:last]})} or "
        "the mirror image k - 1 - s.",
        f"Equation (12) as printed differs from the error only at s = {sorted(set(over.threshold))}, where it counts "
        f"errors at points of a label that no point has; its minimum over s exceeds 1/2 (by more "
        f"than 1e-9) for {int((printed > 0.5 + 1e-9).sum())} of {k + 1} eps and reaches {printed.max():.6f}.",
    )
    return Result(table, findings, lambda: _draw_thresholds(table, pair))


def _printed(k: int, t: float, s: int, eps: int) -> float:
    """Equation (12) word for word; NaN for s = −1, which it does not have."""
    if s < 0:
        return float("nan")
    return float(binom.cdf(s + eps, k, 0.5 + t) + binom.cdf(k - s + eps - 1, k, 0.5 + t)) / 2


def _draw_thresholds(table: pd.DataFrame, pair: BernoulliPair) -> Picture:
    from matplotlib.figure import Figure as Picture

    page = Picture(figsize=(9, 3.4), layout="constrained")
    left, right = page.subplots(1, 2)
    chosen = [eps for eps in (0, 5, 10, 13, 15, 17, 20) if eps <= pair.k]
    for n, eps in enumerate(chosen):
        part = table[table.eps == eps]
        colour = f"C{n}"
        left.plot(part.threshold, part.error, ".-", markersize=3, linewidth=1, color=colour, label=f"eps = {eps}")
        wrong = part[(part.printed - part.error).abs() > 1e-12]
        left.plot(wrong.threshold, wrong.printed, "x", markersize=5, color=colour)
    left.axhline(0.5, color="black", linewidth=0.5)
    left.set(xlabel="threshold s (x: equation (12) as printed)", ylabel="adversarial error", title=f"k = {pair.k}")
    left.legend(fontsize=6, frameon=False)
    by_eps = table.groupby("eps")
    right.plot(by_eps.printed.min(), "x", markersize=4, color="tab:red", label="min over s of (12) as printed")
    right.plot(by_eps.error.min(), ".-", markersize=4, color="tab:blue", label="least error")
    right.set(xlabel="eps", ylabel="least adversarial error", title=f"t = {pair.t:g}")
    right.legend(fontsize=7, frameon=False)
    return page


def optimal_adversary(model: nn.Module, x: Tensor, y: Tensor, norm: Norm, eps: float) -> Tensor:
    r"""The strongest move against a rule that is linear, or linear after rounding to ±1 (closed form).

    The last layer's weights w = w₁ − w₀ say which way is worse for the label: against the normal for L2 and L∞; for L0
    the at most ⌊eps⌋ coordinates that speak most for the label are flipped. It reads the model's weights, so it is an
    oracle for the models of ``calipers.theory`` only, not an attack.

    Example:
        >>> x = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
        >>> model = GaussianPair([-1.0, -1.0], [1.0, 1.0]).network()
        >>> optimal_adversary(model, x, torch.tensor([1]), "linf", 1.0)
        tensor([[-0.5000, -0.5000]], dtype=torch.float64)
    """
    layer = model if isinstance(model, nn.Linear) else list(model.children())[-1]
    weight = torch.as_tensor(layer.weight)
    worse = -(2.0 * y - 1)[:, None] * (weight[1] - weight[0])
    if norm == "l2":
        return torch.as_tensor(x + eps * worse / worse.norm(dim=1, keepdim=True).clamp_min(1e-300))
    if norm == "linf":
        return x + eps * worse.sign()
    # What speaks for the label is where x and the worse direction disagree.
    # Only coordinates that still speak for the label are worth a flip, even if the budget allows more.
    gain, chosen = (-x * worse).topk(min(int(eps), x.shape[1]), dim=1)
    here = x.gather(1, chosen)
    return x.scatter(1, chosen, torch.where(gain > 0, -here, here))


def random_search(model: nn.Module, x: Tensor, y: Tensor, norm: Norm, eps: float, *, tries: int = 20) -> Tensor:
    """The worst of ``tries`` random points of the ball, without looking inside the model: L2, L∞ or L0 (sign flips).

    Example:
        >>> x = torch.zeros(1, 2, dtype=torch.float64)
        >>> model = GaussianPair([-1.0, -1.0], [1.0, 1.0]).network()
        >>> model(random_search(model, x, torch.tensor([1]), "linf", 1.0)).argmax(1)
        tensor([0])
    """
    generator = torch.Generator().manual_seed(0)
    best, least = x.clone(), _margin(model, x, y)
    for _ in range(tries):
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        if norm == "l2":
            trial = x + eps * noise / noise.norm(dim=1, keepdim=True)
        elif norm == "linf":
            trial = x + eps * noise.sign()
        else:
            chosen = noise.topk(min(int(eps), x.shape[1]), dim=1).indices
            trial = x.scatter(1, chosen, -x.gather(1, chosen))
        margin = _margin(model, trial, y)
        better = margin < least
        best[better], least = trial[better], torch.minimum(margin, least)
    return best


def _margin(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Logit of the label minus the other one, shape (N,)."""
    logits = model(x)
    return torch.as_tensor((logits[:, 1] - logits[:, 0]) * (2 * y - 1))


def engine(model: nn.Module, x: Tensor, y: Tensor, norm: Norm, eps: float) -> Tensor:
    """The best attack of :mod:`calipers.attacks` on the model: exact if it is affine, uniform samples if it rounds.

    The rounding of the Bernoulli rules has no gradient, so the attacks that need one see nothing there.

    Example:
        >>> x = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
        >>> model = GaussianPair([-1.0, -1.0], [1.0, 1.0]).network()
        >>> model(engine(model, x, torch.tensor([1]), "linf", 1.0)).argmax(1)
        tensor([0])
    """
    affine = isinstance(model, nn.Linear)
    box = Box(-math.inf, math.inf) if affine else Box(-1, 1)
    classifier = Classifier.of(model.eval(), shape=tuple(x.shape[1:]), box=box)
    attack = linear if affine else partial(noise, steps=20)
    return attack(classifier, x, y, Threat(norm, float(eps)), batch_size=4096).adversarial


ATTACKS: dict[str, Attack] = {
    "optimal adversary": optimal_adversary,
    "random search": random_search,
    "calipers.attacks": engine,
}


def compare(name: str, spec: str, model: nn.Module, norm: Norm, eps: float, theory: float,
            attacks: dict[str, Attack]) -> dict[str, object]:  # fmt: skip
    """One row: a theorem's error, and the error each attack reaches on a sample, with its standard error.

    Arguments:
        name: which theorem.
        spec: the data, as ``calipers.data.synthetic`` reads it.
        model: the theorem's classifier.
        norm, eps: what the adversary may do.
        theory: the error the theorem states.
        attacks: by name; every point an attack returns is judged by a fresh call of the model.

    Example:
        >>> pair = GaussianPair.apart(4.0, d=20)
        >>> row = compare("2", "gaussian:n=4000", pair.network(1.0), "l2", 1.0, pair.robust_error(1.0), ATTACKS)
        >>> abs(row["optimal adversary"] - row["theory"]) < 4 * row["standard_error"]
        True
    """
    data = synthetic(spec)
    x, y = data.x.double(), data.y
    n = len(y)
    clean = model(x).argmax(1) != y
    row: dict[str, object] = {"theorem": name, "data": spec, "norm": norm, "eps": eps, "theory": theory}
    for attack_name, attack in attacks.items():
        fooled = clean if eps == 0 else clean | (model(attack(model, x, y, norm, eps)).argmax(1) != y)
        row[attack_name] = float(fooled.double().mean())
    row["standard_error"] = float(np.sqrt(max(theory * (1 - theory), 1e-300) / n))
    return row


@figure(
    "large_perturbations.theorems",
    paper=PAPER,
    claim="Theorems 2-5: the stated classifiers reach the stated errors, and no adversary makes them worse. Theorem 1: "
    "the optimal robust classifier of the reduction's points is a maximum distance-3 independent set.",
)
def theorems(scale: Scale, attacks: dict[str, Attack] | None = None) -> Result:
    """Every theorem's error beside simulation with the optimal adversary, random search and this project's attacks.

    Example:
        >>> table = theorems("smoke").table
        >>> bool((table["random search"] <= table["optimal adversary"]).all())
        True
    """
    n = {"smoke": 2_000, "cpu": 20_000, "paper": 50_000}[scale]
    used = attacks or ATTACKS
    table = pd.DataFrame([*_gaussian_rows(n, used), *_bernoulli_rows(n, used)])
    first = next(iter(used))
    far = ((table[first] - table.theory).abs() / table.standard_error.clip(lower=1 / n)).max()
    stronger = [(name, float((table[name] - table.theory - 4 * table.standard_error).max())) for name in used]
    graphs, held, fails = _graph_check(3 if scale == "smoke" else 4)
    findings = (
        f"{first}, {n} samples a row: at most {far:.1f} standard errors from the theorem over {len(table)} rows.",
        "No attack exceeds a theorem's error by more than four standard errors: "
        f"{all(excess <= 1 / n for _, excess in stronger)} ({', '.join(used)}).",
        "Assumption 1 of Theorem 4 costs nothing where it can be checked: over all labellings of {-1, 1}^k the least "
        f"error differs from the best threshold's by at most {_assumption_gap(4 if scale == 'smoke' else 7):.0e}.",
        f"Lemma 1 holds on {held} of {graphs} graphs of {'3' if scale == 'smoke' else '3 or 4'} labelled vertices when "
        f"the adversary stays in the support; free to move in R^d it gives another answer on {fails} of them.",
        "The optimal adversary is a closed form that reads the model. calipers.attacks meets it on the affine rules of "
        "Theorem 2; the rounding rules of Theorems 4 and 5 have no gradient, and its uniform samples of the ball find "
        "less than the closed form does.",
    )
    return Result(table, findings)


def _gaussian_rows(n: int, attacks: dict[str, Attack]) -> list[dict[str, object]]:
    """Theorem 2, and its L∞ counterpart."""
    rows, pair = [], GaussianPair.apart(4.0, d=20)
    cases: list[tuple[Norm, float]] = [("l2", 0.0), ("l2", 0.5), ("l2", 1.0), ("l2", 1.9), ("linf", 0.2)]
    for norm, eps in cases:
        spec = f"gaussian:d=20,distance=4,eps={eps:g},norm={norm},n={n}"
        name = "2 (Gaussian)" if norm == "l2" else "2, its L-infinity form"
        rows.append(compare(name, spec, pair.network(eps, norm), norm, eps, pair.robust_error(eps, norm), attacks))
    return rows


def _bernoulli_rows(n: int, attacks: dict[str, Attack]) -> list[dict[str, object]]:
    """Theorems 3 (even and odd k), 4 and 5."""
    rows = []
    for k, t, eps, norm in (
        (50, 0.10, 0, "l0"), (51, 0.10, 0, "l0"), (50, 0.30, 5, "l0"), (50, 0.30, 10, "l0"), (50, 0.30, 15, "l0"),
        (50, 0.30, 16, "l0"), (51, 0.10, 2, "l0"), (51, 0.10, 0.99, "linf"),
    ):  # fmt: skip
        pair, spec = BernoulliPair.of(k, t, d=60), f"bernoulli:k={k},d=60,t={t:g},eps={eps:g},norm={norm},n={n}"
        which: Norm = "l0" if norm == "l0" else "linf"
        name = (
            "3 (Bernoulli, Bayes)"
            if eps == 0
            else "4 (Bernoulli, L0)"
            if which == "l0"
            else "5 (Bernoulli, L-infinity)"
        )
        model = pair.network(pair.l0_optimum(eps).threshold if which == "l0" else None)
        rows.append(compare(name, spec, model, which, eps, pair.robust_error(eps, which), attacks))
    return rows


def _assumption_gap(largest: int) -> float:
    """The most that any labelling of {−1, 1}^k gains over the best threshold, for all k ≤ largest and all eps."""
    gap = 0.0
    for k, t in itertools.product(range(1, largest + 1), (0.1, 0.3)):
        corners = np.array(list(itertools.product((-1.0, 1.0), repeat=k)))
        away = (corners < 0).sum(1)
        one = (0.5 + t) ** (k - away) * (0.5 - t) ** away
        other = (0.5 + t) ** away * (0.5 - t) ** (k - away)
        cube, pair = FiniteDistribution(corners, np.stack([other, one], 1) / 2), BernoulliPair.of(k, t)
        for eps in range(k):
            gap = max(gap, pair.robust_error(eps) - optimal_robust(cube, 0, eps, relaxed=True).error)
    return gap


def _graph_check(vertices: int) -> tuple[int, int, int]:
    """How many graphs; on how many the support's answer is the largest distance-3 set; on how many R^d's is not."""
    graphs = held = fails = 0
    for k in range(3, vertices + 1):
        pairs = list(itertools.combinations(range(k), 2))
        for chosen in itertools.product((False, True), repeat=len(pairs)):
            adjacency = graph(k, [edge for edge, on in zip(pairs, chosen, strict=True) if on])
            largest, points = _largest_distance3(adjacency), distribution_of_graph(adjacency, 2)
            support, space = (round(k * (1 - optimal_robust(points, 2, 1.0, adversary=a).error))
                              for a in ("support", "space"))  # fmt: skip
            graphs, held, fails = graphs + 1, held + (support == largest), fails + (space != largest)
    return graphs, held, fails


def _largest_distance3(adjacency: NDArray[np.bool_]) -> int:
    """Brute force over all subsets."""
    k, length = len(adjacency), graph_distance(adjacency)
    subsets = (s for r in range(k, 0, -1) for s in itertools.combinations(range(k), r))
    return next(len(s) for s in subsets if all(length[i, j] >= 3 for i, j in itertools.combinations(s, 2)))
