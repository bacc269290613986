"""Types of the compiled module."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "LDLT",
    "Differentiator",
    "Engine",
    "EngineSolution",
    "Gradients",
    "LDLTFactor",
    "conjugate_gradient",
    "csc_columns",
    "csc_squared",
    "csc_times",
    "csc_transposed",
    "csr_product",
    "derivative_image",
    "descend_columns",
    "descend_gram",
    "descend_groups",
    "engine_image",
    "instruction_set",
    "rows_chosen",
    "rows_squared",
    "rows_times",
    "rows_transposed",
]

def instruction_set() -> str:
    """The instruction set the kernels run with: "avx512", "avx2" or "portable"."""

class LDLTFactor:
    """Factors of a batch of matrices."""

    def solve(self, rhs: NDArray[np.float64], threads: int = 1) -> NDArray[np.float64]:
        """Solutions for rhs of shape (batch, k, n), same shape."""

class LDLT:
    """Symbolic analysis of symmetric quasidefinite matrices with one sparsity pattern.

    Args:
        n: Dimension.
        indptr, indices: Upper triangle with diagonal, compressed columns, int64.
        signs: Sign of each pivot, +1 or -1 (0: unknown), int8; None: all unknown.
    """

    def __init__(
        self,
        n: int,
        indptr: NDArray[np.int64],
        indices: NDArray[np.int64],
        signs: NDArray[np.int8] | None = None,
    ) -> None: ...
    def factor(
        self,
        values: NDArray[np.float64],
        threads: int = 1,
        threshold: float = 1e-13,
        replacement: float = 2e-7,
        batch: int = 0,
    ) -> LDLTFactor:
        """Factor a batch: values of shape (batch, entries), or (1, entries) with `batch` given.

        A pivot d with sign * d below `threshold` becomes sign * `replacement`.
        """

    @property
    def n(self) -> int:
        """Dimension."""

    @property
    def fill(self) -> int:
        """Entries of L below the diagonal."""

    @property
    def flops(self) -> float:
        """Multiplications and additions of one factorization."""

    @property
    def supernodes(self) -> int:
        """Number of supernodes."""

class Gradients(TypedDict):
    """What `Differentiator.pullback` returns; `worst` is the largest residual, infinite if one is no number.

    `outside` has a column for each of the two rows of the linearised conditions, relative to the right-hand side;
    `moved` is its largest entry.
    """

    dP: NDArray[np.float64]
    dq: NDArray[np.float64]
    dA: NDArray[np.float64]
    db: NDArray[np.float64]
    lam: NDArray[np.float64]
    u: NDArray[np.float64]
    residual: NDArray[np.float64]
    outside: NDArray[np.float64]
    worst: float
    moved: float

class EngineSolution(TypedDict):
    """What `Engine.solve` returns; x, y, s hold a normalised certificate where the status is infeasible.

    `worst` is the largest residual of all items, infinite if one of them is not solved.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    s: NDArray[np.float64]
    status: NDArray[np.int8]
    iterations: NDArray[np.int64]
    primal_residual: NDArray[np.float64]
    dual_residual: NDArray[np.float64]
    gap: NDArray[np.float64]
    worst: float

class Engine:
    """Interior-point solver of all cone programmes with one structure.

    Args:
        n, m: Numbers of variables and rows.
        P_indptr, P_indices: Upper triangle of P, compressed columns, sorted, int64.
        A_indptr, A_indices: A, compressed columns, sorted, int64.
        cone_kinds: 0 zero, 1 nonnegative, 2 second-order, 3 semidefinite, 4 exponential, 5 dual exponential, 6 power,
            7 dual power.
        cone_dims: Number of rows; order for semidefinite cones.
        cone_params: Exponents of power cones.
    """

    def __init__(
        self,
        n: int,
        m: int,
        P_indptr: NDArray[np.int64],
        P_indices: NDArray[np.int64],
        A_indptr: NDArray[np.int64],
        A_indices: NDArray[np.int64],
        cone_kinds: NDArray[np.int64],
        cone_dims: NDArray[np.int64],
        cone_params: NDArray[np.float64],
    ) -> None: ...
    def solve(
        self,
        P: NDArray[np.float64],
        q: NDArray[np.float64],
        A: NDArray[np.float64],
        b: NDArray[np.float64],
        batch: int,
        *,
        differentiator: Differentiator | None = None,
        threads: int = 1,
        tol: float = 1e-8,
        max_iter: int = 100,
        tol_early: float = 1e-4,
        equilibrate: int = 8,
        regularisation: float = 1e-8,
        refinements: int = 3,
        x: NDArray[np.float64] | None = None,
        y: NDArray[np.float64] | None = None,
        s: NDArray[np.float64] | None = None,
        tol_infeasible: float | None = None,
    ) -> EngineSolution:
        """Solve `batch` programmes; each of P, q, A, b has `batch` rows, or one that all share.

        With a differentiator of the same structure, Newton steps on the optimality conditions finish each solve; they
        are tried first where the residuals fall below `tol_early`. With a point x, y, s besides (`batch` rows or one)
        they are tried from there before anything else; items that they solve report no iterations.
        """

    @property
    def order(self) -> NDArray[np.int64]:
        """Elimination order of the KKT matrix, of use to the `Differentiator` of the same structure."""

    @property
    def fill(self) -> int:
        """Entries below the diagonal in the factor of the KKT matrix."""

    @property
    def flops(self) -> float:
        """Multiplications and additions of one factorization of the KKT matrix."""

class Differentiator:
    """Derivative kernels of one structure: solves with J(D), the whole reverse mode, and the Newton polish.

    Args: as for `Engine`, and the elimination order, if it is known.
    """

    def __init__(
        self,
        n: int,
        m: int,
        P_indptr: NDArray[np.int64],
        P_indices: NDArray[np.int64],
        A_indptr: NDArray[np.int64],
        A_indices: NDArray[np.int64],
        cone_kinds: NDArray[np.int64],
        cone_dims: NDArray[np.int64],
        cone_params: NDArray[np.float64],
        order: NDArray[np.int64] | None = None,
    ) -> None: ...
    def derivative(
        self,
        P: NDArray[np.float64],
        A: NDArray[np.float64],
        v: NDArray[np.float64],
        r1: NDArray[np.float64],
        r2: NDArray[np.float64],
        mu: float = 0.0,
        threads: int = 1,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """(dx, dv, relative residual) of J(D(v)) [dx; dv] = [r1; r2]; r1 (B, k, n), r2 (B, k, m)."""

    def apply_D(
        self, v: NDArray[np.float64], u: NDArray[np.float64], mu: float = 0.0, threads: int = 1
    ) -> NDArray[np.float64]:
        """D(v) u; u (B, k, m)."""

    def project_dual(self, v: NDArray[np.float64], mu: float = 0.0, threads: int = 1) -> NDArray[np.float64]:
        """The projection of v onto the dual cone, smoothed for mu > 0."""

    def pullback(
        self,
        P: NDArray[np.float64],
        A: NDArray[np.float64],
        x: NDArray[np.float64],
        y: NDArray[np.float64],
        s: NDArray[np.float64],
        gx: NDArray[np.float64],
        gy: NDArray[np.float64],
        gs: NDArray[np.float64],
        mu: float = 0.0,
        direction: NDArray[np.float64] | None = None,
        threads: int = 1,
    ) -> Gradients:
        """dP, dq, dA, db, and of the adjoint system the solution (lam, u) and the relative residual.

        `direction`, a row or one per item, holds tangents of P, q, A and b, one after another; `outside` tells what of
        that motion the linearised conditions cannot follow.
        """

    def probe(
        self,
        P: NDArray[np.float64],
        A: NDArray[np.float64],
        y: NDArray[np.float64],
        s: NDArray[np.float64],
        rhs: NDArray[np.float64],
        accuracy: float,
        threads: int = 1,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """|z| and the relative residual of J(D(y - s)) z = rhs, (B,) each; rhs (n + m,) is the same for all items.

        Refinement stops at the relative residual `accuracy`.
        """

    def polish(
        self,
        P: NDArray[np.float64],
        q: NDArray[np.float64],
        A: NDArray[np.float64],
        b: NDArray[np.float64],
        x: NDArray[np.float64],
        y: NDArray[np.float64],
        s: NDArray[np.float64],
        steps: int = 2,
        target: float = 1e-14,
        threads: int = 1,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """x, y, s, their residual, and (B, 3): relative primal residual, dual residual and gap."""

    @property
    def flops(self) -> float:
        """Multiplications and additions of one factorization."""

    @property
    def fill(self) -> int:
        """Entries below the diagonal in the factor."""

def clearly_indefinite(
    n: int, indptr: NDArray[np.int64], indices: NDArray[np.int64], P: NDArray[np.float64], threads: int = 1
) -> NDArray[np.bool_]:
    """Whether each row of P, values on an upper-triangle pattern, is of a matrix that is not positive semidefinite.

    Eigenvalues above -1e-5, with a unit diagonal, count as rounding.
    """

def csr_product(
    indptr: NDArray[np.int32],
    indices: NDArray[np.int32],
    blocks: NDArray[np.uint8],
    data: NDArray[np.float64],
    offset: NDArray[np.float64],
    x: Sequence[NDArray[np.float64]],
    rows: Sequence[int],
    items: Sequence[int],
    threads: int = 1,
) -> list[NDArray[np.float64]]:
    """z[k][i] = sum of M_kb x[b][i] over blocks b, plus offset; column `indices[j]` is one of block `blocks[j]`.

    z[k] has shape (items[k], rows[k]); items[k] is 1 or as many as the others'.
    """

def engine_image(
    n: int,
    m: int,
    P_indptr: NDArray[np.int64],
    P_indices: NDArray[np.int64],
    A_indptr: NDArray[np.int64],
    A_indices: NDArray[np.int64],
    cone_kinds: NDArray[np.int64],
    cone_dims: NDArray[np.int64],
    cone_params: NDArray[np.float64],
) -> tuple[bytes, bytes, list[tuple[int, int]], tuple[int, int], tuple[int, float]]:
    """The analysis of `Engine` for another memory, and the numbers of work per problem.

    Returns:
        The struct, its arrays, pairs (place of an address in the struct, place in the arrays it leads to), the work
        (what a problem keeps between iterations, and scratch), and a factorization's entries of L and operations.
    """

def derivative_image(
    n: int,
    m: int,
    P_indptr: NDArray[np.int64],
    P_indices: NDArray[np.int64],
    A_indptr: NDArray[np.int64],
    A_indices: NDArray[np.int64],
    cone_kinds: NDArray[np.int64],
    cone_dims: NDArray[np.int64],
    cone_params: NDArray[np.float64],
) -> tuple[bytes, bytes, list[tuple[int, int]], int, tuple[int, float]]:
    """The same for `Differentiator`."""

def descend_gram(
    Q: NDArray[np.float64],
    gradient: NDArray[np.float64],
    w: NDArray[np.float64],
    term: NDArray[np.float64],
    epochs: int,
    target: float,
) -> int:
    """Minimise w'Qw/2 + ... + a separable term in place, with the Gram matrix in memory; returns the sweeps made.

    Args:
        Q: X'HX, shape (k, k).
        gradient: Slope of the quadratic at the starting point, shape (k,); updated.
        w: Starting point, shape (k,); updated.
        term: Linear parts, thresholds, curvatures, lower and upper bounds, shape (5, k).
        epochs: Most sweeps.
        target: Stop when no coordinate's step, times its curvature, exceeds this in a sweep.
    """

def descend_groups(
    Q: NDArray[np.float64],
    gradient: NDArray[np.float64],
    w: NDArray[np.float64],
    scale: NDArray[np.float64],
    l1: NDArray[np.float64],
    members: NDArray[np.int64],
    offsets: NDArray[np.int64],
    epochs: int,
    target: float,
) -> int:
    """`descend_gram` for w of shape (m, r) and the term sum scale_g |w_g| + sum l1 |w|.

    `members` holds the rows of the groups, one group after the other, shape (m,); `offsets` where each group begins in
    it, and the end, shape (groups + 1,).
    """

def descend_columns(
    indptr: NDArray,
    indices: NDArray,
    data: NDArray,
    h: NDArray[np.float64],
    r: NDArray[np.float64],
    intercept: bool,
    w: NDArray[np.float64],
    term: NDArray[np.float64],
    epochs: int,
    target: float,
) -> float:
    """`descend_gram` on compressed columns, with the slope r in the predictions (overwritten) in memory.

    h is the curvature of the model in each prediction, shape (n,). With `intercept` one is minimised over as well; its
    change is returned. Each of the `epochs` is a full sweep, followed by sweeps over the nonzero coordinates.
    """

def conjugate_gradient(
    indptr: NDArray,
    indices: NDArray,
    data: NDArray,
    h: NDArray[np.float64],
    curvature: NDArray[np.float64],
    rhs: NDArray[np.float64],
    intercept: bool,
    rtol: float,
    most: int,
) -> tuple[NDArray[np.float64], bool]:
    """Solve J u = rhs for J = [[X'HX + diag(curvature), X'h], [h'X, sum h]]; and whether it reached the accuracy."""

def csc_times(indptr: NDArray, indices: NDArray, data: NDArray, n: int, w: NDArray[np.float64]) -> NDArray[np.float64]:
    """X w, shape (n, K), for w of shape (p, K); columns with zeros only cost nothing."""

def csc_transposed(
    indptr: NDArray, indices: NDArray, data: NDArray, r: NDArray[np.float64], threads: int = 1
) -> NDArray[np.float64]:
    """X' r, shape (p, K), for r of shape (n, K)."""

def csc_squared(indptr: NDArray, indices: NDArray, data: NDArray, weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """sum_i weight_i x_ij^2, shape (p,)."""

def csc_columns(
    indptr: NDArray, indices: NDArray, data: NDArray, features: NDArray[np.int64], place: NDArray[np.int64] | None
) -> tuple[NDArray, NDArray, NDArray[np.float64]]:
    """Some columns, (indptr, indices, data), of the rows that `place` numbers; of all rows for None."""

def rows_times(
    X: NDArray,
    index: NDArray[np.int64] | None,
    B: NDArray[np.float64],
    features: NDArray[np.int64] | None,
    threads: int = 1,
) -> NDArray[np.float64]:
    """X[index] B', shape (n, K), for B of shape (K, p), or (K, used) on the features in use."""

def rows_transposed(
    X: NDArray, index: NDArray[np.int64] | None, R: NDArray[np.float64], threads: int = 1
) -> NDArray[np.float64]:
    """R X[index], shape (K, p), for R of shape (K, n)."""

def rows_chosen(
    X: NDArray, index: NDArray[np.int64] | None, features: NDArray[np.int64], threads: int = 1
) -> NDArray[np.float64]:
    """X[index][:, features] in double precision."""

def rows_squared(
    X: NDArray, index: NDArray[np.int64] | None, weight: NDArray[np.float64], threads: int = 1
) -> NDArray[np.float64]:
    """sum_i weight_i x_ij^2 over the rows in `index`, shape (p,)."""
