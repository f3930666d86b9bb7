"""The random numbers: the published generator, and a function of (seed, example, step, stream, call) alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from calipers.errors import BadInput
from calipers.runner import Draws
from calipers.runner.draws import philox

ONES = 0xFFFFFFFF


# Random123's file kat_vectors, philox4x32 with 10 rounds.
@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_known_answers(counter, key, words):
    a, b, c, d = (torch.tensor([int(word, 16)]) for word in counter.split())
    j, k = (int(word, 16) for word in key.split())
    assert [f"{int(word):08x}" for word in philox((a, b, c, d), (j, k))] == words.split()


def both(seed, example, step, stream, d, dtype):
    """Two calls of each kind, so that the number of the call counts as well."""
    draws = Draws(seed, example, step, stream)
    return [draws.uniform(d, dtype), draws.normal(d, dtype), draws.uniform(d, dtype), draws.normal(d, dtype)]


@given(
    seed=st.sampled_from([0, 1, 2**32, 2**64 - 1]),
    n=st.integers(1, 23),
    d=st.integers(1, 37),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    choose=st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None)
def test_an_example_gets_the_same_numbers_in_any_batch_and_order(seed, n, d, dtype, choose):
    example = torch.tensor([choose.randrange(2**32) for _ in range(n)])
    step = torch.tensor([choose.randrange(2**32) for _ in range(n)])
    whole = both(seed, example, step, 3, d, dtype)
    order = torch.tensor(choose.sample(range(n), choose.randrange(1, n + 1)))
    for part, here in zip(both(seed, example[order], step[order], 3, d, dtype), whole, strict=True):
        assert torch.equal(part, here[order])
    one = int(order[0])
    alone = both(seed, example[one : one + 1], int(step[one]), 3, d, dtype)
    for part, here in zip(alone, whole, strict=True):
        assert torch.equal(part[0], here[one])


def test_more_numbers_begin_with_the_same():
    few, many = (Draws(0, torch.arange(5), 0).uniform(d) for d in (7, 50))
    assert torch.equal(many[:, :7], few)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_numbers_are_uniform(dtype):
    x = Draws(11, torch.arange(100), step=2).uniform(1000, dtype)
    assert x.dtype == dtype
    assert x.min() >= 0
    assert x.max() < 1
    assert stats.kstest(x.flatten().double().numpy(), "uniform").pvalue > 0.01
    # Every row and every column on its own: n p-values, the least of which is not below 0.01 / n.
    for rows in (x, x.T):
        assert min(stats.kstest(row.double().numpy(), "uniform").pvalue for row in rows[:50]) > 0.01 / 50


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal_numbers_are_normal(dtype):
    x = Draws(12, torch.arange(100), step=2).normal(1000, dtype).flatten().double()
    assert x.isfinite().all()
    n = len(x)
    # The moments' standard errors are 1, √2, √15 and √96 over √n.
    for power, moment, spread in ((1, 0.0, 1.0), (2, 1.0, 2**0.5), (3, 0.0, 15**0.5), (4, 3.0, 96**0.5)):
        assert abs(float(x.pow(power).mean()) - moment) < 4 * spread / n**0.5
    assert stats.kstest(x.numpy(), "norm").pvalue > 0.01


def test_all_bits_of_a_float_are_used():
    x = Draws(0, torch.arange(64), 0)
    assert (x.uniform(64) * 2**24 % 2 == 1).double().mean() == pytest.approx(0.5, abs=0.05)
    assert (x.uniform(64, torch.float64) * 2**53 % 2 == 1).double().mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    "other",
    [
        lambda: Draws(1, torch.arange(100), 5, 7),
        lambda: Draws(2**32, torch.arange(100), 5, 7),
        lambda: Draws(0, torch.arange(100) + 1, 5, 7),
        lambda: Draws(0, torch.arange(100), 6, 7),
        lambda: Draws(0, torch.arange(100), 5, 8),
    ],
    ids=["seed", "high seed", "example", "step", "stream"],
)
@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_whatever_differs_the_numbers_are_independent(other, kind):
    a, b = (getattr(draws, kind)(100).flatten().double() for draws in (Draws(0, torch.arange(100), 5, 7), other()))
    assert not torch.isclose(a, b, atol=1e-12).any()
    assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 4 / len(a) ** 0.5


def test_calls_of_one_object_are_independent_and_repeatable():
    one, again = Draws(0, torch.arange(100), 5), Draws(0, torch.arange(100), 5)
    first, second = one.uniform(100), one.uniform(100)
    assert torch.equal(first, again.uniform(100))
    assert torch.equal(second, again.uniform(100))
    assert abs(float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])) < 0.04


def test_the_global_generator_is_not_touched():
    before = torch.random.get_rng_state()
    both(3, torch.arange(9), 1, 0, 5, torch.float32)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_it_is_the_draw_that_sampling_asks_for():
    draws = Draws(0, torch.arange(4), 0)
    assert torch.equal(draws("uniform", (4, 3)), Draws(0, torch.arange(4), 0).uniform(3))
    assert draws("normal", (4, 3)).shape == (4, 3)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Draws(-1, torch.arange(2), 0), "seed: expected 0 to 18446744073709551615, got -1"),
        (lambda: Draws(2**64, torch.arange(2), 0), "seed: expected 0 to"),
        (lambda: Draws(0, torch.tensor([2**32]), 0), "example index: expected 0 to 4294967295, got 4294967296"),
        (lambda: Draws(0, torch.tensor([-1]), 0), "example index: expected 0 to 4294967295, got -1"),
        (lambda: Draws(0, torch.zeros(2), 0), "expected int64 of shape (N,), got torch.float32"),
        (lambda: Draws(0, torch.zeros(2, 2, dtype=torch.int64), 0), "got torch.int64 of shape (2, 2)"),
        (lambda: Draws(0, torch.arange(2), -1), "step: expected 0 to 4294967295, got -1"),
        (lambda: Draws(0, torch.arange(2), torch.arange(3)), "step of Draws: expected an int, or int64 of shape (2,)"),
        (lambda: Draws(0, torch.arange(2), 0, 2**16), "stream: expected 0 to 65535, got 65536"),
        (lambda: Draws(0, torch.arange(2), 0).uniform(2, torch.float16), "expected torch.float32 or torch.float64"),
        (lambda: Draws(0, torch.arange(2), 0)("uniforn", (2, 2)), "did you mean 'uniform'"),
        (lambda: Draws(0, torch.arange(2), 0)("uniform", (3, 2)), "rows of random numbers: expected 2, got 3"),
    ],
)
def test_what_is_out_of_range_is_refused(make, sentence):
    with pytest.raises(BadInput) as caught:
        make()
    assert sentence in str(caught.value)
