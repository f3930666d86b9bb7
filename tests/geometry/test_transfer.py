"""The matrix against a plain loop, Wilson's interval against its coverage, one direction for all."""

import numpy as np
import pytest
import torch
from scipy.stats import binom
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from calipers.attacks import pgd
from calipers.data import load
from calipers.errors import BadInput
from calipers.geometry import local_linear, max_margin, transfer, universal_direction, wilson
from calipers.models import Classifier, from_sklearn, linear
from calipers.threats import Threat


def _mix() -> tuple[list[Classifier], torch.Tensor, torch.Tensor]:
    data = load("digits", split="train")
    x = data.x.flatten(1).double().numpy()
    svm = from_sklearn(LogisticRegression(max_iter=300).fit(x[:500], data.y[:500]), box=data.box)
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 24), torch.nn.ReLU(), torch.nn.Linear(24, 10))
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(data.x), data.y).backward()
        optimizer.step()
    test = load("digits", split="test").take(40)
    return [svm, Classifier.of(net.eval(), shape=data.shape, box=data.box)], test.x, test.y


def test_matrix_is_the_plain_loop_for_a_mix_of_shapes_and_dtypes() -> None:
    models, x, y = _mix()
    found = transfer(models, models, x, y, [0.02, 0.2], attack=lambda m, a, b, t: pgd(m, a, b, t, steps=5))
    assert found.accuracy.shape == (2, 2, 2)
    made = pgd(models[0], x.flatten(1).double(), y, Threat("linf", 0.2), steps=5).adversarial
    with torch.no_grad():
        other = models[1](made.float().reshape(-1, *models[1].shape)).argmax(1) == y
    assert torch.equal(found.correct[0, 1, 1], other)
    own = found.accuracy.diagonal(dim1=0, dim2=1)
    assert bool((own[1] <= own[0]).all())
    assert bool((found.accuracy[:, :, 1] >= own[1].min() - 1e-9).all())
    low, high = found.interval()
    assert bool(((low <= found.accuracy) & (found.accuracy <= high)).all())


def test_wilson_covers() -> None:
    n = 40
    k = torch.arange(n + 1, dtype=torch.float64)
    low, high = wilson(k / n, n)
    for p in np.linspace(0.02, 0.98, 49):
        covered = binom.pmf(k.numpy(), n, p)[((low <= p) & (p <= high)).numpy()].sum()
        assert covered > 0.83
    share = np.mean([binom.pmf(k.numpy(), n, p)[((low <= p) & (p <= high)).numpy()].sum()
                     for p in np.linspace(0.02, 0.98, 97)])  # fmt: skip
    assert share == pytest.approx(0.95, abs=0.012)


def test_one_direction_for_all_separators_as_theorem_4_promises() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 10)) * 0.3
    y = np.where(np.arange(80) < 40, -1.0, 1.0)
    x[:, 0] += 2 * y
    best = max_margin(x, y)
    models = []
    while len(models) < 4:
        w = best.weight + 0.2 * rng.normal(size=10)
        if (y * (x @ w + best.bias) > 0).all():
            rows = torch.from_numpy(np.stack([-w, w]) / 2)
            layer = linear(rows, torch.tensor([-best.bias, best.bias], dtype=torch.float64) / 2).eval()
            models.append(Classifier.of(layer, shape=(10,), box=(-50.0, 50.0)))
    positive, labels = torch.from_numpy(x[y > 0]), torch.ones(40, dtype=torch.int64)
    found = universal_direction(models, positive, labels, Threat("l2", 8.0))
    assert found.fooled.tolist() == [1.0] * 4
    assert found.delta.norm() <= 8.0
    assert float(found.delta @ torch.from_numpy(best.weight)) < 0


def test_a_model_that_is_never_right_has_no_fooled_fraction() -> None:
    model = Classifier.of(linear(torch.tensor([[1.0], [-1.0]]), torch.zeros(2)).eval(), shape=(1,))
    x = torch.tensor([[0.5], [0.7]])
    assert universal_direction([model], x, torch.tensor([1, 1]), Threat("linf", 0.1), steps=3).fooled.isnan().all()


def _forest() -> Classifier:
    x = np.random.default_rng(0).random((20, 64))
    return from_sklearn(RandomForestClassifier(2, random_state=0).fit(x, np.arange(20) % 2), box=(0.0, 1.0))


@pytest.mark.parametrize(("make", "message"), [
    (lambda m, x, y: transfer([], m, x, y, [0.1]), "sources: expected a list of one or more"),
    (lambda m, x, y: transfer(m, m[0], x, y, [0.1]), "targets: expected a list"),
    (lambda m, x, y: transfer(m, m, x, y, 0.1), "eps: expected a list"),
    (lambda m, x, y: transfer(m, m, x, y, [-0.1]), "eps of the linf threat"),
    (lambda m, x, y: transfer([LinearSVC()], m, x, y, [0.1]), "expected a Classifier, got LinearSVC"),
    (lambda m, x, y: transfer(m, m, x, y + 10, [0.1]), "label of example 0"),
    (lambda m, x, y: transfer(m, m, x / 0, y, [0.1]), "input of example 0: expected finite"),
    (lambda m, x, y: transfer(m, m, x[:0], y[:0], [0.1]), "one example or more"),
    (lambda m, x, y: transfer(m, m, x.numpy(), y, [0.1]), "got ndarray; torch.as_tensor"),
    (lambda m, x, y: transfer(m, m, x[:, :, :4], y, [0.1]), "inputs for"),
    (lambda m, x, y: universal_direction([], x, y, Threat("linf", 0.1)), "models: expected a list of one or more"),
    (lambda m, x, y: universal_direction(m, x, y, Threat("linf", 0.1), steps=0), "steps: expected at least 1"),
    (lambda m, x, y: universal_direction(m, x * torch.nan, y, Threat("linf", 0.1)), "input of example 0"),
    (lambda m, x, y: universal_direction(m, x, y - 1, Threat("linf", 0.1)), "label of example 0"),
    (lambda m, x, y: universal_direction([_forest()], x, y, Threat("linf", 0.1)), "a classifier with gradients"),
    (lambda m, x, y: universal_direction(m, x, y, Threat("l1", 0.1)), "linf or l2 with an eps"),
    (lambda m, x, y: wilson(torch.zeros(1), 0), "n >= 1"),
    (lambda m, x, y: wilson(torch.ones(1) * 95, 10), "fractions in"),
    (lambda m, x, y: local_linear(m[0], x.numpy()), "got ndarray; torch.as_tensor"),
    (lambda m, x, y: transfer(m, m, x, y, [None]), "eps: expected a list of one or more"),
])  # fmt: skip
def test_bad_input(make, message) -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    models, x = [Classifier.of(net, shape=(1, 8, 8))], torch.rand(3, 1, 8, 8)
    with pytest.raises(BadInput, match=message):
        make(models, x, torch.zeros(3, dtype=torch.int64))
