"""Every check passes on an honest model, and on a model built to fail exactly it, it alone fails."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from calipers.audit.folder import table_of
from calipers.diagnostics import run_checks
from calipers.diagnostics.checks import CHECKS
from calipers.models import Classifier, ModelInTrainMode
from calipers.threats import Box

N, D, K = 60, 12, 3
X = torch.rand(N, D, generator=torch.Generator().manual_seed(0))
UNIT = Box(0, 1)
EPS = (0.05, 0.1)


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


def rows_of(predicted: torch.Tensor, y: torch.Tensor, **changes: object) -> pd.DataFrame:
    """Rows of an audit in which all is well: a third certified, a third attacked, a third open at both eps."""
    third = np.arange(len(y)) % 3
    columns = {
        "index": np.arange(len(y)),
        "label": y.numpy(),
        "predicted": predicted.numpy(),
        "lower": np.array([0.2, 0.01, 0.01])[third],
        "certificate": np.array(["affine"] * len(y), dtype=object),
        "upper": np.array([0.3, 0.04, 0.3])[third],
        "attack": np.array(["fmn"] * len(y), dtype=object),
        "forwards": np.full(len(y), 50),
        "gradients": np.full(len(y), 20),
    }
    for name, (at, value) in changes.items():
        columns[name][at] = value
    return table_of(columns)


def failed(module: nn.Module, *, y=None, box=UNIT, eps=EPS, predicted=None, **changes: object) -> set[str]:
    """The names of the checks that fail."""
    answer = Wrapped()(X).argmax(1)
    y = answer if y is None else y
    model = Classifier(module, (D,), K, box)
    checks = run_checks(model, X, y, rows_of(answer if predicted is None else predicted, y, **changes), eps)
    assert [check.id for check in checks] == [entry[0] for entry in CHECKS]
    assert all(check.evidence and check.question.endswith("?") and check.advice for check in checks)
    return {check.id for check in checks if not check.passed}


def verdict(name: str, module: nn.Module, **options) -> str:
    answer = Wrapped()(X).argmax(1)
    model = Classifier(module, (D,), K, options.pop("box", UNIT))
    checks = run_checks(model, X, answer, rows_of(answer, answer, **options.pop("rows", {})), options.pop("eps", EPS))
    return next(check.verdict for check in checks if check.id == name)


def test_an_honest_model_passes_all():
    assert failed(Wrapped()) == set()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_scale_and_shift_of_the_logits_do_not_matter(scale):
    assert failed(Wrapped(after=lambda logits: logits * scale + 5 * scale)) == set()


def test_train_mode_even_of_one_part():
    module = Wrapped()
    module.net = nn.Sequential(module.net, nn.Dropout())
    module.net.train()
    with pytest.warns(ModelInTrainMode, match=r"net\.1 \(Dropout\)"):
        assert failed(module) == {"model-in-eval-mode"}
    assert module.net.training, "it is left as it was handed over"
    assert not module.training


def test_train_mode_of_a_part_that_does_not_look_at_it_is_none():
    module = Wrapped()
    module.net.train()
    assert failed(module) == set()


def test_random_output():
    noise = torch.Generator().manual_seed(2)
    module = Wrapped(after=lambda logits: logits + 0.01 * torch.randn(logits.shape, generator=noise))
    # Its answers differ from call to call, so alone and in a batch as well.
    assert failed(module) == {"model-is-deterministic", "batch-mates-do-not-matter"}


def test_noise_from_the_global_generator_is_noticed_too():
    before = torch.random.get_rng_state()
    module = Wrapped(before=lambda x: x + 0.1 * torch.rand_like(x))
    assert "model-is-deterministic" in failed(module)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_answer_that_depends_on_the_batch():
    centred = Wrapped(before=lambda x: x - 0.2 * (x.mean(0) - 0.5))
    assert failed(centred.eval()) == {"batch-mates-do-not-matter"}


def test_probabilities():
    assert failed(Wrapped(after=lambda logits: logits.softmax(1))) == {"outputs-are-logits"}
    assert failed(Wrapped(after=lambda logits: logits.log_softmax(1))) == set()
    assert failed(Wrapped(after=lambda logits: logits.sigmoid())) == set(), "they do not sum to one"


@pytest.mark.parametrize("scale", [255.0, 10.0])
def test_inputs_that_leave_most_of_the_box_empty(scale):
    module = Wrapped(before=lambda x: x)
    assert failed(module, box=Box(0, scale)) == {"input-range"}


def test_inputs_in_an_infinite_box_have_no_range():
    assert verdict("input-range", Wrapped(), box=Box(-torch.inf, torch.inf)) == "not applicable"


def test_no_better_than_chance():
    y = torch.arange(N) % K
    assert failed(Wrapped(), y=y, predicted=torch.roll(y, 1)) == {"better-than-chance"}
    always_first = torch.zeros(N, dtype=torch.int64)
    assert failed(Wrapped(), y=y, predicted=always_first) == {"better-than-chance"}


def test_noise_that_broke_what_the_attacks_left_open():
    assert failed(Wrapped(), attack=(4, "noise")) == {"random-noise-is-weaker"}
    assert verdict("random-noise-is-weaker", Wrapped(), eps=()) == "not applicable"


def test_noise_has_nothing_to_try_where_nothing_was_left_open():
    every = slice(None)
    rows = {"lower": (every, 0.5), "upper": (every, 0.6)}
    assert verdict("random-noise-is-weaker", Wrapped(), rows=rows) == "passed"


def test_a_certificate_above_an_attack():
    assert failed(Wrapped(), lower=(5, 0.30001)) == {"certificate-below-attack"}
    assert failed(Wrapped(), lower=(5, 0.3)) == set()


def test_no_bracket_with_both_jaws():
    assert verdict("certificate-below-attack", Wrapped(), rows={"lower": (slice(None), 0.0)}) == "not applicable"
    assert verdict("certificate-below-attack", Wrapped(), rows={"upper": (slice(None), np.inf)}) == "not applicable"


def test_a_certificate_for_what_was_never_broken_cannot_be_too_high():
    assert failed(Wrapped(), lower=(0, 9.0), upper=(0, np.inf)) == set()


def test_one_example_is_enough_to_ask_every_question():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = Classifier(Wrapped(), (D,), K)
        y = model(X[:1]).argmax(1)
        checks = run_checks(model, X[:1], y, rows_of(y, y), EPS)
    assert len(checks) == len(CHECKS)
