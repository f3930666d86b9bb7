r"""Stand-ins for a model that hides its gradients or its answer: attacked in its place, judged by the model itself.

:class:`StraightThrough` gives the same answers with gradients that can be followed past rounding, saturation, cuts and
a final softmax; :class:`Expected` is what a random model answers on average; :class:`Alone` shows every input to the
model without batch mates.
"""

from __future__ import annotations

import inspect
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["Alone", "Expected", "StraightThrough"]

# Names of torch functions, without the underscores of operators and of what works in place.
_ROUNDS = {"round", "floor", "ceil", "trunc", "fix", "sign", "sgn", "heaviside", "floordiv", "floor_divide"}
_COMPARES = {"gt": 1.0, "ge": 1.0, "lt": -1.0, "le": -1.0}
_CONVERTS = {"to", "type", "type_as", "float", "double", "half", "int", "long", "short", "byte", "bool", "char"}
_LEAVES = {"numpy", "array", "tolist"}
_ASKS_GRADIENT = torch.Tensor.requires_grad.__get__  # type: ignore[attr-defined]
_DATA = torch.Tensor.data.__get__  # type: ignore[attr-defined]


class _Identity(torch.autograd.Function):
    """The value of one tensor with the gradient of another, times a slope: what BPDA puts in a bad step's place."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, value: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        ctx.like = source.dtype
        return value.to(value.dtype if value.dtype.is_floating_point else source.dtype).clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return (grads[0] * slope).to(ctx.like), None, None


def _joined(source: Tensor, value: Tensor, slope: Tensor | float = 1.0) -> Tensor:
    """``value``, which hears of ``source`` in the backward pass alone."""
    with torch.enable_grad():
        steep = torch.as_tensor(slope, dtype=source.dtype, device=source.device)
        joined: Tensor = _Identity.apply(source.expand_as(value), value, steep)  # type: ignore[no-untyped-call]
    return joined


class _Bridges(TorchFunctionMode):
    """Sees every torch function of a forward pass and keeps the gradient alive where the function would end it.

    Arguments:
        live: whether gradients are wanted; if not, only the scores before a final softmax or sigmoid are kept.
    """

    def __init__(self, live: bool) -> None:
        super().__init__()
        self.live, self.met = live, Counter[str]()
        self.squashed: tuple[Tensor, Tensor] | None = None

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "").strip("_")
        x = args[0] if args and isinstance(args[0], Tensor) else None
        out = self._done(func, name, x, args, kwargs)
        if name in ("softmax", "sigmoid") and x is not None:
            self.squashed = (out, x)
        return out

    def _done(self, func: Callable[..., Any], name: str, x: Tensor | None, args: Any, kwargs: Any) -> Any:
        if not self.live:
            return func(*args, **kwargs)
        if name == "set_grad_enabled":
            self.met["no_grad"] += not args[0]
            return None
        if x is None or not x.is_floating_point() or not x.requires_grad:
            return self._past_integers(func, name, x, args, kwargs)
        return self._past(func, name, x, args, kwargs)

    def _past_integers(self, func: Callable[..., Any], name: str, x: Tensor | None, args: Any, kwargs: Any) -> Any:
        """Integers and truth values carry no gradient: they remember the numbers they were made of."""
        out = func(*args, **kwargs)
        source = getattr(x, "_made_of", None)
        if source is None or name not in _CONVERTS or not isinstance(out, Tensor):
            return out
        if out.is_floating_point():
            self.met["a cast from whole numbers"] += 1
            return _joined(source, out)
        out._made_of = source  # type: ignore[attr-defined]
        return out

    def _past(self, func: Callable[..., Any], name: str, x: Tensor, args: Any, kwargs: Any) -> Any:
        """One function of numbers that depend on the input."""
        if func == _ASKS_GRADIENT and not _asked_by_torch():
            self.met["a look at requires_grad"] += 1
            return False
        if name == "detach" or func == _DATA:
            self.met["detach"] += 1
            return x
        if name in _LEAVES:
            self.met["NumPy or a list"] += x.numel() > 1
            return func(x.detach(), *args[1:], **kwargs)
        if name in ("grad", "backward"):
            self.met["a gradient"] += 1
        if name in _ROUNDS:
            return self._rounded(func, name, x, args, kwargs)
        out = func(*args, **kwargs)
        if name in ("sigmoid", "tanh"):
            # The true slope vanishes in float32 from |x| = 17 on; this one falls as 1/x² and never does.
            return _joined(x, out, 1 / (1 + x.detach().abs()).square())
        if isinstance(out, Tensor) and not out.is_floating_point():
            if name in _COMPARES:
                out._made_of = _COMPARES[name] * (x - args[1])  # type: ignore[attr-defined]
            elif name in _CONVERTS:
                out._made_of = x  # type: ignore[attr-defined]
        return out

    def _rounded(self, func: Callable[..., Any], name: str, x: Tensor, args: Any, kwargs: Any) -> Tensor:
        """A rounding step, in place or not, with the slope of what it rounds."""
        self.met[name] += 1
        value = func(x.detach().clone(), *args[1:], **kwargs)
        slope = 1 / torch.as_tensor(args[1]).detach() if name in ("floordiv", "floor_divide") else 1.0
        written = getattr(func, "__name__", "")
        if written.endswith("_") and not written.startswith("_"):
            x.copy_(_joined(x.clone(), value, slope))
            return x
        return _joined(x, value, slope)


def _asked_by_torch() -> bool:
    """Whether the function was called by torch's own Python code, which looks for gradients to choose a fast path."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return frame is not None and str(frame.f_globals.get("__name__")).startswith("torch.")


class StraightThrough(nn.Module):
    r"""The same answers, with a gradient past what has none: backward pass differentiable approximation (BPDA).

    Forward it is ``module`` itself. Backward, rounding and comparisons are the identity; ``detach``, ``no_grad`` and
    ``requires_grad`` are overlooked; sigmoid and tanh never saturate; a submodule, or what feeds one, that is cut off
    from the input (NumPy, an image codec) is the identity if its size allows. Where the last step is a softmax or a
    sigmoid, the scores before it are returned; other outputs that are probabilities, as their logarithms.

    Arguments:
        module: the model that is stood in for.

    Source: "Obfuscated Gradients Give a False Sense of Security" (Athalye, Carlini & Wagner 2018), Section 4.1.

    Example:
        >>> model = StraightThrough(nn.Sequential(nn.Flatten(), nn.Linear(3, 2), nn.Softmax(dim=1)))
        >>> x = torch.rand(4, 3, requires_grad=True)
        >>> bool((model(x.round()).softmax(1) - model.module(x.round())).abs().max() < 1e-6)
        True
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.met: Counter[str] = Counter()
        self.training = module.training

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K)."""
        live = torch.is_grad_enabled() and x.requires_grad
        bridges = _Bridges(live)
        with _hooked(self.module, x, bridges) if live else ExitStack(), bridges:
            out: Tensor = self.module(x)
        self.met = bridges.met if live else self.met
        if live and not out.requires_grad:
            # Nothing inside can be reached: there is no gradient to be had this way.
            return out
        if bridges.squashed is not None and bridges.squashed[0] is out:
            return bridges.squashed[1]
        return _as_scores(out)


def _as_scores(out: Tensor) -> Tensor:
    """Logarithms of what are probabilities; anything else as it is."""
    seen = out.detach()
    if bool((seen >= 0).all()) and bool(((seen.sum(1) - 1).abs() < 1e-3).all()):
        return out.clamp_min(torch.finfo(out.dtype).tiny).log()
    return out


@contextmanager
def _hooked(module: nn.Module, x: Tensor, bridges: _Bridges) -> Iterator[None]:
    """For the time of one forward pass, join what enters and leaves submodules to the input where it was cut off.

    Parameters ask for no gradient meanwhile, so that only what depends on the input is looked at. Hooks run inside the
    pass and see it with its eyes: not ``requires_grad``, but ``grad_fn`` says who is cut off.
    """

    def fits(value: Any, source: Tensor) -> bool:
        return (
            isinstance(value, Tensor)
            and value.is_floating_point()
            and value is not x
            and value.grad_fn is None
            and (len(value), value.numel()) == (len(source), source.numel())
        )

    def enter(part: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not given or not fits(given[0], x):
            return None
        bridges.met["a cut"] += 1
        return (_joined(x.view_as(given[0]), given[0]), *given[1:])

    def leave(part: nn.Module, given: tuple[Any, ...], out: Any) -> Any:
        source = given[0] if given and isinstance(given[0], Tensor) else None
        if part is module or source is None or (source.grad_fn is None and source is not x) or not fits(out, source):
            return None
        bridges.met[type(part).__name__] += 1
        return _joined(source.view_as(out), out)

    with ExitStack() as hooks:
        for parameter in module.parameters():
            if parameter.requires_grad and parameter.is_leaf:
                hooks.callback(parameter.requires_grad_, True)
                parameter.requires_grad_(False)
        for part in module.modules():
            hooks.callback(part.register_forward_hook(leave).remove)
            if part is not module:
                hooks.callback(part.register_forward_pre_hook(enter).remove)
        yield


class Expected(nn.Module):
    r"""What a random model answers on average: f̄(x) = (1/S) Σ_s f(x; ω_s), expectation over transformation (EOT).

    The draws ω_1…ω_S are the same in every call, so that f̄ is a function; torch's, NumPy's and Python's generators
    are put back. Noise from a generator of the model's own is averaged, but cannot be repeated.

    Arguments:
        module: a model whose answers are random.
        draws: S.
        seed: which draws; a judge takes others than the attack.

    Source: "Synthesizing Robust Adversarial Examples" (Athalye, Engstrom, Ilyas & Kwok 2018), equation (1).

    Example:
        >>> class Noisy(nn.Module):
        ...     def forward(self, x):
        ...         return x + torch.randn_like(x)
        >>> once = Expected(Noisy(), draws=1000, seed=1)
        >>> x = torch.zeros(1, 2)
        >>> bool((once(x) == once(x)).all()), bool(once(x).abs().max() < 0.2)
        (True, True)
    """

    def __init__(self, module: nn.Module, *, draws: int = 16, seed: int = 0) -> None:
        super().__init__()
        self.module, self.draws, self.seed = module, draws, seed
        self.training = module.training

    def forward(self, x: Tensor) -> Tensor:
        """The mean scores, (N, K)."""
        with _seeded(self.seed, x.device):
            total: Tensor = self.module(x)
            for _ in range(self.draws - 1):
                total = total + self.module(x)
        return total / self.draws


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Every generator that a model may draw from without being asked, at a given start; put back afterwards."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 it is the caller's that must be put back
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.random.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        for one in cuda:
            torch.cuda.set_rng_state(torch.Generator(one).manual_seed(seed).get_state(), one)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002, TID251 put back below
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


class Alone(nn.Module):
    r"""A model that looks at its whole batch, asked about every input alone: f̂(x_n) = f({x_n}).

    Arguments:
        module: a model whose answer to one input depends on the others.

    Example:
        >>> class Centred(nn.Module):
        ...     def forward(self, x):
        ...         return x - x.mean(0)
        >>> Alone(Centred())(torch.tensor([[1.0, 2.0], [5.0, 0.0]])).tolist()
        [[0.0, 0.0], [0.0, 0.0]]
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.training = module.training

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K): one call an input, all at once where torch can."""
        try:
            answers: Tensor = torch.func.vmap(lambda one: self.module(one[None])[0], randomness="different")(x)
        except (RuntimeError, ValueError):
            # A branch on a value, or a step that torch cannot batch.
            answers = torch.cat([self.module(one) for one in x.split(1)])
        return answers
