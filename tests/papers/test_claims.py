"""What the reproductions say, held against what is known."""

import numpy as np
import pytest
import torch

from calipers.papers import figures
from calipers.papers.large_perturbations import ATTACKS, compare, optimal_adversary, random_search, theorems
from calipers.theory import BernoulliPair, GaussianPair


def test_figure2_tells_the_grids_apart() -> None:
    table = figures()["pointwise.figure2"].reproduce("cpu").table
    wrong = table.set_index(["grid", "ends", "m"]).wrong_length
    assert wrong["chebyshev", True, 32] == 0 < wrong["equispaced", True, 64]
    assert wrong["equispaced", True, 128] == 0 < wrong["equispaced", False, 128]
    far = table[table.m == 64].set_index(["grid", "ends"]).shortfall
    assert far["chebyshev", True] < 0.02 < 1 < far["equispaced", True]


def test_figure4_adversarial_follows_the_boundary_and_hard_does_not() -> None:
    table = figures()["pointwise.figure4"].reproduce("smoke").table
    assert (table.adversarial > 0.5).all()
    assert (table.hard.abs() < table.adversarial).all()


def test_figure12_printed_and_true_error_differ_only_at_the_constant_rule() -> None:
    table = figures()["large_perturbations.figure12"].reproduce("smoke").table
    inner = table[(table.threshold >= 0) & (table.threshold < 10)]
    assert np.allclose(inner.error, inner.printed, atol=1e-12)
    assert (table[table.threshold == 10].error == 0.5).all()
    assert table[(table.threshold == 10) & (table.eps > 0)].printed.min() > 0.5
    assert table.groupby("eps").error.min().max() == 0.5


def test_every_theorem_meets_simulation() -> None:
    table = theorems("smoke").table
    assert ((table["optimal adversary"] - table.theory).abs() <= 4.5 * table.standard_error).all()
    assert (table["random search"] <= table["optimal adversary"]).all()
    affine = table[table.theorem.str.startswith("2")]
    assert (affine["calipers.attacks"] == affine["optimal adversary"]).all()
    assert (table["calipers.attacks"] <= table["optimal adversary"]).all()
    assert {"2 (Gaussian)", "3 (Bernoulli, Bayes)", "4 (Bernoulli, L0)", "5 (Bernoulli, L-infinity)"} <= set(
        table.theorem
    )


def test_any_attack_can_be_plugged_in() -> None:
    pair = GaussianPair.apart(4.0, d=3)
    row = compare("2", "gaussian:d=3,n=500", pair.network(1.0), "l2", 1.0, pair.robust_error(1.0),
                  {"none": lambda model, x, y, norm, eps: x})  # fmt: skip
    assert row["none"] == pytest.approx(pair.bayes_error, abs=0.03)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_adversaries_stay_in_the_ball(attack) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 6, generator=generator, dtype=torch.float64), torch.arange(40) % 2
    gaussian, bernoulli = GaussianPair.apart(2.0, d=6).network(), BernoulliPair.of(5, 0.2, d=6).network()
    signs = x.sign()
    assert (attack(gaussian, x, y, "l2", 0.7) - x).norm(dim=1).max() <= 0.7 + 1e-12
    assert (attack(gaussian, x, y, "linf", 0.7) - x).abs().max() <= 0.7 + 1e-12
    moved = attack(bernoulli, signs, y, "l0", 2)
    assert (moved != signs).sum(1).max() <= 2
    assert (moved.abs() <= 1).all()


def test_the_optimal_adversary_is_optimal_on_every_small_cube() -> None:
    pair = BernoulliPair.of(4, 0.2, d=5)
    model = pair.network()
    x = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 5)
    label = model(x).argmax(1)
    for eps in range(1, 5):
        reach = (x[:, None] != x[None]).sum(-1) <= eps
        for y in (0, 1):
            possible = (reach & (label[None] != y)).any(1)
            found = model(optimal_adversary(model, x, torch.full((32,), y), "l0", eps)).argmax(1) != y
            assert torch.equal(found, possible)


def test_random_search_is_the_same_every_time_and_leaves_the_callers_generator_alone() -> None:
    model, x = GaussianPair.apart(2.0, d=3).network(), torch.zeros(5, 3, dtype=torch.float64)
    before = torch.get_rng_state()
    first, second = (random_search(model, x, torch.ones(5, dtype=torch.int64), "l2", 1.0) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())
