"""Synthetic runs whose summary is computed here, straight from the definition, and not by the room under test."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from calipers.records import Check, Radius, Run, Summary, ThreatSummary

CHECKS = (
    Check(id="inputs-in-range", question="Do all inputs lie in the box?", verdict="passed", evidence="min 0, max 1"),
    Check(
        id="random-noise-is-weaker",
        question="Is random noise of the same size weaker than the attack?",
        verdict="failed",
        evidence="noise breaks 12 of 40 examples that the attack does not",
        advice="Give the attack more steps, or look for masked gradients.",
    ),
    Check(id="no-randomness", question="Is the model deterministic?", verdict="not applicable", evidence="one layer"),
)


def make_run(
    lower: object = None,
    upper: object = None,
    eps: tuple[float, ...] = (0.05, 0.1),
    shape: tuple[int, ...] = (1, 28, 28),
    classes: tuple[str, ...] = tuple("0123456789"),
    checks: tuple[Check, ...] = (),
    index: object = None,
    **about: object,
) -> Run:
    """A run with these brackets and a witness for every finite upper; 60 plausible brackets by default."""
    rng = np.random.default_rng(7)
    if lower is None or upper is None:
        lower = rng.gamma(5.0, 0.014, 60)
        upper = lower * (1 + rng.gamma(1.2, 0.12, 60))
        lower[:3] = upper[:3] = 0.0
        upper[-4:] = np.inf
    low, up = np.asarray(lower, dtype=float), np.asarray(upper, dtype=float)
    n = len(low)
    # A label belongs to its example, whatever the order of the rows.
    keys = np.arange(n) if index is None else np.asarray(index)
    label = (keys * 7 + 3) % len(classes)
    predicted = np.where(up == 0, (label + 1) % len(classes), label)
    examples = pd.DataFrame(
        {
            "index": keys,
            "label": label,
            "predicted": predicted,
            "lower": low,
            "certificate": np.where(low > 0, "interval bounds", "none"),
            "upper": up,
            "attack": np.where(np.isinf(up), "", "pgd"),
            "forwards": rng.integers(10, 400, n),
            "gradients": rng.integers(10, 300, n),
        }
    )
    settings = {"model": "digits-mlp", "data": "digits", "norm": "linf", "eps": list(eps), "seed": 3}
    known = {
        "command": "calipers audit digits-mlp --data digits --norm linf",
        "settings": settings,
        "model": {"name": "digits-mlp", "sha256": "ab" * 32, "classes": len(classes), "shape": list(shape)},
        "data": {"name": "digits", "size": n, "sha256": "cd" * 32, "class_names": list(classes)},
        "box": [0.0, 1.0],
        "versions": {"calipers": "0.1.0", "torch": "2.13.0"},
        "machine": {"cpus": 2},
        "started": "2026-11-21T07:00:00+00:00",
        "calipers": "0.1.0",
    }
    summary = _summarise(examples, eps, checks)
    witnesses = _witnesses(rng, examples, shape, len(classes))
    return Run("run1", {**known, **about}, examples, witnesses, checks, summary)


def with_landscape(run: Run, points: int = 21) -> Run:
    """The same run with a smooth hill around its farthest witness."""
    toward, aside = np.linspace(-0.5, 1.5, points), np.linspace(-1, 1, points)
    loss = np.log1p(np.exp(6 * toward[None, :] - 3 - aside[:, None] ** 2)).astype(np.float32)
    rng, some = np.random.default_rng(0), run.witnesses["index"][-1:]
    numbers = {"jump": 0.05, "roughness": 2.3, "gini": 0.7, "foreground": 0.4}
    arrays = {"index": some.copy(), "toward": toward, "aside": aside, "loss": loss[None],
              "saliency": rng.normal(size=run.witnesses["clean"][-1:].shape)}  # fmt: skip
    return replace(run, landscape=arrays | {name: np.array([value]) for name, value in numbers.items()})


def _summarise(examples: pd.DataFrame, eps: tuple[float, ...], checks: tuple[Check, ...]) -> Summary:
    low, up = examples["lower"].to_numpy(), examples["upper"].to_numpy()
    medians = Radius(lower_median=None, upper_median=None, ratio_median=None)
    threats = []
    for radius in eps:
        attacked = int((up <= radius).sum())
        certified = int(((low >= radius) & (up > radius)).sum())
        threats.append(
            ThreatSummary(
                norm="linf",
                eps=radius,
                proved=certified / len(low),
                not_broken=1 - attacked / len(low),
                certified=certified,
                attacked=attacked,
                open=len(low) - certified - attacked,
                radius=medians,
            )
        )
    return Summary(
        schema=1,
        examples=len(low),
        clean_accuracy=float((examples["label"] == examples["predicted"]).mean()),
        seconds=12.3,
        forwards=int(examples["forwards"].sum()),
        gradients=int(examples["gradients"].sum()),
        threats=tuple(threats),
        checks=tuple({"id": c.id, "passed": c.passed, "evidence": c.evidence} for c in checks),
        trusted=all(c.passed for c in checks),
    )


def _witnesses(
    rng: np.random.Generator, examples: pd.DataFrame, shape: tuple[int, ...], classes: int
) -> dict[str, np.ndarray]:
    found = examples[np.isfinite(examples["upper"])]
    clean = np.stack([_blob(rng, shape) for _ in range(len(found))]) if len(found) else np.empty((0, *shape))
    size = found["upper"].to_numpy().reshape(-1, *[1] * len(shape))
    adversarial = np.clip(clean + size * rng.choice([-1.0, 1.0], clean.shape), 0, 1)
    return {
        "index": found["index"].to_numpy(copy=True),
        "clean": clean.astype(np.float32),
        "adversarial": adversarial.astype(np.float32),
        "predicted": (found["label"].to_numpy() + 1) % classes,
    }


def _blob(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A smooth stroke for an image, plain numbers for anything else."""
    if len(shape) < 2:
        return rng.random(shape)
    h, w = shape[-2:]
    rows, columns = np.mgrid[0:h, 0:w] / max(h, w)
    radius = np.hypot(rows - rng.uniform(0.4, 0.6), columns - rng.uniform(0.4, 0.6))
    stroke = np.exp(-(((radius - rng.uniform(0.15, 0.3)) / 0.06) ** 2))
    tint = rng.uniform(0.5, 1.0, (*shape[:-2], 1, 1)) if len(shape) == 3 else 1.0
    return np.clip(stroke * tint, 0, 1)
