"""Random CVXPY problems of many atoms: values against CVXPY's own solve, derivatives against central differences.

Every term is convex in variables and affine in parameters; constraints are the terms again, bounded by their values at
a drawn point, so that problems are feasible; a small quadratic makes the solutions unique.
"""

from collections.abc import Callable

import cvxpy as cp
import numpy as np
import pytest
import torch

from conelayers import CvxpyLayer, Status


class Draw:
    """One random problem in the making: variables by name, parameters with values, and random affine expressions."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.parameters: list[cp.Parameter] = []
        self.variables: dict[str, cp.Variable] = {}

    def parameter(self, value, **attributes) -> cp.Parameter:
        self.parameters.append(cp.Parameter(np.shape(value), **attributes))
        self.parameters[-1].value = value
        return self.parameters[-1]

    def normal(self, *shape: int) -> np.ndarray:
        return self.rng.normal(size=shape)

    def symmetric(self) -> np.ndarray:
        root = self.normal(3, 3)
        return root + root.T

    def variable(self, name: str) -> cp.Variable:
        """x (3) and X (3, 2) are free, z positive, S symmetric, Q semidefinite, c complex, H Hermitian, B bounded."""
        root = self.normal(3, 3)
        kinds: dict[str, tuple[tuple, dict, np.ndarray]] = {
            "x": ((3,), {}, self.normal(3)),
            "X": ((3, 2), {}, self.normal(3, 2)),
            "z": ((3,), {"pos": True}, self.rng.uniform(0.5, 2, 3)),
            "B": ((2,), {"bounds": [-1.5, 1.5]}, self.rng.uniform(-1, 1, 2)),
            "S": ((3, 3), {"symmetric": True}, root + root.T),
            "Q": ((3, 3), {"PSD": True}, root @ root.T + 0.2 * np.eye(3)),
            "c": ((2,), {"complex": True}, self.normal(2) + 1j * self.normal(2)),
            "H": ((2, 2), {"hermitian": True}, np.array([[1.0, 0.3j], [-0.3j, -0.5]])),
        }
        if name not in self.variables:
            shape, attributes, value = kinds[name]
            self.variables[name] = cp.Variable(shape, name=name, **attributes)
            self.variables[name].value = value
        return self.variables[name]

    def affine(self, size: int, constant: bool = False) -> cp.Expression:
        variable = cp.vec(self.variable(str(self.rng.choice(["x", "X", "S", "B"]))), order="F")
        matrix, shift = self.normal(size, variable.size), self.normal(size)
        if constant:
            return matrix @ variable - shift
        return (self.parameter(matrix) if self.rng.random() < 0.5 else matrix) @ variable - self.parameter(shift)

    def positive(self, size: int, constant: bool = False) -> cp.Expression:
        matrix = self.rng.uniform(0.1, 1, (size, 3))
        return (matrix if constant else self.parameter(matrix, nonneg=True)) @ self.variable("z")

    def weight(self, *shape: int) -> cp.Parameter:
        return self.parameter(self.rng.uniform(0.3, 1.5, shape), nonneg=True)


TERMS: dict[str, Callable[[Draw], cp.Expression]] = {
    "sum_squares": lambda d: cp.sum_squares(d.affine(3)),
    "quad_form": lambda d: cp.quad_form(d.variable("x"), d.parameter(np.eye(3) + np.ones((3, 3)), PSD=True)),
    "norm1": lambda d: d.weight() * cp.norm1(d.affine(3, True)),
    "norm2": lambda d: d.weight() * cp.norm2(d.affine(3, True)),
    "norm_inf": lambda d: cp.norm_inf(d.affine(3)),
    "pnorm": lambda d: cp.pnorm(d.affine(3), 3),
    "nuclear": lambda d: cp.normNuc(d.variable("X") - d.parameter(d.normal(3, 2))),
    "huber": lambda d: cp.sum(cp.huber(d.affine(3), 0.7)),
    "log_sum_exp": lambda d: cp.log_sum_exp(d.affine(3)),
    "logistic": lambda d: cp.sum(cp.logistic(d.affine(2))),
    "entr": lambda d: -cp.sum(cp.entr(d.positive(2))),
    "log": lambda d: -d.weight(2) @ cp.log(d.positive(2, True)),
    "kl_div": lambda d: cp.sum(cp.kl_div(d.positive(2), d.weight(2))),
    "rel_entr": lambda d: cp.sum(cp.rel_entr(d.positive(2), d.positive(2) + 1)),
    "geo_mean": lambda d: -cp.geo_mean(d.positive(3), [1, 2, 3]),
    "power": lambda d: cp.sum(cp.power(d.positive(2), -0.5)),
    "square_root": lambda d: -cp.sum(cp.power(d.positive(2), 0.3)),
    "quad_over_lin": lambda d: d.weight() * cp.quad_over_lin(d.affine(2, True), cp.sum(d.positive(2, True))),
    "lambda_max": lambda d: cp.lambda_max(d.variable("S") - d.parameter(d.symmetric(), symmetric=True)),
    "log_det": lambda d: -cp.log_det(d.variable("Q") + 0.1 * np.eye(3)),
    "matrix_frac": lambda d: cp.matrix_frac(d.affine(3), d.variable("Q") + 0.5 * np.eye(3)),
    "maximum": lambda d: cp.sum(cp.maximum(d.affine(2), d.affine(2), 0.3)),
    "sum_largest": lambda d: cp.sum_largest(d.affine(4), 2),
    "cvar": lambda d: cp.cvar(d.affine(5), 0.5),
    "total_variation": lambda d: cp.tv(d.affine(4)),
    "cumulative": lambda d: cp.sum_squares(cp.cumsum(d.affine(3))),
    "kron": lambda d: cp.sum_squares(cp.kron(d.normal(2, 1), d.variable("X")) - d.parameter(d.normal(6, 2))),
    "convolve": lambda d: cp.sum_squares(cp.convolve(d.normal(2), d.variable("x")) - d.parameter(d.normal(4))),
    "complex": lambda d: cp.sum(cp.abs(d.variable("c") - d.parameter(d.normal(2) + 1j * d.normal(2), complex=True))),
    "hermitian": lambda d: cp.lambda_max(d.variable("H") - d.parameter(np.array([[1, 1j], [-1j, 0]]), hermitian=True)),
    "diagonal": lambda d: cp.sum_squares(
        d.parameter(np.diag(d.rng.uniform(0.5, 1.5, 3)), diag=True) @ d.variable("x") - 1
    ),
}


def draw(seed: int) -> tuple[cp.Problem, list[cp.Parameter]]:
    d = Draw(seed)
    names = list(TERMS)
    # Every term comes first in some problem; the others are random.
    objective = TERMS[names[seed % len(names)]](d) + TERMS[str(d.rng.choice(names))](d)
    constraints = []
    for _ in range(int(d.rng.integers(0, 3))):
        term = TERMS[str(d.rng.choice([name for name in names if name != "quad_form"]))](d)
        constraints.append(term <= d.parameter(float(np.real(term.value)) + float(d.rng.choice([0.01, 1.0]))))
    for variable in d.variables.values():
        parts = [cp.real(variable), cp.imag(variable)] if variable.is_complex() else [variable]
        objective += 0.3 * sum(cp.sum_squares(part - 0.1) for part in parts)
    problem = cp.Problem(cp.Minimize(objective), constraints)
    used = {parameter.id for parameter in problem.parameters()}
    return problem, [parameter for parameter in d.parameters if parameter.id in used]


def tangent(parameter: cp.Parameter, value: torch.Tensor) -> torch.Tensor:
    direction = torch.randn_like(value)
    if parameter.ndim == 2 and (parameter.is_symmetric() or parameter.is_hermitian()):
        direction = (direction + direction.mH) / 2
    return torch.diag(direction.diagonal()) if parameter.attributes["diag"] else direction


def inner(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left.conj() * right).real.sum())


@pytest.mark.filterwarnings("ignore")  # CVXPY's about its backends and reduced accuracy
@pytest.mark.parametrize("seed", range(len(TERMS)))
def test_values_and_derivatives(seed):
    problem, parameters = draw(seed)
    variables = problem.variables()
    layer = CvxpyLayer(problem, parameters, variables)
    torch.manual_seed(seed)
    values = tuple(torch.as_tensor(parameter.value) for parameter in parameters)
    directions = tuple(tangent(p, v) for p, v in zip(parameters, values, strict=True))
    leaves = tuple(value.clone().requires_grad_() for value in values)
    solution = layer.solve(*leaves)
    assert solution.status is Status.SOLVED

    for variable, ours in zip(variables, solution.variables, strict=True):
        variable.save_value(ours.detach().numpy())
    assert all(np.max(constraint.violation()) <= 1e-8 for constraint in problem.constraints)
    reached = problem.objective.value
    for variable in variables:
        variable.value = None  # some canonicalizers of CVXPY fail on values
    problem.solve(solver=cp.CLARABEL)
    assert reached == pytest.approx(problem.value, rel=1e-6, abs=1e-6)

    report = solution.regularity()
    if not bool(report.regular) or float(report.margin) < 1e-3:
        return  # a kink is too near for differences
    weights = [torch.randn_like(v) for v in solution.variables]
    loss = sum((w.conj() * v).real.sum() for w, v in zip(weights, solution.variables, strict=True))
    gradients = torch.autograd.grad(loss, leaves)
    reverse = sum(inner(g, t) for g, t in zip(gradients, directions, strict=True))
    moved = torch.func.jvp(layer, values, directions)[1]
    forward = sum(inner(w, t) for w, t in zip(weights, moved, strict=True))
    assert forward == pytest.approx(reverse, rel=1e-8, abs=1e-9)

    def at(step: float) -> float:
        outputs = layer(*(v + step * t for v, t in zip(values, directions, strict=True)))
        return sum(inner(w, v) for w, v in zip(weights, outputs, strict=True))

    errors = []
    for step in (1e-3, 1e-4, 1e-5):
        difference = (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step)
        errors.append(abs(difference - reverse) / max(0.1, abs(reverse)))
    assert min(errors) <= 1e-6
