"""Shared by all tests: one thread, so that workers do not fight and numbers repeat."""

import torch

torch.set_num_threads(1)
