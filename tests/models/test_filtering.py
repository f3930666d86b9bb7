"""Minimal filtering is the same convolution, with the same input gradient, in fewer products."""

import pytest
import torch
from torch import nn

from calipers.models.filtering import RowFilter, _Rows


def layer_of(c_in, c_out, kernel, padding, bias=True):
    with torch.random.fork_rng():
        torch.random.manual_seed(c_in + c_out)
        return nn.Conv2d(c_in, c_out, kernel, padding=padding, bias=bias)


@pytest.mark.parametrize("size", [(14, 14), (7, 10), (3, 5), (23, 6)], ids=str)
@pytest.mark.parametrize(
    ("kernel", "padding"), [(5, 2), (3, 1), (3, 0), ((3, 5), (2, 0)), ((2, 3), (1, 2)), (7, 3), (1, 0)], ids=str
)
def test_it_is_the_convolution_and_its_input_gradient(kernel, padding, size):
    layer = layer_of(6, 4, kernel, padding, bias=size[0] % 2 == 0)
    if any(n + 2 * p < k for n, p, k in zip(size, layer.padding, layer.kernel_size, strict=True)):
        pytest.skip("the kernel does not fit")
    x = torch.rand(3, 6, *size, generator=torch.Generator().manual_seed(1)).requires_grad_()
    exact = x.detach().double().requires_grad_()
    ours, truth = RowFilter(layer)(x), layer.double()(exact)
    direction = torch.linspace(-1, 1, truth.numel()).view_as(truth)
    (grad,) = torch.autograd.grad((ours * direction).sum(), x)
    (true_grad,) = torch.autograd.grad((truth * direction.double()).sum(), exact)
    for value, right in ((ours, truth), (grad, true_grad)):
        assert value.shape == right.shape
        assert (value - right).abs().max() <= 1e-5 * right.abs().max()


def test_it_saves_two_products_of_three_and_rounds_a_few_times_more():
    layer = layer_of(32, 64, 5, 2)
    rows = _Rows(layer.weight.detach(), (2, 2))
    # 14 rows of outputs: two tiles of 7 outputs and 11 products, where 5 times 14 are usual.
    assert (rows.pairs(14), rows.form(14).gather.shape) == (5, (22, 14))
    x = torch.rand(8, 32, 14, 14, generator=torch.Generator().manual_seed(0))
    exact = nn.functional.conv2d(x.double(), layer.weight.double(), layer.bias.double(), padding=2)
    off, usual = ((y - exact).square().mean().sqrt() for y in (RowFilter(layer)(x), layer(x)))
    assert 0 < off <= 40 * usual


@pytest.mark.parametrize(
    ("channels", "kernel", "height", "pays"),
    [((32, 64), 5, 14, True), ((64, 32), 5, 14, True), ((20, 50), 5, 12, True), ((128, 128), 3, 16, True),
     ((8, 16), 5, 14, False), ((16, 16), 3, 32, False), ((32, 64), 3, 7, False), ((256, 256), 1, 14, False),
     ((32, 64), (5, 1), 4, False)],
    ids=str,
)  # fmt: skip
def test_it_is_used_where_it_was_measured_to_pay(channels, kernel, height, pays):
    filtered = RowFilter(layer_of(*channels, kernel, kernel // 2 if isinstance(kernel, int) else 0))
    x = torch.zeros(1, channels[0], height, height)
    assert filtered.pays(x) == pays
    assert not filtered.pays(x.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert not filtered.pays(x)


def test_it_fits_plain_convolutions_of_stride_1():
    assert RowFilter.fits(nn.Conv2d(4, 4, 3, padding=2))
    others = [{"stride": 2}, {"dilation": 2}, {"groups": 2}, {"padding": 3}, {"padding": "same"},
              {"padding": 1, "padding_mode": "circular"}]  # fmt: skip
    assert not any(RowFilter.fits(nn.Conv2d(4, 4, 3, **other)) for other in others)
