from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import binom

from calipers.records import status
from calipers.report.band import axis_end, band, binomial_interval

radii = st.floats(0, 2, width=32) | st.just(np.inf)
brackets = st.lists(st.tuples(radii, radii).map(sorted), min_size=1, max_size=40)


def _split(pairs: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    both = np.array(pairs, dtype=float)
    return both[:, 0], both[:, 1]


@given(brackets, st.lists(st.floats(0, 3), max_size=3))
def test_the_curves_are_the_statuses_at_every_corner(pairs: list[list[float]], eps: list[float]) -> None:
    lower, upper = _split(pairs)
    curve = band(lower, upper, tuple(eps), end=3.0)
    assert set(eps) <= set(curve.radius)
    for radius in np.unique(curve.radius):
        last = np.searchsorted(curve.radius, radius, side="right") - 1
        proved, not_broken = curve.proved[last], curve.not_broken[last]
        at = status(lower, upper, radius)
        assert proved == np.mean(at == "certified")
        assert not_broken == np.mean(at != "attacked")


@given(brackets, st.floats(0, 3))
def test_the_steps_drawn_between_corners_are_the_statuses_too(pairs: list[list[float]], radius: float) -> None:
    lower, upper = _split(pairs)
    curve = band(lower, upper, end=3.0)
    assume(radius not in curve.radius)
    at = status(lower, upper, radius)
    right, left = np.searchsorted(curve.radius, radius), np.searchsorted(curve.radius, radius, side="right") - 1
    assert curve.proved[right] == np.mean(at == "certified")
    assert curve.not_broken[left] == np.mean(at != "attacked")


def test_a_bracket_of_zero_width_leaves_no_gap_and_is_broken_at_its_radius() -> None:
    exact = np.array([0.2, 0.5])
    curve = band(exact, exact)
    assert curve.radius.tolist() == [0.0, 0.2, 0.2, 0.5, 0.5]
    assert curve.proved.tolist() == [1.0, 1.0, 0.5, 0.5, 0.0]
    assert curve.not_broken.tolist() == [1.0, 0.5, 0.5, 0.0, 0.0]


def test_thinning_can_only_widen_the_band() -> None:
    rng = np.random.default_rng(0)
    lower = rng.random(5000)
    upper = lower + rng.random(5000)
    curve = band(lower, upper, eps=(0.3,))
    assert len(curve.radius) <= 1203
    for radius in rng.random(50) * 2:
        proved = curve.proved[min(np.searchsorted(curve.radius, radius), len(curve.radius) - 1)]
        not_broken = curve.not_broken[np.searchsorted(curve.radius, radius, side="right") - 1]
        at = status(lower, upper, radius)
        assert proved <= np.mean(at == "certified") <= proved + 0.002
        assert not_broken - 0.002 <= np.mean(at != "attacked") <= not_broken


def test_the_axis_shows_every_eps_and_survives_infinite_radii() -> None:
    assert axis_end(np.array([0.1]), np.array([0.2]), (1.0,)) == pytest.approx(1.25)
    assert axis_end(np.array([0.0]), np.array([0.0])) == 1.0
    assert axis_end(np.array([np.inf]), np.array([np.inf])) == 1.0
    long = np.append(np.full(999, 0.1), 50.0)
    assert axis_end(long, long) < 1


def test_the_exact_interval_misses_on_each_side_no_more_than_it_says() -> None:
    low, high = binomial_interval(np.arange(41), 40)
    assert low[0] == 0.0
    assert high[-1] == 1.0
    for k in range(41):
        assert k == 0 or binom.sf(k - 1, 40, low[k]) == pytest.approx(0.025)
        assert k == 40 or binom.cdf(k, 40, high[k]) == pytest.approx(0.025)
    for p in np.linspace(0.005, 0.995, 67):
        covered = binom.pmf(np.flatnonzero((low <= p) & (p <= high)), 40, p).sum()
        assert covered >= 0.95
