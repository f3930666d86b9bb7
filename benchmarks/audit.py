"""The audit as a whole: the demo's seconds and memory, and how it grows with the number of examples."""

from __future__ import annotations

import resource
import time

from calipers.audit import audit, open_inputs

__all__ = ["main"]


def _timed(examples: int | None, model: str, data: str, norm: str, eps: list[float]) -> tuple[float, int]:
    inputs = open_inputs(model, data, examples=examples)
    start = time.perf_counter()
    audit(inputs, norm=norm, eps=eps)
    return time.perf_counter() - start, len(inputs.data)


def main() -> None:
    """Print the demo's figures, then MNIST at three sizes."""
    seconds, n = _timed(None, "digits-mlp", "digits", "linf", [0.02, 0.05, 0.1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"demo: {n} digits, 3 eps, standard budget: {seconds:.2f} s, peak memory of the process {peak:.0f} MiB")
    for examples in (250, 500, 1000):
        seconds, n = _timed(examples, "tests.factories:mnist_cnn", "mnist", "linf", [0.1])
        print(f"MNIST, {n} images, eps 0.1, standard budget: {seconds:.1f} s, {n / seconds:.1f} examples/s")
    print(f"peak memory of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
