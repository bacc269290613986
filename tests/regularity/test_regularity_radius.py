"""Neighbourhoods: exact for polyhedral cones, proved or undecided for curved ones."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from regularity.regularity_instances import BLOCKS, build, jacobian, solution_at, solved

from conelayers.cones import Nonnegative, PositiveSemidefinite, ProductCone, SecondOrder
from conelayers.cones.svec import smat
from conelayers.regularity import certify
from conelayers.regularity.screening import _near_kinks


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
    "mix",
    [
        ("soc_outside", "soc_boundary"),
        ("psd_smooth", "soc_polar"),
        ("psd_one",),
        ("exp_curved", "nonnegative"),
        ("exp_boundary", "exp_face"),
        ("exp_face_kink",),
    ],
    ids="+".join,
)
def test_regular_within_radius_means_regular_everywhere_in_it(mix, radius):
    rng = np.random.default_rng(7)
    proved = 0
    for seed in range(3):
        P, A, v, cone, _ = build(mix, "regular", seed)
        program, solution = solved(P + np.eye(len(P)), A, v, cone)
        if not bool(certify(program, solution, radius=radius).regular):
            continue
        proved += 1
        moved = torch.tensor(np.stack([perturbed(cone, v, radius, rng) for _ in range(20)]))
        assert bool(certify(*many(program, solution, moved)).regular.all())
    if radius == 1e-3:
        assert proved == 3  # the bound is not vacuous


def many(program, solution, points):
    """Programmes with the same P and A that have their solutions at v = points, and these solutions."""
    y = program.structure.cone.project_dual(points)
    x = solution.x.expand(len(points), -1)
    q = -program.P_times(x) - program.A_transpose_times(y)
    batch = dataclasses.replace(program, q=q, b=program.A_times(x) + y - points)
    return batch, solution_at(x, y, y - points)


@pytest.mark.parametrize("rank", ["dual", "primal"])
@pytest.mark.parametrize("name", ["soc_outside", "psd_smooth", "exp_curved", "power_curved"])
def test_eigenvectors_that_turn_are_accounted_for(name, rank):
    """Regular at v, singular at a point beside it without any kink between: the neighbourhood must not be "regular"."""
    rng = np.random.default_rng(3)
    P, A, v, cone, _ = build((name,), "regular", 0)
    P, n = P + np.eye(len(P)), len(P)
    beside = perturbed(cone, v, 0.05, rng)
    D = cone.dual_derivative(torch.tensor(beside)).matrix().numpy()
    values, vectors = np.linalg.eigh(D)
    if rank == "dual":
        u = vectors[:, values > 1 - 1e-9] @ rng.standard_normal((values > 1 - 1e-9).sum())
        A = A - np.outer(u, u @ A) / (u @ u)
    else:
        d = rng.standard_normal(n) / np.sqrt(n)
        P = (np.eye(n) - np.outer(d, d) / (d @ d)) @ P @ (np.eye(n) - np.outer(d, d) / (d @ d))
        kernel = vectors[:, values < 1e-9] @ rng.standard_normal((values < 1e-9).sum())
        A = A + np.outer(kernel - A @ d, d) / (d @ d)
    program, solution = solved(P, A, v, cone)
    assert bool(certify(program, solution).regular)
    assert not bool(certify(*many(program, solution, torch.tensor(beside)[None])).regular)
    found = certify(program, solution, radius=0.05)
    assert not bool(found.regular) and not bool(found.decided)


def test_curved_kink_inside_the_radius_is_found():
    """A primal degenerate kink at the apex is decided from a point beside it."""
    P, A, _, cone, _ = build(("soc_apex",), "primal", 0)
    v = np.array([-0.05, 0.02, 0.03])
    program, solution = solved(P, A, v, cone)
    assert not bool(certify(program, solution, radius=0.1).regular)
    assert bool(certify(program, solution, radius=0.1).decided)


def test_margins_and_weak_rows():
    names = ["nonnegative", "soc_outside", "psd_smooth", "exp_curved"]
    cone = ProductCone([BLOCKS[name][0] for name in names])
    v = np.concatenate([BLOCKS[name][1] for name in names])
    v[2] = -0.2  # no kink among the rows
    found = certify(*solved(np.eye(15), np.random.default_rng(0).standard_normal((16, 15)), v, cone))
    assert float(found.margin) == pytest.approx(0.2, abs=1e-12)
    assert not bool(found.weak.any())
    beside = certify(*solved(np.eye(15), np.random.default_rng(0).standard_normal((16, 15)), v, cone), radius=0.25)
    assert torch.nonzero(beside.weak)[:, 0].tolist() == [2]


def test_undecided_at_the_accuracy_of_the_solution():
    """A row 1e-5 from its kink: where the conditions hold to 1e-4 it may lie on it, where they hold exactly not."""
    P, A = np.diag([1.0, 0.0]), np.array([[1.0, 0.0], [1.0, 1.0]])
    v = np.array([-1.0, 1e-5])
    program, solution = solved(P, A, v, ProductCone([Nonnegative(2)]))
    exact = certify(program, solution)
    assert bool(exact.regular) and bool(exact.decided)
    moved = dataclasses.replace(program, q=program.q + 1e-4 * torch.tensor([1.0, 0.3]))
    coarse = certify(moved, solution)
    assert not bool(coarse.regular) and not bool(coarse.decided)
    on_it = certify(*solved(P, A, np.array([-1.0, 0.0]), ProductCone([Nonnegative(2)])))
    assert not bool(on_it.regular) and bool(on_it.decided)


def test_screening_knows_the_margin_by_cheaper_means():
    """Near a kink if and only if the margin says so, for every family, at points on all sides of the kinks."""
    rng = np.random.default_rng(0)
    for name, (block, point) in BLOCKS.items():
        cone = ProductCone([block, Nonnegative(2), block])
        v = torch.tensor(np.tile(np.concatenate([point, [1.0, -2.0], point]), (60, 1)))
        v = v + torch.tensor(rng.standard_normal(v.shape)) * 10.0 ** torch.randint(-9, 1, (60, 1))
        y = cone.project_dual(v)
        for reach in (1e-7, 1e-3, 0.2):
            expected = cone.margin(v).amin(-1) <= reach
            found = _near_kinks(cone, y, y - v, v, torch.full((60,), reach, dtype=torch.float64))
            assert torch.equal(found, expected), (name, reach)
