"""The brackets of a shard as plain columns and arrays, which can be stored, and back again."""

from __future__ import annotations

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
    return Part(table=columns, arrays=arrays, notes={"refused": brackets.refused})


def brackets_of(part: Part, x: Tensor) -> Brackets:
    """The brackets that a part was made of, to go on with."""
    table = {name: np.array(column) for name, column in part.table.items()}
    names = {name: table.pop(name).astype(object) for name in ("certificate", "attack")}
    columns = {name: torch.from_numpy(column) for name, column in table.items()}
    adversarial, fooled = x.cpu().clone(), columns["predicted"].clone()
    place = {int(index): row for row, index in enumerate(columns["index"])}
    found = torch.tensor([place[int(index)] for index in part.arrays["index"]], dtype=torch.int64)
    adversarial[found] = torch.from_numpy(np.array(part.arrays["adversarial"])).to(adversarial.dtype)
    fooled[found] = torch.from_numpy(np.array(part.arrays["predicted"]))
    refused = dict(part.notes["refused"])
    return Brackets(**columns, **names, adversarial=adversarial, fooled=fooled, refused=refused)
