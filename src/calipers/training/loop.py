"""The one loop: a recipe says which examples a step trains on, a schedule with which eps, Fabric where and how."""

from __future__ import annotations

import io
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from dataclasses import replace as changed_copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from calipers.data import DataSet, digest
from calipers.errors import BadInput
from calipers.models import Classifier
from calipers.models.training import ABOUT, WEIGHTS, about
from calipers.runner.draws import Draws
from calipers.runner.files import atomic_write
from calipers.runner.settings import differences
from calipers.theory import feature_layer
from calipers.threats import Threat
from calipers.training.augment import crop_and_flip
from calipers.training.checkpoint import NAMES, State, has_checkpoint
from calipers.training.launch import launch
from calipers.training.measure import accuracy, robust_accuracy
from calipers.training.plan import Plan
from calipers.training.recipes import RECIPES, WITHOUT_ADVERSARY, Batch
from calipers.training.schedule import Schedule
from calipers.training.stopping import constant_answer, gradient_reached, stop_reason

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["METRICS", "SUMMARY", "Trained", "train"]

METRICS, SUMMARY = "metrics.parquet", "summary.json"
Row = dict[str, float | None]


@dataclass(frozen=True, eq=False)
class Trained:
    """What a training ends with.

    Arguments:
        model: the trained classifier, in eval mode; its module is the one that was handed over.
        metrics: one row per epoch: epoch, eps, lr, loss and its change, how far the weights moved (L2), clean and
            robust accuracy on held-out data, images per second, and every weight's root mean square (``rms/NAME``).
        stopped: why the training ended before its last epoch, if it did; then the weights are the last good ones.
    """

    model: Classifier
    metrics: list[Row]
    stopped: str | None

    @property
    def kept(self) -> Row:
        """The row of the metrics that belongs to the weights: the one before the last if the training was stopped."""
        return self.metrics[-2 if self.stopped else -1]

    @property
    def constant(self) -> str | None:
        """Whether the loss is that of a constant answer, log K up to 1 %, in words; None if it is less.

        Adversarial training at a large eps from random weights may never leave it.
        """
        loss = float(self.kept["loss"] or 0.0)
        if not constant_answer(loss, self.model.classes):
            return None
        return f"the loss ended at {loss:.3f}, and a constant answer has {math.log(self.model.classes):.3f}"


def train(
    model: Classifier,
    data: DataSet,
    plan: Plan,
    *,
    held_out: DataSet | None = None,
    out: Path | None = None,
    resume: bool = False,
    replace: bool = False,
    origin: dict[str, Any] | None = None,
    fabric: Fabric | None = None,
    checkpoint_seconds: float = 300.0,
    progress: Callable[[float], None] = lambda examples: None,
    on_epoch: Callable[[Row], None] = lambda row: None,
) -> Trained:
    r"""Train a model in place: θ ← optimizer(∇_θ mean_i recipe(x_i, y_i, eps(t))).

    The weights are a function of (initial weights, data, plan), on the same machine with the same number of threads
    and processes, however often the training was killed. Random draws are functions of (seed, example, epoch, step).
    Several processes share every batch; but for batch statistics they give the single process's result up to rounding.

    Arguments:
        model: the initial weights.
        data: what it is trained on.
        plan: how.
        held_out: what its accuracy is measured on after every epoch.
        out: a folder for ``weights.safetensors`` (the last good ones), ``metrics.parquet``, ``train.json`` and the
            checkpoints; None keeps everything in memory.
        resume: go on with the training in ``out``; the plan must be the same, but for the epochs and for where an
            iterative schedule that is still rising ends. One that has done more than are asked for is left as it is.
        replace: overwrite the training in ``out``.
        origin: more for ``train.json``: architecture, data, initial weights; what is resumed must have had the same.
        fabric: device, precision and processes, see :func:`launch`; one process by default.
        checkpoint_seconds: write a checkpoint after every epoch, and whenever this much time has passed.
        progress: called with the number of examples just trained on.
        on_epoch: called with every new row of the metrics.

    Raises:
        BadInput: data that do not fit the model, a folder that is in use, a loss that is not a number (the last good
            weights are kept), a full disk (the last checkpoint is kept).

    Example:
        >>> from calipers.data import load
        >>> from calipers.training import Plan, Schedule, fresh
        >>> plan = Plan("pgd", Schedule("constant", 0.02), epochs=2, batch_size=64)
        >>> trained = train(fresh("digits-mlp"), load("digits", split="train").take(256), plan)
        >>> [row["eps"] for row in trained.metrics]
        [0.02, 0.02]
    """
    if held_out is not None:
        model.check(held_out.x, held_out.y)
    _check(model, data, plan)
    settings = {"plan": plan.settings(), "examples": len(data), "data_sha256": digest(data), **(origin or {})}
    with _callers_generator(), warnings.catch_warnings():
        # Fabric warns of its own use of torch, and of processors it could use.
        warnings.filterwarnings("ignore", module="lightning_fabric")
        loop = _Loop(model, data, held_out, plan, out, fabric or launch(plan.precision), progress)
        try:
            loop.open(settings, resume, replace)
            loop.run(checkpoint_seconds, on_epoch)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(loop.kept()) from None
        finally:
            loop.leave()
    return Trained(loop.model, loop.state.rows, loop.state.stopped)


def _check(model: Classifier, data: DataSet, plan: Plan) -> None:
    """Everything that can be wrong before the first step."""
    model.check(data.x, data.y)
    if plan.recipe == "hard":
        if not isinstance(model.module, nn.Sequential):
            raise BadInput("network of recipe hard", expected="an nn.Sequential", got=type(model.module).__name__)
        feature_layer(model.module)
    if plan.augment and data.x.dim() != 4:
        raise BadInput("augment", expected="images of shape (N, C, H, W)", got=tuple(data.x.shape))
    norm, eps = plan.ascent.norm, plan.schedule.eps
    if plan.recipe not in WITHOUT_ADVERSARY and model.box.bounded:
        most = model.box.reach(norm, math.prod(model.shape)) / 2
        if eps >= most:
            warnings.warn(
                f"eps = {eps:g} is half of the input box in {norm} ({most:g}) or more: every input can be moved to "
                "its middle, and nothing can be learned",
                stacklevel=3,
            )


@contextmanager
def _callers_generator() -> Iterator[None]:
    """The global generators are seeded for every step, for layers that draw from them, and put back at the end."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        yield


class _Loop:
    """One training: where it runs, and its state."""

    def __init__(
        self, model: Classifier, data: DataSet, held_out: DataSet | None, plan: Plan, out: Path | None,
        fabric: Fabric, progress: Callable[[float], None],
    ) -> None:  # fmt: skip
        self.plan, self.out, self.fabric, self.progress = plan, out, fabric, progress
        self.images = model.module if any(isinstance(part, nn.Conv2d) for part in model.module.modules()) else None
        if self.images is not None:
            # Convolutions are fastest on CPU and GPU when the channels lie side by side.
            self.images.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        module = model.module.to(fabric.device)
        self.model = changed_copy(model, module=module, device=fabric.device)
        self.state = State(module, _optimizer(module, plan))
        self.x, self.y, self.index = (part.to(fabric.device) for part in (data.x.to(model.dtype), data.y, data.index))
        self.held_out = held_out
        self.statistics = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())
        self.net, self.optimizer = fabric.setup(module, self.state.optimizer)

    def open(self, settings: dict[str, Any], resume: bool, overwrite: bool) -> None:
        """Take the folder: a new one, or one whose settings are the same but for more epochs.

        All processes look before any of them writes, so that they agree.
        """
        if self.out is None:
            return
        if overwrite and self.fabric.is_global_zero:
            for name in (ABOUT, WEIGHTS, METRICS, SUMMARY, *NAMES):
                (self.out / name).unlink(missing_ok=True)
        self.fabric.barrier()
        if resume:
            was = about(self.out)
            changed = differences(_lasting(was), _lasting(json.loads(json.dumps(settings))))
            if changed:
                raise BadInput(f"--resume of {self.out}", expected="the same settings", got="; ".join(changed))
            self.state.load(self.out)
            self._check_radii(Schedule(**was["plan"]["schedule"]))
            # A training that is further than is asked for stays as it is, and so does what it says of itself.
            settings["plan"]["epochs"] = max(self.plan.epochs, self.state.epoch)
            self.progress(self.state.epoch * len(self.x) + self.state.step * self.plan.batch_size)
        elif has_checkpoint(self.out):
            raise BadInput(f"folder {self.out}", expected="a new one", got="a training",
                           hint="--resume goes on with it, --replace overwrites it")  # fmt: skip
        self.fabric.barrier()
        if self.fabric.is_global_zero:
            atomic_write(self.out / ABOUT, json.dumps(settings, indent=2) + "\n")

    def _check_radii(self, was: Schedule) -> None:
        """The epochs that are begun had the eps that they would have now."""
        now = self.plan.schedule
        for epoch in range(self.state.epoch + (self.state.step > 0)):
            if was(epoch) != now(epoch):
                got = f"eps of epoch {epoch + 1}: {was(epoch):g} then, {now(epoch):g} now"
                raise BadInput(f"--resume of {self.out}", expected="the same settings", got=got,
                               hint="--init starts from its weights")  # fmt: skip

    def run(self, checkpoint_seconds: float, on_epoch: Callable[[Row], None]) -> None:
        """Epoch after epoch, until the last, or until the loss rises suddenly or the network is dead."""
        while self.state.epoch < self.plan.epochs and self.state.stopped is None:
            self._epoch(checkpoint_seconds)
            row = self._close_epoch()
            if self.fabric.is_global_zero:
                self._write()
                self.fabric.log_dict({name: value for name, value in row.items() if value is not None},
                                     step=self.state.epoch)  # fmt: skip
                on_epoch(row)
            self.fabric.barrier()

    def _epoch(self, checkpoint_seconds: float) -> None:
        """The steps of one epoch that are still to be done."""
        plan, state, n = self.plan, self.state, len(self.x)
        # The order is that of one random number for every example.
        named = torch.arange(n, device=self.x.device)
        order = Draws(plan.seed, named, state.epoch, stream=3).uniform(1)[:, 0].argsort(stable=True)
        batches = self._batches(order)
        saved = time.monotonic()
        self.module_mode(training=True)
        for step in range(state.step, len(batches)):
            start = time.monotonic()
            time_ = state.epoch + step / len(batches)
            for group in state.optimizer.param_groups:
                group["lr"] = plan.rate(time_)
            state.loss += self._step(batches[step], plan.schedule(time_)) * len(batches[step])
            state.step, state.seconds = step + 1, state.seconds + time.monotonic() - start
            self.progress(len(batches[step]))
            if self.out is not None and self.fabric.is_global_zero and time.monotonic() - saved > checkpoint_seconds:
                state.save(self.out)
                saved = time.monotonic()

    def _batches(self, order: Tensor) -> list[Tensor]:
        """Of the plan's size; what is left over goes to the one before where a statistic of one example is none."""
        batches = list(order.split(self.plan.batch_size))
        if self.statistics and len(batches) > 1 and len(batches[-1]) < 2 * self.fabric.world_size:
            batches[-2:] = [torch.cat(batches[-2:])]
        return batches

    def _step(self, rows: Tensor, eps: float) -> float:
        """One update; the mean loss over the whole batch, whichever process saw which part of it."""
        state, fabric, seed = self.state, self.fabric, self.plan.seed + ((self.state.epoch + 1) << 32)
        mine = rows[fabric.global_rank :: fabric.world_size]
        # A process without a part computes one example's gradient, times 0, so that all take part in the average.
        share = len(mine) * fabric.world_size / len(rows)
        mine = mine if len(mine) else rows[:1]
        torch.random.manual_seed((seed * 1_000_003 + state.step * 1009 + fabric.global_rank) % 2**63)
        x, y, index = self.x[mine], self.y[mine], self.index[mine]
        if self.plan.augment:
            x = crop_and_flip(x, Draws(seed, index, 0, stream=4))
        if self.images is not None:
            x = x.contiguous(memory_format=torch.channels_last)
        with self.fabric.autocast() if self.plan.precision != "32" else nullcontext():
            each = RECIPES[self.plan.recipe](Batch(self.net, self.model, x, y, index, eps, seed, self.plan.ascent))
        loss = each.mean() * share
        value = float(torch.as_tensor(fabric.all_reduce(loss.detach(), reduce_op="mean")))
        if not math.isfinite(value):
            raise self._diverged(f"loss at epoch {state.epoch + 1}, step {state.step + 1}", value)
        self.optimizer.zero_grad()
        fabric.backward(loss)
        state.reached = state.reached or gradient_reached(state.module)
        self.optimizer.step()
        return value

    def _diverged(self, what: str, got: object) -> BadInput:
        """Go back to the last good weights, and say so."""
        epoch = self.state.epoch
        self.state.go_back()
        kept = f"the weights of epoch {epoch} are kept; " if epoch else ""
        return BadInput(what, expected="a finite number", got=got, hint=f"{kept}try a smaller --lr")

    def _close_epoch(self) -> Row:
        """Measure, look for a reason to stop, and make these weights the last good ones or go back to them."""
        state = self.state
        # The step after the last loss is seen nowhere else.
        broken = [n for n, v in state.module.state_dict().items() if v.is_floating_point() and not v.isfinite().all()]
        if broken:
            raise self._diverged(f"{broken[0]} after epoch {state.epoch + 1}", "NaN or infinity")
        row = self._row()
        state.rows.append(row)
        losses = [float(one["loss"] or 0.0) for one in state.rows]
        state.stopped = stop_reason(self.plan, losses, self.model.classes, reached=state.reached)
        if state.stopped:
            state.go_back()
        state.remember()
        state.epoch, state.step, state.loss, state.seconds, state.reached = state.epoch + 1, 0, 0.0, 0.0, False
        self.module_mode(training=False)
        return row

    def _row(self) -> Row:
        state, plan, n = self.state, self.plan, len(self.x)
        loss, eps = state.loss / n, plan.schedule(state.epoch + 1 - 1e-9)
        moved = sum(float((p.detach().double() - state.before[name].double()).square().sum())
                    for name, p in state.module.named_parameters())  # fmt: skip
        row: Row = {
            "epoch": state.epoch + 1, "eps": eps, "lr": plan.rate(state.epoch + 1 - 1e-9), "loss": loss,
            "loss_change": loss - float(state.rows[-1]["loss"] or 0.0) if state.rows else None,
            "weights_moved": math.sqrt(moved), "clean": None, "robust": None,
            "images_per_second": n / max(state.seconds, 1e-9), "seconds": state.seconds,
        }  # fmt: skip
        if self.held_out is not None and self.fabric.is_global_zero:
            x, y = self.held_out.x, self.held_out.y
            row["clean"] = accuracy(self.model, x, y)
            if plan.recipe not in WITHOUT_ADVERSARY and eps > 0:
                row["robust"] = robust_accuracy(self.model, x, y, Threat(plan.ascent.norm, eps))
        weights = {name: p for name, p in state.module.named_parameters() if p.dim() > 1}
        return row | {f"rms/{name}": float(p.detach().square().mean().sqrt()) for name, p in weights.items()}

    def module_mode(self, *, training: bool) -> None:
        """Train or eval mode of the wrapped and the bare network."""
        self.net.train(training)
        self.state.module.train(training)

    def _write(self) -> None:
        """Weights, metrics and checkpoint of a finished epoch."""
        if self.out is None:
            return
        import pandas as pd
        from safetensors.torch import save

        weights = {name: value.detach().cpu().contiguous() for name, value in self.state.module.state_dict().items()}
        good = self.state.epoch - (self.state.stopped is not None)
        withstood = 0.0 if self.plan.recipe in WITHOUT_ADVERSARY else self.plan.schedule(good - 1e-9)
        # One entry: of several the file's order, and so its bytes, would be drawn anew every time.
        atomic_write(self.out / WEIGHTS, save(weights, {"eps": f"{withstood!r} {self.plan.ascent.norm}"}))
        buffer = io.BytesIO()
        pd.DataFrame(self.state.rows).to_parquet(buffer, compression="zstd", index=False)
        atomic_write(self.out / METRICS, buffer.getvalue())
        self.state.save(self.out)

    def kept(self) -> str:
        """What is left of a training that is stopped here."""
        if self.out is None or not has_checkpoint(self.out):
            return "stopped before the first checkpoint: nothing is kept"
        return f"stopped; the last checkpoint stays in {self.out}, and --resume goes on from there"

    def leave(self) -> None:
        """The caller's module in eval mode, without gradients, its weights laid out as usual."""
        self.module_mode(training=False)
        self.optimizer.zero_grad()
        if self.images is not None:
            self.images.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def _optimizer(module: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    """Adam, or SGD with momentum; both add λθ to the gradient, as the papers do."""
    if plan.optimizer == "adam":
        return torch.optim.Adam(module.parameters(), plan.lr, weight_decay=plan.weight_decay, fused=True)
    return torch.optim.SGD(
        module.parameters(), plan.lr, momentum=plan.momentum, weight_decay=plan.weight_decay, fused=True
    )


def _lasting(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that a resumed training must share.

    Epochs may be added unless the learning rate depends on them, and a rising eps may be given another end.
    """
    plan = settings["plan"]
    if not plan["anneal"]:
        plan = plan | {"epochs": None}
    if plan["schedule"]["kind"] == "iterative":
        plan = plan | {"schedule": plan["schedule"] | {"eps": None}}
    return {name: value for name, value in settings.items() if name != "plan"} | {
        f"plan.{name}": value for name, value in plan.items()
    }
