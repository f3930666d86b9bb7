"""Memory that is freed is kept for the next tensor, where the C library can be told so."""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["keep_freed_memory"]

# mallopt's numbers for these, and what they are set to: no tensor below 1 GB gets pages of its own, none is given back.
_LIMITS = {
    "MALLOC_MMAP_THRESHOLD_": (-3, 2**30),
    "MALLOC_TRIM_THRESHOLD_": (-1, 2**31 - 1),
    "MALLOC_TOP_PAD_": (-2, 2**26),
}


def keep_freed_memory() -> None:
    """Let glibc hand large tensors out of memory that is there already: new pages cost half the time of an audit.

    Here by ``mallopt``, in worker processes by their environment; what the user has set stays. Elsewhere nothing.

    Example:
        >>> keep_freed_memory()
    """
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return
    for name, (number, limit) in _LIMITS.items():
        if name not in os.environ:
            library.mallopt(number, limit)
            os.environ[name] = str(limit)
