"""The one thing every other room works with: inputs in, logits out, with the box and the number of classes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from calipers.errors import BadInput
from calipers.threats import Box

__all__ = ["Classifier", "ModelInTrainMode", "altered", "as_they_were", "left_in_train_mode"]


class ModelInTrainMode(UserWarning):
    """The model was handed over in train mode; it is evaluated in eval mode, and put back afterwards."""


# Modules of torch itself whose forward looks at the mode; all its others do not.
_MODAL = (
    nn.modules.dropout._DropoutNd,
    nn.modules.batchnorm._NormBase,
    nn.RReLU,
    nn.RNNBase,
    nn.MultiheadAttention,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
)


def left_in_train_mode(module: nn.Module) -> list[str]:
    """The names of the parts that are in train mode and may compute something else there.

    Torch's own layers count only if their forward looks at the mode; what others wrote may look at it always.

    Example:
        >>> left_in_train_mode(nn.Sequential(nn.Linear(2, 2), nn.Dropout()))
        ['1 (Dropout)']
    """
    return [
        f"{name or 'the whole'} ({type(part).__name__})"
        for name, part in module.named_modules()
        if part.training and (isinstance(part, _MODAL) or not type(part).__module__.startswith("torch.nn.modules"))
    ]


def altered(module: nn.Module) -> bool:
    """Whether a hook, its own or one for all modules, or a forward of this very object may do something else.

    Example:
        >>> altered(nn.Linear(2, 2))
        False
    """
    everywhere = nn.modules.module
    return "forward" in vars(module) or bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
        or everywhere._global_forward_hooks or everywhere._global_forward_pre_hooks
        or everywhere._global_backward_hooks or everywhere._global_backward_pre_hooks
    )  # fmt: skip


@contextmanager
def as_they_were(module: nn.Module) -> Iterator[None]:
    """Evaluate ``module`` in eval mode; restore every submodule's own mode and the caller's RNG, also after an error.

    Example:
        >>> net = nn.Sequential(nn.Dropout(), nn.Linear(2, 2))
        >>> with as_they_were(net):
        ...     net.training
        False
        >>> net.training
        True
    """
    modes = [(part, part.training) for part in module.modules()]
    devices = sorted({p.device.index or 0 for p in module.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        for part, _ in modes:
            part.training = False
        try:
            yield
        finally:
            for part, mode in modes:
                part.training = mode


HALF = (torch.float16, torch.bfloat16)


class InHalf(nn.Module):
    """A network in half precision as a function of float32 inputs, where distances and steps can be told apart.

    Example:
        >>> net = InHalf(nn.Linear(2, 2).bfloat16(), torch.bfloat16)
        >>> net(torch.zeros(1, 2)).dtype
        torch.float32
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module, self.half_dtype, self.training = module, dtype, module.training

    def forward(self, x: Tensor) -> Tensor:
        """Rounded on the way in, and exactly as it is on the way out."""
        logits: Tensor = self.module(x.to(self.half_dtype))
        return logits.to(x.dtype)


@dataclass(frozen=True, eq=False)
class Classifier:
    r"""A batch of inputs to logits: (N, \*shape) → (N, K), with the box the inputs live in.

    Preprocessing belongs inside ``module``; ``x`` is always in the caller's own units.

    Arguments:
        module: any ``nn.Module`` that returns logits; only ever called, never taken apart, except by certificates.
        shape: the shape of one example.
        classes: the number of classes K ≥ 2.
        box: the values an input may take.
        dtype, device: where the module computes.
        name: what to call it in messages and reports.
        class_names: the classes in the order of the logits, if known.
        origin: where it came from, for the record.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> model = Classifier.of(net, shape=(1, 2, 2))
        >>> model.classes, model.box
        (3, Box(0.0, 1.0))
        >>> model(torch.zeros(5, 1, 2, 2)).shape
        torch.Size([5, 3])
    """

    module: nn.Module
    shape: tuple[int, ...]
    classes: int
    box: Box = field(default_factory=Box)
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    name: str = "model"
    class_names: tuple[str, ...] | None = None
    origin: str = ""

    @classmethod
    def of(
        cls,
        module: nn.Module,
        *,
        shape: tuple[int, ...],
        box: Box | tuple[float, float] | None = None,
        name: str = "model",
        class_names: tuple[str, ...] | None = None,
        origin: str = "",
    ) -> Classifier:
        """Wrap a torch module; one forward of the middle of the box finds K, dtype and device are its parameters'.

        A module in half precision is given float32 inputs and rounds them itself: see :class:`InHalf`.

        Raises:
            BadInput: if the module cannot take the shape, or does not return K ≥ 2 logits for each example.
        """
        bounds = box if isinstance(box, Box) else Box(*(box or (0.0, 1.0)))
        first = next(module.parameters(), next(module.buffers(), torch.zeros(())))
        dtype = first.dtype if first.dtype.is_floating_point else torch.float32
        if dtype in HALF:
            module, dtype = InHalf(module, dtype), torch.float32
        lo, hi = bounds.sides(torch.zeros((), dtype=dtype, device=first.device))
        middle = (lo.clamp(-1, 1) + hi.clamp(-1, 1)) / 2
        probe = middle.expand(2, *shape).contiguous()
        with as_they_were(module), torch.no_grad():
            try:
                logits = module(probe)
            except (RuntimeError, ValueError, IndexError, TypeError) as error:
                raise BadInput(
                    f"{name} cannot take inputs of shape {shape} (dtype {str(dtype).removeprefix('torch.')})",
                    got=str(error).splitlines()[0],
                ) from error
        if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != 2 or logits.shape[1] < 2:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            one = isinstance(logits, Tensor) and logits.numel() == 2
            hint = "append calipers.models.two_classes() to one logit, before any sigmoid" if one else None
            raise BadInput(f"output of {name}", expected="logits of shape (N, K) with K >= 2", got=got, hint=hint)
        return cls(module, tuple(shape), logits.shape[1], bounds, dtype, first.device, name, class_names, origin)

    def __call__(self, x: Tensor) -> Tensor:
        """Logits of a batch, as the user's own call would give them."""
        # A copy: a forward that works in place would change the caller's numbers.
        logits: Tensor = self.module(x.clone())
        return logits

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Inside, the module is in eval mode; afterwards everything is as it was. Warns if it was in train mode."""
        parts = left_in_train_mode(self.module)
        if parts:
            message = (
                f"{self.name} was in train mode ({', '.join(parts[:3])}); "
                "it is evaluated in eval mode (call .eval() to say you mean it)"
            )
            warnings.warn(message, ModelInTrainMode, stacklevel=3)
        with as_they_were(self.module):
            yield

    @property
    def blind(self) -> bool:
        """Whether a part has no gradient by its nature (a tree, a program outside torch) and says so."""
        return any(getattr(part, "no_gradient", False) for part in self.module.modules())

    def check(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """``x`` and ``y`` in this classifier's dtype and device; a sentence if they do not fit it.

        Raises:
            BadInput: zero examples, shapes that do not fit, NaN or infinite inputs, inputs outside the box, labels
                outside 0…K−1.
        """
        if len(x) == 0:
            raise BadInput("examples", expected="at least one", got=0)
        if tuple(x.shape[1:]) != self.shape:
            raise BadInput(f"inputs for {self.name}", expected=f"examples of shape {self.shape}",
                           got=f"shape {tuple(x.shape[1:])}")  # fmt: skip
        if y.shape != (len(x),) or y.dtype.is_floating_point:
            raise BadInput("labels", expected=f"{len(x)} integers", got=f"{tuple(y.shape)} of {y.dtype}")
        wrong = ((y < 0) | (y >= self.classes)).nonzero()
        if len(wrong):
            i = int(wrong[0])
            raise BadInput(f"label of example {i}", expected=f"0…{self.classes - 1} ({self.name} has "
                           f"{self.classes} classes)", got=int(y[i]))  # fmt: skip
        x = x.to(self.device, self.dtype)
        bad = (~x.isfinite()).flatten(1).any(1).nonzero()
        if len(bad):
            raise BadInput(f"input of example {int(bad[0])}", expected="finite numbers", got="NaN or infinity")
        out = (~self.box.contains(x)).nonzero()
        if len(out):
            i = int(out[0])
            raise BadInput(
                f"input of example {i}",
                expected=f"values inside {self.box}",
                got=f"{x[i].min().item():g}…{x[i].max().item():g}",
                hint="scale the data, or state the model's own box (--box LO HI, or Classifier.of(…, box=(LO, HI)))",
            )
        return x, y.to(self.device, torch.int64)
