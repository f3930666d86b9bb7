"""Every check passes on an honest model, and on a model built to fail exactly it, it alone fails."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from calipers.audit.folder import table_of
from calipers.diagnostics import CHECKS, Evidence, ask, check
from calipers.errors import BadInput
from calipers.models import Classifier, ModelInTrainMode
from calipers.threats import Box, Threat

N, D, K = 60, 12, 3
X = torch.rand(N, D, generator=torch.Generator().manual_seed(0))
UNIT = Box(0, 1)
EPS = (0.05, 0.1)

# Checks that a random model, or one that looks at its batch, is not asked.
ASKED = {name for name, question in CHECKS.items() if question.depth != "thorough"}


class Wrapped(nn.Module):
    """A sound network with something done to its inputs or outputs."""

    def __init__(self, after=lambda logits: logits, before=lambda x: x) -> None:
        super().__init__()
        weight = torch.randn(K, D, generator=torch.Generator().manual_seed(1))
        self.net = nn.utils.skip_init(nn.Linear, D, K)
        self.net.weight.data, self.net.bias.data = weight, -weight.sum(1) / 2
        self.after, self.before = after, before
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.net(self.before(x)))


def radii() -> torch.Tensor:
    """The exact L∞ radius of every input; what an attack that misses nothing leaves open is above every eps."""
    net, y = Wrapped().net, Wrapped()(X).argmax(1)
    logits = net(X).detach()
    gaps = logits.gather(1, y[:, None]) - logits
    slopes = (net.weight[y][:, None] - net.weight[None]).abs().sum(2).clamp_min(1e-9)
    return (gaps / slopes).scatter(1, y[:, None], torch.inf).amin(1).detach()


def rows_of(predicted: torch.Tensor, y: torch.Tensor, **changes: object) -> pd.DataFrame:
    """Rows of an audit in which all is well: open where the exact radius is above 0.1, attacked or certified below."""
    exact = radii().double().numpy()[: len(y)]
    columns = {
        "index": np.arange(len(y)),
        "label": y.numpy(),
        "predicted": predicted.numpy(),
        "lower": np.minimum(0.9 * exact, 0.01),
        "certificate": np.array(["affine"] * len(y), dtype=object),
        "upper": 1.001 * exact,
        "attack": np.array(["fmn"] * len(y), dtype=object),
        "forwards": np.full(len(y), 50),
        "gradients": np.full(len(y), 20),
    }
    for name, (at, value) in changes.items():
        columns[name][at] = value
    return table_of(columns)


def asked(module: nn.Module, *, y=None, box=UNIT, eps=EPS, predicted=None, depth="standard", other=None, claimed=None,
          **changes):  # fmt: skip
    """The verdict of every check."""
    answer = Wrapped()(X).argmax(1)
    y = answer if y is None else y
    model = Classifier(module, (D,), K, box)
    rows = rows_of(answer if predicted is None else predicted, y, **changes)
    checks = ask(Evidence(model, X, y, rows, Threat("linf", eps or None), depth, 0, other, claimed))
    assert all(check.evidence and check.question.endswith("?") and check.advice for check in checks)
    return {check.id: check for check in checks}


def failed(module: nn.Module, **options: object) -> set[str]:
    """The names of the checks that fail."""
    return {name for name, check in asked(module, **options).items() if not check.passed}


def verdict(name: str, module: nn.Module, **options) -> str:
    return asked(module, **options)[name].verdict


def test_an_honest_model_passes_all():
    checks = asked(Wrapped(), depth="thorough")
    assert list(checks) == list(CHECKS)
    assert [check.id for check in checks.values() if not check.passed] == []
    silent = {name for name, check in checks.items() if check.verdict == "not applicable"}
    assert silent == {"clean-accuracy-as-claimed", "base-model-is-weaker"}, "these need something to compare with"


@pytest.mark.parametrize("scale", [1e-6, 1.0, 10.0])
def test_the_scale_and_shift_of_the_logits_do_not_matter(scale):
    assert failed(Wrapped(after=lambda logits: logits * scale + 5 * scale)) == set()


def test_logits_too_large_for_the_cross_entropy():
    assert failed(Wrapped(after=lambda logits: 1e6 * logits)) == {"cross-entropy-has-a-gradient"}


def test_train_mode_even_of_one_part():
    module = Wrapped()
    module.net = nn.Sequential(module.net, nn.Dropout())
    module.net.train()
    with pytest.warns(ModelInTrainMode, match=r"net\.1 \(Dropout\)"):
        assert failed(module, depth="quick") == {"model-in-eval-mode"}
    assert module.net.training, "it is left as it was handed over"
    assert not module.training


def test_train_mode_of_a_part_that_does_not_look_at_it_is_none():
    module = Wrapped()
    module.net.train()
    assert failed(module, depth="quick") == set()


def test_random_output():
    noise = torch.Generator().manual_seed(2)
    module = Wrapped(after=lambda logits: logits + 0.01 * torch.randn(logits.shape, generator=noise))
    assert failed(module) == {"model-is-deterministic"}
    assert verdict("batch-mates-do-not-matter", module) == "not applicable"


def test_noise_from_the_global_generator_is_noticed_too():
    before = torch.random.get_rng_state()
    module = Wrapped(before=lambda x: x + 0.1 * torch.rand_like(x))
    assert failed(module) == {"model-is-deterministic"}
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_answer_that_depends_on_the_batch():
    centred = Wrapped(before=lambda x: x - 0.2 * (x.mean(0) - 0.5))
    assert failed(centred.eval()) == {"batch-mates-do-not-matter"}


def test_probabilities():
    assert failed(Wrapped(after=lambda logits: logits.softmax(1))) == {"outputs-are-logits"}
    assert failed(Wrapped(after=lambda logits: logits.log_softmax(1))) == set()
    assert failed(Wrapped(after=lambda logits: logits.sigmoid())) == set(), "they do not sum to one"


def test_a_step_without_a_derivative_is_named():
    checks = asked(Wrapped(before=lambda x: (8 * x).round() / 8))
    assert "round" in checks["forward-can-be-differentiated"].evidence
    assert checks["gradients-are-there"].verdict == "failed"
    assert "100%" in checks["gradients-are-there"].evidence


def test_a_model_that_autograd_cannot_follow():
    def through_numpy(x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(x.detach().numpy().copy())

    module = Wrapped(before=through_numpy)
    module.requires_grad_(False)
    checks = asked(module)
    assert "NumPy" in checks["forward-can-be-differentiated"].evidence
    assert checks["gradients-are-there"].evidence == "the outputs have no gradient with respect to the input at all"
    assert checks["one-step-is-weaker"].verdict == "not applicable"


class Turned(torch.autograd.Function):
    """The identity, with a gradient that points the other way."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return -grad


def test_a_gradient_that_is_not_that_of_the_answer():
    assert "gradients-point-uphill" in failed(Wrapped(before=Turned.apply))


def test_nan_gradients():
    def rooted(x: torch.Tensor) -> torch.Tensor:
        return x + (x - x).sqrt()  # its slope at 0 is infinite, times 0

    assert "gradients-are-there" in failed(Wrapped(before=rooted))


def test_a_model_that_looks_for_attackers():
    watching = Wrapped(before=lambda x: 1 - x if x.requires_grad else x)
    assert "gradients-go-unnoticed" in failed(watching)


@pytest.mark.parametrize("scale", [255.0, 10.0])
def test_inputs_that_leave_most_of_the_box_empty(scale):
    assert failed(Wrapped(), box=Box(0, scale), depth="quick") == {"input-range"}


def test_inputs_in_an_infinite_box_have_no_range():
    assert verdict("input-range", Wrapped(), box=Box(-torch.inf, torch.inf), depth="quick") == "not applicable"


def test_no_better_than_chance():
    y = torch.arange(N) % K
    assert "better-than-chance" in failed(Wrapped(), y=y, predicted=torch.roll(y, 1), eps=())
    always_first = torch.zeros(N, dtype=torch.int64)
    assert "better-than-chance" in failed(Wrapped(), y=y, predicted=always_first, eps=())


@pytest.mark.parametrize(("right", "expected"), [(12, "passed"), (11, "passed"), (9, "not applicable"), (3, "failed")])
def test_a_small_sample_is_better_than_chance_only_where_it_can_tell(right, expected):
    """Two classes, twelve examples: 11 right by luck has p = 0.003, 9 has 0.07; 3 has 0.0004 at 3/4."""
    predicted = torch.cat([torch.zeros(right), torch.ones(12 - right)]).long()
    rows = pd.DataFrame({"predicted": predicted.numpy(), "label": np.zeros(12, dtype=int)})
    x, two = torch.zeros(12, 2), Classifier.of(nn.Identity(), shape=(2,))
    evidence = Evidence(two, x, x[:, 0].long(), rows, Threat("linf"))
    assert CHECKS["better-than-chance"].answer(evidence)[0] == expected


def test_a_clean_accuracy_that_was_not_claimed():
    assert failed(Wrapped(), claimed=1.0) == set()
    assert failed(Wrapped(), claimed=0.8) == {"clean-accuracy-as-claimed"}


def test_noise_that_broke_what_the_attacks_left_open():
    assert failed(Wrapped(), attack=(4, "noise")) == {"random-noise-is-weaker"}
    assert verdict("random-noise-is-weaker", Wrapped(), eps=()) == "not applicable"


def test_noise_has_nothing_to_try_where_nothing_was_left_open():
    every = slice(None)
    rows = {"lower": (every, 0.5), "upper": (every, 0.6)}
    assert verdict("random-noise-is-weaker", Wrapped(), **rows) == "passed"
    assert verdict("one-step-is-weaker", Wrapped(), **rows) == "passed"


def test_attacks_that_missed_what_others_find():
    """Nothing was found although most can be broken: every challenger fails the audit."""
    missed = {"upper": (slice(None), 5.0), "lower": (slice(None), 0.0)}
    found = failed(Wrapped(), eps=(0.3,), depth="thorough", other=Classifier(Wrapped(), (D,), K, UNIT), **missed)
    assert found >= {
        "one-step-is-weaker", "transfer-is-weaker", "base-model-is-weaker", "many-small-steps-find-no-more",
        "restarts-find-no-more", "targets-find-no-more", "gradient-free-finds-no-more", "raw-gradient-finds-no-more",
        "zoo-finds-no-more",
    }  # fmt: skip


def test_inputs_that_share_a_point_cannot_all_be_robust():
    held = {"upper": (slice(None), 0.6), "lower": (slice(None), 0.0)}
    checks = asked(Wrapped(), eps=(0.5,), **held)
    assert checks["no-more-than-possible"].verdict == "failed"
    most = int(torch.bincount(Wrapped()(X).argmax(1)).max())
    assert f"more than {most}" in checks["no-more-than-possible"].evidence, "at half the box the largest class is left"
    assert asked(Wrapped(), eps=(0.05,), **held)["no-more-than-possible"].verdict == "passed"


def test_inputs_without_any_witness():
    assert "everything-can-be-broken" in failed(Wrapped(), upper=(slice(0, 9), np.inf))
    proved = {"upper": (slice(0, 9), np.inf), "lower": (slice(0, 9), np.inf)}
    assert failed(Wrapped(), **proved) == set(), "what is proved for the whole box cannot be broken"


def test_a_certificate_above_an_attack():
    assert failed(Wrapped(), lower=(5, 30.0)) == {"certificate-below-attack"}


def test_no_bracket_with_both_jaws():
    name = "certificate-below-attack"
    assert verdict(name, Wrapped(), lower=(slice(None), 0.0)) == "not applicable"


def test_one_example_is_enough_to_ask_every_question():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = Classifier(Wrapped(), (D,), K)
        y = model(X[:1]).argmax(1)
        checks = ask(Evidence(model, X[:1], y, rows_of(y, y), Threat("linf", EPS), "thorough"))
    assert len(checks) == len(CHECKS)


def test_two_classes_have_a_loss():
    model = Classifier(nn.Sequential(nn.Linear(D, 2)).eval(), (D,), 2)
    y = model(X).argmax(1)
    checks = {one.id: one for one in ask(Evidence(model, X, y, rows_of(y, y), Threat("linf", EPS)))}
    assert checks["loss-fits-the-classes"].verdict == "passed"
    assert "margin" in checks["loss-fits-the-classes"].evidence


def test_a_name_is_given_once():
    with pytest.raises(BadInput, match="new name"):
        check("input-range", "Again?", "No.")(lambda e: ("passed", ""))
