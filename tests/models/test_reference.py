"""The radii of the references, against sampling, linear programming and enumeration, which know no closed form."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize

from calipers.models import references
from calipers.threats import NORMS, distance

REFERENCES = {ref.classifier.name: ref for ref in references()}
AFFINE = ["affine-2", "affine-3-in-box", "affine-1000-in-box", "never", "convolution-in-box"]
BALLS = ["linf-ball", "l1-ball"]
ORDER = {"linf": math.inf, "l2": 2, "l1": 1}


def leads(ref, z, label):
    """Whether ``label`` leads alone."""
    with torch.no_grad():
        logits = ref.classifier(z)
    others = logits.clone()
    others[:, label] = -math.inf
    return logits[:, label] > others.max(1).values


def cloud(ref, i, radius, norm, n=4000):
    """Points of the box at most ``radius`` from example i: half of them as far as that, some along the corners."""
    generator, x, box = torch.Generator().manual_seed(i), ref.x[i].flatten(), ref.classifier.box
    if norm == "l0":
        lo, hi = max(float(box.lo), -50.0), min(float(box.hi), 50.0)
        change = torch.rand(n, len(x), generator=generator).argsort(1).argsort(1) < radius
        z = torch.where(change, torch.rand(n, len(x), generator=generator, dtype=x.dtype) * (hi - lo) + lo, x)
    else:
        normal = torch.randn(n, len(x), generator=generator, dtype=x.dtype)
        sparse = normal * (torch.rand(n, len(x), generator=generator) < 0.5)
        direction = torch.cat([normal, sparse, normal.sign(), sparse.sign(), torch.eye(len(x)), -torch.eye(len(x))])
        far = radius * direction / direction.norm(p=ORDER[norm], dim=1, keepdim=True).clamp_min(1e-9)
        z = x + torch.cat([far, far * torch.rand(len(far), 1, generator=generator, dtype=x.dtype)])
    return box.clamp(z.view(-1, *ref.classifier.shape))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", REFERENCES)
def test_nothing_inside_the_radius_changes_the_answer(name, norm):
    ref = REFERENCES[name]
    for i, label in enumerate(ref.y.tolist()):
        radius = ref.radius[norm][i].item()
        inner = radius - 1 if norm == "l0" else 0.999 * radius
        if inner > 0:
            z = cloud(ref, i, min(inner, 10.0), norm)
            assert (distance(ref.x[i].expand_as(z), z, norm) <= inner * (1 + 1e-9)).all()
            assert leads(ref, z, label).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", BALLS)
def test_something_just_outside_the_radius_of_a_ball_does(name, norm):
    ref = REFERENCES[name]
    for i, label in enumerate(ref.y.tolist()):
        radius = ref.radius[norm][i].item()
        # A sample of directions is never exact: 1 % farther for it.
        z = cloud(ref, i, radius if norm == "l0" else 1.01 * radius, norm, n=100_000)
        assert not leads(ref, z, label).all(), (i, radius)


def affine_parts(ref):
    units = torch.eye(ref.x[0].numel(), dtype=torch.float64).view(-1, *ref.classifier.shape)
    with torch.no_grad():
        bias = ref.classifier(torch.zeros_like(units[:1]))[0]
        return (ref.classifier(units) - bias).T.numpy()


def solved(gap, slope, room, norm):
    """min ‖m‖ subject to ⟨\\|slope\\|, m⟩ ≥ gap and 0 ≤ m ≤ room, by a solver; inf if it cannot be."""
    size, d = np.abs(slope), len(slope)
    room = np.where(np.isinf(room), 1e3, room)
    if size @ room < gap:
        return math.inf
    if norm == "l0":
        return next(k for k in range(d + 1) if max(map(sum, itertools.combinations(size * room, k))) >= gap)
    if norm == "l1":
        return linprog(np.ones(d), A_ub=-size[None], b_ub=[-gap], bounds=np.c_[np.zeros(d), room]).fun
    if norm == "linf":
        rows = np.vstack([np.r_[-size, 0], np.c_[np.eye(d), -np.ones(d)]])
        bounds = [*zip(np.zeros(d), room, strict=True), (0, None)]
        return linprog(np.r_[np.zeros(d), 1], A_ub=rows, b_ub=np.r_[-gap, np.zeros(d)], bounds=bounds).fun
    start = np.minimum(size / (size @ size) * gap, room)
    constraint = {"type": "ineq", "fun": lambda m: size @ m - gap, "jac": lambda m: size}
    found = minimize(lambda m: m @ m, start, jac=lambda m: 2 * m, bounds=np.c_[np.zeros(d), room],
                     constraints=constraint, method="SLSQP", options={"ftol": 1e-14, "maxiter": 500})  # fmt: skip
    return math.sqrt(found.fun)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", AFFINE)
def test_affine_radii_are_what_a_solver_finds(name, norm):
    ref, box = REFERENCES[name], REFERENCES[name].classifier.box
    weight = affine_parts(ref)
    for i, label in enumerate(ref.y.tolist()):
        x, gaps = ref.x[i].flatten().numpy(), ref.classifier(ref.x[i : i + 1])[0].detach().numpy()
        gaps, slopes = gaps[label] - gaps, weight - weight[label]
        # The radius without a box is a lower bound: classes beyond the best so far need no solver.
        q = {"linf": 1, "l2": 2, "l1": np.inf, "l0": np.inf}[norm]
        bound = np.maximum(gaps, 0) / np.maximum(np.linalg.norm(slopes, q, axis=1), 1e-300)
        best = math.inf
        for j in np.argsort(bound):
            if j == label or (norm != "l0" and bound[j] >= best) or best <= (norm == "l0"):
                continue
            if not np.any(slopes[j]) and gaps[j] > 0:
                continue
            room = np.where(slopes[j] > 0, float(box.hi) - x, x - float(box.lo))
            best = min(best, 0.0 if gaps[j] <= 0 else solved(gaps[j], slopes[j], room, norm))
        assert ref.radius[norm][i].item() == pytest.approx(best, rel=1e-5, abs=1e-9), i


def test_float32_and_float64_compute_the_same_logits():
    for single, double in zip(references(torch.float32), references(), strict=True):
        assert single.classifier.dtype == torch.float32
        assert torch.equal(single.classifier(single.x).double(), double.classifier(double.x))
        assert all(torch.equal(single.radius[norm], double.radius[norm]) for norm in NORMS)


def test_the_references_cover_what_the_suites_need():
    refs = REFERENCES.values()
    assert {ref.classifier.classes for ref in refs} == {2, 3, 1000}
    assert {len(ref.classifier.shape) for ref in refs} == {1, 3}
    assert any(not ref.classifier.box.bounded for ref in refs)
    everything = torch.cat([torch.stack([ref.radius[norm] for norm in NORMS], 1) for ref in refs])
    assert everything.isinf().any()
    assert (everything == 0).any()
    assert (everything[:, NORMS.index("l0")] >= 2).any()
    for ref in refs:
        ref.classifier.check(ref.x, ref.y)


def test_the_norms_are_ordered_as_norms_must_be():
    for ref in REFERENCES.values():
        linf, l2, l1 = (ref.radius[norm] for norm in ("linf", "l2", "l1"))
        assert (linf <= l2 * (1 + 1e-12)).all()
        assert (l2 <= l1 * (1 + 1e-12)).all()


def test_the_box_binds_somewhere():
    for name in ("affine-3-in-box", "convolution-in-box"):
        ref = REFERENCES[name]
        slopes = affine_parts(ref)
        logits = ref.classifier(ref.x).detach().numpy()
        y = ref.y.numpy()
        gaps = logits[np.arange(len(y)), y][:, None] - logits
        norms = np.abs(slopes[None] - slopes[y][:, None]).sum(2)
        free = np.where(np.arange(3) == y[:, None], np.inf, np.maximum(gaps, 0) / np.where(norms > 0, norms, 1)).min(1)
        assert (ref.radius["linf"].numpy() > free * 1.01).any()
