"""Every attack against every law."""

import copy
import warnings

import pytest
import torch
from torch import nn

from calipers.attacks import AttackResult
from calipers.errors import BadInput
from calipers.models import Classifier, ModelInTrainMode, references
from calipers.threats import Box, Threat, distance, dual, inside, norm_of
from tests.attacks.conformance import CONTRACTS, Contract, examples, small_net

EPS = {"linf": 0.15, "l2": 0.4, "l1": 1.0, "l0": 3.0}
general = pytest.mark.parametrize("contract", [c for c in CONTRACTS if not c.affine_only], ids=str)
every = pytest.mark.parametrize("contract", CONTRACTS, ids=str)
fixed = pytest.mark.parametrize("contract", [c for c in CONTRACTS if not c.minimal], ids=str)


def same(a: AttackResult, b: AttackResult, atol: float = 1e-9) -> bool:
    return torch.allclose(a.distance, b.distance, rtol=0, atol=atol, equal_nan=True) and torch.allclose(
        a.adversarial, b.adversarial, rtol=0, atol=max(atol, 1e-9)
    )


def judged(result: AttackResult, model: Classifier, x: torch.Tensor, y: torch.Tensor, norm: str) -> None:
    """What must hold of any result: a fresh call is fooled, the distance is the distance, failures are inf."""
    with torch.no_grad():
        answer = model(result.adversarial).argmax(1)
    found = result.success
    assert torch.equal(answer != y, found)
    assert torch.equal(result.predicted, answer)
    assert torch.equal(result.distance[found], distance(x, result.adversarial, norm)[found])
    assert torch.equal(result.adversarial[~found], x[~found])
    assert result.distance[~found].isinf().all()
    assert model.box.contains(result.adversarial).all()


@general
@pytest.mark.parametrize("shape", [(7,), (2, 3, 5)], ids=str)
@pytest.mark.parametrize("classes", [2, 3, 11])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
def test_witnesses_are_real_and_inside(contract: Contract, shape, classes, dtype):
    model = small_net(shape, classes, dtype)
    x, y = examples(model, 13)
    y[3] = (y[3] + 1) % classes
    for norm in contract.norms:
        result = contract.attack(model, x, y, Threat(norm, EPS[norm]))
        judged(result, model, x, y, norm)
        assert inside(result.adversarial, x, EPS[norm], norm, model.box).all()
        assert result.distance[3] == 0
        assert torch.equal(result.adversarial[3], x[3])


@every
@pytest.mark.parametrize("reference", references(), ids=lambda r: r.classifier.name)
def test_no_witness_is_nearer_than_the_truth(contract: Contract, reference):
    model, x, y = reference.classifier, reference.x, reference.y
    if contract.affine_only and "ball" in model.name:
        pytest.skip("it refuses models that are not affine")
    for norm in contract.norms:
        exact = reference.radius[norm]
        if contract.affine_only:
            distance = contract.attack(model, x, y, Threat(norm)).distance
            assert (distance >= exact).all()
            assert (distance <= exact * (1 + 1e-9)).all()
        else:
            largest = (
                2.0 if norm == "l0" else float(exact[exact.isfinite()].max() * 1.1) if exact.isfinite().any() else 1.0
            )
            assert (contract.attack(model, x, y, Threat(norm, max(largest, 1e-3))).distance >= exact).all()


@every
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_how_closely_an_affine_model_is_met(contract: Contract, classes):
    tight = contract.tight if classes == 2 else contract.many
    if tight is None:
        pytest.skip("the contract promises nothing here")
    g = torch.Generator().manual_seed(5)
    net = nn.Sequential(nn.Linear(19, classes)).double().eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.randn(classes, 19, generator=g, dtype=torch.float64))
        net[0].bias.zero_()
    model = Classifier.of(net, shape=(19,), box=(-50, 50))
    x = torch.rand(7, 19, generator=g, dtype=torch.float64)
    y, logits, weight = model(x).argmax(1), model(x).detach(), net[0].weight.detach()
    for norm in contract.norms:
        if norm == "l0":
            continue
        # The closed form, written out: |f_c − f_j| / ‖w_c − w_j‖_q.
        slopes = torch.linalg.vector_norm(weight[y][:, None] - weight[None], ord=norm_of(dual(norm)), dim=2)
        gaps = logits.gather(1, y[:, None]) - logits
        exact = (gaps / slopes).scatter(1, y[:, None], torch.inf).amin(1)
        if contract.minimal:
            distance = contract.attack(model, x, y, Threat(norm)).distance
            assert (distance >= exact * (1 - 1e-12)).all()
            assert (distance <= exact * (1 + tight)).all()
            continue
        for i in range(len(x)):
            one, radius = (model, x[i : i + 1], y[i : i + 1]), float(exact[i])
            assert contract.attack(*one, Threat(norm, radius * (1 + tight))).success
            assert not contract.attack(*one, Threat(norm, radius * (1 - 1e-9))).success


@general
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("shift", [-10.0, 1000.0])
def test_scaling_and_shifting_the_logits_changes_nothing(contract: Contract, scale, shift):
    if contract.name == "pgd-raw":
        pytest.skip("a raw gradient is as large as the logits: that is what raw means")

    class Moved(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) * scale + shift

    model = small_net((7,), 4, torch.float64)
    moved = Classifier.of(Moved(model.module).eval(), shape=(7,))
    x, y = examples(model, 11)
    for norm in contract.norms:
        plain = contract.attack(model, x, y, Threat(norm, EPS[norm]))
        other = contract.attack(moved, x, y, Threat(norm, EPS[norm]))
        assert torch.equal(plain.success, other.success)
        assert torch.allclose(plain.distance, other.distance, rtol=1e-4)


@general
def test_pixels_at_the_box_can_move(contract: Contract):
    if contract.blind:
        pytest.skip("a search without a direction promises nothing here")
    net = nn.Sequential(nn.Linear(4, 2)).double().eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[0.0, 0, 0, 0], [1.0, -1.0, 1.0, -1.0]]))
        net[0].bias.copy_(torch.tensor([0.0, 1.5]))
    model = Classifier.of(net, shape=(4,))
    x = torch.tensor([[0.0, 1.0, 0.0, 1.0]], dtype=torch.float64)
    y = model(x).argmax(1)
    for norm in contract.norms:
        eps = {"linf": 0.15, "l2": 0.3, "l1": 0.6, "l0": 1.0}[norm]
        assert contract.attack(model, x, y, Threat(norm, eps)).success


@general
def test_an_example_gets_the_same_result_alone_in_any_batch_and_in_any_order(contract: Contract):
    model = small_net((2, 3, 5), 5, torch.float64)
    x, y = examples(model, 11)
    index = torch.arange(11)
    order = torch.tensor([7, 2, 10, 0, 4, 9, 1, 3, 8, 6, 5])
    for norm in contract.norms:
        threat = Threat(norm, EPS[norm])
        whole = contract.attack(model, x, y, threat, index=index)
        small = contract.attack(model, x, y, threat, index=index, batch_size=3)
        shuffled = contract.attack(model, x[order], y[order], threat, index=index[order], batch_size=7)
        alone = contract.attack(model, x[4:5], y[4:5], threat, index=index[4:5])
        assert same(whole, small)
        assert torch.equal(whole.forwards, small.forwards)
        assert torch.equal(whole.gradients, small.gradients)
        assert torch.allclose(whole.distance[order], shuffled.distance, rtol=0, atol=1e-9)
        assert torch.allclose(whole.distance[4:5], alone.distance, rtol=0, atol=1e-9)


@general
def test_batch_mates_do_not_matter_either_where_the_box_is_infinite(contract: Contract):
    """A length taken from the largest input of the batch would make neighbours matter."""
    inner = small_net((7,), 4, torch.float64)
    model = Classifier.of(inner.module, shape=(7,), box=(-torch.inf, torch.inf))
    x, y = examples(inner, 7)
    far = torch.cat([x, 50 * x[:1]])
    labels = model(far).argmax(1)
    index = torch.arange(8)
    for norm in contract.norms:
        for threat in (Threat(norm, EPS[norm]), Threat(norm)):
            if contract.name == "pgd-raw" and threat.eps is None:
                continue
            together = contract.attack(model, far, labels, threat, index=index)
            apart = contract.attack(model, x, y, threat, index=index[:7])
            assert torch.allclose(together.distance[:7], apart.distance, rtol=1e-9)


@fixed
def test_success_is_monotone_along_a_ladder_and_the_ladder_stops_at_the_first(contract: Contract):
    model = small_net((7,), 3, torch.float64)
    x, y = examples(model, 17)
    for norm in contract.norms:
        steps = (1.0, 2.0, 4.0) if norm == "l0" else tuple(EPS[norm] * s for s in (0.3, 0.6, 1.2))
        ladder = contract.attack(model, x, y, Threat(norm, steps))
        judged(ladder, model, x, y, norm)
        for eps in steps:
            one = contract.attack(model, x, y, Threat(norm, eps))
            assert (one.distance[one.success] <= eps).all()
        first = contract.attack(model, x, y, Threat(norm, steps[0]))
        # The ladder's first rung is the attack at that eps, draw for draw.
        assert torch.equal(ladder.distance <= steps[0], first.success)


@fixed
def test_more_restarts_never_give_a_worse_bound(contract: Contract):
    model = small_net((7,), 3, torch.float64)
    x, y = examples(model, 23)
    for norm in contract.norms:
        few = contract.attack(model, x, y, Threat(norm, EPS[norm] / 2))
        many = contract.attack(model, x, y, Threat(norm, EPS[norm] / 2), restarts=3)
        assert (many.success | ~few.success).all()


@general
def test_random_noise_is_not_stronger(contract: Contract):
    from calipers.attacks import noise

    if contract.name.startswith("noise"):
        pytest.skip("it is the noise")
    model = small_net((13,), 4, torch.float64)
    x, y = examples(model, 29)
    for norm in contract.norms:
        eps = 2.0 if norm == "l0" else EPS[norm] * 0.7
        attacked = contract.attack(model, x, y, Threat(norm, eps)).success
        assert attacked.sum() >= noise(model, x, y, Threat(norm, eps), steps=100).success.sum()


@every
def test_the_minimal_distortion_can_always_be_asked_for(contract: Contract):
    model = next(r for r in references() if r.classifier.name == "affine-2")
    for norm in contract.norms:
        result = contract.attack(model.classifier, model.x, model.y, Threat(norm))
        assert (result.distance >= model.radius[norm]).all()
        if not contract.blind:
            assert torch.equal(result.success, model.radius[norm].isfinite())


@every
def test_the_caller_finds_everything_as_it_was(contract: Contract):
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(6, 3)).double()
    net.eval()
    net[1].train()
    net[2].weight.requires_grad_(False)
    net[2].bias.grad = torch.ones(3, dtype=torch.float64)
    model = Classifier.of(net, shape=(6,))
    x, y = examples(model, 5)
    before, modes = copy.deepcopy(net.state_dict()), [part.training for part in net.modules()]
    torch.rand(3)
    state = torch.get_rng_state()
    for norm in contract.norms:
        with pytest.warns(ModelInTrainMode, match="train mode"):
            contract.attack(model, x, y, Threat(norm, EPS[norm]))
    assert torch.equal(torch.get_rng_state(), state)
    assert [part.training for part in net.modules()] == modes
    assert not net[2].weight.requires_grad
    assert torch.equal(net[2].bias.grad, torch.ones(3, dtype=torch.float64))
    assert net[2].weight.grad is None
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


@every
def test_everything_is_as_it_was_also_after_an_error(contract: Contract):
    class Explodes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.calls = nn.Linear(3, 2), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            if self.calls > 3:
                raise RuntimeError("out of order")
            return self.inner(x)

    net = Explodes().eval()
    model = Classifier.of(net, shape=(3,))
    net.inner.train()
    state = torch.get_rng_state()
    with warnings.catch_warnings(), pytest.raises(RuntimeError, match="out of order"):
        warnings.simplefilter("ignore", ModelInTrainMode)
        contract.attack(model, torch.full((2, 3), 0.5), torch.tensor([0, 1]), Threat(contract.norms[0], 0.5))
    assert net.inner.training
    assert not net.training
    assert torch.equal(torch.get_rng_state(), state)


@every
def test_bad_input_is_a_sentence(contract: Contract):
    model = next(r for r in references() if r.classifier.name == "affine-2")
    norm, net, x, y = contract.norms[0], model.classifier, model.x, model.y
    threat = Threat(norm, EPS[norm])
    with pytest.raises(BadInput, match=r"examples of shape \(5,\), got shape \(1, 5\)"):
        contract.attack(net, x[:, None], y, threat)
    with pytest.raises(BadInput, match=r"label of example 1: expected 0…1"):
        contract.attack(net, x[:3], torch.tensor([0, 2, 1]), threat)
    with pytest.raises(BadInput, match="at least one"):
        contract.attack(net, x[:0], y[:0], threat)
    x = x.clone()
    x[2, 1] = float("nan")
    with pytest.raises(BadInput, match="input of example 2: expected finite numbers"):
        contract.attack(net, x, y, threat)
    boxed = Classifier.of(net.module, shape=(5,), box=Box(0, 1))
    with pytest.raises(BadInput, match="input of example 0: expected values inside"):
        contract.attack(boxed, torch.full((1, 5), 1.5, dtype=torch.float64), y[:1], threat)


@general
def test_a_thousand_classes(contract: Contract):
    model = small_net((5,), 1000, torch.float32)
    x, y = examples(model, 3)
    for norm in contract.norms:
        judged(contract.attack(model, x, y, Threat(norm, EPS[norm])), model, x, y, norm)


@general
def test_scaling_the_inputs_scales_the_result(contract: Contract):
    """The ART DeepFool lesson: the same network on [0, 255] gives 255 times the distance."""

    class Scaled(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x / 256)

    if contract.name == "pgd-raw":
        pytest.skip("a raw gradient has the units of 1/x: that is what raw means")
    model = small_net((7,), 4, torch.float64)
    big = Classifier.of(Scaled(model.module).eval(), shape=(7,), box=(0, 256))
    x, y = examples(model, 11)
    for norm in contract.norms:
        eps = EPS[norm]
        plain = contract.attack(model, x, y, Threat(norm, eps))
        scaled = contract.attack(big, x * 256, y, Threat(norm, eps if norm == "l0" else eps * 256))
        assert torch.equal(plain.success, scaled.success)
        factor = 1 if norm == "l0" else 256
        assert torch.allclose(plain.distance * factor, scaled.distance, rtol=1e-6)
