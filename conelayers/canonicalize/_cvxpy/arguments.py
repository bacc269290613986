"""What a user may pass: the checks before a problem is reduced."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator, Sequence
from typing import Any

import cvxpy as cp
from cvxpy.atoms.pnorm import Pnorm
from cvxpy.atoms.quad_form import QuadForm
from cvxpy.constraints.exponential import ExpCone
from cvxpy.constraints.finite_set import FiniteSet
from cvxpy.constraints.nonpos import Inequality, NonNeg, NonPos
from cvxpy.constraints.power import PowCone3D
from cvxpy.constraints.second_order import SOC
from cvxpy.constraints.zero import Equality, Zero
from cvxpy.reductions.dcp2cone.canonicalizers import CANON_METHODS
from cvxpy.transforms.indicator import indicator
from cvxpy.transforms.partial_optimize import PartialProblem

from conelayers.canonicalize._cvxpy.disciplined import explain
from conelayers.errors import InvalidArgument, UnsupportedError

__all__ = ["check_arguments", "check_version", "dual_owners"]

_MINIMUM_VERSION = (1, 9, 3)

# Constraints that CVXPY reduces wherever they stand.
_IN_INDICATORS = (Equality, Inequality, Zero, NonNeg, NonPos, SOC, ExpCone, PowCone3D)


def check_version() -> None:
    """Refuse CVXPY releases whose quadratic objectives are wrong.

    Raises:
        UnsupportedError: If CVXPY is older than 1.9.3; earlier ones lose `sum_squares` of a symmetric variable.
    """
    version: str = importlib.metadata.version("cvxpy")
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
    if numbers < _MINIMUM_VERSION:
        raise UnsupportedError(
            f"cvxpy {version} is too old: releases before 1.9.3 lose quadratic terms of symmetric variables. "
            "Upgrade with `pip install 'cvxpy>=1.9.3'`."
        )


def check_kinds(problem: Any, parameters: Any, variables: Any) -> None:
    """Check that the problem is one and that the lists are lists.

    Raises:
        InvalidArgument: If they are not.
    """
    if not isinstance(problem, cp.Problem):
        raise InvalidArgument(f"problem must be a cvxpy.Problem, not {type(problem).__name__}.")
    for name, value in (("parameters", parameters), ("variables", variables)):
        if not isinstance(value, list | tuple):
            raise InvalidArgument(f"The layer's {name} must be provided as a list or tuple.")


def check_arguments(
    problem: cp.Problem, reduced: cp.Problem, parameters: Any, variables: Any, gp: bool, quadratic: bool = True
) -> None:
    """Check what the user passed.

    Args:
        problem: The user's problem.
        reduced: The problem that will be reduced, see `preparation`.
        parameters: The listed parameters.
        variables: What is to be returned.
        gp: Whether the problem is a geometric programme.
        quadratic: Whether quadratic objectives stay quadratic.

    Raises:
        InvalidArgument: If the problem is not DPP, parameters do not match the problem's exactly, or a variable is
            neither the problem's nor a dual variable of its constraints nor an expression of these.
    """
    _check_dpp(reduced, gp, quadratic)
    if len(problem.variables()) == 0:
        raise InvalidArgument("problem has no variables, so there is nothing to solve.")
    nodes = list(_nodes(reduced))
    if problem.is_mixed_integer() or any(isinstance(node, FiniteSet) for node in nodes):
        raise InvalidArgument("problem has integer or boolean values; only continuous problems can be layers.")
    _check_indicators(nodes)
    _check_norms(nodes)
    given = {id(parameter) for parameter in parameters}
    if given != {id(parameter) for parameter in reduced.parameters()} or len(given) != len(parameters):
        raise InvalidArgument(
            "The layer's parameters must exactly match problem.parameters: "
            f"got {[str(p) for p in parameters]}, the problem has {[str(p) for p in reduced.parameters()]}. Add those "
            "that are missing, or give them a .value and pass fix_unlisted=True to keep them constant."
        )
    known = {variable.id for variable in problem.variables()} | set(dual_owners(problem))
    for variable in variables:
        _check_output(variable, known, given)


def _check_output(entry: Any, known: set[int], parameters: set[int]) -> None:
    """What may be returned: variables, dual variables, and expressions of these and of the parameters."""
    if not isinstance(entry, cp.Expression):
        raise InvalidArgument(
            f"The entries of variables must be a subset of problem.variables, dual variables of constraints, or "
            f"expressions of these; {entry!r} is a {type(entry).__name__}."
        )
    foreign = [variable.name() for variable in entry.variables() if variable.id not in known]
    if foreign and isinstance(entry, cp.Variable):
        raise InvalidArgument(f"Variable {entry} must be a subset of problem.variables or a constraint dual variable.")
    if foreign:
        raise InvalidArgument(
            f"The expression {entry} among variables has {', '.join(foreign)}, which the problem has not."
        )
    missing = [parameter.name() for parameter in entry.parameters() if id(parameter) not in parameters]
    if missing:
        raise InvalidArgument(
            f"The expression {entry} among variables has the parameter(s) {', '.join(missing)}, which the problem has "
            "not; multiply by these outside of the layer."
        )
    if not entry.variables():
        raise InvalidArgument(f"The expression {entry} among variables has no variable of the problem.")


def _check_dpp(problem: Any, gp: bool, quadratic: bool) -> None:
    if gp:
        if not problem.is_dgp(dpp=True):
            raise InvalidArgument("Problem must be DPP for geometric programming: problem.is_dgp(dpp=True) is False.")
        return
    parametric = any(_has_parametric_quad_form(constraint) for constraint in problem.constraints)
    if parametric or _has_parametric_quad_form(problem.objective.expr, affine_above=True):
        raise InvalidArgument(
            "Problem must be DPP. Note: quad_form(x, P) with parametric P is only supported in the objective, as a "
            "term of it, and not in constraints or inside other functions. Write sum_squares(L @ x) with P = L'L there."
        )
    if not quadratic and not problem.is_dpp() and problem.is_dpp(quad_form_dpp="qp"):
        raise InvalidArgument(
            "Problem must be DPP: with a solver without quadratic objectives, quad_form(x, P) cannot have a parametric "
            "P. Choose another solver, or write sum_squares(L @ x) with P = L'L."
        )
    if not (problem.is_dpp(quad_form_dpp="qp") if quadratic else problem.is_dpp()):
        raise InvalidArgument(f"Problem must be DPP: {explain(problem, quadratic)}")


def _has_parametric_quad_form(expression: Any, affine_above: bool = False) -> bool:
    """Whether a quad_form with parametric P sits where CVXPY would factor P's current value into the constraints.

    `affine_above` tells that only affine atoms lie between the root of the objective and the expression: there the
    matrix goes to the quadratic objective, and stays parametric.
    """
    if isinstance(expression, QuadForm) and expression.args[1].parameters() and not affine_above:
        return True
    below = affine_above and type(expression) not in (*CANON_METHODS, PartialProblem)
    return any(_has_parametric_quad_form(part, below) for part in _parts(expression))


def _check_indicators(nodes: Sequence[Any]) -> None:
    """Refuse what CVXPY would take out of an `indicator` without a word, or stumble over.

    Its rules call every indicator convex, whatever it holds; and some kinds of constraints are reduced to the cones of
    solvers in the list of constraints only, and are lost elsewhere.
    """
    for expression in nodes:
        for constraint in expression.args if isinstance(expression, indicator) else ():
            if not constraint.is_dcp(dpp=True):
                raise InvalidArgument(f"Problem must be DPP, also inside of indicator(...): {constraint} is not.")
            if not isinstance(constraint, _IN_INDICATORS):
                raise UnsupportedError(
                    f"indicator(...) cannot hold the {type(constraint).__name__} constraint {constraint}; add it to "
                    "the problem's constraints instead."
                )


def _check_norms(nodes: Sequence[Any]) -> None:
    """Refuse norms along an axis for which CVXPY, to 1.9.3 at least, puts entries into each other's cones."""
    for node in nodes:
        if isinstance(node, Pnorm | SOC) and node.axis not in (None, 0) and node.args[-1].ndim > 2:
            raise UnsupportedError(
                f"CVXPY gets {node} wrong: of expressions with more than two dimensions it has norms along the first "
                f"axis only. Take cp.moveaxis(expression, {node.axis}, 0), and its norm along axis 0."
            )


def _nodes(problem: cp.Problem) -> Iterator[Any]:
    """All expressions and constraints of a problem, those inside others included; shared ones once."""
    seen: set[int] = set()
    waiting: list[Any] = [problem.objective.expr, *problem.constraints]
    while waiting:
        node = waiting.pop()
        if id(node) not in seen:
            seen.add(id(node))
            yield node
            waiting += _parts(node)


def _parts(expression: Any) -> Sequence[Any]:
    """What an expression or a constraint is made of; the argument of a partial optimization is a whole problem."""
    if isinstance(expression, PartialProblem):
        return [expression.args[0].objective.expr, *expression.args[0].constraints]
    return expression.args


def dual_owners(problem: cp.Problem) -> dict[int, tuple[Any, int]]:
    """Constraint and position of each dual variable, by the variable's id."""
    return {
        variable.id: (constraint, position)
        for constraint in problem.constraints
        for position, variable in enumerate(constraint.dual_variables)
    }
