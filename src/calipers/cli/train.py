"""``calipers train``: a model that withstands a stated perturbation, and what it withstands."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from calipers.cli.options import Adversary, Machine, Optimization
from calipers.cli.terminal import progress, say, say_json
from calipers.cli.wording import Flag, Whole
from calipers.errors import BadInput

if TYPE_CHECKING:
    from calipers.data import DataSet
    from calipers.training import Plan, Trained, Withstands

__all__ = ["train"]

HELD_OUT = "held-out.npz"


def train(
    *,
    data: str | None = None,
    arch: str | None = None,
    recipe: str = "pgd",
    out: Path,
    init: str = "torch",
    examples: Whole | None = None,
    test_data: str | None = None,
    test_examples: Whole | None = None,
    adversary: Adversary = Adversary(),  # noqa: B008
    optimization: Optimization = Optimization(),  # noqa: B008
    machine: Machine = Machine(),  # noqa: B008
    resume: Flag = False,
    replace: Flag = False,
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
        digits, mnist, fashion-mnist, cifar10, FILE.npz or a folder of images; with --init DIR that training's own by
        default.
    arch
        mnist-cnn, mnist-small, mnist-mlp-512, resnet18, … or package.module:factory.
    recipe
        standard, pgd, fast, trades, hard or noise (eps is then the standard deviation).
    out
        The folder for weights.safetensors, metrics.parquet and the checkpoints.
    init
        Start from these weights: the folder of an earlier training, or FILE.safetensors with --arch; or fresh ones,
        drawn as torch, glorot or tutorial (normal, deviation 0.1, biases 0.1) says.
    examples
        Train on the first so many.
    test_data
        What accuracy is measured on: the test split of --data by default. A file or a folder has none: then every fifth
        example is held out.
    test_examples
        Measure accuracy on the first so many test examples: 500 by default, or all if there are fewer.
    resume
        Go on with the training in --out, if need be for more epochs.
    replace
        Overwrite the training in --out.
    quiet
        Say nothing but errors.
    json
        Print a JSON object instead of the tables.
    """
    from calipers import training

    drawn, kept = (init, None) if init in training.INITIALISATIONS else ("torch", Path(init))
    known = data or training.begun(kept).get("data")
    if known is None:
        raise BadInput("--data", expected="what to train on", got="none")
    if resume and replace:
        raise BadInput("resume and replace", expected="one of the two", got="both")
    plan = _plan(recipe, kept, out if resume else None, adversary, optimization, machine)
    some, test, apart = _data(known, examples, test_data, test_examples)
    model = training.initial(kept, arch=arch, seed=plan.seed, shape=some.shape, box=some.box, drawn=drawn)
    model.check(some.x, some.y)
    events = out if machine.tensorboard else None
    fabric = training.launch(plan.precision, processes=machine.nproc, device=machine.device, tensorboard=events)
    silent = quiet or json or not fabric.is_global_zero
    told = {"arch": model.name, "data": known, "init": str(kept or drawn)}
    try:
        with progress(f"{model.name} on {known}", plan.epochs * len(some), silent) as tell:
            done = training.train(
                model, some, plan, held_out=test, out=out, resume=resume, replace=replace, origin=told,
                fabric=fabric, progress=tell, on_epoch=lambda row: None if silent else say(_line(row, plan.epochs)),
            )  # fmt: skip
    except (BadInput, RuntimeError):
        if fabric.is_global_zero:
            raise
        return 2  # the first process says it for all, and where it has gone the others lose it
    if fabric.is_global_zero:
        _finish(done, test, apart, plan, out, "json" if json else "nothing" if quiet else "table")
    return 0


def _plan(
    recipe: str, init: Path | None, begun: Path | None, adversary: Adversary, optimization: Optimization,
    machine: Machine,
) -> Plan:  # fmt: skip
    """What is asked, as one record; what is not said is as in the training that is begun already."""
    from calipers import training
    from calipers.threats import find_norm

    if adversary.eps is None and recipe != "standard":
        raise BadInput("--eps", expected=f"the radius to train for with recipe {recipe}", got="none")
    if recipe == "fast" and (adversary.steps or adversary.step_size):
        raise BadInput("--steps and --step-size", expected="neither: recipe fast takes one step of 1.25 eps",
                       got=f"{adversary.steps} and {adversary.step_size}", hint="recipe pgd takes them")  # fmt: skip
    before = training.begun(init).get("plan", {}).get("ascent", {}).get("norm", "linf")
    norm = find_norm(adversary.norm or before)
    start = 0.0 if init is None or recipe in training.WITHOUT_ADVERSARY else training.trained_for(init, norm)
    span = adversary.ramp
    if adversary.schedule != "ramp":
        span = 1.0
    elif span is None:
        span = training.begun(begun)["plan"]["schedule"]["span"] if begun else max(optimization.epochs / 2, 0.5)
    precision = training.best_precision(machine.device) if machine.precision == "auto" else machine.precision
    how = {**vars(optimization), "lr_drops": optimization.lr_drop}
    del how["lr_drop"]
    return training.Plan(
        recipe=recipe,
        schedule=training.Schedule(adversary.schedule, adversary.eps or 0.0, start, span, adversary.rise),
        ascent=training.Ascent(norm, adversary.step_size, adversary.steps, adversary.raw, adversary.beta),
        precision=precision,
        **how,
    )


def _data(
    name: str, examples: int | None, test_name: str | None, test_examples: int | None
) -> tuple[DataSet, DataSet, bool]:
    """What is trained on, what is held out, and whether that was set apart here, as its source has no test examples."""
    from calipers import data

    some = data.load(name, split="train")
    apart = test_name is None and some.provenance.get("split", "").startswith("none")
    some, test = some.held_out() if apart else (some, data.load(test_name or name))
    return some.take(examples), test.take(test_examples or min(500, len(test))), apart


def _line(row: dict[str, float | None], epochs: int) -> str:
    """One epoch in a line."""
    parts = [f"epoch {row['epoch']}/{epochs}", f"eps {row['eps']:g}", f"loss {row['loss']:.4f}"]
    change, clean, robust = row["loss_change"], row["clean"], row["robust"]
    parts += [f"({change:+.4f})"] if change is not None else []
    parts += [f"weights moved {row['weights_moved']:.3f}"]
    parts += [f"clean {100 * clean:.1f} %"] if clean is not None else []
    parts += [f"robust {100 * robust:.1f} %"] if robust is not None else []
    return "  ".join([*parts, f"{row['images_per_second']:.0f} images/s"])


def _finish(done: Trained, test: DataSet, apart: bool, plan: Plan, out: Path, how: str) -> None:
    """What the trained model withstands: summary.json, and a table or the same JSON."""
    from calipers.runner import atomic_write
    from calipers.training import SUMMARY, WEIGHTS, WITHOUT_ADVERSARY, withstands

    kept = float(done.kept["eps"] or 0.0)
    promised = plan.recipe not in WITHOUT_ADVERSARY
    asked = tuple(sorted({plan.schedule.start, kept, plan.schedule.eps} - {0.0})) if promised else ()
    lines = withstands(done.model, test.x, test.y, plan.ascent.norm, asked)
    weights, flat = out / WEIGHTS, done.constant
    text = jsonlib.dumps({
        "weights": str(weights), "stopped": done.stopped, "constant": flat, "test_examples": len(test),
        "norm": plan.ascent.norm, "withstands": [asdict(line) for line in lines], "epochs": len(done.metrics),
        "last": done.metrics[-1],
    }, indent=2)  # fmt: skip
    atomic_write(out / SUMMARY, text + "\n")
    where = str(out / HELD_OUT) if apart else test.name
    if apart:
        test.save(out / HELD_OUT)
    if how == "json":
        say_json(text)
    elif how == "table":
        if done.stopped:
            say(f"stopped: {done.stopped}")
        if flat:
            patience = "" if done.stopped else "more epochs, "
            say(f"{flat}: {patience}weights trained at a smaller eps (--init DIR), a slower eps (--schedule ramp or "
                "iterative) or a smaller --lr may help")  # fmt: skip
        say(_table(done, test, plan, lines))
        audit = f"calipers audit {out} --data {where} --norm {plan.ascent.norm}"
        say(f"weights: {weights}")
        at = f" --eps {kept:g}" if asked else ""
        say(f"these are upper bounds; both sides: {audit}{at} --examples {len(test)}")


def _table(done: Trained, test: DataSet, plan: Plan, lines: tuple[Withstands, ...]) -> str:
    title = f"{done.model.name} on the first {len(test)} test examples of {test.name}, {plan.ascent.norm}"
    head = f"{'eps':>8}  {'PGD-40':>8}  {'and APGD':>8}"
    rows = [
        f"{f'{line.eps:g}' if line.eps else 'clean':>8}  {100 * line.pgd:6.1f} %  {100 * line.not_broken:6.1f} %"
        for line in lines
    ]
    return "\n".join([title, head, *rows])
