"""Linear algebra on batches: operators with one fixed pattern, and solvers that factorize once.

Every solver is a frozen dataclass with `init(operator) -> state`, `solve(state, rhs) -> (solution, info)` and
`transpose(state) -> state`.
"""

from conelayers.linalg.base import LinearInfo, LinearSolver
from conelayers.linalg.batched_ldlt import BatchedLDLT
from conelayers.linalg.bicgstab import BiCGSTAB
from conelayers.linalg.cg import CG
from conelayers.linalg.gmres import GMRES
from conelayers.linalg.krylov import KrylovSolver, KrylovState
from conelayers.linalg.ldl import DenseLDL
from conelayers.linalg.lsmr import LSMR
from conelayers.linalg.lu import DenseLU
from conelayers.linalg.minimum_norm import MinimumNorm
from conelayers.linalg.minres import MINRES
from conelayers.linalg.neumann import Neumann, NeumannGMRES
from conelayers.linalg.operators import (
    DenseOperator,
    FunctionOperator,
    IdentityMinus,
    LinearOperator,
)
from conelayers.linalg.sparse import SparseOperator, SparsePattern, SymmetricOperator
from conelayers.linalg.sparse_ldlt import SparseLDLT

__all__ = [
    "CG",
    "GMRES",
    "LSMR",
    "MINRES",
    "BatchedLDLT",
    "BiCGSTAB",
    "DenseLDL",
    "DenseLU",
    "DenseOperator",
    "FunctionOperator",
    "IdentityMinus",
    "KrylovSolver",
    "KrylovState",
    "LinearInfo",
    "LinearOperator",
    "LinearSolver",
    "MinimumNorm",
    "Neumann",
    "NeumannGMRES",
    "SparseLDLT",
    "SparseOperator",
    "SparsePattern",
    "SymmetricOperator",
]
