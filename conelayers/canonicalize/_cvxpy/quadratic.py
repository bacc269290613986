"""Quadratic forms of expressions with parameters, with a variable in the expression's place.

CVXPY takes `quad_form(x - p, Q)` for DPP, but not where quadratic objectives stay quadratic: the form is one of second
degree in the parameter as well. With z == x - p, which is affine in x and in p, quad_form(z, Q) has no parameter, and
the objective keeps its matrix.
"""

from __future__ import annotations

from typing import Any

import cvxpy as cp
from cvxpy.atoms.affine.affine_atom import AffAtom
from cvxpy.atoms.atom import Atom
from cvxpy.atoms.matrix_frac import MatrixFrac
from cvxpy.atoms.quad_form import QuadForm

__all__ = ["with_variables_in_forms"]


def with_variables_in_forms(problem: cp.Problem) -> cp.Problem:
    """The problem with z in place of each f(x, p) in a term quad_form(f(x, p), Q) of the objective, and z == f(x, p).

    The problem itself where there is none. Constraints are the same objects, so that their duals can be read.
    """
    constraints: list[Any] = []
    objective = _replaced(problem.objective.expr, constraints)
    if not constraints:
        return problem
    return cp.Problem(type(problem.objective)(objective), [*problem.constraints, *constraints])


def _replaced(expression: Any, constraints: list[Any]) -> Any:
    """The expression with new variables, whose definitions are appended to `constraints`."""
    if isinstance(expression, QuadForm | MatrixFrac):
        inner: Any = expression.args[0]
        if inner.parameters() and inner.variables() and inner.is_dcp(dpp=True) and inner.is_affine():
            stand_in = cp.Variable(inner.shape, complex=inner.is_complex())
            constraints.append(stand_in == inner)
            return expression.copy([stand_in, *expression.args[1:]])
        return expression
    if not isinstance(expression, AffAtom) or not isinstance(expression, Atom):
        return expression
    parts = [_replaced(part, constraints) for part in expression.args]
    same = all(new is old for new, old in zip(parts, expression.args, strict=True))
    return expression if same else expression.copy(parts)
