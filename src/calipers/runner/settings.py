"""The settings of a run as one fingerprint, and what two settings differ in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["differences", "fingerprint"]


def fingerprint(settings: Mapping[str, Any]) -> str:
    """sha256 of the canonical JSON: the same settings in any order give the same fingerprint.

    Example:
        >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
        True
    """
    text = json.dumps(settings, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Which settings differ, in words.

    Example:
        >>> differences({"eps": 0.1, "seed": 0}, {"eps": 0.2, "seed": 0})
        ['eps: 0.1 then, 0.2 now']
    """
    names = sorted({*old, *new})
    return [f"{n}: {old.get(n)} then, {new.get(n)} now" for n in names if old.get(n) != new.get(n)]
