"""One line of somebody's test suite: it passes and fails where the closed form of an affine model says so."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from calipers.errors import BadInput
from calipers.testing import assert_robust


@pytest.fixture(scope="module")
def affine():
    """Half the examples have the exact L∞ radius 0.1, half 0.3."""
    net = nn.Linear(2, 2, bias=False)
    net.weight = nn.Parameter(5 * torch.eye(2))
    x = torch.tensor([[0.6, 0.4], [0.8, 0.2]]).repeat(10, 1)
    return net.eval(), x, torch.zeros(20, dtype=torch.int64)


def test_it_agrees_with_the_closed_form_on_both_sides(affine):
    net, x, y = affine
    for eps, fraction in ((0.09, 1.0), (0.11, 0.5), (0.29, 0.5), (0.31, 0.0)):
        run = assert_robust(net, x, y, norm="linf", eps=eps, proved=fraction, not_broken=fraction)
        assert run.summary.threats[0].proved == fraction
        if fraction < 1:
            with pytest.raises(AssertionError, match=f"expected at least {fraction + 0.01:g} proved, got {fraction:g}"):
                assert_robust(net, x, y, norm="linf", eps=eps, proved=fraction + 0.01)


def test_the_complaint_names_the_examples(affine):
    net, x, y = affine
    with pytest.raises(AssertionError, match=r"attacked: examples 0, 2, 4, 6, 8, …$"):
        assert_robust(net, x, y, norm="linf", eps=0.2, not_broken=1.0)


def test_untrusted_numbers_fail_too(affine):
    net, x, y = affine
    sure = nn.Sequential(net, nn.Softmax(1)).eval()
    with pytest.raises(AssertionError, match=r"cannot be trusted: .*outputs-are-logits"):
        assert_robust(sure, x, y, norm="linf", eps=0.01, not_broken=0.5)
    assert_robust(sure, x, y, norm="linf", eps=0.01, not_broken=0.5, trusted=False)


def test_scikit_learn_labels_are_its_own(affine):
    _, x, _ = affine
    x, y = np.concatenate([x.numpy(), 1 - x.numpy()]), np.array(["no"] * 20 + ["yes"] * 20)
    fitted = LogisticRegression(C=1e4).fit(x, y)
    assert_robust(fitted, x, y, norm="l2", eps=0.1, proved=1.0, box=(0, 1))
    with pytest.raises(AssertionError, match=r"expected at least 0\.01 not broken, got 0"):
        assert_robust(fitted, x, np.where(y == "no", "yes", "no"), norm="l2", eps=0.1, not_broken=0.01, trusted=False)
    with pytest.raises(BadInput, match="members of classes_"):
        assert_robust(fitted, x, np.array(["maybe"] * 40), norm="l2", eps=0.1, proved=1.0)


def test_promises_that_mean_nothing_are_refused(affine):
    net, x, y = affine
    with pytest.raises(BadInput, match="proved= or not_broken="):
        assert_robust(net, x, y, norm="linf", eps=0.1)
    with pytest.raises(BadInput, match="a fraction from 0 to 1, got 80"):
        assert_robust(net, x, y, norm="linf", eps=0.1, proved=80)
    with pytest.raises(BadInput, match="labels"):
        assert_robust(net, x, y.float(), norm="linf", eps=0.1, proved=0.8)


def test_the_callers_model_is_left_as_it_was(affine):
    net, x, y = affine
    before = torch.get_rng_state()
    assert_robust(net, x.numpy(), y.numpy(), norm="linf", eps=0.05, proved=1.0)
    assert torch.equal(before, torch.get_rng_state())
    assert net.weight.requires_grad
    assert net.weight.grad is None
