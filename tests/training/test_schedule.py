"""Schedules grow as they say and never shrink; the stopping rule sees a collapse and nothing else."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calipers.errors import BadInput
from calipers.training import SCHEDULES, Schedule, sudden_rise

sizes = st.floats(0, 2)
times = st.floats(0, 100)


@given(kind=st.sampled_from(sorted(SCHEDULES)), ends=st.tuples(sizes, sizes).map(sorted), two=st.tuples(times, times))
def test_eps_never_decreases_and_stays_between_start_and_end(kind, ends, two):
    start, eps = ends
    schedule = Schedule(kind, eps, start, span=7.0, rise=0.03)
    early, late = sorted(two)
    slack = 1e-12
    assert start - slack <= schedule(early) <= schedule(late) + slack <= eps + 2 * slack


@given(eps=st.floats(0.01, 1), start=st.floats(0, 0.01))
def test_every_schedule_arrives(eps, start):
    assert Schedule("constant", eps, start)(0) == eps
    ramp = Schedule("ramp", eps, start, span=3.0)
    assert (ramp(0), ramp(1.5), ramp(3)) == (start, pytest.approx((start + eps) / 2), pytest.approx(eps))
    iterative = Schedule("iterative", eps, start, rise=0.01)
    arrived = math.ceil((eps - start) / 0.01) + 1
    assert iterative(arrived) == eps
    assert iterative(0.0) == iterative(0.99) == pytest.approx(min(eps, start + 0.01))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"kind": "linear", "eps": 0.1}, "known: constant, iterative, ramp"),
        ({"kind": "constant", "eps": -0.1}, "eps to train with: expected a finite number >= 0, got -0.1"),
        ({"kind": "constant", "eps": math.nan}, "expected a finite number >= 0, got nan"),
        ({"kind": "constant", "eps": 0.2, "start": 0.3}, "expected at least the 0.3 it starts from, got 0.2"),
        ({"kind": "ramp", "eps": 0.2, "span": 0}, "epochs of the ramp: expected a finite number > 0, got 0"),
        ({"kind": "iterative", "eps": 0.2, "rise": -0.01}, "rise of eps an epoch: expected a finite number > 0"),
    ],
)
def test_schedules_that_cannot_be_meant(words, said):
    with pytest.raises(BadInput, match=said):
        Schedule(**words)


def test_a_collapse_is_sudden_and_a_slow_rise_is_not():
    slow = [0.05 * 1.1**k for k in range(35)]  # as in the paper's figure 7: slow, though it accelerates
    assert not any(sudden_rise(slow[:k]) for k in range(len(slow)))
    assert sudden_rise([*slow[:30], math.log(10)])
    falling = [2.3, 1.5, 0.9, 0.6, 0.5, 0.45]
    assert not any(sudden_rise(falling[:k]) for k in range(len(falling) + 1))
    wobbling = [0.30, 0.36, 0.31, 0.37, 0.31, 0.38]
    assert not any(sudden_rise(wobbling[:k]) for k in range(len(wobbling) + 1))


@given(loss=st.floats(0.01, 2), jump=st.floats(0.11, 5))
def test_any_significant_jump_from_a_plateau_is_seen(loss, jump):
    assert sudden_rise([loss] * 4 + [loss + jump])
    assert not sudden_rise([loss] * 4 + [loss + 0.09])
