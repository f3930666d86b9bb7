"""Laws of norms, balls and boxes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize
from torch import Tensor

from calipers.errors import BadInput
from calipers.runner.draws import Draws
from calipers.threats import (
    NORMS,
    Box,
    Threat,
    cross,
    distance,
    dual,
    find_norm,
    inside,
    leave_cell,
    norm,
    project,
    radii,
    sample,
    steepest,
)

SIZES = [(7, (11,)), (3, (2, 5, 3)), (1, (1,)), (13, (101,))]
EPS = {"linf": 0.13, "l2": 0.71, "l1": 1.9, "l0": 3.0}


def points(n: int, shape: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(n, *shape, generator=g, dtype=torch.float64)
    # Some coordinates sit exactly on the box.
    x = torch.where(torch.rand(x.shape, generator=g) < 0.2, x.round(), x)
    return x.to(dtype), (x + torch.randn(x.shape, generator=g, dtype=torch.float64)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "shape"), SIZES)
@pytest.mark.parametrize("name", NORMS)
def test_projection_is_inside_idempotent_and_leaves_the_inside_alone(name, n, shape, dtype):
    x, z = points(n, shape, dtype=dtype)
    box = Box(0, 1)
    eps = EPS[name] * torch.linspace(0.3, 1.7, n, dtype=dtype) if name != "l0" else torch.full((n,), 3.0, dtype=dtype)
    once = project(z, x, eps, name, box)
    assert inside(once, x, eps.double(), name, box).all()
    twice = project(once, x, eps, name, box)
    assert torch.allclose(once, twice, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-14)
    near = box.clamp(x + 1e-3 * (z - x) / z[0].numel()) if name != "l0" else x
    assert torch.allclose(project(near, x, eps, name, box), near, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", ["linf", "l2", "l1"])
@given(seed=st.integers(0, 10**6), scale=st.floats(0.05, 3.0))
@settings(max_examples=15, deadline=None)
def test_projection_is_the_nearest_point(name, seed, scale):
    x, z = points(1, (5,), seed)
    eps = EPS[name] * scale
    ours = project(z, x, eps, name, Box(0, 1))
    order = {"linf": np.inf, "l2": 2, "l1": 1}[name]
    centre, goal = x[0].numpy(), z[0].numpy()
    # Split δ = p − m so that the L1 ball is smooth for the solver.
    start = np.zeros(10)
    best = minimize(
        lambda s: ((centre + s[:5] - s[5:] - goal) ** 2).sum(),
        start,
        bounds=[(0, 1 - c) for c in centre] + [(0, c) for c in centre],
        constraints=[{"type": "ineq", "fun": lambda s: _inside(s, eps, order)}],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 300},
    )
    assert float((ours - z).square().sum()) <= best.fun + 1e-6
    assert float((ours - z).square().sum()) >= best.fun - 1e-4


def _inside(s: np.ndarray, eps: float, order: float) -> np.ndarray | float:
    step = s[:5] - s[5:]
    if order == 1:
        return eps - s.sum()
    if order == 2:
        return eps**2 - (step**2).sum()
    return np.concatenate([eps - step, eps + step])


def test_the_l0_projection_keeps_what_gains_most():
    x = torch.zeros(1, 4)
    z = torch.tensor([[0.9, 5.0, -3.0, 0.2]])
    # 5 is cut to 1 and −3 to 0 by the box: keeping them saves 25 − 16 = 9 and nothing; 0.9 saves 0.81.
    assert project(z, x, 2.0, "l0", Box(0, 1)).tolist() == [[pytest.approx(0.9), 1.0, 0.0, 0.0]]


@pytest.mark.parametrize("name", ["linf", "l2", "l1"])
@given(seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_holder_is_met_by_the_steepest_step(name, seed):
    g = torch.randn(3, 17, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    step = steepest(g, name)
    assert torch.allclose(norm(step, name), torch.ones(3, dtype=torch.float64))
    assert torch.allclose((g * step).sum(1), norm(g, dual(name)))


def test_the_steepest_step_of_tiny_gradients_does_not_vanish():
    for scale in (1e-30, 1.0, 1e30):
        step = steepest(torch.tensor([[3.0, -4.0]]) * scale, "l2")
        assert torch.allclose(step, torch.tensor([[0.6, -0.8]]))


@pytest.mark.parametrize("name", NORMS)
def test_distance_is_never_below_the_truth(name):
    from fractions import Fraction

    x, z = points(5, (31,), dtype=torch.float32)
    for row in range(5):
        delta = [abs(Fraction(float(a)) - Fraction(float(b))) for a, b in zip(x[row], z[row], strict=True)]
        ours = Fraction(float(distance(x, z, name)[row]))
        if name == "l2":
            assert ours**2 >= sum(d * d for d in delta)
        else:
            exact = {"linf": max(delta), "l1": sum(delta), "l0": Fraction(sum(d > 0 for d in delta))}[name]
            assert exact <= ours <= exact * (1 + Fraction(1, 10**12))


@pytest.mark.parametrize("name", NORMS)
def test_samples_are_inside_and_reach_out(name):
    x = torch.full((400, 7), 0.5, dtype=torch.float64)
    eps = {"linf": 0.2, "l2": 0.4, "l1": 0.4, "l0": 2.0}[name]
    z = sample(x, eps, name, Box(0, 1), Draws(3, torch.arange(400), 0))
    assert inside(z, x, eps, name, Box(0, 1)).all()
    reach = norm(z - x, name) / eps
    assert reach.max() > 0.95
    if name != "l0":
        # A uniform point of a d-ball has E[(r/eps)^d] = 1/2.
        assert abs(float((reach**7).mean()) - 0.5) < 0.06
    assert (z - x).mean(0).abs().max() < 0.05 * (8 if name == "l0" else 1)


@pytest.mark.parametrize("name", ["linf", "l1"])
@given(seed=st.integers(0, 10**6), share=st.floats(0.0, 1.3))
@settings(max_examples=25, deadline=None)
def test_crossing_a_hyperplane_is_exact_against_a_linear_program(name, seed, share):
    x, _ = points(1, (6,), seed)
    g = torch.randn(1, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    most = (g.clamp_min(0) * (1 - x) - g.clamp_max(0) * x).sum(1)
    gap = most * share
    radius, step = cross(x, g, gap, name, Box(0, 1))
    c, a = x[0].numpy(), g[0].numpy()
    if name == "linf":
        cost, eye = np.r_[np.zeros(6), 1.0], np.eye(6)
        rows = [np.c_[eye, -np.ones(6)], np.c_[-eye, -np.ones(6)], np.r_[-a, 0.0][None]]
        bounds = [(-v, 1 - v) for v in c] + [(0, None)]
    else:
        cost, eye = np.r_[np.zeros(6), np.ones(6)], np.eye(6)
        rows = [np.c_[eye, -eye], np.c_[-eye, -eye], np.r_[-a, np.zeros(6)][None]]
        bounds = [(-v, 1 - v) for v in c] + [(0, None)] * 6
    lp = linprog(cost, np.vstack(rows), np.r_[np.zeros(12), -float(gap)], bounds=bounds)
    if share > 1:
        assert radius.isinf().all() and lp.status == 2
    else:
        assert float(radius) == pytest.approx(lp.fun, abs=1e-7)  # as far as HiGHS goes
        assert float((g * step).sum()) == pytest.approx(float(gap), abs=1e-9)
        assert Box(0, 1).contains((x + step).clamp(-1e-12, 1 + 1e-12)).all()


@given(seed=st.integers(0, 10**6), share=st.floats(0.01, 0.98))
@settings(max_examples=25, deadline=None)
def test_crossing_in_l2_satisfies_its_optimality_conditions(seed, share):
    x, _ = points(1, (6,), seed)
    g = torch.randn(1, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    room = torch.where(g > 0, 1 - x, x)
    gap = (g.abs() * room).sum(1) * share
    radius, step = cross(x, g, gap, "l2", Box(0, 1))
    assert float((g * step).sum()) == pytest.approx(float(gap), rel=1e-9)
    # δ = min(s·|g|, room) for one s: every free coordinate has the same ratio, every bound one a smaller.
    ratio, free = (step.abs() / g.abs())[0], (step.abs() < room - 1e-12)[0]
    assert float(radius) == pytest.approx(float(step.norm()))
    if free.any():
        assert torch.allclose(ratio[free], ratio[free][0].expand(int(free.sum())))
        assert (ratio[~free] <= ratio[free][0] + 1e-9).all()


def test_crossing_in_l0_takes_the_fewest_coordinates():
    x, g = torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[1.0, 1.5, 3.0]])
    for gap, count in ((2.9, 1), (3.1, 2), (4.0, 3), (4.3, math.inf)):
        assert float(cross(x, g, torch.tensor([gap]), "l0", Box(0, 1))[0]) == count


@given(seed=st.integers(0, 10**6), box_binds=st.booleans())
@settings(max_examples=20, deadline=None)
@pytest.mark.parametrize("name", NORMS)
def test_leaving_a_cell_is_the_nearest_of_all_classes(name, seed, box_binds):
    gen = torch.Generator().manual_seed(seed)
    weight = torch.randn(5, 4, generator=gen, dtype=torch.float64)
    x = torch.rand(6, 4, generator=gen, dtype=torch.float64)
    box = Box(0, 1) if box_binds else Box(-math.inf, math.inf)
    logits = x @ weight.T
    y = logits.argmax(1)
    radius, step = leave_cell(x, weight, logits, y, name, box)
    each = torch.stack(
        [
            torch.where(
                y == j,
                math.inf,
                cross(x, weight[j] - weight[y], logits.gather(1, y[:, None])[:, 0] - logits[:, j], name, box)[0],
            )
            for j in range(5)
        ]
    )
    assert torch.equal(radius, each.amin(0))
    found = radius.isfinite()
    assert torch.allclose(norm(step, name)[found], radius[found])


@pytest.mark.parametrize(("name", "order"), [*zip(NORMS, ("inf", "2", "1", "0"), strict=True)])
def test_a_norm_is_understood_however_it_is_written(name, order):
    for form in ("l{}", "L{}", "l_{}", "L-{}", "{}", " l{} "):
        assert find_norm(form.format(order)) == find_norm(form.format(order.upper())) == name
    assert find_norm(float(order)) == name
    assert Threat(f"L_{order}", 1.0) == Threat(name, 1.0)  # type: ignore[arg-type]


def test_radii_are_understood_however_they_are_given():
    assert Threat("linf", "8/255") == Threat("linf", 8 / 255) == Threat("linf", np.float64(8 / 255))  # type: ignore[arg-type]
    assert Threat("linf", []).eps is None  # type: ignore[arg-type]
    for several in ("2/255, 0.1", [2 / 255, 0.1], ["2/255", 0.1], np.array([2 / 255, 0.1])):
        assert Threat("linf", several).ladder == (2 / 255, 0.1)  # type: ignore[arg-type]


def test_bad_threats_are_sentences():
    for eps in (0, -0.1, math.nan, math.inf):
        with pytest.raises(BadInput, match=r"eps of the linf threat: expected a finite number > 0, got"):
            Threat("linf", eps)
    with pytest.raises(BadInput, match="ascending"):
        Threat("l2", (0.2, 0.1))
    with pytest.raises(BadInput, match="did you mean 'linf'"):
        find_norm("linff")
    with pytest.raises(BadInput, match=r"got 'l3'; known: l0, l1, l2, linf$"):
        find_norm("l3")
    for text in ("8/0", "a", "", "1/2/3", "0.1,"):
        with pytest.raises(BadInput, match="eps: expected a number or a fraction such as 8/255"):
            radii(text)
    with pytest.raises(BadInput, match="lo < hi"):
        Box(1, 0)
