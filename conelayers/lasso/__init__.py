"""Lasso-type models as differentiable functions of data and hyperparameters.

    ProximalModel(datafit, penalty)(X, y, *hyperparameters) -> (coef, intercept)

`datafits/` holds losses, `penalties/` families of regularisers indexed by hyperparameters, `terms/` their proximal
operators and derivatives, `designs/` matrices, `solvers/` the inner solvers; `equation.py` differentiates a solution on
its support.
"""

from conelayers.lasso.certificate import SupportCertificate
from conelayers.lasso.datafits import Huber, Logistic, Multinomial, MultitaskQuadratic, Quadratic, Quantile
from conelayers.lasso.designs import Design, as_design
from conelayers.lasso.model import ProximalModel
from conelayers.lasso.penalties import (
    L1,
    MCP,
    SCAD,
    Box,
    ElasticNet,
    EpsilonBox,
    GroupLasso,
    MultitaskL1,
    Penalty,
    SparseGroupLasso,
    WeightedElasticNet,
    WeightedL1,
)
from conelayers.lasso.problem import FitResult
from conelayers.lasso.solvers import ProximalGradient, Solver, WorkingSet

__all__ = [
    "L1",
    "MCP",
    "SCAD",
    "Box",
    "Design",
    "ElasticNet",
    "EpsilonBox",
    "FitResult",
    "GroupLasso",
    "Huber",
    "Logistic",
    "Multinomial",
    "MultitaskL1",
    "MultitaskQuadratic",
    "Penalty",
    "ProximalGradient",
    "ProximalModel",
    "Quadratic",
    "Quantile",
    "Solver",
    "SparseGroupLasso",
    "SupportCertificate",
    "WeightedElasticNet",
    "WeightedL1",
    "WorkingSet",
    "as_design",
]
