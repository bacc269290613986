"""Small questions about CVXPY expressions that the sets share."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
import torch
from cvxpy.transforms.indicator import indicator

from conelayers.errors import InvalidArgument

__all__ = ["as_expression", "as_parameters_only", "evaluated", "has_parameters", "lifted"]


def as_expression(name: str, value: Any) -> cp.Expression:
    """The value as a CVXPY expression, real, without NaN and infinities.

    Raises:
        InvalidArgument: If it is no real finite number, array or expression, or a tensor that is being differentiated.
    """
    if isinstance(value, torch.Tensor):
        if value.requires_grad:
            raise InvalidArgument(
                f"{name} is a tensor that requires a gradient: put a cp.Parameter here, call the layer with the tensor."
            )
        value = value.detach().cpu().numpy()
    try:
        expression = cp.Expression.cast(value)
    except (ValueError, TypeError) as error:
        raise InvalidArgument(f"{name} must be a number, an array or a CVXPY expression, got {value!r}.") from error
    if expression.is_complex():
        raise InvalidArgument(f"{name} must be real, got a complex expression.")
    if isinstance(expression, cp.Constant) and not np.all(np.isfinite(_dense(expression.value))):
        raise InvalidArgument(f"{name} must be finite, got {value!r}.")
    return expression


def as_parameters_only(name: str, value: Any) -> cp.Expression:
    """As `as_expression`, affine in parameters and free of variables.

    Raises:
        InvalidArgument: If it holds variables, or is not affine in its parameters.
    """
    expression = as_expression(name, value)
    if expression.variables():
        raise InvalidArgument(f"{name} holds variables {expression.variables()}: sets are made of data and parameters.")
    if has_parameters(expression) and not _affine_in_parameters(expression):
        raise InvalidArgument(
            f"{name} must be affine in its parameters, got {expression}: compute it in torch and make it one parameter."
        )
    return expression


def has_parameters(expression: cp.Expression) -> bool:
    """Whether a parameter occurs in the expression."""
    return bool(expression.parameters())


def lifted(expression: cp.Expression, name: str) -> tuple[cp.Expression, cp.Expression]:
    """A variable of this name, and a convex expression: 0 where the variable equals the given one, else infinite."""
    free = cp.Variable(expression.shape, name=name)
    return free, indicator([free == expression])


def evaluated(name: str, value: Any) -> np.ndarray:
    """The present value of a number, array or expression.

    Raises:
        InvalidArgument: If something in it has no value.
    """
    number = as_expression(name, value).value
    if number is None:
        raise InvalidArgument(f"{name} has no value: solve the problem and set its parameters first.")
    return np.asarray(_dense(number), dtype=float)


def _affine_in_parameters(expression: cp.Expression) -> bool:
    # DPP allows the product of a variable with what is affine in parameters, and with nothing else.
    return (cp.Variable() * expression).is_dpp()


def _dense(value: Any) -> Any:
    return value.toarray() if hasattr(value, "toarray") else value
