"""A quadratic objective that is clearly not convex is a failure, and one that is convex up to rounding is none."""

import numpy as np
import pytest
import torch

from conelayers import ConeLayer, CvxpyLayer
from conelayers.backends import SCS, Batched, Clarabel
from conelayers.backends.rescued import Rescued
from conelayers.cones import Nonnegative, ProductCone
from conelayers.program import ConeProgram, ConeStructure, Status
from conelayers.program.compiled import clearly_indefinite

BACKENDS = [Rescued(), Batched(), Clarabel(threads=1), SCS(threads=1)]
each_backend = pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: type(backend).__name__)


def in_a_box(P, q):
    """minimise 1/2 x'Px + q'x subject to -1 <= x <= 1."""
    n = P.shape[-1]
    A = np.concatenate([np.eye(n), -np.eye(n)])
    structure = ConeStructure.from_matrices(np.ones((n, n)), A, ProductCone([Nonnegative(2 * n)]))
    values = torch.as_tensor(A)[structure.A_indices, structure.A_columns]
    entries = P[..., structure.P_indices, structure.P_columns]
    return ConeProgram(structure, entries, q, values, torch.ones(2 * n))


@each_backend
def test_only_items_that_are_not_convex_fail(backend):
    """The first one, on an interval, is solved by both ends as far as optimality conditions can tell."""
    P = torch.tensor([[[-1.0]], [[1.0]], [[0.0]]])
    solution = backend.solve(in_a_box(P, torch.full((3, 1), 0.001)))
    assert list(solution.status) == [Status.FAILED, Status.SOLVED, Status.SOLVED]
    torch.testing.assert_close(solution.x[1:, 0], torch.tensor([-0.001, -1.0]), rtol=0, atol=1e-6)


@each_backend
def test_curvature_that_no_diagonal_entry_shows(backend):
    saddle, bilinear = torch.tensor([[1.0, 2.0], [2.0, 1.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    convex = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    solution = backend.solve(in_a_box(torch.stack([saddle, convex, bilinear]), torch.tensor([0.3, 0.1])))
    assert list(solution.status) == [Status.FAILED, Status.SOLVED, Status.FAILED]
    shared = backend.solve(in_a_box(saddle, torch.tensor([[0.3, 0.1], [0.2, 0.1]])))
    assert list(shared.status) == [Status.FAILED] * 2


@pytest.mark.parametrize("n, rank", [(3, 1), (12, 5), (40, 20), (150, 100)])
@pytest.mark.parametrize("spread", [0.0, 4.0])
def test_rounding_is_no_curvature(n, rank, spread):
    """Products in single precision, in any units, pass; shifted by a thousandth of the unit diagonal they do not."""
    generator = torch.Generator().manual_seed(n)
    root = torch.randn(10, n, rank, generator=generator) * torch.exp(
        spread * torch.randn(10, n, 1, generator=generator)
    )
    P = (root.float() @ root.float().mT).double()
    structure = in_a_box(P, torch.zeros(n)).structure
    entries = lambda P: P[..., structure.P_indices, structure.P_columns].numpy()  # noqa: E731
    assert not clearly_indefinite(structure, entries(P)).any()
    shifted = P - 1e-3 * torch.diag_embed(P.diagonal(dim1=-2, dim2=-1))
    assert clearly_indefinite(structure, entries(shifted)).all()
    assert clearly_indefinite(structure, entries(torch.stack([P[0], shifted[1]]))).tolist() == [False, True]
    assert not clearly_indefinite(structure, entries(0 * P)).any()


def test_layers_refuse_them():
    layer = ConeLayer([Nonnegative(2)], torch.tensor([[1.0], [-1.0]]), torch.ones(1, 1), on_failure="nan")
    P = torch.tensor([[[-1.0]], [[2.0]]], requires_grad=True)
    x = layer(P, torch.tensor([0.001]), torch.tensor([[1.0], [-1.0]]), torch.ones(2)).x
    assert x[0].isnan().all()
    (gradient,) = torch.autograd.grad(x[1].sum(), P)
    torch.testing.assert_close(gradient[:, 0, 0], torch.tensor([0.0, 0.001 / 4]), rtol=1e-6, atol=1e-12)


def test_matrix_of_a_quadratic_form():
    import cvxpy as cp

    x, Q, c = cp.Variable(2), cp.Parameter((2, 2), PSD=True), cp.Parameter(2)
    layer = CvxpyLayer(
        cp.Problem(cp.Minimize(cp.quad_form(x, Q) + c @ x), [cp.abs(x) <= 1]), [Q, c], [x], on_failure="nan"
    )
    matrices = torch.tensor([[[2.0, 0.5], [0.5, 1.0]], [[1.0, 2.0], [2.0, 1.0]]])
    found = layer(matrices, torch.ones(2))[0]
    assert found[0].isfinite().all() and found[1].isnan().all()
