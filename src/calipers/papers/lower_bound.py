"""Zhao 2018 has no experiments; here they are: its three equations beside every other lower bound, and the truth."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from calipers.attacks import fmn, linear
from calipers.certificates import (
    NotApplicable,
    affine,
    clever,
    crown,
    exact,
    interval,
    lipschitz,
    local_lipschitz,
)
from calipers.data import load
from calipers.errors import BadInput
from calipers.models import Classifier
from calipers.papers.registry import HERE, Bench, Result, Scale, figure
from calipers.runner import Part
from calipers.threats import Norm, Threat

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

__all__ = ["compare"]

_EXAMPLES: dict[Scale, int] = {"smoke": 2, "cpu": 5, "paper": 10}
_STEPS: dict[Scale, int] = {"smoke": 20, "cpu": 60, "paper": 150}
_NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")
# CLEVER's radius R in each norm, beyond every attack's distance here, and its draws: far fewer than the paper's.
_CLEVER = {"linf": 0.3, "l2": 2.0, "l1": 10.0}
_BATCHES, _SAMPLES = 10, 32

Bound = Callable[[Classifier, Tensor, Tensor, Norm], Tensor]


@figure(
    "lower_bound.compare",
    paper="Analyzing the Robustness of Deep Learning Against Adversarial Examples, J. Zhao, 2018",
    claim="Equations (1) and (2) are lower bounds of the minimal distortion, (2) tighter than (1); here with constants "
    "that are computed, beside CLEVER's estimate of (3), IBP, CROWN, the exact radius and an attack.",
    long=True,
)
def compare(scale: Scale, bench: Bench = HERE) -> Result:
    """Every bound on every network in every norm: medians, shares of the truth, seconds, how often it overstates."""
    names = [name for name, network in _NETWORKS.items() if _found(name, network.data, scale)]
    norms = _NORMS[:2] if scale == "smoke" else _NORMS
    work = _Work(scale, tuple((name, norm) for name in names for norm in norms))
    what = f"{work}, {_EXAMPLES[scale]} examples, {_STEPS[scale]} steps"
    parts = bench.shards(f"lower_bound-{scale}", what, work, len(work.asked))
    table = pd.concat([pd.DataFrame(part.table) for part in parts], ignore_index=True)
    return Result(table, _findings(table), lambda: _picture(table))


@dataclass(frozen=True)
class _Work:
    """One shard is one network in one norm."""

    scale: Scale
    asked: tuple[tuple[str, Norm], ...]

    def __call__(self, shard: int) -> Part:
        name, norm = self.asked[shard]
        rows = _rows(*_trained(name, _EXAMPLES[self.scale]), norm, self.scale)
        return Part({column: np.array([row[column] for row in rows]) for column in rows[0]})


class _Network(NamedTuple):
    """A data set, how to build the network and how long to train it."""

    data: str
    build: Callable[[], nn.Sequential]
    epochs: int


_NETWORKS = {
    "digits affine": _Network("digits", lambda: _mlp([64, 10], nn.ReLU), 20),
    "digits tanh": _Network("digits", lambda: _mlp([64, 32, 32, 10], nn.Tanh), 20),
    "digits relu": _Network("digits", lambda: _mlp([64, 16, 16, 10], nn.ReLU), 20),
    "digits cnn": _Network("digits", lambda: _cnn(), 20),
    "mnist tanh": _Network("mnist", lambda: _mlp([784, 64, 64, 10], nn.Tanh), 4),
    "mnist relu": _Network("mnist", lambda: _mlp([784, 64, 64, 10], nn.ReLU), 8),
    "mnist small": _Network("mnist", lambda: _mlp([784, 20, 20, 10], nn.ReLU), 8),
}


def _found(name: str, data: str, scale: Scale) -> bool:
    """MNIST only where its files are, and two networks for a first look; the table says what it has."""
    if scale == "smoke":
        return name in ("digits affine", "digits relu")
    try:
        return len(load(data, split="test")) > 0
    except BadInput:
        return False


@cache
def _trained(name: str, count: int) -> tuple[Classifier, Tensor, Tensor]:
    """The classifier, and its first correctly classified test inputs."""
    data, build, epochs = _NETWORKS[name]
    train, test = load(data, split="train"), load(data, split="test")
    model = Classifier.of(_fit(build(), train.x, train.y, epochs), shape=test.shape, name=name)
    right = (model(test.x[:200]).argmax(1) == test.y[:200]).nonzero()[:count, 0]
    return model, test.x[right], test.y[right]


def _mlp(sizes: list[int], activation: type[nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    for n, m in pairwise(sizes):
        layers += [nn.utils.skip_init(nn.Linear, n, m), activation()]
    return nn.Sequential(*layers[:-1])


def _cnn() -> nn.Sequential:
    return nn.Sequential(
        *(nn.utils.skip_init(nn.Conv2d, 1, 4, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.utils.skip_init(nn.Conv2d, 4, 8, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.utils.skip_init(nn.Linear, 32, 10)),
    )


def _fit(net: nn.Sequential, x: Tensor, y: Tensor, epochs: int) -> nn.Sequential:
    """Plain Adam from weights of a generator of its own; 97 % on MNIST with 784-64-64-10."""
    generator = torch.Generator().manual_seed(0)
    for part in net:
        if isinstance(part, nn.Linear | nn.Conv2d):
            nn.init.kaiming_uniform_(part.weight, nonlinearity="relu", generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    steps = epochs * -(-len(x) // 128)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / steps)
        some = torch.randint(len(x), (128,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[some]), y[some]).backward()
        optimizer.step()
    return net.requires_grad_(False).eval()


def _rows(model: Classifier, x: Tensor, y: Tensor, norm: Norm, scale: Scale) -> list[dict[str, object]]:
    """One row a method; the truth is the exact radius where it can be had, and lies below the attack's anyway."""
    began = time.perf_counter()
    upper = _attacked(model, x, y, norm, scale)
    found: dict[str, tuple[Tensor, float]] = {"attack": (upper, time.perf_counter() - began)}
    bounds: dict[str, Bound] = {
        "(1) product": lambda *a: lipschitz(*a, constants="product").radius,
        "(3) best constant": lambda *a: lipschitz(*a, constants="sdp").radius,
        "(2) local": lambda *a: local_lipschitz(*a).radius,
        "CLEVER": lambda *a: clever(*a, radius=_CLEVER[norm], batches=_BATCHES, samples=_SAMPLES).radius,
        "IBP": lambda *a: interval(*a).radius,
        "CROWN": lambda *a: crown(*a, upper=upper).radius,
        "exact": lambda *a: _exact(*a, upper=upper),
    }
    for name, bound in bounds.items():
        began = time.perf_counter()
        try:
            found[name] = bound(model, x, y, norm), time.perf_counter() - began
        except NotApplicable:
            continue
    proofs = [found[name] for name in found if name not in ("CLEVER", "exact", "attack")]
    found["tightest"] = torch.stack([radius for radius, _ in proofs]).amax(0), sum(seconds for _, seconds in proofs)
    known = found.get("exact", (None, 0.0))[0]
    return [
        {
            "network": model.name,
            "norm": norm,
            "examples": len(x),
            "method": name,
            "kind": {"CLEVER": "estimate", "exact": "numerical", "attack": "witness"}.get(name, "certified"),
            "median": float(radius.nanmedian()),
            "over_attack": float((radius / upper).nanmedian()),
            "over_exact": float("nan") if known is None else float((radius / known).nanmedian()),
            "above_attack": int((radius > upper).sum()) if name != "exact" else 0,
            "seconds_per_example": seconds / len(x),
        }
        for name, (radius, seconds) in found.items()
    ]


def _attacked(model: Classifier, x: Tensor, y: Tensor, norm: Norm, scale: Scale) -> Tensor:
    """The distance of the nearest witness: exact for affine models, else a minimal-norm search."""
    try:
        return linear(model, x, y, Threat(norm)).distance
    except BadInput:
        pass  # not an affine model
    return fmn(model, x, y, Threat(norm), steps=_STEPS[scale]).distance


def _exact(model: Classifier, x: Tensor, y: Tensor, norm: Norm, *, upper: Tensor) -> Tensor:
    """The affine radius; in L∞ by mixed-integer programming on the smallest networks of ReLUs; NaN if time ran out."""
    try:
        return affine(model, x, y, norm).radius
    except NotApplicable:
        if norm != "linf" or model.name not in ("digits relu", "mnist small"):
            raise NotApplicable("exact radius", expected="a small network", got=model.name) from None
        return exact(model, x, y, norm, upper=upper, seconds=10).radius


def _findings(table: pd.DataFrame) -> tuple[str, ...]:
    """What the claim says, in numbers."""
    proofs, guess = table[table["kind"] == "certified"], table[table["method"] == "CLEVER"]
    over = table.pivot_table(index=["network", "norm"], columns="method", values="over_attack")
    deep = over[over.index.get_level_values("network") != "digits affine"]
    first, best, local = (deep[name] for name in ("(1) product", "(3) best constant", "(2) local"))
    names = ", ".join(dict.fromkeys(table["network"]))
    return (
        f"Networks: {names}. {int(proofs['above_attack'].sum())} of {int(proofs['examples'].sum())} certified radii "
        "are above a witness.",
        f"On the networks that are not affine, equation (1) with the product of operator norms reaches "
        f"{first.min():.3f} to {first.max():.3f} of the witness; with the best constant, which is equation (3), "
        f"{best.min():.3f} to {best.max():.3f}; equation (2) {local.min():.3f} to {local.max():.3f}; CROWN "
        f"{deep['CROWN'].min():.3f} to {deep['CROWN'].max():.3f}.",
        f"Equation (2) is below equation (3) on {int((local < best).sum())} of {len(deep)} rows: (2) is tighter than "
        "(1) only if both maxima are exact; with computed bounds each can win.",
        f"CLEVER, with {_BATCHES} × {_SAMPLES} gradients, is above the distance of a witness on "
        f"{int(guess['above_attack'].sum())} of {int(guess['examples'].sum())} examples: an estimate, not a bound.",
        "As printed, (3) asks for Lipschitz continuity in ‖·‖_q; that gives no bound in ‖·‖_p. For f = Σ x_i in L∞ "
        "(q = 1) the constant would be 1 instead of d. It must be ‖·‖_p, and then (3) on a convex domain is (1).",
        "The proof of Theorem 1 has a gap: (19) takes each partial derivative at another point, and such a vector can "
        "be longer than every gradient (g = −‖z − (1, 0)‖, x = (0, 0), y = (1, 1), q = 2: √2 against 1). Along a "
        "straight line the result holds, so D must be convex; 'strict' fails where a tie counts as adversarial.",
    )


def _picture(table: pd.DataFrame) -> Picture:
    """Each method's median as a fraction of the witness, one panel a norm."""
    from matplotlib.figure import Figure as Canvas

    methods = ["(1) product", "(3) best constant", "IBP", "(2) local", "CROWN", "CLEVER", "exact"]
    marks = dict(zip(methods, "v^sDo*|", strict=True))
    networks = list(dict.fromkeys(table["network"]))
    picture = Canvas(figsize=(9.0, 0.9 + 0.42 * len(networks)), layout="constrained")
    panels = picture.subplots(1, len(_NORMS), sharey=True)
    for axes, norm in zip(panels, _NORMS, strict=True):
        for method in methods:
            some = table[(table["norm"] == norm) & (table["method"] == method)]
            places = [networks.index(name) for name in some["network"]]
            looks: dict[str, object] = {"markersize": 8, "color": "black"} if method == "exact" else {"markersize": 5}
            hollow = "none" if method == "CLEVER" else "full"
            axes.plot(some["over_attack"], places, marks[method], label=method, fillstyle=hollow, **looks)
        axes.axvline(1, color="gray", linewidth=0.8)
        axes.set(title={"linf": "L∞", "l2": "L2", "l1": "L1"}[norm], xlim=(0, 1.3), xlabel="median of bound / attack")
        axes.grid(axis="y", linewidth=0.4)
    panels[0].set(yticks=np.arange(len(networks)), yticklabels=networks)
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside lower center", ncols=len(methods), frameon=False)
    return picture
