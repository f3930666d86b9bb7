"""Operator norms are true upper bounds, and tight where they should be."""

import math

import pytest
import torch
from torch.nn import functional as F

from calipers.certificates import convolution_norm, matrix_norm


def dense(kernel: torch.Tensor, size: int, stride: int, padding: int, groups: int, dilation: int) -> torch.Tensor:
    """The matrix of a convolution on size × size images, by convolving every unit image."""
    channels = kernel.shape[1] * groups
    d = channels * size * size
    eye = torch.eye(d, dtype=torch.float64).view(d, channels, size, size)
    return F.conv2d(eye, kernel, None, stride, padding, dilation, groups).flatten(1).T


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (1, 5), (20, 20)])
def test_matrix_norms_against_numpy(shape):
    w = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for name, order in (("linf", math.inf), ("l2", 2), ("l1", 1)):
        exact = float(torch.linalg.matrix_norm(w, ord=order))
        assert exact <= matrix_norm(w, name) <= exact * (1 + 1e-8)


def test_the_zero_matrix_has_norm_zero():
    assert matrix_norm(torch.zeros(3, 4), "l2") == 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("shape", "stride", "padding", "groups", "dilation"),
    [
        ((4, 2, 3, 3), 1, 1, 1, 1),
        ((4, 2, 3, 3), 2, 0, 1, 1),
        ((4, 3, 5, 5), 1, 2, 1, 1),
        ((4, 1, 3, 3), 1, 1, 2, 1),
        ((2, 3, 1, 1), 1, 0, 1, 1),
        ((3, 2, 2, 3), 1, 0, 1, 2),
    ],
)
def test_convolution_norms_are_upper_bounds(shape, stride, padding, groups, dilation, seed):
    kernel = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    matrix = dense(kernel, 9, stride, padding, groups, dilation)
    for name, order in (("linf", math.inf), ("l2", 2), ("l1", 1)):
        exact = float(torch.linalg.matrix_norm(matrix, ord=order))
        ours = convolution_norm(kernel, name, groups, (dilation, dilation))
        assert exact <= ours * (1 + 1e-12)
        if stride == 1 and padding:
            assert ours <= exact * 1.25


def test_a_large_image_comes_close_to_the_bound_in_l2():
    kernel = torch.randn(3, 2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = float(torch.linalg.matrix_norm(dense(kernel, 24, 1, 1, 1, 1), ord=2))
    assert exact <= convolution_norm(kernel, "l2") <= exact * 1.03


def test_the_grid_correction_is_needed_and_enough():
    """A kernel whose symbol peaks between grid points: the plain grid maximum is below the norm."""
    g = torch.Generator().manual_seed(0)
    worst = 0.0
    for _ in range(20):
        kernel = torch.randn(1, 1, 1, 5, generator=g, dtype=torch.float64)
        fine = float(torch.fft.fft(kernel.flatten(), n=100_000).abs().max())
        ours = convolution_norm(kernel, "l2")
        assert fine <= ours
        worst = max(worst, fine / ours)
    assert worst > 0.98
