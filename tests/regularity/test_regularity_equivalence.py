"""Every element of the Clarke Jacobian is invertible if and only if both ranks are full."""

import numpy as np
import pytest
import torch
from regularity.regularity_instances import BLOCKS, MIXES, build, jacobian, programme, samples, solved

from conelayers.cones import ProductCone
from conelayers.regularity import certify


def smallest(P, A, D):
    return np.linalg.svd(jacobian(P, A, D), compute_uv=False)[-1]


@pytest.mark.parametrize("kind", ["regular", "primal", "dual", "both"])
@pytest.mark.parametrize("mix", MIXES, ids="+".join)
def test_verdict_agrees_with_sampled_elements(mix, kind):
    rng = np.random.default_rng(len(mix))
    for seed in range(2):
        P, A, v, cone, has_active = build(mix, kind, seed)
        found = certify(*solved(P, A, v, cone))
        assert bool(found.decided)
        fails_dual, fails_primal = kind in ("dual", "both") and has_active, kind in ("primal", "both")
        assert bool(found.regular) == (not fails_dual and not fails_primal)
        assert (float(found.sigma_dual) < 1e-8) == fails_dual
        assert (float(found.sigma_primal) < 1e-8) == fails_primal
        extreme = [
            cone.dual_derivative(torch.tensor(v), weak=weak, radius=1e-9).matrix().numpy() for weak in ("min", "max")
        ]
        if found.regular:
            lowest = min(smallest(P, A, D) for D in [*extreme, *samples(cone, v, 60, rng)])
            assert lowest > 1e-5
        else:
            assert min(smallest(P, A, D) for D in extreme) < 1e-10


@pytest.mark.parametrize("name", BLOCKS)
def test_extremes_bound_all_samples(name):
    """The smallest and largest elements bound every sample in the Loewner order, and both are limits of derivatives."""
    cone, v = BLOCKS[name][0], np.array(BLOCKS[name][1])
    product, rng = ProductCone([cone]), np.random.default_rng(5)
    low, high = (
        product.dual_derivative(torch.tensor(v), weak=weak, radius=1e-9).matrix().numpy() for weak in ("min", "max")
    )
    found = samples(product, v, 300, rng)
    assert min(np.linalg.eigvalsh(D - low)[0] for D in found) > -1e-5
    assert min(np.linalg.eigvalsh(high - D)[0] for D in found) > -1e-5


def test_random_polyhedral_problems_by_enumeration():
    """All 2^k extreme elements of small quadratic programmes with random ranks, against the certificate."""
    from conelayers.cones import Nonnegative

    rng = np.random.default_rng(0)
    verdicts = []
    for _ in range(150):
        n, m = rng.integers(1, 5), rng.integers(1, 6)
        rank = rng.integers(0, n + 1)
        root = rng.integers(-2, 3, (n, rank)).astype(float)
        P, A = root @ root.T, rng.integers(-1, 2, (m, n)).astype(float)
        v = rng.choice([-1.0, 0.0, 1.0], m)
        found = certify(*solved(P, A, v, ProductCone([Nonnegative(int(m))])))
        weak = np.flatnonzero(v == 0)
        lowest = np.inf
        for bits in range(2 ** len(weak)):
            diagonal = (v > 0).astype(float)
            diagonal[weak] = [(bits >> i) & 1 for i in range(len(weak))]
            lowest = min(lowest, smallest(P, A, np.diag(diagonal)))
        assert bool(found.regular) == (lowest > 1e-9)
        verdicts.append(bool(found.regular))
    assert 20 < sum(verdicts) < 130


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
def test_verdict_does_not_depend_on_units(scale):
    """Rows, whole blocks of curved cones, columns and the objective in other units."""
    for kind in ("regular", "dual", "primal"):
        P, A, v, cone, _ = build(("soc_outside", "nonnegative"), kind, 1)
        rows = np.repeat([scale, 1 / scale, 1.0, scale, 1.0], [3, 1, 1, 1, 1])
        columns, objective = np.geomspace(1, scale, P.shape[0]), scale**0.5
        program, solution = solved(P, A, v, cone)
        x, y, s = solution.x.numpy() / columns, objective * solution.y.numpy() / rows, solution.s.numpy() * rows
        P, A = objective * columns[:, None] * P * columns, rows[:, None] * A * columns
        scaled = programme(P, A, x, y, s, cone)
        found, reference = certify(*scaled), certify(program, solution)
        assert bool(found.regular) == bool(reference.regular) == (kind == "regular")
        assert bool(found.decided) and bool(reference.decided)
