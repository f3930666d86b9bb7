"""``calipers train``: a model that withstands a stated perturbation, and what it withstands."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from calipers.cli.terminal import progress, say, say_json
from calipers.cli.wording import Flag, Whole
from calipers.errors import BadInput

if TYPE_CHECKING:
    from calipers.data import DataSet
    from calipers.training import Plan, Trained, Withstands

__all__ = ["train"]


def train(
    *,
    data: str | None = None,
    arch: str | None = None,
    recipe: str = "pgd",
    norm: str = "linf",
    eps: float | None = None,
    epochs: Whole = 10,
    out: Path,
    init: Path | None = None,
    schedule: str = "constant",
    ramp: float | None = None,
    rise: float = 0.01,
    steps: Whole | None = None,
    step_size: float | None = None,
    raw: Flag = False,
    beta: float = 6.0,
    optimizer: str = "adam",
    lr: float = 0.001,
    lr_drop: Annotated[tuple[int, ...], Parameter(negative=())] = (),
    anneal: Flag = False,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    batch_size: Whole = 128,
    augment: Flag = False,
    seed: Whole = 0,
    examples: Whole | None = None,
    test_examples: Whole | None = None,
    precision: Literal["auto", "32", "bf16"] = "auto",
    device: str = "auto",
    nproc: Whole = 1,
    resume: Flag = False,
    replace: Flag = False,
    tensorboard: Flag = False,
    quiet: Flag = False,
    json: Flag = False,
) -> int:
    """Train a model to withstand a perturbation, and say what it withstands.

    For example:

        calipers train --arch mnist-cnn --data mnist --recipe pgd --norm linf --eps 0.3 --epochs 2 --out runs/0.3

        calipers train --init runs/0.3 --eps 0.4 --epochs 1 --out runs/0.4                      (extended training)

        calipers train --arch digits-mlp --data digits --eps 0.1 --schedule iterative --epochs 10 --out runs/iat

    Parameters
    ----------
    data
        digits, mnist, fashion-mnist, cifar10 or FILE.npz; with --init DIR that training's own by default.
    arch
        mnist-cnn, mnist-small, mnist-mlp-512, resnet18, … or package.module:factory.
    recipe
        standard, pgd, fast, trades, hard or noise (eps is then the standard deviation).
    norm
        linf, l2, l1 or l0.
    eps
        The radius to train for, in the units of the inputs.
    epochs
        Passes over the data.
    out
        The folder for weights.safetensors, metrics.parquet and the checkpoints.
    init
        Start from these weights: the folder of an earlier training, or FILE.safetensors with --arch.
    schedule
        constant; ramp (linearly over the first --ramp epochs); or iterative (--rise more an epoch, and a stop before
        the loss rises suddenly). Ramp and iterative start from the eps of --init DIR, or from 0.
    ramp
        Epochs of the ramp; half of all by default.
    rise
        What iterative adds to eps in every epoch.
    steps
        Of the attack; 2.5 eps / step size by default.
    step_size
        Of the attack; eps / 6 by default.
    raw
        Move by step size times the gradient, instead of the steepest step.
    beta
        The weight of the robust term of trades.
    optimizer
        adam or sgd.
    lr
        The learning rate.
    lr_drop
        Divide the learning rate by ten after this epoch; give several by repeating it.
    anneal
        Let the learning rate fall linearly to 0.
    momentum
        Of sgd.
    weight_decay
        The L2 penalty lambda: weights -= lr (gradient + lambda weights).
    batch_size
        Of all processes together.
    augment
        Random crops and mirror images.
    seed
        Of every random draw.
    examples
        Train on the first so many.
    test_examples
        Measure accuracy on the first so many test examples: 500 by default, or all if there are fewer.
    precision
        32, bf16 (mixed), or auto: bf16 where the processor multiplies in it.
    device
        auto, cpu or cuda.
    nproc
        Processes on this machine; with torchrun, leave it.
    resume
        Go on with the training in --out, if need be for more epochs.
    replace
        Overwrite the training in --out.
    tensorboard
        Write TensorBoard events to OUT/tensorboard.
    quiet
        Say nothing but errors.
    json
        Print a JSON object instead of the tables.
    """
    from calipers import training

    begun = training.about(init) if init is not None and init.is_dir() else {}
    known = data or begun.get("data")
    if known is None:
        raise BadInput("--data", expected="what to train on", got="none")
    if eps is None and recipe != "standard":
        raise BadInput("--eps", expected=f"the radius to train for with recipe {recipe}", got="none")
    if resume and replace:
        raise BadInput("resume and replace", expected="one of the two", got="both")
    start = 0.0 if init is None or recipe in training.WITHOUT_ADVERSARY else training.trained_for(init)
    plan = training.Plan(
        recipe=recipe,
        schedule=training.Schedule(schedule, eps or 0.0, start, ramp or max(epochs / 2, 0.5), rise),
        ascent=training.Ascent(norm, step_size, steps, raw, beta),  # type: ignore[arg-type]
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        lr=lr,
        lr_drops=lr_drop,
        anneal=anneal,
        momentum=momentum,
        weight_decay=weight_decay,
        augment=augment,
        seed=seed,
        precision=training.best_precision(device) if precision == "auto" else precision,
    )
    examples_, test = _data(known, examples, test_examples)
    model = training.initial(init, arch=arch, seed=seed, shape=examples_.shape, box=examples_.box)
    model.check(examples_.x, examples_.y)
    fabric = training.launch(plan.precision, processes=nproc, device=device, tensorboard=out if tensorboard else None)
    silent = quiet or json or not fabric.is_global_zero
    told = {"arch": model.name, "data": known, "init": str(init) if init else None}
    try:
        with progress(f"{model.name} on {known}", epochs * len(examples_), silent) as tell:
            done = training.train(
                model, examples_, plan, held_out=test, out=out, resume=resume, replace=replace, origin=told,
                fabric=fabric, progress=tell, on_epoch=lambda row: None if silent else say(_line(row, epochs)),
            )  # fmt: skip
    except BadInput:
        if fabric.is_global_zero:
            raise
        return 2  # the first process says it for all
    if fabric.is_global_zero:
        _finish(done, test, plan, out, "json" if json else "nothing" if quiet else "table")
    return 0


def _data(name: str, examples: int | None, test_examples: int | None) -> tuple[DataSet, DataSet]:
    """What is trained on, and what is held out."""
    from calipers import data

    test = data.load(name)
    return data.load(name, split="train").take(examples), test.take(test_examples or min(500, len(test)))


def _line(row: dict[str, float | None], epochs: int) -> str:
    """One epoch in a line."""
    parts = [f"epoch {row['epoch']}/{epochs}", f"eps {row['eps']:g}", f"loss {row['loss']:.4f}"]
    change, clean, robust = row["loss_change"], row["clean"], row["robust"]
    parts += [f"({change:+.4f})"] if change is not None else []
    parts += [f"weights moved {row['weights_moved']:.3f}"]
    parts += [f"clean {100 * clean:.1f} %"] if clean is not None else []
    parts += [f"robust {100 * robust:.1f} %"] if robust is not None else []
    return "  ".join([*parts, f"{row['images_per_second']:.0f} images/s"])


def _finish(done: Trained, test: DataSet, plan: Plan, out: Path, how: str) -> None:
    """What the trained model withstands: summary.json, and a table or the same JSON."""
    from calipers.runner import atomic_write
    from calipers.training import WEIGHTS, withstands

    x, y = done.model.check(test.x, test.y)
    asked = tuple(sorted({plan.schedule.start, plan.schedule.eps, float(done.metrics[-1]["eps"] or 0)} - {0.0}))
    lines = withstands(done.model, x, y, plan.ascent.norm, asked)
    weights = out / WEIGHTS
    text = jsonlib.dumps({
        "weights": str(weights), "stopped": done.stopped, "test_examples": len(test), "norm": plan.ascent.norm,
        "withstands": [asdict(line) for line in lines], "epochs": len(done.metrics), "last": done.metrics[-1],
    }, indent=2)  # fmt: skip
    atomic_write(out / "summary.json", text + "\n")
    if how == "json":
        say_json(text)
    elif how == "table":
        if done.stopped:
            say(f"stopped: {done.stopped}")
        say(_table(done, test, plan, lines))
        audit = f"calipers audit {weights} --arch {done.model.name} --data {test.name} --norm {plan.ascent.norm}"
        say(f"weights: {weights}")
        say(f"these are upper bounds; both sides: {audit} --eps {plan.schedule.eps:g} --examples {len(test)}")


def _table(done: Trained, test: DataSet, plan: Plan, lines: tuple[Withstands, ...]) -> str:
    title = f"{done.model.name} on the first {len(test)} test examples of {test.name}, {plan.ascent.norm}"
    head = f"{'eps':>8}  {'PGD-40':>8}  {'and APGD':>8}"
    rows = [
        f"{f'{line.eps:g}' if line.eps else 'clean':>8}  {100 * line.pgd:6.1f} %  {100 * line.not_broken:6.1f} %"
        for line in lines
    ]
    return "\n".join([title, head, *rows])
