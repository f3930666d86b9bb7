import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import Polynomial as Monomials
from sklearn.svm import SVC

from calipers.errors import BadInput
from calipers.theory import (
    Polynomial,
    adversarial_regions,
    basis_values,
    bernstein_margin,
    chebyshev_margin,
    grid,
    hard_margin,
    nearest_label,
    sign_changes,
)

X = np.linspace(0, 1, 2001)


@pytest.mark.parametrize("n", [1, 7, 60])
def test_bases(n: int) -> None:
    bernstein, chebyshev = basis_values(X, n, "bernstein"), basis_values(X, n, "chebyshev")
    assert bernstein.sum(1) == pytest.approx(1, rel=1e-11)
    assert bernstein @ np.arange(n + 1) == pytest.approx(n * X, rel=1e-11)
    assert bernstein[0].tolist() == np.eye(n + 1)[0].tolist()
    assert bernstein[-1].tolist() == np.eye(n + 1)[n].tolist()
    assert chebyshev == pytest.approx(np.cos(np.arange(n + 1) * np.arccos(2 * X - 1)[:, None]), abs=1e-12)


def test_both_bases_agree_with_monomials_at_low_degree() -> None:
    x = Monomials([0, 1])
    third = 3 * x**2 * (1 - x)
    assert basis_values(X, 3, "bernstein")[:, 2] == pytest.approx(third(X), abs=1e-14)
    assert basis_values(X, 3, "chebyshev")[:, 3] == pytest.approx(
        (4 * (2 * x - 1) ** 3 - 3 * (2 * x - 1))(X), abs=1e-13
    )


@pytest.mark.parametrize("n", [1, 2, 3, 10, 30, 59, 60])
def test_margin_classifiers_are_equations_5_and_7(n: int) -> None:
    f, g = bernstein_margin(n), chebyshev_margin(n)
    assert f(X) == pytest.approx(X**n - (1 - X) ** n, abs=1e-13)
    odd = n if n % 2 else n - 1
    angle = np.arccos(2 * X[1:-1] - 1)
    assert g(X[1:-1]) == pytest.approx(np.sin((odd + 1) * angle) / np.sin(angle) / (odd + 1), abs=1e-12)
    # The printed factor 2/(n + 1) keeps the margin for odd n only.
    printed = 2 / (n + 1) * sum(basis_values([1.0], n, "chebyshev")[0, 1::2])
    assert printed == pytest.approx(1.0 if n % 2 else n / (n + 1))


@pytest.mark.parametrize("n", [1, 2, 9, 10, 60])
def test_margin_classifiers_are_the_hard_margin_ones_of_the_two_points(n: int) -> None:
    for basis, exact in (("bernstein", bernstein_margin(n)), ("chebyshev", chebyshev_margin(n))):
        found = hard_margin([0.0, 1.0], [-1.0, 1.0], n, basis)
        assert found.coefficients == pytest.approx(np.asarray(exact.coefficients), abs=1e-9)


@pytest.mark.parametrize("n", [1, 3, 5, 10, 30, 101])
def test_regions_of_g_are_the_gaps_between_its_known_roots(n: int) -> None:
    odd = n if n % 2 else n - 1
    roots = np.sort((1 + np.cos(np.arange(1, odd + 1) * np.pi / (odd + 1))) / 2)
    assert sign_changes(chebyshev_margin(n)) == pytest.approx(roots, abs=1e-13)
    regions = adversarial_regions(chebyshev_margin(n))
    right = np.diff(np.append(roots[roots > 0.5 - 1e-9], 1.0))[::-1]
    assert regions.length == pytest.approx(2 * right[1::2].sum(), abs=1e-12)
    assert regions.depth == pytest.approx(roots[-1] - 0.5 if odd > 1 else 0.0, abs=1e-12)
    assert adversarial_regions(bernstein_margin(n)).length == 0.0


def test_g_agrees_with_f_more_than_half_of_the_time() -> None:
    """The paper says at most half; true of n = 3, false of n = 5, 10 and 30."""
    agree = {n: 1 - adversarial_regions(chebyshev_margin(n)).length for n in (3, 5, 10, 30)}
    assert agree[3] == pytest.approx(1 - 1 / np.sqrt(2))
    assert agree[5] == pytest.approx((3 - np.sqrt(3)) / 2)
    assert min(agree[5], agree[10], agree[30]) > 0.5


@given(st.integers(1, 25), st.integers(0, 999), st.sampled_from(["bernstein", "chebyshev"]))
@settings(max_examples=60, deadline=None)
def test_sign_changes_miss_nothing_a_fine_scan_sees(n: int, seed: int, basis: str) -> None:
    polynomial = Polynomial(basis, np.random.default_rng(seed).normal(size=n + 1))
    found = sign_changes(polynomial)
    # Markov: on [0, 1] the slope is at most 2n²·max|p|, so a root known to a few ulps leaves this much of a value.
    left = 1e-12 + 8 * np.finfo(float).eps * n**2 * np.abs(polynomial.coefficients).sum()
    assert np.abs(polynomial(found)).max(initial=0) < left
    sign = np.sign(polynomial(X))
    seen = X[:-1][sign[1:] * sign[:-1] < 0]
    assert len(found) >= len(seen)
    assert all(((found >= low) & (found <= low + X[1])).any() for low in seen)


def test_touching_zero_is_no_change_and_a_triple_root_is_one() -> None:
    touching = Polynomial("bernstein", [1.0, -1.0, 1.0])
    triple = Polynomial("bernstein", [-1.0, 1.0, -1.0, 1.0])
    assert touching([0.5]) == 0
    assert len(sign_changes(touching)) == 0
    assert sign_changes(triple) == pytest.approx([0.5], abs=1e-4)


def test_grids() -> None:
    m = 9
    nodes = grid("chebyshev", m)
    assert np.abs(basis_values(nodes[1:-1], m - 2, "chebyshev")[:, -1]).max() < 1e-13
    for kind in ("chebyshev", "equispaced"):
        points = grid(kind, m)
        assert (len(points), points[0], points[-1]) == (m, 0.0, 1.0)
        assert points + points[::-1] == pytest.approx(1)
        assert grid(kind, m, ends=False).tolist() == points[1:-1].tolist()


@pytest.mark.parametrize(
    ("kind", "n", "m"), [("equispaced", 30, 64), ("chebyshev", 30, 512), ("equispaced", 60, 10_000)]
)
@pytest.mark.parametrize("basis", ["chebyshev", "bernstein"])
def test_hard_margin_meets_the_optimality_conditions(kind: str, n: int, m: int, basis: str) -> None:
    points = grid(kind, m)
    y = nearest_label(points)
    c = np.asarray(hard_margin(points, y, n, basis).coefficients)
    rows = basis_values(points, n, basis) * y[:, None]
    assert (rows @ c).min() > 1 - 1e-8
    # c is a non-negative combination of rows at the margin: no shorter vector can be feasible.
    from scipy.optimize import nnls

    active = rows[rows @ c < 1 + 1e-5]
    _, residual = nnls(active.T, c / np.linalg.norm(c))
    assert residual < 1e-6


@pytest.mark.parametrize(("kind", "m"), [("equispaced", 32), ("equispaced", 128), ("chebyshev", 32)])
def test_hard_margin_is_libsvms(kind: str, m: int) -> None:
    points = grid(kind, m)
    y = nearest_label(points)
    features = basis_values(points, 30, "chebyshev")
    peer = SVC(kernel="linear", C=1e9, tol=1e-8).fit(features, y)
    theirs, ours = peer.coef_[0], np.asarray(hard_margin(points, y, 30).coefficients)
    # Their bias is free and ours is a coefficient; by symmetry both are 0.
    assert peer.intercept_[0] == pytest.approx(0, abs=1e-5)
    assert ours == pytest.approx(theirs, abs=1e-4 * np.linalg.norm(ours))


def test_chebyshev_grids_have_no_adversarial_region_long_before_equispaced_ones() -> None:
    length = {
        (kind, ends, m): adversarial_regions(hard_margin(p := grid(kind, m, ends=ends), nearest_label(p), 30)).length
        for kind in ("chebyshev", "equispaced") for ends in (True, False) for m in (16, 24, 64, 128, 256)
    }  # fmt: skip
    assert length["chebyshev", True, 16] > 0.2
    assert all(length["chebyshev", ends, m] == 0 for ends in (True, False) for m in (24, 64, 128, 256))
    assert length["equispaced", True, 64] == pytest.approx(0.0123, abs=1e-4)
    assert length["equispaced", True, 128] == 0 < length["equispaced", False, 128]
    assert length["equispaced", False, 256] == 0


def test_bad_input() -> None:
    with pytest.raises(BadInput, match="degree of the polynomial: expected a whole number >= 1, got 0"):
        chebyshev_margin(0)
    with pytest.raises(BadInput, match="degree of the polynomial"):
        hard_margin([0.0, 1.0], [-1, 1], 0)
    with pytest.raises(BadInput, match=r"expected different nodes, got 0\.5 more than once"):
        hard_margin([0.0, 0.5, 0.5], [-1, 1, 1], 3)
    with pytest.raises(BadInput, match="-1 and 1, both present"):
        hard_margin([0.0, 1.0], [1, 1], 3)
    with pytest.raises(BadInput, match="polynomial of degree 1 separates"):
        hard_margin([0.0, 0.5, 1.0], [1, -1, 1], 1)
    with pytest.raises(BadInput, match="did you mean 'chebyshev'"):
        grid("chebishev", 5)
    with pytest.raises(BadInput, match=r"numbers in \[0, 1\]"):
        chebyshev_margin(3)([1.5])
    with pytest.raises(BadInput, match="true boundary"):
        adversarial_regions(chebyshev_margin(3), boundary=0.0)
