"""Shared by all tests: one thread, so that workers do not fight, and the same property-based examples every time.

HYPOTHESIS_PROFILE=explore draws new ones.
"""

import os

import torch
from hypothesis import settings

torch.set_num_threads(1)

settings.register_profile("repeat", derandomize=True, database=None, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))
