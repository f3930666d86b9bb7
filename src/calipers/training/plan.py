"""What is asked of a training: one record that decides every weight, given architecture, data and start."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from calipers.errors import BadInput, nearest
from calipers.training.recipes import RECIPES, Ascent
from calipers.training.schedule import Schedule

__all__ = ["OPTIMIZERS", "PRECISIONS", "Plan"]

OPTIMIZERS = ("adam", "sgd")
PRECISIONS = ("32", "bf16")


@dataclass(frozen=True)
class Plan:
    r"""Everything that decides the weights, but for architecture, data and initial weights.

    Arguments:
        recipe: which examples a step trains on, a name of :data:`RECIPES`.
        schedule: with which eps.
        ascent: how the examples are found.
        epochs: passes over the data; a finished training can be resumed with more.
        batch_size: of all processes together.
        optimizer: ``"adam"``, or ``"sgd"`` with ``momentum``.
        lr: learning rate η.
        lr_drops: epochs after which η is divided by ten.
        anneal: whether η falls linearly to 0 over all epochs.
        momentum: of SGD.
        weight_decay: λ of θ ← θ − η(∇ + λθ), the L2 penalty.
        augment: random crops and mirror images.
        seed: of every random draw.
        precision: ``"32"``, or ``"bf16"`` for mixed precision.

    Raises:
        BadInput: for a number or a name that cannot be meant.

    Example:
        >>> Plan("pgd", Schedule("constant", 0.3), epochs=2).rate(1.5)
        0.001
    """

    recipe: str
    schedule: Schedule
    ascent: Ascent = field(default_factory=Ascent)
    epochs: int = 10
    batch_size: int = 128
    optimizer: str = "adam"
    lr: float = 1e-3
    lr_drops: tuple[int, ...] = ()
    anneal: bool = False
    momentum: float = 0.9
    weight_decay: float = 0.0
    augment: bool = False
    seed: int = 0
    precision: str = "32"

    def __post_init__(self) -> None:
        for what, name, known in (
            ("recipe", self.recipe, RECIPES),
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("precision", self.precision, PRECISIONS),
        ):
            if name not in known:
                raise BadInput(what, got=repr(name), hint=nearest(name, known))
        for what, count in (("epochs", self.epochs), ("batch size", self.batch_size), ("steps", self.ascent.steps)):
            if count is not None and count < 1:
                raise BadInput(what, expected="at least 1", got=count)
        if self.recipe != "standard" and self.schedule.eps == 0:
            raise BadInput(f"eps of recipe {self.recipe}", expected="a number > 0", got=0,
                           hint="recipe standard trains on the examples as they are")  # fmt: skip
        for what, number in {"lr": self.lr, "step size": self.ascent.step_size}.items():
            if number is not None and not (math.isfinite(number) and number > 0):
                raise BadInput(what, expected="a finite number > 0", got=number)
        for what, number in {"weight decay": self.weight_decay, "beta": self.ascent.beta}.items():
            if not (math.isfinite(number) and number >= 0):
                raise BadInput(what, expected="a finite number >= 0", got=number)
        if not 0 <= self.momentum < 1:
            raise BadInput("momentum", expected="a number >= 0 and < 1", got=self.momentum)
        if any(drop < 0 for drop in self.lr_drops):
            raise BadInput("epochs after which the learning rate drops", expected="none < 0", got=self.lr_drops)
        if not 0 <= self.seed < 2**32:
            raise BadInput("seed", expected="0 to 4294967295", got=self.seed)

    def rate(self, t: float) -> float:
        """The learning rate at time ``t``, in epochs."""
        share = max(0.0, 1 - t / self.epochs) if self.anneal else 1.0
        return self.lr * share * 0.1 ** sum(t >= drop for drop in self.lr_drops)

    def settings(self) -> dict[str, Any]:
        """The plan as plain JSON values."""
        return {**asdict(self), "lr_drops": list(self.lr_drops)}

    @classmethod
    def of(cls, settings: dict[str, Any]) -> Plan:
        """The plan that :meth:`settings` describes."""
        return cls(**(settings | {
            "schedule": Schedule(**settings["schedule"]), "ascent": Ascent(**settings["ascent"]),
            "lr_drops": tuple(settings["lr_drops"]),
        }))  # fmt: skip
