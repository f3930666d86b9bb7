"""What `calipers train` can be told, in three groups; each option is documented here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter

from calipers.cli.wording import Flag, Radius, Whole

__all__ = ["Adversary", "Machine", "Optimization"]


@Parameter(name="*")
@dataclass(frozen=True)
class Adversary:
    """What the model learns to withstand, and how it is attacked on the way.

    Parameters
    ----------
    norm
        linf, l2, l1 or l0; L2 and l_inf are understood too. That of --init DIR by default, else linf.
    eps
        The radius to train for, in the units of the inputs: 0.1 or 8/255.
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
    """

    norm: str | None = None
    eps: Radius | None = None
    schedule: str = "constant"
    ramp: float | None = None
    rise: float = 0.01
    steps: Whole | None = None
    step_size: Radius | None = None
    raw: Flag = False
    beta: float = 6.0


@Parameter(name="*")
@dataclass(frozen=True)
class Optimization:
    """How the weights move.

    Parameters
    ----------
    epochs
        Passes over the data.
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
    """

    epochs: Whole = 10
    optimizer: str = "adam"
    lr: float = 0.001
    lr_drop: Annotated[tuple[int, ...], Parameter(negative=())] = ()
    anneal: Flag = False
    momentum: float = 0.9
    weight_decay: float = 0.0
    batch_size: Whole = 128
    augment: Flag = False
    seed: Whole = 0


@Parameter(name="*")
@dataclass(frozen=True)
class Machine:
    """Where it runs.

    Parameters
    ----------
    precision
        32, bf16 (mixed), or auto: bf16 where the processor multiplies in it.
    device
        auto, cpu or cuda.
    nproc
        Processes on this machine; with torchrun, leave it.
    tensorboard
        Write TensorBoard events to OUT/tensorboard.
    """

    precision: Literal["auto", "32", "bf16"] = "auto"
    device: str = "auto"
    nproc: Whole = 1
    tensorboard: Flag = False
