"""Attacks of other libraries: their claims are judged, their cost is counted, their words are understood."""

import sys
import warnings
from importlib.metadata import EntryPoint

import pytest
import torch
from torch import nn

from calipers.attacks import ATTACKS, ForeignName, find_attack, foreign, pgd
from calipers.errors import BadInput
from calipers.models import Classifier
from calipers.threats import Threat, inside
from tests.attacks.conformance import examples, small_net
from tests.attacks.test_conformance import judged

THREAT = Threat("linf", 0.15)


def image_net() -> Classifier:
    return small_net((1, 5, 5), 4, torch.float32)


def test_a_wrong_claim_costs_the_claimant_its_witness():
    model = image_net()
    x, y = examples(model, 7)
    clean = foreign(lambda x, y: x)(model, x, y, THREAT)
    assert not clean.success.any()
    far = foreign(lambda x, y: 1 - x)(model, x, y, THREAT)
    judged(far, model, x, y, "linf")
    assert inside(far.adversarial, x, 0.15, "linf", model.box).all()
    with pytest.raises(BadInput, match="proposed witnesses: expected finite numbers"):
        foreign(lambda x, y: x * torch.nan)(model, x, y, THREAT)
    with pytest.raises(BadInput, match="expected one of Foolbox, torchattacks or ART"):
        foreign("pgd")


def test_what_it_spends_is_counted():
    model = image_net()
    x, y = examples(model, 6)

    def three_steps(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        z = x
        for _ in range(3):
            z = z.detach().requires_grad_()
            loss = nn.functional.cross_entropy(model.module(z), y, reduction="sum")
            z = (z + 0.05 * torch.autograd.grad(loss, z)[0].sign()).clamp(0, 1)
        return z.detach()

    found = foreign(three_steps)(model, x, y, THREAT, batch_size=4)
    ours = foreign(lambda x, y: x)(model, x, y, THREAT)
    assert (found.gradients == 3).all()
    assert (found.forwards[~found.success] == ours.forwards[~found.success] + 3).all()


def test_foolbox_and_art_are_witnesses_where_they_are_installed():
    model = image_net()
    x, y = examples(model, 6)
    weak = pgd(model, x, y, THREAT, steps=1)
    tried = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import foolbox

            found = foreign(foolbox.attacks.LinfPGD(steps=10))(model, x, y, THREAT)
            judged(found, model, x, y, "linf")
            assert found.success.sum() >= weak.success.sum() - 1
            tried += 1
        except ImportError:
            pass
        try:
            from art.attacks.evasion import FastGradientMethod
            from art.estimators.classification import PyTorchClassifier

            theirs = PyTorchClassifier(
                model.module, nn.CrossEntropyLoss(), (1, 5, 5), 4, clip_values=(0, 1), device_type="cpu"
            )
            found = foreign(FastGradientMethod(theirs, eps=0.15))(model, x, y, THREAT)
            judged(found, model, x, y, "linf")
            tried += 1
        except ImportError:
            pass
    if not tried:
        pytest.skip("neither Foolbox nor ART is installed")


def test_words_of_other_libraries_are_understood_with_a_notice_and_not_twice():
    model = image_net()
    x, y = examples(model, 4)
    called = find_attack("pgd", ATTACKS)
    with pytest.warns(ForeignName, match="eps_step is called step_size here; taken as step_size=0.1"):
        theirs = called(model, x, y, THREAT, eps_step=0.1, steps=3)
    assert torch.equal(theirs.distance, pgd(model, x, y, THREAT, step_size=0.1, steps=3).distance)
    with pytest.raises(BadInput, match="max_iter of pgd: expected steps once, got both"):
        called(model, x, y, THREAT, max_iter=3, steps=3)
    with pytest.raises(BadInput, match=r"pgd: expected options it knows, got .colour."):
        called(model, x, y, THREAT, colour=3)
    with pytest.raises(BadInput, match="did you mean 'square'"):
        find_attack("sqare", ATTACKS)


def test_a_plugin_is_found_by_its_name(monkeypatch):
    point = EntryPoint("mine", "calipers.attacks:fgsm", "calipers.attacks")
    # The package's function of the same name hides the module.
    monkeypatch.setattr(sys.modules["calipers.attacks.foreign"], "plugins", lambda: {"mine": point, "pgd": point})
    model = image_net()
    x, y = examples(model, 4)
    mine = find_attack("mine", ATTACKS)(model, x, y, THREAT)
    assert torch.equal(mine.distance, ATTACKS["fgsm"](model, x, y, THREAT).distance)
    ours = find_attack("pgd", ATTACKS)(model, x, y, THREAT)
    assert torch.equal(ours.distance, pgd(model, x, y, THREAT).distance)
