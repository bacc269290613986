"""CVXPY expressions as trees of torch functions, to be evaluated at a solution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cvxpy as cp
import cvxpy.atoms as _atoms
import numpy as np
import scipy.sparse as sp
import torch
from cvxpy.atoms.affine.affine_atom import AffAtom
from cvxpy.atoms.affine.binary_operators import DivExpression, MulExpression, multiply
from cvxpy.atoms.affine.conv import conv, convolve
from cvxpy.atoms.affine.kron import kron

from conelayers.canonicalize import torch_functions as functions
from conelayers.canonicalize.expressions import (
    Apply,
    Constant,
    Expression,
    Linear,
    ParameterValue,
    VariableValue,
)
from conelayers.canonicalize.probing import matrix_of
from conelayers.errors import UnsupportedError

__all__ = ["leaves", "translate"]

atoms: Any = _atoms  # its classes come without type information
_BILINEAR = (MulExpression, DivExpression, multiply, conv, convolve, kron)


def leaves(expression: Any) -> list[Any]:
    """The variables of an expression, dual variables included; each once."""
    found = {variable.id: variable for variable in expression.variables()}
    return list(found.values())


def translate(expression: Any, variables: Mapping[int, int], parameters: Mapping[int, int]) -> Expression:
    """The expression as a function of the values of variables and parameters.

    Args:
        expression: Any CVXPY expression, convex or not.
        variables: Positions of the variables' values by id.
        parameters: Positions of the parameters' values by id.

    Raises:
        UnsupportedError: If it has a function that is not known here.
    """
    if isinstance(expression, cp.Variable):
        return VariableValue(variables[expression.id], tuple(expression.shape))
    if isinstance(expression, cp.Parameter):
        names = ("symmetric", "PSD", "NSD", "hermitian")
        symmetric = expression.ndim >= 2 and any(expression.attributes[name] for name in names)
        return ParameterValue(parameters[expression.id], tuple(expression.shape), symmetric)
    if not expression.parameters() and not expression.variables():
        value = expression.value
        return Constant(np.asarray(value.toarray() if sp.issparse(value) else value) * 1.0)
    atom: Any = expression
    arguments = tuple(translate(argument, variables, parameters) for argument in expression.args)
    shape = tuple(expression.shape)
    if isinstance(expression, MulExpression) and not isinstance(expression, multiply):
        if not shape or all(len(a.shape) in (1, 2) for a in arguments):
            axes = (len(arguments[0].shape), len(arguments[1].shape))
            return Apply(functions.matmul, arguments, shape, {"axes": axes})
    kind = type(expression)  # and not its ancestors: lambda_sum_largest derives from lambda_max
    if kind in _ELEMENTWISE:
        return Apply(_ELEMENTWISE[kind], arguments, shape, elementwise=True)
    if kind in _OVER_AXES:
        function, options = _OVER_AXES[kind]
        axes = {"axes": _axes(expression), "keepdim": bool(atom.keepdims)}
        return Apply(function, arguments, shape, {**axes, **options(expression)})
    if kind in _WITH_OPTIONS:
        function, options = _WITH_OPTIONS[kind]
        return Apply(function, arguments, shape, options(expression))
    if isinstance(expression, AffAtom):
        found = _linear(expression, arguments, shape)
        if found is not None:
            return found
    raise UnsupportedError(
        f"{type(expression).__name__} in {expression} cannot be returned by a layer. Add a variable z with the "
        "constraint z == expression, if the expression is affine, and return z; or compute it from the variables."
    )


def _linear(expression: Any, arguments: Sequence[Expression], shape: tuple[int, ...]) -> Linear | None:
    """The matrix of an affine atom in those of its arguments that vary, or None if it is not linear in them."""
    if isinstance(expression, _BILINEAR):
        moving = [i for i, argument in enumerate(arguments) if not isinstance(argument, Constant)]
        if len(moving) != 1:
            return None
    else:
        moving = list(range(len(arguments)))
    sizes = [int(np.prod(arguments[i].shape)) for i in moving]

    def evaluate(vector: np.ndarray) -> np.ndarray:
        values: list[Any] = [a.value if isinstance(a, Constant) else None for a in arguments]
        parts = np.split(vector, np.cumsum(sizes)[:-1])
        for i, part in zip(moving, parts, strict=True):
            values[i] = part.reshape(arguments[i].shape)
        found: Any = expression.numeric(values)
        return np.asarray(found.toarray() if sp.issparse(found) else found, dtype=float).ravel()

    return Linear(matrix_of(evaluate, sum(sizes)), tuple(arguments[i] for i in moving), shape)


def _axes(expression: Any) -> tuple[int, ...]:
    """The axes of an atom as negative numbers; all for None."""
    rank, axis = len(expression.args[0].shape), expression.axis
    chosen = range(rank) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    return tuple(a - rank if a >= 0 else a for a in chosen)


def _nothing(expression: Any) -> dict[str, Any]:
    return {}


def _power(expression: Any) -> dict[str, Any]:
    return {"exponent": float(expression.p.value)}


def _order(expression: Any) -> dict[str, Any]:
    return {"p": float(getattr(expression, "original_p", expression.p))}


def _weights(expression: Any) -> dict[str, Any]:
    return {"weights": [float(weight) for weight in expression.w]}


_ELEMENTWISE: dict[type, Callable[..., Any]] = {
    multiply: functions.multiply,
    DivExpression: functions.divide,
    atoms.maximum: functions.maximum,
    atoms.minimum: functions.minimum,
    atoms.abs: torch.abs,
    atoms.exp: torch.exp,
    atoms.log: torch.log,
    atoms.log1p: torch.log1p,
    atoms.logistic: torch.nn.functional.softplus,
    atoms.entr: functions.entropy,
    atoms.rel_entr: functions.relative_entropy,
    atoms.kl_div: functions.kl_divergence,
    atoms.xexp: functions.x_exp,
    atoms.real: functions.real_part,
    atoms.imag: functions.imaginary_part,
    atoms.conj: torch.conj,
}
_WITH_OPTIONS: dict[type, tuple[Callable[..., Any], Callable[[Any], dict[str, Any]]]] = {
    atoms.Power: (functions.power, _power),
    atoms.PowerApprox: (functions.power, _power),
    atoms.huber: (functions.huber, lambda e: {"M": float(e.M.value)}),
    atoms.QuadForm: (functions.quadratic_form, _nothing),
    atoms.MatrixFrac: (functions.matrix_frac, _nothing),
    atoms.log_det: (functions.log_det, _nothing),
    atoms.tr_inv: (functions.trace_of_inverse, _nothing),
    atoms.lambda_max: (functions.largest_eigenvalue, _nothing),
    atoms.sigma_max: (functions.dual_norm_of_matrix, lambda e: {"order": "2"}),
    atoms.normNuc: (functions.dual_norm_of_matrix, lambda e: {"order": "nuc"}),
}
_OVER_AXES: dict[type, tuple[Callable[..., Any], Callable[[Any], dict[str, Any]]]] = {
    atoms.Pnorm: (functions.norm, _order),
    atoms.PnormApprox: (functions.norm, _order),
    atoms.norm1: (functions.norm, lambda e: {"p": 1.0}),
    atoms.norm_inf: (functions.norm, lambda e: {"p": float("inf")}),
    atoms.max: (functions.largest, _nothing),
    atoms.min: (functions.smallest, _nothing),
    atoms.log_sum_exp: (functions.log_sum_exp, _nothing),
    atoms.Prod: (functions.product, _nothing),
    atoms.quad_over_lin: (functions.squares_over, _nothing),
    atoms.sum_largest: (functions.largest_entries, lambda e: {"k": float(e.k)}),
    atoms.GeoMean: (functions.geometric_mean, _weights),
    atoms.GeoMeanApprox: (functions.geometric_mean, _weights),
}
