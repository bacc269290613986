"""Solve one assembled cone programme with Clarabel, without the package's backends."""

import clarabel
import numpy as np
import scipy.sparse as sp
import torch

from conelayers.cones import Exponential, Nonnegative, PositiveSemidefinite, Power, SecondOrder, Zero


def _clarabel_cone(cone):
    kind = type(cone)
    if kind is Zero:
        return clarabel.ZeroConeT(cone.dim)
    if kind is Nonnegative:
        return clarabel.NonnegativeConeT(cone.dim)
    if kind is SecondOrder:
        return clarabel.SecondOrderConeT(cone.dim)
    if kind is PositiveSemidefinite:
        return clarabel.PSDTriangleConeT(cone.order)
    if kind is Exponential:
        return clarabel.ExponentialConeT()
    assert kind is Power
    return clarabel.PowerConeT(cone.alpha)


def _upper_from_lower(order):
    """Positions in column-major lower-triangle order, listed in column-major upper-triangle order."""
    position = {}
    for column in range(order):
        for row in range(column, order):
            position[row, column] = len(position)
    return np.array([position[column, row] for column in range(order) for row in range(column + 1)])


def solve(program, tolerance=1e-11):
    """(x, y, s) of a programme without batch axes, as float64 tensors."""
    structure = program.structure
    order = [np.zeros(0, dtype=int)]
    for cone, start in zip(structure.cone.cones, structure.cone.offsets, strict=False):
        local = _upper_from_lower(cone.order) if isinstance(cone, PositiveSemidefinite) else np.arange(cone.dim)
        order.append(start + local)
    order = np.concatenate(order)
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.presolve_enable = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = tolerance
    solution = clarabel.DefaultSolver(
        sp.csc_matrix(structure.P_matrix(program.P.numpy())),
        program.q.numpy(),
        sp.csc_matrix(structure.A_matrix(program.A.numpy()).tocsr()[order]),
        program.b.numpy()[order],
        [_clarabel_cone(cone) for cone in structure.cone.cones],
        settings,
    ).solve()
    assert str(solution.status) in ("Solved", "AlmostSolved"), str(solution.status)
    y, s = np.empty(structure.m), np.empty(structure.m)
    y[order], s[order] = solution.z, solution.s
    return torch.tensor(solution.x, dtype=torch.float64), torch.from_numpy(y), torch.from_numpy(s)


def tensors(parameters):
    """The current values of CVXPY parameters as dense tensors."""
    values = [p.value.toarray() if sp.issparse(p.value) else p.value for p in parameters]
    return [torch.tensor(np.asarray(value)) for value in values]


def solve_with_cvxpy(problem, gp=False):
    problem.solve(solver="CLARABEL", gp=gp, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)


def difference(variable, tensor):
    """Largest deviation of a recovered tensor from the value CVXPY holds."""
    value = variable.value.toarray() if sp.issparse(variable.value) else np.asarray(variable.value)
    assert tuple(tensor.shape) == tuple(variable.shape)
    return np.max(np.abs(value.reshape(variable.shape) - tensor.numpy()), initial=0.0)
