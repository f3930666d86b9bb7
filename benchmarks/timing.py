"""Interleaved repeats and their medians: A B C, A B C, …, so that a drifting machine drifts for all."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import TypeVar

import torch

__all__ = ["Contender", "race"]

Contender = Callable[[], float]
T = TypeVar("T")


def race(contenders: dict[str, Callable[[], T]], repeats: int = 5) -> dict[str, tuple[float, T]]:
    """Seconds (the median) and what each contender returns (its robust accuracy, say), after one warm-up round."""
    for run in contenders.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    answers: dict[str, T] = {}
    for _ in range(repeats):
        for name, run in contenders.items():
            start = time.perf_counter()
            answers[name] = run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
    return {name: (median(times), answers[name]) for name, times in seconds.items()}
