"""The ensembles: what they find is real, what they say they did is what they did, and easy examples cost little."""

import pytest
import torch
from torch import nn

from calipers.attacks import LOSSES, auto, differentiable, pgd, reference
from calipers.errors import BadInput
from calipers.models import Classifier, references
from calipers.threats import Threat
from tests.attacks.conformance import examples, small_net
from tests.attacks.test_conformance import EPS, judged

SMALL = {"steps": 10, "targets": 2, "queries": 40}


class Opaque(nn.Module):
    """The same function without a gradient."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.inner(x)


@pytest.mark.parametrize("norm", EPS)
@pytest.mark.parametrize("smooth", [True, False], ids=["gradients", "scores"])
def test_auto_finds_real_witnesses_and_says_by_what(norm, smooth):
    net = small_net((7,), 4, torch.float64)
    model = net if smooth else Classifier.of(Opaque(net.module).eval(), shape=(7,))
    assert differentiable(model, torch.zeros(1, 7, dtype=torch.float64)) == smooth
    x, y = examples(net, 9)
    y[3] = (y[3] + 1) % 4
    found = auto(model, x, y, Threat(norm, EPS[norm]), least_gain=1e-3)
    judged(found, model, x, y, norm)
    assert [bool(by) for by in found.by] == found.success.tolist()
    assert sum(stage.broke for stage in found.stages) == int(found.success.sum())
    assert sum(stage.gradients for stage in found.stages) == int(found.gradients.sum())
    assert sum(stage.forwards for stage in found.stages) == int(found.forwards.sum())
    assert smooth or found.gradients.sum() == 0


def test_batch_size_and_order_change_nothing():
    model = small_net((2, 3, 5), 5, torch.float64)
    x, y = examples(model, 11)
    index, order = torch.arange(11), torch.tensor([7, 2, 10, 0, 4, 9, 1, 3, 8, 6, 5])
    threat = Threat("linf", 0.1)
    whole = auto(model, x, y, threat, index=index, least_gain=1e-3)
    small = auto(model, x, y, threat, index=index, batch_size=3, least_gain=1e-3)
    shuffled = auto(model, x[order], y[order], threat, index=index[order], least_gain=1e-3)
    assert torch.equal(whole.distance, small.distance)
    assert torch.equal(whole.success[order], shuffled.success)
    assert whole.stages == small.stages


def test_the_ensembles_break_what_a_part_of_them_breaks_and_nothing_that_the_truth_forbids():
    for r in references():
        if r.classifier.classes > 10:
            continue
        exact = r.radius["linf"]
        eps = float(exact[exact.isfinite()].median()) if exact.isfinite().any() else 0.5
        threat = Threat("linf", max(eps, 1e-3))
        for found in (auto(r.classifier, r.x, r.y, threat, least_gain=1e-3),
                      reference(r.classifier, r.x, r.y, threat, **SMALL)):  # fmt: skip
            assert (found.distance >= exact).all(), r.classifier.name
            assert (found.success | ~pgd(r.classifier, r.x, r.y, threat, steps=3).success).all(), r.classifier.name


def test_easy_examples_cost_little_and_the_sentence_says_why_it_ended():
    model = next(r for r in references() if r.classifier.name == "affine-2")
    easy = auto(model.classifier, model.x, model.y, Threat("linf", 50.0))
    assert easy.success.all()
    assert easy.gradients.max() <= 3
    assert easy.ended == "nothing stands at eps 50"
    few = auto(model.classifier, model.x, model.y, Threat("linf", 1e-4))
    assert few.ended == "every move was tried on all 6 examples that stand at eps 0.0001"
    net = small_net((7,), 4, torch.float64)
    x, y = examples(net, 40)
    hard = auto(net, x, y, Threat("linf", 1e-6), least_gain=1e-3)
    assert not hard.success.any()
    assert "promises" in hard.ended
    assert "less than 0.001" in hard.ended
    dear = auto(net, x, y, Threat("linf", 1e-6), least_gain=1e-4)
    assert dear.forwards.sum() > hard.forwards.sum()


def test_reference_runs_the_published_attacks_on_what_stands():
    model = small_net((7,), 4, torch.float64)
    x, y = examples(model, 9)
    found = reference(model, x, y, Threat("l2", 0.05), **SMALL)
    names = [stage.attack for stage in found.stages]
    assert names == ["apgd-ce", "apgd-targeted", "fab-targeted", "square"]
    tried, broke = [s.tried for s in found.stages], [s.broke for s in found.stages]
    assert tried == [9 - sum(broke[:i]) for i in range(4)]


def test_two_classes_are_enough():
    model = small_net((5,), 2, torch.float64)
    x, y = examples(model, 5)
    judged(reference(model, x, y, Threat("linf", 0.1), **SMALL), model, x, y, "linf")
    assert "dlr" in LOSSES


def test_bad_input_is_a_sentence():
    model = small_net((5,), 3, torch.float64)
    x, y = examples(model, 3)
    with pytest.raises(BadInput, match="threat of reference: expected an eps, got none; fmn and fab seek"):
        reference(model, x, y, Threat("linf"))
    with pytest.raises(BadInput, match="norm of reference: expected linf, l2 or l1, got 'l0'; auto takes l0"):
        reference(model, x, y, Threat("l0", 2.0))
    with pytest.raises(BadInput, match="least_gain of auto: expected a number > 0"):
        auto(model, x, y, Threat("linf", 0.1), least_gain=0.0)
