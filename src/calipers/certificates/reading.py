"""The importer: one forward of the model is watched, and every torch function in it becomes a node of the graph.

The model runs as it is, on a tensor that writes down what is done to it. So a forward of one's own, hooks, branches on
shapes and loops over layers are read like any ``nn.Sequential``, and what does not depend on the input is a constant. A
forward that asks for the *values* (a branch, ``.item()``, NumPy) or uses a function without a rule is refused by name.
What was read is then compared with the model on random inputs: they must agree to within the bound on rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from calipers.certificates.arithmetic import arithmetic_of
from calipers.certificates.certificate import NotApplicable, UnknownOperator
from calipers.certificates.graph import Graph, Node
from calipers.certificates.operators import Affine, BeforeLogSoftmax, LogSoftmax
from calipers.certificates.rules import RULES, WORDS, Refused, Symbol
from calipers.models import Classifier

__all__ = ["read"]

# Two examples: whatever mixes them changes the first axis, or is refused.
_BATCH = 2
_LOGITS = "leave it out and hand over the logits: the largest stays the largest"
_INSTEAD = {"softmax": _LOGITS, "log_softmax": _LOGITS}
# What may be asked of a value without looking at its numbers.
_METADATA = frozenset((
    *("shape", "size", "dim", "ndim", "ndimension", "numel", "nelement", "__len__", "dtype", "device", "layout"),
    *("is_floating_point", "is_complex", "is_cuda", "stride", "is_contiguous", "requires_grad", "is_sparse"),
))  # fmt: skip


class _Traced(Tensor):
    """A batch of real values that remembers which node of the tape it is.

    ``version`` is torch's count of the changes of its memory when it was that node: views share memory and count.
    """

    tape: _Tape
    node: int
    version: int

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _first(args, kwargs or {}).tape.watch(func, args, kwargs or {})


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Traced:
    return next(v for v in _flat(args, kwargs) if isinstance(v, _Traced))


def _flat(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    return [v for a in (*args, *kwargs.values()) for v in (a if isinstance(a, list | tuple) else (a,))]


def _version(value: Tensor) -> int:
    with torch._C.DisableTorchFunctionSubclass():
        return value._version


class _Tape:
    def __init__(self, x: Tensor) -> None:
        self.nodes: list[Node] = []
        self.input = self._trace(x, 0)

    def _trace(self, value: Tensor, node: int) -> _Traced:
        traced = value.as_subclass(_Traced)
        traced.tape, traced.node, traced.version = self, node, _version(traced)
        return traced

    @staticmethod
    def check(value: _Traced) -> None:
        """That it is still what its node says."""
        if value.version != _version(value):
            raise _refusal(
                "a tensor that was changed in place through a view of it", "change it by its own name, or not in place"
            )

    def watch(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do what was asked, and write it down."""
        name = func.__name__
        if name == "__get__":
            name = getattr(func, "__self__").__name__  # noqa: B009
        if name not in _METADATA:
            for value in _flat(args, kwargs):
                if isinstance(value, _Traced):
                    self.check(value)
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*_plain(args), **_plain(kwargs))
        if name in _METADATA:
            return result
        in_place = (name.endswith("_") and not name.endswith("__")) or name.startswith("__i") or kwargs.get("inplace")
        if in_place and not isinstance(args[0], _Traced):
            raise _refusal(f"'{name}' on a tensor that is no function of the input", "write into a new tensor")
        if not isinstance(result, Tensor) or name in ("__array__", "numpy", "tolist", "item", "__bool__"):
            raise _refusal(f"'{name}', which asks for numbers computed from the input",
                           "no branch on values, no way out of torch; certify the part before it")  # fmt: skip
        if len(result.shape) < 1 or result.shape[0] != _BATCH:
            raise _refusal(
                f"'{name}', which does not keep examples apart", "treat every example alone, without branches on values"
            )
        if result.dtype == torch.bool:
            raise _refusal(f"'{name}', a comparison", None)
        if (result.dtype, result.device) != (self.input.dtype, self.input.device):
            raise _refusal(f"'{name}' from {self.input.dtype} to {result.dtype}", "keep to one dtype and device")
        try:
            rule = RULES[WORDS.get(name, name)]
            op, inputs = rule(*_symbols(args), **_symbols(kwargs))
        except (KeyError, Refused, TypeError) as error:
            why = f": {error}" if isinstance(error, Refused) else ""
            raise _refusal(f"'{name}'{why}", _INSTEAD.get(name.strip("_"))) from None
        at = inputs[0]
        if op is not None:
            self.nodes.append(Node(op, inputs, tuple(result.shape[1:])))
            at = len(self.nodes)
        if in_place:
            args[0].node, args[0].version = at, _version(args[0])
            return args[0]
        return self._trace(result, at)


def _plain(value: Any) -> Any:
    if isinstance(value, _Traced):
        return value.as_subclass(Tensor)
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value


def _symbols(value: Any) -> Any:
    if isinstance(value, _Traced):
        return Symbol(value.node, tuple(value.as_subclass(Tensor).shape[1:]), value.as_subclass(Tensor))
    if isinstance(value, dict):
        return {key: _symbols(part) for key, part in value.items()}
    return tuple(map(_symbols, value)) if type(value) in (list, tuple) else value


def _refusal(got: str, hint: str | None) -> UnknownOperator:
    known = (
        "Linear, Conv1d, Conv2d, BatchNorm, average and max pooling, ReLU, LeakyReLU, Tanh, Sigmoid, Softplus, GELU, "
        "SiLU, sums of branches, arithmetic with constants, Flatten and other reshapes, slices"
    )
    return UnknownOperator("certificate", expected=f"operators it has a rule for ({known})", got=got,
                           hint=hint or "replace it by one of these; attacks need no rules")  # fmt: skip


def _without_log_softmax(nodes: list[Node]) -> list[Node]:
    """The same answers without a last log_softmax, where a matrix stands before it; anywhere else it is refused."""
    at = [i for i, node in enumerate(nodes) if isinstance(node.op, LogSoftmax)]
    if not at:
        return nodes
    before = nodes[-2] if len(nodes) > 1 else None
    if at != [len(nodes) - 1] or before is None or type(before.op) is not Affine or nodes[-1].inputs != (at[0],):
        raise _refusal("'log_softmax'", _LOGITS)
    return [*nodes[:-2], Node(BeforeLogSoftmax(before.op.weight, before.op.bias), before.inputs, before.shape)]


def read(model: Classifier) -> Graph:
    r"""The graph of a classifier, as it runs in eval mode.

    Raises:
        UnknownOperator: for a function without a rule, by name; for branches on values; for a forward that does not
            do on other inputs what it did on this one.
        NotApplicable: for an arithmetic without an error bound, such as float16.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3), torch.nn.ReLU()).eval()
        >>> [type(node.op).__name__ for _, node in read(Classifier.of(net, shape=(2, 2)))]
        ['Rearrange', 'Affine', 'Activation']
    """
    if model.blind:
        raise NotApplicable(
            "certificate",
            expected="a network of layers",
            got=f"{model.name}, whose inside is not one",
            hint="trees have a certificate of their own; of an ONNX file onnx2torch makes layers",
        )
    arithmetic = arithmetic_of(model)
    like = torch.zeros((), dtype=model.dtype, device=model.device)
    lo, hi = (side.clamp(-1e3, 1e3) for side in model.box.sides(like))
    draw = torch.rand((_BATCH + 3, *model.shape), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(
        like
    )
    probe = model.box.clamp(lo + (hi - lo) * draw)
    with model.frozen(), torch.no_grad():
        tape = _Tape(probe[:_BATCH].clone())
        logits = model.module(tape.input)
        if not isinstance(logits, _Traced):
            raise _refusal(
                "logits that do not depend on the input, or do in a way that torch functions do not show", None
            )
        tape.check(logits)
        graph = Graph(model.shape, _without_log_softmax([*tape.nodes[: logits.node]]))
        executed = model(probe[_BATCH:])
    x = probe[_BATCH:].double()
    real, allowed = graph(x), graph.rounding(x, x, arithmetic)
    if graph.last and isinstance(graph.nodes[-1].op, BeforeLogSoftmax):
        # The number that is taken from all of them can be off by as much as they are.
        real, allowed = real.log_softmax(1), 2 * allowed.amax(1, keepdim=True)
    gap = (real - executed.double()).abs()
    # Written so that NaN is a refusal too.
    if not bool((gap <= allowed).all()):
        raise _refusal("a forward that computes something else on other inputs", "it may keep a state, or draw numbers")
    return graph
