"""On MNIST: an honest robust network passes every check, and one that is robust to a weak attack alone is found out."""

import os
from pathlib import Path

import pytest
import torch

from calipers.attacks import pgd
from calipers.audit import audit
from calipers.threats import Threat
from tests.zoo.mnist import mnist_inputs

pytestmark = [
    pytest.mark.mnist,
    pytest.mark.skipif(
        not (Path(os.environ.get("CALIPERS_DATA", "")) / "mnist").is_dir(),
        reason="MNIST is not under $CALIPERS_DATA",
    ),
]


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.3), ("l2", 1.5)])
def test_no_check_fails_on_an_honest_robust_network(norm, eps):
    run = audit(mnist_inputs("robust-0.3", 40), norm=norm, eps=[eps], budget="standard")
    assert [(check.id, check.evidence) for check in run.checks if not check.passed] == []
    assert run.summary.trusted
    assert run.summary.reaction is None
    assert run.summary.threats[0].not_broken > 0.5


def test_a_network_that_overfitted_to_a_weak_attack():
    """Section 3.3 of "Towards Deep Learning Models Resistant to Large Perturbations", at eps = half the box.

    No network can hold more there than its largest class, as all images share the grey one: the answer to it.
    """
    given = mnist_inputs("weak-0.5", 100)
    model, x, y = given.model, given.data.x, given.data.y
    weak = pgd(model, x, y, Threat("linf", 0.5), steps=3, loss="ce-raw").success
    assert float((~weak).double().mean()) > 0.7, "the attack of its training"
    run = audit(given, norm="linf", eps=[0.5], budget="quick")
    failed = {check.id for check in run.checks if not check.passed}
    assert {"contrast-is-weaker", "no-more-than-possible"} <= failed
    (band,), largest = run.summary.threats, float(torch.bincount(y).max()) / len(y)
    assert run.summary.reaction.before[0] > largest >= band.not_broken
