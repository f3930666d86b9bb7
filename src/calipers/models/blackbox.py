"""Models that only answer: ONNX files run by onnxruntime, scikit-learn estimators without a form in torch."""

from __future__ import annotations

import pickle
import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calipers.errors import BadInput

__all__ = ["BlackBox", "EstimatorModel", "OnnxModel", "read_onnx"]


class BlackBox(nn.Module, ABC):
    r"""Scores or labels from outside torch, as a module that has no gradient.

    Labels (N,) become one-hot scores, on which only label attacks can tell one input from another. The bytes it was
    made from, or a hash of them, are a buffer, so that they count in :func:`calipers.models.digest`.
    """

    source: Tensor
    no_gradient = True

    def __init__(self, source: bytes, classes: int | None = None) -> None:
        super().__init__()
        self.classes = classes
        self.register_buffer("source", torch.frombuffer(bytearray(source), dtype=torch.uint8))
        self.eval()

    @abstractmethod
    def answer(self, x: NDArray[Any]) -> NDArray[Any]:
        """Scores (N, K), or labels (N,), of inputs of the caller's shape."""

    def forward(self, x: Tensor) -> Tensor:
        """The same on tensors, in the dtype and on the device of ``x``."""
        # Nothing asked is answered too, with the number of classes.
        given = x.detach() if len(x) else x.new_zeros(1, *x.shape[1:])
        out = torch.from_numpy(np.ascontiguousarray(self.answer(given.cpu().numpy())))[: len(x)]
        if out.dim() == 1 and self.classes is not None:
            out = nn.functional.one_hot(out.long(), self.classes)
        return out.to(x.device, x.dtype)


class OnnxModel(BlackBox):
    """An ONNX network run by onnxruntime on the CPU; a batch size fixed in the file is filled up."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name
        self._open()

    def _open(self) -> None:
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            hint = 'pip install "calipers[onnx]"'
            raise BadInput(
                f"model file {self.name}", expected="onnxruntime to run it", got="none", hint=hint
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(
                self.source.numpy().tobytes(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            # onnxruntime has an exception of its own for every way in which a file can be wrong.
            raise BadInput(
                f"model file {self.name}", expected="an ONNX model", got=str(error).splitlines()[0]
            ) from error
        inputs = self.session.get_inputs()
        if len(inputs) != 1:
            raise BadInput(f"inputs of {self.name}", expected="one", got=", ".join(i.name for i in inputs) or "none")
        self.input = inputs[0]
        scores = [o for o in self.session.get_outputs() if "float" in o.type or "double" in o.type]
        labels = [o for o in self.session.get_outputs() if "int" in o.type]
        plain = [o for o in (*scores, *labels) if o.type.startswith("tensor")]
        if not plain:
            got = ", ".join(o.type for o in self.session.get_outputs())
            hint = "scikit-learn converters leave the probabilities as a tensor with zipmap=False"
            raise BadInput(f"outputs of {self.name}", expected="a tensor of scores or labels", got=got, hint=hint)
        self.output, self.labels = plain[0].name, plain[0] in labels

    def __getstate__(self) -> dict[str, Any]:
        # A session stays in its process; the bytes travel.
        return {key: value for key, value in self.__dict__.items() if key not in ("session", "input")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._open()

    def answer(self, x: NDArray[Any]) -> NDArray[Any]:
        kind = {"tensor(double)": np.float64, "tensor(float16)": np.float16}.get(self.input.type, np.float32)
        batch, *shape = self.input.shape
        # The file's own shape where it says one: flat inputs are as welcome as images.
        known = all(isinstance(side, int) for side in shape) and np.prod(shape) == np.prod(x.shape[1:])
        x = (x.reshape(len(x), *shape) if known else x).astype(kind)
        size = batch if isinstance(batch, int) and batch > 0 else max(len(x), 1)
        parts = []
        for first in range(0, len(x), size):
            part = x[first : first + size]
            full = np.concatenate([part, np.zeros((size - len(part), *x.shape[1:]), x.dtype)])
            try:
                found = self.session.run([self.output], {self.input.name: full})[0]
            except Exception as error:
                got = f"shape {full.shape}: {str(error).splitlines()[0]}"
                raise BadInput(f"input of {self.name}", expected=f"shape {self.input.shape}", got=got) from error
            parts.append(found[: len(part)])
        answers: NDArray[Any] = np.concatenate(parts)
        return answers.reshape(-1) if self.labels else answers

    def extra_repr(self) -> str:
        """Its bytes are in the digest, so the name need not be."""
        return f"input {self.input.name}, output {self.output}"


class EstimatorModel(BlackBox):
    """A fitted scikit-learn classifier as it is: its decision function, its probabilities, or its labels alone.

    The largest score is always that of the class that ``predict`` names: where the two differ (an SVC's votes, a
    nearest centroid's priors) their scores change places.
    """

    def __init__(self, estimator: Any) -> None:
        # What was pickled once or twice pickles alike: only then do equal estimators have equal bytes.
        settled = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(estimator))))
        super().__init__(pickle.dumps(settled), len(estimator.classes_))
        self.estimator = estimator
        kinds = ("decision_function", "predict_proba")
        self.kind = next((kind for kind in kinds if hasattr(estimator, kind)), "predict")

    def answer(self, x: NDArray[Any]) -> NDArray[Any]:
        flat = x.reshape(len(x), -1)
        with warnings.catch_warnings():
            # An estimator fitted on a data frame warns about plain arrays.
            warnings.filterwarnings("ignore", message=".*feature names")
            label: NDArray[Any] = np.searchsorted(self.estimator.classes_, self.estimator.predict(flat))
            if self.kind == "predict":
                return label
            scores: NDArray[Any] = getattr(self.estimator, self.kind)(flat)
        if scores.ndim == 1:
            # One score f for two classes: the logits (−f/2, f/2), as for the linear ones.
            scores = np.stack([-scores / 2, scores / 2], 1)
        if scores.shape[1] != self.classes:
            # Scores of pairs of classes say nothing about the classes.
            return label
        row, first = np.arange(len(x)), scores.argmax(1)
        scores = np.array(scores)
        scores[row, first], scores[row, label] = scores[row, label], scores[row, first]
        return scores

    def extra_repr(self) -> str:
        """Which estimator, and what of it is asked."""
        return f"{type(self.estimator).__name__}.{self.kind}"


def read_onnx(path: Path) -> nn.Module:
    """The network of an ONNX file: with gradients where onnx2torch is installed and agrees, else as a black box."""
    box = OnnxModel(path.read_bytes(), str(path))
    try:
        from onnx2torch import convert
    except ModuleNotFoundError:
        return box
    try:
        network: nn.Module = convert(str(path)).eval()
        shape = [side if isinstance(side, int) and side > 0 else 2 for side in box.input.shape]
        probe = torch.linspace(0, 1, int(np.prod(shape))).reshape(shape)
        with torch.no_grad():
            agree = torch.allclose(network(probe), box(probe), rtol=1e-3, atol=1e-4)
    except Exception:
        # Whatever it cannot convert or run is still a black box.
        return box
    return network if agree else box
