"""The folder a training leaves behind, read as a model: its weights, and train.json, which knows their architecture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from calipers.errors import BadInput

__all__ = ["ABOUT", "WEIGHTS", "about", "folder_of"]

# What a training leaves behind: audits load it, and other trainings start from it.
WEIGHTS, ABOUT = "weights.safetensors", "train.json"


def about(folder: Path) -> dict[str, Any]:
    """The ``train.json`` of an earlier training.

    Raises:
        BadInput: if the folder is not one of a training.
    """
    try:
        told: dict[str, Any] = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise BadInput(f"training in {folder}", expected=f"its {ABOUT}", got=error) from error
    return told


def folder_of(spec: str) -> Path | None:
    """The folder of a training, if ``spec`` names one or the weights in it.

    Example:
        >>> folder_of("weights.safetensors-of-somebody-else") is None
        True
    """
    path = Path(spec).expanduser()
    folder = path.parent if path.name == WEIGHTS else path
    return folder if (folder / ABOUT).is_file() else None
