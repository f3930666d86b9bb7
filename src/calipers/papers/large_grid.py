"""Shaeiri, Nobahari and Rohban 2020, Appendix B (settings that do not help) and Table 2 (CIFAR-10)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pandas as pd
from torch import nn

from calipers.models import Classifier
from calipers.papers.large_perturbations import PAPER
from calipers.papers.large_training import LEARNED
from calipers.papers.registry import HERE, Bench, Result, Scale, figure
from calipers.papers.trainings import Studio, train_chains
from calipers.threats import Threat
from calipers.training import Ascent, Plan, Schedule, Trained, accuracy, fresh, robust_accuracy

__all__ = ["appendix_b", "table2"]

_REFERENCE = Plan("pgd", Schedule("constant", 0.4), Ascent("linf", step_size=0.05), epochs=30)
_FULL = {
    # data, network, training examples, epochs
    "smoke": ("digits", "digits-mlp", 128, 1),
    "cpu": ("mnist", "mnist-small", 20_000, 6),
    "paper": ("mnist", "mnist-cnn", None, 30),
}


def _variants() -> dict[str, Plan]:
    """Appendix B, items 2, 3 and 5; the reference is the main text's: Adam, 0.001, batches of 128."""
    plans = {"reference": _REFERENCE}
    for lr in (0.1, 0.01):
        plans[f"Adam, lr {lr:g}"] = replace(_REFERENCE, lr=lr)
    for lr in (0.1, 0.01, 0.001):
        for momentum in (0.0, 0.9):
            plans[f"SGD, lr {lr:g}, momentum {momentum:g}"] = replace(
                _REFERENCE, optimizer="sgd", lr=lr, momentum=momentum
            )
    for size in (16, 32, 64, 256, 512, 10_000):
        plans[f"batches of {size}"] = replace(_REFERENCE, batch_size=size)
    for step in (0.01, 0.1):
        plans[f"PGD, step {step:g}"] = replace(_REFERENCE, ascent=Ascent("linf", step_size=step))
    # The appendix's FGSM, from a random start: "Fast is better than free" has the recipe.
    return plans | {"FGSM": replace(_REFERENCE, recipe="fast")}


@figure(
    "large_perturbations.appendix_b",
    paper=PAPER,
    claim="From random weights no initialisation, optimizer, learning rate, batch size, network or PGD setting makes "
    "adversarial training at 0.4 work on MNIST; FGSM seems to, but its gradients are obfuscated.",
    long=True,
)
def appendix_b(scale: Scale, bench: Bench = HERE) -> Result:
    """The grid of settings: final training loss, clean and robust accuracy of each."""
    data, arch, examples, epochs = _FULL[scale]
    studio = Studio(scale, data, arch, bench.trained, examples, held_out=100 if scale == "smoke" else 500)
    chosen = _variants() if scale != "smoke" else {name: _variants()[name] for name in ("reference", "FGSM")}
    grid = {name: partial(studio.fit, _named(name), replace(plan, epochs=epochs)) for name, plan in chosen.items()}
    reference = replace(_REFERENCE, epochs=epochs)
    grid["Glorot"] = partial(studio.fit, "glorot", reference, init="glorot")
    # Not in the paper: units that cannot die.
    grid["leaky ReLUs"] = partial(studio.fit, "leaky", reference, start=_leaky(fresh(arch)))
    if scale == "paper":
        grid["ResNet-18"] = partial(replace(studio, arch="mnist-resnet18").fit, "resnet18", reference)
    runs = train_chains(bench, studio.told(), *({name: make} for name, make in grid.items()))
    table = pd.DataFrame([_ending(name, run) for name, run in runs.items()])
    left = table[table.loss < LEARNED]
    named = zip(left.setting, left.robust.mul(100).round(1), strict=True)
    trained = "; ".join(f"{setting} (robust {robust}%)" for setting, robust in named) or "none"
    stopped = "; ".join(table[table.stopped].setting) or "none"
    return Result(table, (
        f"{studio.told()}, {epochs} epochs, eps 0.4: {len(left)} of {len(table)} settings leave chance (a training "
        f"loss below 0.95 log 10): {trained}.",
        f"Dead, with a layer that is zero for every example, so that the training was stopped: {stopped}.",
    ))  # fmt: skip


def _leaky(model: Classifier) -> Classifier:
    """With slope 0.1 below zero in place of 0."""
    parts = (nn.LeakyReLU(0.1) if isinstance(part, nn.ReLU) else part for part in model.module.children())
    return replace(model, module=nn.Sequential(*parts))


def _named(setting: str) -> str:
    return "grid-" + "".join(letter if letter.isalnum() or letter == "." else "-" for letter in setting)


def _ending(name: str, run: Trained) -> dict[str, str | float | None]:
    last = run.metrics[-1]
    ended = {key: last[key] for key in ("epoch", "loss", "clean", "robust")}
    return {"setting": name, **ended, "stopped": run.stopped is not None}


_CIFAR = {
    # training examples, epochs, epochs of extended training, batch, test examples
    "smoke": (2, 1, 1, 2, 2),
    "cpu": (64, 1, 1, 32, 32),
    "paper": (None, 150, 5, 128, 10_000),
}
_PUBLISHED = {"8/255": (87, 53, 18, 1), "8/255 -> 16/255": (75, 56, 32, 10), "8/255 -> 32/255": (33, 28, 24, 16)}


@figure(
    "large_perturbations.table2",
    paper=PAPER,
    claim="CIFAR-10, L-infinity: extended from 8/255 to 16/255, and to 32/255, a network keeps 32% at 16/255, and 16% "
    "at 32/255, where the one trained at 8/255 has 18% and 1%.",
    long=True,
)
def table2(scale: Scale, bench: Bench = HERE) -> Result:
    """ResNet-18 on CIFAR-10; the paper has a ResNet-50.

    Only ``paper`` is the table: the smaller scales run the same code on so few images that their numbers mean nothing.
    """
    examples, epochs, more, batch, judged = _CIFAR[scale]
    studio = Studio(scale, "cifar10", "resnet18", bench.trained, examples, held_out=min(judged, 500))
    base = Plan(
        "pgd", Schedule("constant", 8 / 255), Ascent("linf", step_size=2 / 255), epochs=epochs, batch_size=batch,
        optimizer="sgd", lr=0.1, lr_drops=(50, 100), weight_decay=5e-4, augment=True,
    )  # fmt: skip
    first = studio.fit("8", base)
    runs = {"8/255": first}
    for eps in (16, 32):
        schedule = Schedule("constant", eps / 255, 8 / 255)
        plan = replace(base, schedule=schedule, epochs=more, augment=False)
        runs[f"8/255 -> {eps}/255"] = studio.fit(f"8-to-{eps}", plan, start=first.model)
    test = studio.test(judged)
    table = pd.DataFrame([
        {"model": name, "clean": 100 * accuracy(run.model, test.x, test.y)}
        | {f"pgd_{eps}/255": 100 * robust_accuracy(run.model, test.x, test.y, Threat("linf", eps / 255), steps=20)
           for eps in (8, 16, 32)}
        | dict(zip(("published_clean", "published_8", "published_16", "published_32"), _PUBLISHED[name], strict=True))
        for name, run in runs.items()
    ])  # fmt: skip
    done = f"{studio.told()}, {epochs} and {more} epochs, judged on {len(test)} test examples."
    return Result(table, (done,) if scale == "paper" else (done, "Not run: too few images for any number here to mean "
                                                           "anything; this shows that the code runs."))  # fmt: skip
