"""One-sided derivatives at kinks of every cone, against one-sided differences of the solution itself."""

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp
import torch

from conelayers import CvxpyLayer
from conelayers.backends import default_backend
from conelayers.cones import ProductCone, SecondOrder
from conelayers.errors import InvalidArgument, SolveError, UnsupportedError
from conelayers.layers import one_sided_derivative
from conelayers.program import ConeProgram, ConeStructure
from conelayers.regularity.one_sided import one_sided
from conelayers.residual.solve import solve_and_polish


def T(*values):
    return torch.tensor(values, dtype=torch.float64)


def moves(params, seed):
    generator = torch.Generator().manual_seed(seed)
    found = [torch.randn(p.shape, dtype=torch.float64, generator=generator) for p in params]
    return [(d + d.mT) / 2 if d.dim() == 2 and d.shape[0] == d.shape[1] else d for d in found]


def one_sided_difference(layer, params, directions, step):
    """Richardson's extrapolation of two one-sided differences: of second order."""
    start = layer(*params)
    coarse, fine = (
        [(z - s) / h for z, s in zip(layer(*(p + h * d for p, d in zip(params, directions))), start)]
        for h in (step, step / 2)
    )
    return [2 * f - c for c, f in zip(coarse, fine)]


def check(layer, params, seed, step=1e-4, tolerance=1e-6):
    directions = moves(params, seed)
    found = one_sided_derivative(layer, params, directions)
    for derivative, difference in zip(found, one_sided_difference(layer, params, directions, step), strict=True):
        assert torch.allclose(derivative, difference, atol=tolerance * max(1.0, float(difference.abs().max())))


def projection(constraint, size=3):
    x, a = cp.Variable(size), cp.Parameter(size)
    bound = constraint(x)
    return CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [bound]), [a], [x])


def exponential(x):
    return cp.constraints.ExpCone(x[0], x[1], x[2])


def power(x):
    return cp.constraints.PowCone3D(x[0], x[1], x[2], 0.3)


SECOND_ORDER = (
    lambda x: cp.SOC(x[0], x[1:]),
    {"boundary": (1.0, 0.6, 0.8), "polar": (-1.0, 0.6, 0.8), "apex": (0,) * 3},
)
EXPONENTIAL = (
    exponential,
    {
        "boundary": (0.5, 1.0, float(np.exp(0.5))),
        "polar": (1.0, -0.3, -float(np.exp(-1.3))),
        "apex": (0.0, 0.0, 0.0),
        "face": (-1.0, 0.0, 1.0),
        "corner of the face": (-1.0, 0.0, 0.0),
        "beside the face": (0.0, -1.0, 1.0),
        "below the face": (-1.0, -1.0, 0.0),
        "beside the corner": (0.0, -1.0, 0.0),
    },
)
POWER = (power, {"boundary": (1.0, 2.0, 2**0.7), "apex": (0.0, 0.0, 0.0)})
POINTS = [
    pytest.param(cone, point, id=f"{name} {place}")
    for name, (cone, places) in {"soc": SECOND_ORDER, "exp": EXPONENTIAL, "power": POWER}.items()
    for place, point in places.items()
]


@pytest.mark.parametrize(("cone", "point"), POINTS)
def test_projections(cone, point):
    layer = projection(cone)
    for seed in range(3):
        check(layer, [T(*point)], seed)


@pytest.mark.parametrize("values", [(2.0, 0.0, -1.0), (1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 0.0, 0.0)])
def test_projections_on_the_semidefinite_cone(values):
    X, C = cp.Variable((3, 3), symmetric=True), cp.Parameter((3, 3), symmetric=True)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [X >> 0]), [C], [X])
    basis = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3)))[0]
    for seed in range(3):
        check(layer, [basis @ torch.diag(T(*values)) @ basis.mT], seed)


@pytest.mark.parametrize("seed", range(4))
def test_several_kinks_under_equations_and_curvature(seed):
    """Two balls, one weakly and one strongly active, a weak bound, and an equation; everything moves."""
    generator = np.random.default_rng(seed)
    x, a, F, b = cp.Variable(4), cp.Parameter(4), cp.Parameter((3, 4)), cp.Parameter()
    total = cp.sum(x) == b
    weak, strong = cp.norm(F @ x) <= 1, cp.norm(x[:2] - 1) <= 0.5
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [weak, strong, x[3] >= 0, total])
    layer = CvxpyLayer(problem, [a, F, b], [x, total.dual_variables[0]])
    # The solution without the first ball and the bound, which then are made to touch it.
    start = torch.from_numpy(generator.standard_normal(4))
    free = cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [strong, x[3] == 0, total])
    (solution,) = CvxpyLayer(free, [a, b], [x])(start, T(1.5).squeeze())
    at = start.clone()
    at[3] = 0.0
    slope = CvxpyLayer(free, [a, b], [total.dual_variables[0]])(start, T(1.5).squeeze())[0]
    at[3] = slope / 2  # the bound's multiplier vanishes
    matrix = torch.from_numpy(generator.standard_normal((3, 4)))
    matrix = matrix / (matrix @ solution).norm()
    params = [at, matrix, T(1.5).squeeze()]
    report = layer.solve(*params).regularity()
    assert bool(report.regular) and len(report.weakly_active) == 2
    check(layer, params, seed, step=1e-5, tolerance=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_semidefinite_programme_with_a_zero_eigenvalue(seed):
    """A slice of the semidefinite cone whose multiplier and matrix share a null vector; the slice moves too."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=generator))[0]
    primal, dual = (
        basis @ torch.diag(T(2.0, 1.0, 0.0, 0.0)) @ basis.mT,
        basis @ torch.diag(T(0.0, 0, 0, 3.0)) @ basis.mT,
    )
    row = torch.randn(4, 4, dtype=torch.float64, generator=generator)
    row = (row + row.mT) / 2
    X, C, A = cp.Variable((4, 4), symmetric=True), cp.Parameter((4, 4), symmetric=True), cp.Parameter((4, 4))
    b = cp.Parameter()
    slice_ = cp.sum(cp.multiply(A, X)) == b
    layer = CvxpyLayer(
        cp.Problem(cp.Minimize(cp.sum_squares(X) / 2 - cp.sum(cp.multiply(C, X))), [X >> 0, slice_]),
        [C, A, b],
        [X, slice_.dual_variables[0]],
    )
    params = [primal - dual + 0.7 * row, row, (row * primal).sum()]
    assert torch.allclose(layer(*params)[0], primal, atol=1e-7)
    check(layer, params, seed, step=1e-5, tolerance=1e-5)


def test_multipliers_and_slacks():
    """A cone programme given as data: the projection of -q on the cone, whose slack it is."""
    structure = ConeStructure.from_matrices(sp.eye_array(3), -sp.eye_array(3), ProductCone([SecondOrder(3)]))
    ones, zeros = torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    program = ConeProgram(structure, ones, -T(-1.0, 0.6, 0.8), -ones, zeros)
    tangent = ConeProgram(structure, zeros, -T(0.9, 0.7, -0.2), zeros, zeros)
    backend = default_backend(structure)
    start = solve_and_polish(program, backend)
    found = one_sided(program, start, tangent, 1e-7, backend)
    step = 1e-5
    ahead = solve_and_polish(ConeProgram(structure, ones, program.q + step * tangent.q, -ones, zeros), backend)
    for derivative, name in zip(found, ("x", "y", "s"), strict=True):
        difference = (getattr(ahead, name) - getattr(start, name)) / step
        assert difference.abs().max() > 0.1 and torch.allclose(derivative, difference, atol=1e-4)


def test_positively_homogeneous_and_zero():
    layer, point = projection(SECOND_ORDER[0]), T(1.0, 0.6, 0.8)
    direction = T(-0.3, 0.5, 0.9)
    (once,) = one_sided_derivative(layer, [point], [direction])
    (small,) = one_sided_derivative(layer, [point], [1e-9 * direction])
    assert torch.allclose(1e9 * small, once, atol=1e-9)
    (back,) = one_sided_derivative(layer, [point], [-direction])
    assert not torch.allclose(back, -once, atol=1e-3)
    assert not one_sided_derivative(layer, [point], [0 * direction])[0].any()


def test_what_has_no_derivative_is_refused():
    with pytest.raises(UnsupportedError, match="edge of Exponential"):
        one_sided_derivative(projection(exponential), [T(0.0, 0.0, 1.0)], [T(1.0, 0.0, 0.0)])
    x, c = cp.Variable(2), cp.Parameter(2)
    tie = CvxpyLayer(cp.Problem(cp.Minimize(c @ x), [x >= 0, cp.sum(x) == 1]), [c], [x])
    with pytest.raises(UnsupportedError, match="Not determined"):
        one_sided_derivative(tie, [T(1.0, 1.0)], [T(1.0, 0.0)])
    empty = CvxpyLayer(cp.Problem(cp.Minimize(c @ x), [x >= 0, x <= -1]), [c], [x], on_failure="nan")
    with pytest.raises(SolveError, match="INFEASIBLE"):
        one_sided_derivative(empty, [T(1.0, 1.0)], [T(1.0, 0.0)])
    with pytest.raises(InvalidArgument, match="directions"):
        one_sided_derivative(tie, [T(1.0, 2.0)], [T(1.0)])
