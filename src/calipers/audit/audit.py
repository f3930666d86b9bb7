"""The main job: close the brackets of a data set within a budget, test the numbers, leave a run behind."""

from __future__ import annotations

import math
import platform
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace as changed
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from calipers import data, models
from calipers.audit.budget import find_budget
from calipers.audit.cascade import clean_logits, close_brackets
from calipers.audit.folder import begun_run, check_claim, finished_run, table_of, write_run
from calipers.audit.inputs import Inputs
from calipers.audit.parts import part_of
from calipers.audit.reaction import SecondPass, plan_for, told
from calipers.audit.smoothed import check_smooth, smoothed_columns, smoothed_summary
from calipers.diagnostics import Evidence, ask, landscape_views
from calipers.errors import BadInput
from calipers.records import Check, Radius, Run, RunSettings, Summary, ThreatSummary, status
from calipers.runner import Part, check_workers, fingerprint, merge, run_shards
from calipers.threats import Threat, find_norm, radii
from calipers.threats import norm as norm_of_vector

__all__ = ["EpsBeyondBox", "Progress", "audit", "check_request", "settings_of", "summarise"]

# How many examples a shard holds: what is lost when a run is killed, and what one worker does at a time.
SHARD = 128

Progress = Callable[[float], None]
Radii = float | str | Sequence[float]


class EpsBeyondBox(UserWarning):
    """An asked eps reaches across the whole input box, so every example can become any other."""


def audit(
    inputs: Inputs,
    *,
    norm: str,
    eps: Radii = (),
    budget: str = "standard",
    seed: int = 0,
    out: Path | str | None = None,
    resume: bool = False,
    replace: bool = False,
    workers: int | str = 1,
    batch_size: int = 128,
    smooth: float | None = None,
    smooth_draws: int = 10_000,
    progress: Progress = lambda examples: None,
    command: str = "",
    claimed: float | None = None,
) -> Run:
    r"""Bracket every example, check the evaluation, and write the run folder.

    Arguments:
        inputs: model and data that fit each other, see :func:`calipers.audit.open_inputs`.
        norm: ``"linf"``, ``"l2"``, ``"l1"`` or ``"l0"``.
        eps: the radii asked for, numbers or text such as ``"8/255"``; none for the minimal distortion alone.
        budget: ``"quick"``, ``"standard"``, ``"thorough"``, ``"auto"`` or ``"reference"``.
        seed: of every random draw.
        out: the run folder; None keeps the run in memory.
        resume: go on with an unfinished run in ``out``; a finished one is read back.
        replace: overwrite whatever run is in ``out``.
        workers: processes on this machine, or ``"dask:FILE"`` with a scheduler file.
        batch_size: how many examples the model sees at once.
        smooth: sigma of the noise; adds the columns ``smoothed`` and ``smoothed_radius`` of the smoothed model, see
            :func:`calipers.certificates.smoothing`. They never enter ``lower``.
        smooth_draws: how many noisy copies of each example estimate that radius.
        progress: told how many examples (in fractions) were finished.
        command: how to ask for this again, for the record.
        claimed: the clean accuracy that was published for this model, to be checked.

    Raises:
        BadInput: settings that make no sense; a run folder that holds another run.

    Example:
        >>> from calipers.audit import open_inputs
        >>> run = audit(open_inputs("digits-linear", "digits", examples=20), norm="l2", eps=[0.1], budget="quick")
        >>> band = run.summary.threats[0]
        >>> band.certified + band.attacked + band.open, bool((run.examples.lower <= run.examples.upper).all())
        (20, True)
    """
    began = time.monotonic()
    threat = check_request(norm, eps, budget=budget, seed=seed, workers=workers, batch_size=batch_size)
    x, _ = inputs.model.check(inputs.data.x, inputs.data.y)
    _warn_beyond_box(threat, inputs)
    settings = settings_of(inputs, threat, budget, seed, check_smooth(smooth, smooth_draws))
    folder = None if out is None else Path(out)
    if folder is not None:
        check_claim(folder, settings, resume=resume, replace=replace)
        if resume and (finished := finished_run(folder)) is not None:
            return finished
    # Every example's clean logits are looked at first: a NaN in the last shard is told before the first is attacked.
    clean_logits(inputs.model, x, inputs.data.index, batch_size)
    work = _Shards(inputs, threat, settings, batch_size, progress if workers == 1 else _silent)

    def done(shard: int, part: Part) -> None:
        # In this process a shard told its progress while it ran; one found finished or made elsewhere did not.
        if shard not in work.told:
            progress(float(len(part.table["index"])))

    mark, count = fingerprint(settings.model_dump(mode="json")), math.ceil(len(inputs.data) / work.size)
    with begun_run(folder, settings, anew=not resume):
        parts = run_shards(work, folder, mark, count, workers=workers, on_done=done)
        run = _judged(parts, work, mark, folder, workers, claimed, partial(_about, inputs, settings, command, began))
        run = changed(run, landscape=landscape_views(inputs.model, run, seed))
        if folder is not None:
            write_run(run)
    return run


def _judged(
    parts: list[Part], work: _Shards, mark: str, folder: Path | None, workers: int | str, claimed: float | None,
    about: Callable[[], dict[str, object]],
) -> Run:  # fmt: skip
    """One run from its parts: rows, checks, what the checks made the audit do again, summary."""
    rows, inputs, threat, asked = table_of(merge(parts).table), work.inputs, work.threat, work.settings
    x, y = inputs.model.check(inputs.data.x, inputs.data.y)
    evidence = Evidence(
        inputs.model, x, y, rows, threat, find_budget(asked.budget).depth, asked.seed, inputs.other, claimed
    )
    checks = ask(evidence)
    plan, reaction = plan_for(checks, evidence), None
    if plan is not None:
        before, first = summarise(rows, threat, checks, 0.0), rows
        again = SecondPass(inputs, threat, asked.budget, asked.seed, work.batch_size, work.size, plan, parts)
        place = None if folder is None else folder / "parts" / "again"
        parts = run_shards(
            again, place, fingerprint({"first": mark, "causes": plan.causes}), len(parts), workers=workers
        )
        rows = table_of(merge(parts).table)
        after, uppers = summarise(rows, threat, checks, 0.0), [_median(r["upper"].to_numpy()) for r in (first, rows)]
        reaction = told(plan, asked.budget, threat, before, after, (uppers[0], uppers[1]))
    merged, said = merge(parts), about()
    said["refused"] = merged.notes["refused"]
    said["ended"] = [why for name, whys in merged.notes.items() if name.startswith("ended ") for why in whys]
    more = {"reaction": reaction, "smoothed": smoothed_summary(rows, asked.smooth)}
    summary = summarise(rows, threat, checks, float(str(said["seconds"]))).model_copy(update=more)
    return Run(str(folder or ""), said, rows, merged.arrays, checks, summary)


def check_request(norm: str, eps: Radii = (), *, budget: str, seed: int, workers: int | str, batch_size: int) -> Threat:
    """What can be said about a request before model and data are loaded; the threat it asks for.

    Arguments:
        norm, eps, budget, seed, workers, batch_size: as for :func:`audit`.

    Raises:
        BadInput: for the first that makes no sense.

    Example:
        >>> check_request("linf", [0.2, 0.1], budget="quick", seed=0, workers=1, batch_size=128)
        Threat(norm='linf', eps=(0.1, 0.2))
    """
    threat = Threat(find_norm(norm), tuple(sorted({float(e) for e in radii(eps)})) or None)
    find_budget(budget)
    if not 0 <= seed < 2**64:
        raise BadInput("seed", expected="0 to 2^64 - 1", got=seed)
    check_workers(workers)
    if batch_size < 1:
        raise BadInput("batch size", expected="a whole number of at least 1", got=batch_size)
    return threat


def _warn_beyond_box(threat: Threat, inputs: Inputs) -> None:
    """An eps that reaches across the box asks what the box already answers."""
    sides = inputs.model.box.sides(torch.zeros((), dtype=torch.float64))
    diameter = float(norm_of_vector((sides[1] - sides[0]).expand(1, *inputs.model.shape), threat.norm))
    if threat.ladder and threat.ladder[-1] >= diameter:
        message = f"eps {threat.ladder[-1]:g} is as large as the input box, which is {diameter:g} wide in {threat.norm}"
        if inputs.data.provenance.get("scaling") == "uint8 / 255":
            message += "; its bytes were divided by 255: for a model that takes them as they are, say --box 0 255"
        warnings.warn(message, EpsBeyondBox, stacklevel=3)


def settings_of(
    inputs: Inputs, threat: Threat, budget: str, seed: int, smooth: tuple[float, int] | None = None
) -> RunSettings:
    """Everything that determines the rows of a run."""
    box = inputs.model.box
    return RunSettings(
        model=inputs.model.name,
        data=inputs.data.name,
        norm=threat.norm,
        eps=threat.ladder,
        budget=budget,
        examples=len(inputs.data),
        seed=seed,
        box=repr(box),
        model_sha256=models.digest(inputs.model),
        data_sha256=data.digest(inputs.data),
        calipers=version("calipers"),
        other_sha256=models.digest(inputs.other) if inputs.other else "",
        smooth=smooth,
    )


class _Shards:
    """The work: shard number → the rows and witnesses of its examples. Can be pickled for other processes."""

    def __init__(
        self, inputs: Inputs, threat: Threat, settings: RunSettings, batch_size: int, progress: Progress
    ) -> None:
        self.inputs, self.threat, self.settings = inputs, threat, settings
        self.batch_size, self.progress = batch_size, progress
        self.size = SHARD
        self.told: set[int] = set()

    def __getstate__(self) -> dict[str, object]:
        # A progress bar stays where it is drawn.
        return {**self.__dict__, "progress": _silent}

    def __call__(self, shard: int) -> Part:
        some = slice(shard * self.size, (shard + 1) * self.size)
        whole, model, settings = self.inputs.data, self.inputs.model, self.settings
        self.told.add(shard)
        brackets = close_brackets(
            model,
            whole.x[some],
            whole.y[some],
            self.threat,
            find_budget(settings.budget),
            seed=settings.seed,
            index=whole.index[some],
            batch_size=self.batch_size,
            progress=self.progress,
        )
        part = part_of(brackets, whole.x[some])
        if settings.smooth is not None:
            some_x, some_y, index = whole.x[some], whole.y[some], whole.index[some]
            part.table.update(smoothed_columns(model, some_x, some_y, index, settings.smooth, settings.seed))
        return part


def _silent(examples: float) -> None:
    """Progress that nobody watches."""


def summarise(rows: pd.DataFrame, threat: Threat, checks: tuple[Check, ...], seconds: float) -> Summary:
    """summary.json of these rows: the band at every asked eps, the costs, the verdict."""
    lower, upper = rows["lower"].to_numpy(), rows["upper"].to_numpy()
    radius, bands = _radius(lower, upper), []
    for eps in threat.ladder:
        counts = {word: int((status(lower, upper, eps) == word).sum()) for word in ("certified", "attacked", "open")}
        proved, not_broken = counts["certified"] / len(rows), 1 - counts["attacked"] / len(rows)
        bands.append(
            ThreatSummary(norm=threat.norm, eps=eps, proved=proved, not_broken=not_broken, radius=radius, **counts)
        )
    return Summary(
        schema=1,
        examples=len(rows),
        clean_accuracy=float((rows["predicted"] == rows["label"]).mean()),
        seconds=round(seconds, 3),
        forwards=int(rows["forwards"].sum()),
        gradients=int(rows["gradients"].sum()),
        threats=tuple(bands),
        checks=tuple({"id": c.id, "passed": c.passed, "evidence": c.evidence} for c in checks),
        trusted=all(c.passed for c in checks),
    )


def _radius(lower: np.ndarray, upper: np.ndarray) -> Radius:
    """Medians over all examples; the ratio over those that were right. An infinite median is None."""
    right = upper > 0
    ratio = np.divide(lower[right], upper[right], out=np.zeros(right.sum()), where=np.isfinite(upper[right]))
    return Radius(lower_median=_median(lower), upper_median=_median(upper), ratio_median=_median(ratio))


def _median(values: np.ndarray) -> float | None:
    middle = float(np.median(values)) if len(values) else math.nan
    return middle if math.isfinite(middle) else None


def _about(inputs: Inputs, settings: RunSettings, command: str, began: float) -> dict[str, object]:
    """run.json: what was asked, of what, with what, where."""
    model, dataset = inputs.model, inputs.data
    lo, hi = (np.unique(np.asarray(side)) for side in (model.box.lo, model.box.hi))
    packages = ("calipers", "torch", "numpy", "scikit-learn")
    return {
        "command": command,
        "settings": settings.model_dump(mode="json"),
        "seconds": round(time.monotonic() - began, 3),
        "model": {
            "name": model.name,
            "origin": model.origin,
            "sha256": settings.model_sha256,
            "classes": model.classes,
            "shape": list(model.shape),
            "dtype": str(model.dtype).removeprefix("torch."),
        },
        "data": {
            "name": dataset.name,
            "size": inputs.size,
            "provenance": dataset.provenance,
            "sha256": settings.data_sha256,
            "whole_sha256": inputs.whole or settings.data_sha256,
            "shape": list(dataset.shape),
            "class_names": list(model.class_names or dataset.class_names),
        },
        "box": [float(lo[0]), float(hi[0])] if len(lo) == len(hi) == 1 and model.box.bounded else repr(model.box),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "machine": {
            "system": platform.platform(),
            "processor": platform.machine(),
            "threads": torch.get_num_threads(),
            "device": str(model.device),
        },
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "calipers": version("calipers"),
    }
