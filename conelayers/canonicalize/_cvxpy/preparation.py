"""The user's problem made ready for CVXPY's reductions: fixed parameters, and variables inside quadratic forms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cvxpy as cp

from conelayers.canonicalize._cvxpy.quadratic import with_variables_in_forms
from conelayers.errors import InvalidArgument

__all__ = ["prepared"]


def prepared(
    problem: cp.Problem, parameters: Sequence[cp.Parameter], variables: Sequence[Any], gp: bool, fix_unlisted: bool
) -> tuple[cp.Problem, Sequence[Any]]:
    """An equivalent problem whose constraints have the ids of the user's, and the entries to return.

    Args:
        problem: The user's problem.
        parameters: The listed parameters.
        variables: What is to be returned.
        gp: Whether the problem is a geometric programme.
        fix_unlisted: Whether the other parameters are constants.

    Raises:
        InvalidArgument: If a parameter that is to be a constant has no value.
    """
    if fix_unlisted:
        listed = {id(parameter) for parameter in parameters}
        unlisted = {id(p): p for p in problem.parameters() if id(p) not in listed}
        missing = [p.name() for p in unlisted.values() if p.value is None]
        if missing:
            raise InvalidArgument(
                f"fix_unlisted=True takes parameters that are not listed at their .value; {', '.join(missing)} has "
                "none: set it, or list the parameter."
            )
        if unlisted:
            objective = type(problem.objective)(_fixed(problem.objective.expr, unlisted))
            problem = cp.Problem(objective, [_fixed(constraint, unlisted) for constraint in problem.constraints])
            variables = [_fixed(entry, unlisted) if isinstance(entry, cp.Expression) else entry for entry in variables]
    return (problem if gp else with_variables_in_forms(problem)), variables


def _fixed(node: Any, unlisted: dict[int, cp.Parameter]) -> Any:
    """An expression or constraint with constants in place of some parameters; what has none of them is not copied."""
    if id(node) in unlisted:
        return cp.Constant(node.value)
    if isinstance(node, cp.Variable) or all(id(parameter) not in unlisted for parameter in node.parameters()):
        return node
    return node.copy([_fixed(part, unlisted) for part in node.args])
