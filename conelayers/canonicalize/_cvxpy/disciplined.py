"""Which expression breaks CVXPY's rules (DCP or DPP), which rule, and how to write it otherwise."""

from __future__ import annotations

import contextlib
import re
from typing import Any

from cvxpy.atoms.affine.binary_operators import DivExpression, MulExpression, multiply
from cvxpy.atoms.affine.unary_operators import NegExpression
from cvxpy.atoms.quad_form import QuadForm
from cvxpy.constraints.nonpos import Inequality
from cvxpy.constraints.zero import Equality, Zero
from cvxpy.expressions.constants.parameter import is_param_affine
from cvxpy.utilities import scopes

__all__ = ["explain"]

_LONGEST = 100


def explain(problem: Any, quadratic: bool) -> str:
    """Where the problem breaks the rules and what to do: the first place, the objective before the constraints.

    Args:
        problem: A problem that is not DPP.
        quadratic: Whether its objective may hold quad_form(x, P) with a parametric P.
    """
    scope = scopes.quad_form_dpp_scope if quadratic else contextlib.nullcontext
    with scope():
        if not problem.objective.is_dcp(dpp=True):
            return f"In the objective, {_sentence(problem.objective.expr, type(problem.objective).__name__)}"
    for index, constraint in enumerate(problem.constraints):
        if not constraint.is_dcp(dpp=True):
            name = f"{constraint.label!r}" if constraint.label else f"{index} ({_text(constraint)})"
            return f"In constraint {name}, {_of_constraint(constraint)}"
    return "A bound of a variable depends on parameters in another way than affinely; write it as a constraint."


def _of_constraint(constraint: Any) -> str:
    for part in constraint.args:
        if not part.is_dcp(dpp=True):
            return _sentence(part, "")
    if isinstance(constraint, Equality | Zero):
        return (
            "the two sides of an equality must be affine (DCP). Write f(x) <= t for a convex f if the minimum makes it "
            "tight, or linearise it."
        )
    if isinstance(constraint, Inequality):
        left, right = (_curvature(part) for part in constraint.args)
        return (
            f"the left side is {left} and the right side {right}; an inequality needs convex <= concave (DCP). Turn it "
            "round or bound the expression from the other side: nothing else is a convex set."
        )
    return "the arguments of the constraint must be affine in the variables and in the parameters (DCP, DPP)."


def _sentence(expression: Any, objective: str) -> str:
    """What is wrong with an expression, at its smallest part that is wrong by itself."""
    if expression.is_dcp(dpp=True):
        wanted = "Minimize needs a convex expression" if objective == "Minimize" else "Maximize a concave one"
        return (
            f"{_text(expression)} is {_curvature(expression)} and {wanted} (DCP). Change the sign or the sense; a "
            "problem that is truly of the other kind has local optima, which no layer of this package returns."
        )
    node = _smallest(expression)
    rule = "DPP" if node.is_dcp() else "DCP"
    return f"{_text(node)} breaks the {rule} rules: {_reason(node)}"


def _smallest(expression: Any) -> Any:
    """A part that breaks the rules while its own parts keep them."""
    for part in expression.args:
        if not part.is_dcp(dpp=True):
            return _smallest(part)
    return expression


def _reason(node: Any) -> str:
    if isinstance(node, DivExpression):
        return _of_ratio(*node.args)
    if isinstance(node, MulExpression | multiply):
        return _of_product(*node.args)
    if isinstance(node, QuadForm):
        return _of_form(*node.args)
    if node.parameters() and not node.variables():
        return (
            "a function of parameters alone must be affine in them. Declare one parameter for its value, compute it in "
            "torch before the call (gradients flow through), and pass it."
        )
    if type(node).__name__ in ("Power", "PowerApprox") and not node.args[0].is_affine():
        argument = node.args[0]
        hint = " Write norm(x) for sqrt(sum_squares(x))." if "0.5" in str(node) else ""
        return f"its argument {_text(argument)} is {_curvature(argument)}, which this power does not take.{hint}"
    inner = " and ".join(f"{_text(part)}, which is {_curvature(part)}" for part in node.args if not part.is_affine())
    if node.is_dcp():
        return (
            "its curvature depends on the value of a parameter. Declare the parameter's sign (nonneg=True), or add a "
            "variable z with z == argument and write the function of z."
        )
    return (
        f"{type(node).__name__} is {_of_atom(node)} and takes {inner or 'this argument'} only where the composition "
        "rule keeps convexity. Write an equivalent form from CVXPY's list of atoms, or bound the inner part by a "
        "variable."
    )


def _of_product(left: Any, right: Any) -> str:
    if left.variables() and right.variables():
        return (
            "a product of two expressions with variables is not convex. Write sum_squares or quad_form for squares, "
            "geo_mean for products of nonnegative ones (gp=True for monomials), or fix one of the factors as a "
            "parameter."
        )
    factor, other = (left, right) if not left.variables() else (right, left)
    if not other.variables():
        names = _names(left, right)
        return (
            f"it multiplies parameters ({names}) by each other. Declare one parameter for the product, compute it in "
            "torch before the call (gradients flow through), and pass it."
        )
    if not other.is_affine() and not factor.is_nonneg() and not factor.is_nonpos():
        return (
            f"the sign of {_text(factor)} is unknown, and with it the curvature of the product. Declare the parameter "
            "with nonneg=True."
        )
    if not other.parameters() or not is_param_affine(factor):
        return (
            f"{_text(factor)} is not affine in its parameter(s) {_names(factor)}. Declare one parameter for its value, "
            "with its sign (nonneg=True), compute it in torch before the call (gradients flow through), and pass it."
        )
    form = _parametric_form(other)
    if form is not None:
        x, P = form.args
        return (
            f"it multiplies the parameters {_names(factor, P)} by each other. Declare one parameter for their product, "
            f"S = cp.Parameter({P.shape}, PSD=True), write quad_form({_text(x)}, S), and pass S = {_text(factor)} * "
            f"{_text(P)}, computed in torch (gradients flow through)."
        )
    inner = other if other.is_affine() else _parametric_argument(other)
    if inner is not None:
        written = "z" if inner is other else _text(other).replace(_text(inner), "z")
        return (
            f"it multiplies the parameter(s) {_names(factor)} by an expression with the parameter(s) {_names(other)}. "
            f"Add a variable z of shape {inner.shape} with the constraint z == {_text(inner)}, and write "
            f"{_text(factor)} * {written}."
        )
    return (
        f"it multiplies the parameter(s) {_names(factor)} by an expression with the parameter(s) {_names(other)}. Give "
        "the parametric part of the second factor a variable of its own by an equality, or declare one parameter for "
        "the product and compute it in torch."
    )


def _of_ratio(top: Any, bottom: Any) -> str:
    if bottom.variables() and top.variables():
        top = top.args[0] if isinstance(top, NegExpression) else top
        return (
            "a ratio of two expressions with variables is neither convex nor concave. Where both grow in proportion to "
            f"the variables (a return over a risk), fix the numerator: minimise {_text(bottom)} subject to "
            f"{_text(top)} == 1, with constraints that scale likewise, and divide the solution by its sum."
        )
    if bottom.variables():
        return f"write inv_pos({_text(bottom)}), times the numerator, for a positive concave denominator."
    return (
        f"it divides by the parameter(s) {_names(bottom)}. Declare a parameter for the reciprocal, pass "
        f"1 / {_names(bottom)} computed in torch, and multiply by it."
    )


def _of_form(x: Any, P: Any) -> str:
    if P.parameters():
        if not (P.is_psd() or P.is_nsd()):
            return (
                f"its matrix {_text(P)} is not known to be semidefinite. Declare it cp.Parameter({P.shape}, PSD=True)."
            )
        return (
            "quad_form(x, P) with parametric P is only supported in the objective, as a term of it, with a solver that "
            "takes quadratic objectives. Write sum_squares(L @ x) with P = L'L (L = torch.linalg.cholesky(P).mT)."
        )
    if not (P.is_psd() or P.is_nsd()):
        return (
            "its matrix is not positive semidefinite, so the form is not convex. If it is up to rounding, pass "
            "cp.psd_wrap(P)."
        )
    return f"its argument {_text(x)} is {_curvature(x)}; it must be affine."


def _parametric_form(expression: Any) -> Any:
    """A quad_form with a parametric matrix inside an expression."""
    if isinstance(expression, QuadForm) and expression.args[1].parameters():
        return expression
    found = (_parametric_form(part) for part in expression.args)
    return next((form for form in found if form is not None), None)


def _parametric_argument(expression: Any) -> Any:
    """The largest affine expression with variables and parameters inside one that is not affine."""
    for part in expression.args:
        if not part.parameters() or not part.variables():
            continue
        return part if part.is_affine() else _parametric_argument(part)
    return None


def _of_atom(node: Any) -> str:
    return "convex" if node.is_atom_convex() else "concave" if node.is_atom_concave() else "neither convex nor concave"


def _curvature(expression: Any) -> str:
    word = expression.curvature.lower()
    return "neither convex nor concave by the rules" if word == "unknown" else word


def _names(*expressions: Any) -> str:
    return ", ".join(dict.fromkeys(p.name() for expression in expressions for p in expression.parameters()))


# What CVXPY prints, and what a user writes.
_SPELLINGS = (
    (r"quad_over_lin\((.*?), 1\.0, None, False\)", r"sum_squares(\1)"),
    (r"Promote\((\w+), \([\d, ]*\)\)", r"\1"),
    (r", None, False\)", ")"),
    (r"\bPnorm(Approx)?\(", "norm("),
    (r"\bPower(Approx)?\(", "power("),
    (r"\bQuadForm\(", "quad_form("),
    (r"\bSum\(", "sum("),
    (r"\+ -", "- "),
)


def _text(expression: Any) -> str:
    """The expression as a user would write it, shortened."""
    text = " ".join(str(expression).split())
    for pattern, spelling in _SPELLINGS:
        text = re.sub(pattern, spelling, text)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
