"""Shards, seeds, resume, merge: long work cut in pieces that survive a kill. Knows no robustness."""

from calipers.runner.draws import Draws
from calipers.runner.files import atomic_write
from calipers.runner.settings import differences, fingerprint
from calipers.runner.shards import Part, Work, check_workers, merge, run_shards

__all__ = [
    "Draws",
    "Part",
    "Work",
    "atomic_write",
    "check_workers",
    "differences",
    "fingerprint",
    "merge",
    "run_shards",
]
