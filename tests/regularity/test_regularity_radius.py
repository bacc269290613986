"""Neighbourhoods: exact for polyhedral cones, proved or undecided for curved ones."""

import itertools

import numpy as np
import pytest
import torch
from regularity.regularity_instances import BLOCKS, build, jacobian, solution_at, solved

from conelayers.cones import Nonnegative, PositiveSemidefinite, ProductCone, SecondOrder
from conelayers.cones.svec import smat
from conelayers.residual.regularity import certify


def test_polyhedral_radius_by_enumeration():
    """Regular within r if and only if all choices for the rows within r of zero give invertible Jacobians."""
    rng = np.random.default_rng(2)
    verdicts = []
    for _ in range(100):
        n, m, radius = rng.integers(1, 5), rng.integers(1, 6), 0.5
        root = rng.standard_normal((n, rng.integers(0, n + 1)))
        P, A = root @ root.T, rng.standard_normal((m, n))
        v = rng.uniform(-1, 1, m)
        found = certify(*solved(P, A, v, ProductCone([Nonnegative(int(m))])), radius=radius)
        choices = [(0.0, 1.0) if abs(t) <= radius else (float(t > 0),) for t in v]
        lowest = min(
            np.linalg.svd(jacobian(P, A, np.diag(d)), compute_uv=False)[-1] for d in itertools.product(*choices)
        )
        assert bool(found.decided)
        assert bool(found.regular) == (lowest > 1e-10)
        assert np.array_equal(found.weak.numpy(), np.abs(v) <= radius)
        verdicts.append(bool(found.regular))
    assert 10 < sum(verdicts) < 90


def perturbed(cone, v, radius, rng):
    """A random point whose blocks lie within the radius in their own norms, often on the edge."""
    moved = np.array(v, dtype=float)
    for block, start in zip(cone.cones, cone.offsets[:-1], strict=True):
        rows = slice(start, start + block.dim)
        h = rng.standard_normal(block.dim)
        if isinstance(block, SecondOrder):
            size = (abs(h[0]) + np.linalg.norm(h[1:])) / np.sqrt(2)
        elif isinstance(block, PositiveSemidefinite):
            size = np.abs(np.linalg.eigvalsh(smat(torch.tensor(h)).numpy())).max()
        elif isinstance(block, Nonnegative):
            size = np.abs(h).max()
        else:
            size = np.linalg.norm(h)
        moved[rows] += radius * h / size
    return moved


@pytest.mark.parametrize("radius", [1e-3, 0.03, 0.3])
@pytest.mark.parametrize(
    "mix", [("soc_outside", "soc_boundary"), ("psd_smooth", "soc_polar"), ("psd_one",), ("exp_outside", "nonnegative"),
            ("exp_boundary", "exp_face"), ("exp_face_kink",)], ids="+".join
)
def test_regular_within_radius_means_regular_everywhere_in_it(mix, radius):
    rng = np.random.default_rng(7)
    proved = 0
    for seed in range(4):
        P, A, v, cone, _ = build(mix, "regular", seed)
        program, solution = solved(P + np.eye(len(P)), A, v, cone)
        if not bool(certify(program, solution, radius=radius).regular):
            continue
        proved += 1
        for _ in range(25):
            moved = torch.tensor(perturbed(cone, v, radius, rng))
            y = cone.project_dual(moved)
            inside = certify(program, solution_at(solution.x, y, y - moved))
            assert bool(inside.regular)
    if radius == 1e-3:
        assert proved == 4  # the bound is not vacuous


def test_curved_kink_inside_the_radius_is_found():
    """A primal degenerate kink at the apex is decided from a point beside it."""
    P, A, _, cone, _ = build(("soc_apex",), "primal", 0)
    v = np.array([-0.05, 0.02, 0.03])
    program, solution = solved(P, A, v, cone)
    assert not bool(certify(program, solution, radius=0.1).regular)
    assert bool(certify(program, solution, radius=0.1).decided)


def test_margins_and_weak_rows():
    names = ["nonnegative", "soc_outside", "psd_smooth", "exp_outside"]
    cone = ProductCone([BLOCKS[name][0] for name in names])
    v = np.concatenate([BLOCKS[name][1] for name in names])
    v[2] = -0.2  # no kink among the rows
    found = certify(*solved(np.eye(15), np.random.default_rng(0).standard_normal((16, 15)), v, cone))
    assert float(found.margin) == pytest.approx(0.2, abs=1e-12)
    assert not bool(found.weak.any())
    beside = certify(*solved(np.eye(15), np.random.default_rng(0).standard_normal((16, 15)), v, cone), radius=0.25)
    assert torch.nonzero(beside.weak)[:, 0].tolist() == [2]


def test_undecided_at_the_accuracy_of_the_solution():
    """A row 1e-5 from its kink: at residual 1e-8 it may lie on it, at residual 0 it does not."""
    P, A = np.diag([1.0, 0.0]), np.eye(2)
    v = np.array([-1.0, 1e-5])
    program, solution = solved(P, A, v, ProductCone([Nonnegative(2)]))
    exact = certify(program, solution)
    assert bool(exact.regular) and bool(exact.decided)
    coarse = certify(program, solution_at(solution.x, solution.y, solution.s, residual=1e-8))
    assert not bool(coarse.regular) and not bool(coarse.decided)
    on_it = certify(*solved(P, A, np.array([-1.0, 0.0]), ProductCone([Nonnegative(2)])))
    assert not bool(on_it.regular) and bool(on_it.decided)
