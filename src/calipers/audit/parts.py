"""The brackets of a shard as plain columns and arrays, which can be stored, and back again."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from calipers.audit.cascade import Brackets
from calipers.audit.folder import COLUMNS
from calipers.runner import Part

__all__ = ["brackets_of", "part_of"]


def part_of(brackets: Brackets, x: Tensor) -> Part:
    """Rows, and the witnesses of those examples for which something was found."""
    columns = {name: np.asarray(getattr(brackets, name)) for name in COLUMNS}
    found = (brackets.upper.isfinite() & (brackets.upper > 0)).nonzero()[:, 0]
    arrays = {
        "index": brackets.index[found].numpy(),
        "clean": x[found].cpu().numpy(),
        "adversarial": brackets.adversarial[found].numpy(),
        "predicted": brackets.fooled[found].numpy(),
    }
    # Notes of one name are merged to the last one: what ended is told shard by shard.
    notes = {"refused": brackets.refused, f"ended {int(brackets.index[0])}": brackets.ended}
    return Part(table=columns, arrays=arrays, notes=notes)


def brackets_of(part: Part, x: Tensor) -> Brackets:
    """The brackets that a part was made of, to go on with."""
    columns: dict[str, Any] = {
        name: column.astype(object) if name in ("certificate", "attack") else torch.from_numpy(np.array(column))
        for name, column in part.table.items()
        if name in COLUMNS
    }
    adversarial, fooled = x.cpu().clone(), columns["predicted"].clone()
    place = {int(index): row for row, index in enumerate(columns["index"])}
    found = torch.tensor([place[int(index)] for index in part.arrays["index"]], dtype=torch.int64)
    adversarial[found] = torch.from_numpy(np.array(part.arrays["adversarial"])).to(adversarial.dtype)
    fooled[found] = torch.from_numpy(np.array(part.arrays["predicted"]))
    refused, ended = dict(part.notes["refused"]), list(part.notes[f"ended {int(columns['index'][0])}"])
    return Brackets(**columns, adversarial=adversarial, fooled=fooled, refused=refused, ended=ended)
