"""Cone programmes given as data, as differentiable functions of every tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from conelayers.backends import Backend, default_backend
from conelayers.cones import Cone, ProductCone
from conelayers.errors import InvalidArgument
from conelayers.implicit import Derivative
from conelayers.layers._arguments import check_on_failure, derivative_mode, result_type
from conelayers.layers._compile import outside_graphs
from conelayers.layers.solution import CertifiedSolution
from conelayers.layers.solver_args import configure, named_backend
from conelayers.program import ConeProgram, ConeSolution, ConeStructure
from conelayers.residual import ConicConditions, OnFailure, differentiable_solve

__all__ = ["ConeLayer", "solve_cone_program"]

Pattern = np.ndarray | Tensor | sp.sparray | sp.spmatrix


class ConeLayer(nn.Module):
    """The family of programmes  minimise 1/2 x'Px + q'x  subject to  Ax + s = b, s in K,  with fixed sparsity patterns.

    P must be positive semidefinite. On the CPU an item whose P has a negative pivot beyond the rounding of single
    precision (1e-5, with a unit diagonal) is FAILED. Smaller negative curvature, and any of it on a GPU, is not
    noticed: the optimality conditions then hold at a point that need be no minimum. An entry of b that is infinite
    means that its row, or its block of a second-order or exponential cone, bounds nothing.

    Args:
        cone: K, as a `ProductCone`, a sequence of cones in the order of A's rows, or one cone.
        A: Pattern of A: a matrix of shape (m, n), sparse (its stored entries count) or dense (all entries count).
        P: Pattern of P, symmetric, shape (n, n); None for a linear objective.
        solver: A backend's name or instance, or None to choose by size.
        derivative: `Exact()`, `Smoothed(mu)` or `LeastSquares()`.
        on_failure: "raise", or "nan" for items without a solution.
        solver_args: Options for every call, as `CvxpyLayer.forward` takes them.

    Raises:
        ValueError: If shapes do not fit together.
    """

    def __init__(
        self,
        cone: ProductCone | Sequence[Cone] | Cone,
        A: Pattern,
        P: Pattern | None = None,
        *,
        solver: str | Backend | None = None,
        derivative: Derivative | None = None,
        on_failure: OnFailure = "raise",
        solver_args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.derivative = derivative_mode(derivative)
        self.on_failure: OnFailure = check_on_failure(on_failure)
        if not isinstance(cone, ProductCone):
            cone = ProductCone([cone] if isinstance(cone, Cone) else cone)
        A_pattern = _pattern("A", A)
        P_pattern = None if P is None else _pattern("P", P)
        if A_pattern.shape[0] != cone.dim:
            raise InvalidArgument(f"A has {A_pattern.shape[0]} rows but the cone has dimension {cone.dim}.")
        if P_pattern is not None and P_pattern.shape != (A_pattern.shape[1],) * 2:
            raise InvalidArgument(f"P has shape {P_pattern.shape}; with A it must be ({A_pattern.shape[1]},) * 2.")
        self.structure = ConeStructure.from_matrices(
            None if P_pattern is None else P_pattern + P_pattern.T, A_pattern, cone
        )
        options = solver_args or {}
        self.backend = named_backend(solver, options) or configure(default_backend(self.structure), options)
        self.linear = P is None

    def forward(
        self, P: Tensor | None, q: Tensor, A: Tensor, b: Tensor, *, warm_start: ConeSolution | None = None
    ) -> CertifiedSolution:
        """Solve for a batch of matrices and vectors.

        Args:
            P: Shape (*batch, n, n), used as (P + P')/2 on the pattern; None for a linear objective.
            q: Shape (*batch, n).
            A: Shape (*batch, m, n), read on the pattern.
            b: Shape (*batch, m).
            warm_start: A previous solution to start from, of as many items or of one.

        Returns:
            The solution; x, y and s are differentiable in P, q, A and b, and have the floating type of these tensors.

        Raises:
            SolveError: If an item has no solution and `on_failure` is "raise".
            ValueError: If something is not a real tensor, or a shape does not fit.
        """
        structure = self.structure
        _check_tensors(P=P, q=q, A=A, b=b)
        if P is None:
            if structure.P_nnz:
                raise InvalidArgument("P is None, but the layer was made with a pattern for P; pass P.")
            P_values = q.new_zeros(0)
        elif self.linear:
            raise InvalidArgument("The layer was made without a pattern for P: pass None, or make it with P's pattern.")
        else:
            _check_matrix("P", P, (structure.n, structure.n))
            rows, columns = (torch.as_tensor(i, device=P.device) for i in (structure.P_indices, structure.P_columns))
            P_values = (P[..., rows, columns] + P[..., columns, rows]) / 2
        _check_matrix("A", A, (structure.m, structure.n))
        rows, columns = (torch.as_tensor(i, device=A.device) for i in (structure.A_indices, structure.A_columns))
        return self.solve_values(P_values, q, A[..., rows, columns], b, warm_start=warm_start)

    @outside_graphs
    def solve_values(
        self, P: Tensor, q: Tensor, A: Tensor, b: Tensor, *, warm_start: ConeSolution | None = None
    ) -> CertifiedSolution:
        """As `forward`, with P and A given by their stored values.

        Args:
            P: Values on `structure`'s upper-triangle CSC pattern of P, shape (*batch, structure.P_nnz).
            q: Shape (*batch, n).
            A: Values on `structure`'s CSC pattern of A, shape (*batch, structure.A_nnz).
            b: Shape (*batch, m).
            warm_start: A previous solution to start from, of as many items or of one.
        """
        dtype = result_type((P, q, A, b) if self.structure.P_nnz else (q, A, b))
        program = ConeProgram(self.structure, *(value.to(torch.float64) for value in (P, q, A, b)))
        conditions = ConicConditions(self.structure, self.backend, self.derivative, self.on_failure, warm_start)
        solution = differentiable_solve(conditions, program)
        return CertifiedSolution.of(program, solution, dtype)

    def extra_repr(self) -> str:
        """Size of the cone programme and settings, for `print(layer)`."""
        s = self.structure
        backend = getattr(self.backend, "name", type(self.backend).__name__)
        return f"n={s.n}, m={s.m}, cones={len(s.cone.cones)}, backend={backend}, derivative={self.derivative}"


def solve_cone_program(
    P: Tensor | None,
    q: Tensor,
    A: Tensor,
    b: Tensor,
    cone: ProductCone | Sequence[Cone] | Cone,
    *,
    solver: str | Backend | None = None,
    derivative: Derivative | None = None,
    on_failure: OnFailure = "raise",
    solver_args: Mapping[str, Any] | None = None,
    warm_start: ConeSolution | None = None,
) -> CertifiedSolution:
    """Solve  minimise 1/2 x'Px + q'x  subject to  Ax + s = b, s in K,  differentiably in every tensor.

    For repeated solves make a `ConeLayer` once: it keeps the symbolic analysis, which this function does anew.

    Args:
        P: Shape (*batch, n, n), used as (P + P')/2; or a sparse tensor (n, n); or None for a linear objective.
        q: Shape (*batch, n).
        A: Shape (*batch, m, n), or a sparse tensor (m, n). Gradients of dense tensors are dense; those of sparse ones
            live on their pattern.
        b: Shape (*batch, m).
        cone: K, as a `ProductCone`, a sequence of cones in the order of A's rows, or one cone.
        solver: A backend's name or instance, or None to choose by size.
        derivative: `Exact()`, `Smoothed(mu)` or `LeastSquares()`.
        on_failure: "raise", or "nan" for items without a solution.
        solver_args: Options, as `CvxpyLayer.forward` takes them.
        warm_start: A previous solution to start from, of as many items or of one.

    Returns:
        x, y, s with batch axes, and status, iterations and residuals per item; `regularity()` tells whether its
        derivatives can be trusted.

    Raises:
        SolveError: If an item has no solution and `on_failure` is "raise".
        ValueError: If shapes do not fit together.
    """
    _check_tensors(P=P, q=q, A=A, b=b)
    layer = ConeLayer(
        cone,
        A if _is_sparse(A) else torch.ones(A.shape[-2:]),
        None if P is None else (P if _is_sparse(P) else torch.ones(P.shape[-2:])),
        solver=solver,
        derivative=derivative,
        on_failure=on_failure,
        solver_args=solver_args,
    )
    # Sparse tensors are read through a dense copy: autograd then returns a gradient for their stored entries.
    P_dense = P.to_dense() if P is not None and _is_sparse(P) else P
    return layer(P_dense, q, A.to_dense() if _is_sparse(A) else A, b, warm_start=warm_start)


def _check_tensors(**values: Tensor | None) -> None:
    """All but P must be there; all must be real tensors."""
    for name, value in values.items():
        if value is None and name == "P":
            continue
        if not isinstance(value, Tensor) or value.is_complex():
            found = "a complex tensor" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise InvalidArgument(f"{name} must be a real tensor, got {found}.")


def _is_sparse(matrix: Tensor) -> bool:
    return matrix.layout is not torch.strided


def _pattern(name: str, matrix: Pattern) -> Any:
    """Ones on the stored entries of a sparse matrix, or on all entries of a dense one."""
    if isinstance(matrix, Tensor) and _is_sparse(matrix):
        coo = matrix.detach().to_sparse_coo().coalesce().cpu()
        rows, columns = coo.indices().numpy()
        return sp.csc_array((np.ones(len(rows)), (rows, columns)), shape=tuple(coo.shape))
    if sp.issparse(matrix):
        pattern = sp.csc_array(matrix, dtype=float, copy=True)
        pattern.sum_duplicates()
        pattern.data[:] = 1.0
        return pattern
    shape = tuple(np.shape(matrix))  # type: ignore[arg-type]
    if len(shape) != 2:
        raise InvalidArgument(f"{name} must be a matrix, got shape {shape}.")
    return sp.csc_array(np.ones(shape))


def _check_matrix(name: str, matrix: Tensor, shape: tuple[int, int]) -> None:
    if tuple(matrix.shape[-2:]) != shape:
        raise InvalidArgument(f"{name} has shape {tuple(matrix.shape)}; its last two axes must be {shape}.")
