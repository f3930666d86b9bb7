"""Labelled examples that know their box, class names, shape and provenance."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from calipers.errors import BadInput
from calipers.runner.files import atomic_write
from calipers.threats import Box

__all__ = ["DataSet", "digest"]


@dataclass(frozen=True, eq=False)
class DataSet:
    r"""Inputs, labels, and everything one must know to use them.

    Arguments:
        name: what it was asked for as, e.g. ``"mnist"``.
        x: inputs, float, shape (N, \*shape), inside ``box``.
        y: labels 0…K−1, int64, shape (N,).
        class_names: K names.
        box: the values an input may take.
        provenance: where the numbers come from: file names, checksums, scaling.
        index: the position of every example in the original data set, shape (N,): the key of all results.

    Example:
        >>> some = DataSet("toy", torch.zeros(3, 2), torch.tensor([0, 1, 0]), ("no", "yes"))
        >>> some.shape, len(some), some.take(2).index.tolist()
        ((2,), 3, [0, 1])
    """

    name: str
    x: Tensor
    y: Tensor
    class_names: tuple[str, ...]
    box: Box = field(default_factory=Box)
    provenance: dict[str, str] = field(default_factory=dict)
    index: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise BadInput(f"data set {self.name}", expected="as many labels as inputs",
                           got=f"{len(self.x)} inputs and {len(self.y)} labels")  # fmt: skip
        if len(self.index) != len(self.x):
            object.__setattr__(self, "index", torch.arange(len(self.x)))

    def __len__(self) -> int:
        return len(self.x)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return tuple(self.x.shape[1:])

    def take(self, n: int | None) -> DataSet:
        """The first ``n`` examples, in order; all of them for ``None``.

        Raises:
            BadInput: if n < 1 or more than there are.
        """
        if n is None:
            return self
        if not 1 <= n <= len(self):
            raise BadInput(f"number of examples of {self.name}", expected=f"1…{len(self)}", got=n)
        return replace(self, x=self.x[:n], y=self.y[:n], index=self.index[:n])

    def held_out(self) -> tuple[DataSet, DataSet]:
        """Examples to train on, and every fifth one (index % 5 == 0) to test on.

        Example:
            >>> some = DataSet("toy", torch.zeros(6, 2), torch.tensor([0, 1, 0, 1, 0, 1]), ("no", "yes"))
            >>> [part.index.tolist() for part in some.held_out()]
            [[1, 2, 3, 4], [0, 5]]
        """
        test = self.index % 5 == 0
        parts = {"train": ~test, "test": test}
        return tuple(  # type: ignore[return-value]
            replace(self, x=self.x[some], y=self.y[some], index=self.index[some],
                    provenance=self.provenance | {"split": f"{name}: index % 5 {'!=' if name == 'train' else '=='} 0"})
            for name, some in parts.items()
        )  # fmt: skip

    def save(self, path: Path) -> None:
        """``FILE.npz`` that :func:`calipers.data.load` reads again; the index is lost.

        Arguments:
            path: the file.
        """
        buffer = io.BytesIO()
        lo, hi = (side.numpy(force=True) for side in self.box.sides(self.x))
        np.savez_compressed(buffer, x=self.x.numpy(force=True), y=self.y.numpy(force=True),
                            class_names=np.array(self.class_names), lo=lo, hi=hi)  # fmt: skip
        atomic_write(path, buffer.getvalue())


def digest(dataset: DataSet) -> str:
    """The sha256 of inputs and labels: dtype, shape and bytes of each. Name, box and provenance do not count.

    Arguments:
        dataset: any data set.

    Example:
        >>> some = DataSet("toy", torch.zeros(2, 2), torch.tensor([0, 1]), ("no", "yes"))
        >>> digest(some)[:8], digest(some.take(1)) == digest(some)
        ('8bab8fe6', False)
    """
    hashed = hashlib.sha256()
    for part in (dataset.x, dataset.y):
        hashed.update(f"{part.dtype} {tuple(part.shape)}\n".encode())
        hashed.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return hashed.hexdigest()
