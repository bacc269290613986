"""Derivatives of a layer at a kink: all extreme Jacobians, and the one-sided derivative in a direction."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from conelayers.backends import default_backend
from conelayers.errors import InvalidArgument, SolveError, UnsupportedError
from conelayers.implicit import implicit
from conelayers.layers.cvxpy_layer import CvxpyLayer
from conelayers.program import ConeProgram, ConeSolution, Status
from conelayers.regularity import possible_kink
from conelayers.regularity.certificate import element_is_regular
from conelayers.regularity.elements import FixedElement, extreme_points, weak_rows
from conelayers.regularity.one_sided import one_sided
from conelayers.regularity.report import Labels, examine_problem
from conelayers.regularity.sharpening import sharper_solution

__all__ = ["ExtremeJacobians", "extreme_jacobians", "one_sided_derivative"]


@dataclasses.dataclass(frozen=True, eq=False)
class ExtremeJacobians:
    """The extreme elements of the conservative Jacobian of a layer at one point.

    Attributes:
        jacobians: For each output and each parameter a tensor (count, *output.shape, *parameter.shape); NaN where the
            element of the residual's Jacobian is singular. The first is the smallest element, all rows inactive;
            `Exact()` uses one of them, that of the side on which rounding leaves the solution.
        invertible: Whether J(D) is invertible, bool, (count,), modulo variables and multipliers that CVXPY added and
            that are free. All must be for the theorem to hold.
        active: Which of the weakly active rows each element treats as active, bool, (count, rows).
        complete: Whether these are all extreme elements: false beyond the limit, or with a curved constraint on a kink.
            Of its elements one is taken, that of the side on which rounding leaves the solution.
    """

    jacobians: tuple[tuple[Tensor, ...], ...]
    invertible: Tensor
    active: Tensor
    complete: bool


def extreme_jacobians(
    layer: CvxpyLayer, *params: Tensor, limit: int = 64, radius: float | None = None
) -> ExtremeJacobians:
    """Jacobians of the layer's outputs in its parameters for every choice at weakly active linear constraints.

    Args:
        layer: The layer.
        *params: Parameters without batch axes.
        limit: Largest number of elements; k weakly active rows have 2^k.
        radius: Rows within this distance of their kink count as weakly active; None for the accuracy of the solution.

    Raises:
        InvalidArgument: If parameters have batch axes.
        SolveError: If the problem has no solution.
    """
    if limit < 1:
        raise InvalidArgument(f"limit must be at least 1, got {limit!r}.")
    params = tuple(p.detach().to(torch.float64) for p in params)
    program, solution = _solved(layer, params)
    v = solution.y - solution.s
    rows, curved = weak_rows(program.structure.cone, v, _radius(program, solution, radius))
    conditions, labels = layer.conditions(), Labels.of_problem(layer.program)
    found, invertible, active = [], [], []
    for point in extreme_points(v, rows, limit):
        invertible.append(element_is_regular(program, solution.x, point, labels.interface))
        active.append(point[rows] > 0)
        element = FixedElement(conditions, solution, point)

        def outputs(*values: Tensor, element: FixedElement = element) -> tuple[Tensor, ...]:
            x, y, s = implicit(element, *layer.parametric.data(values))[:3]
            return layer.program.recover(x, y, s)

        jacobian = torch.func.jacrev(outputs, argnums=tuple(range(len(params))))(*params)
        keep = 1.0 if invertible[-1] else torch.nan
        found.append([[part * keep for part in row] for row in jacobian])
    stacked = tuple(tuple(map(torch.stack, zip(*row, strict=True))) for row in zip(*found, strict=True))
    complete = not curved and 2 ** len(rows) <= limit
    return ExtremeJacobians(stacked, torch.tensor(invertible, device=v.device), torch.stack(active), complete)


def one_sided_derivative(
    layer: CvxpyLayer, params: Sequence[Tensor], directions: Sequence[Tensor], *, radius: float | None = None
) -> tuple[Tensor, ...]:
    """Derivatives of the layer's outputs at t = 0+ along params + t directions.

    At kinks of all cones: a cone programme over the critical cone is solved, see `conelayers.regularity.one_sided`. It
    is made and solved on the CPU, wherever the parameters are.

    Args:
        layer: The layer.
        params: Parameters without batch axes.
        directions: One tensor for each, of its shape.
        radius: Constraints within this distance of their kink count as weakly active; None for the accuracy of the
            solution.

    Returns:
        One tensor per output, of its shape, on the device of the parameters.

    Raises:
        InvalidArgument: If parameters have batch axes, or directions do not fit them.
        SolveError: If the problem has no solution.
        UnsupportedError: If the problem is certainly not regular; or where a flat face of an exponential cone, or a ray
            of a power cone, touches its curved boundary.
    """
    device = params[0].device if params else torch.device("cpu")
    values = tuple(p.detach().to("cpu", torch.float64) for p in params)
    tangents = tuple(d.detach().to("cpu", torch.float64) for d in directions)
    if [t.shape for t in tangents] != [p.shape for p in values]:
        raise InvalidArgument("directions must have the shapes of params, one for each.")
    if not all(bool(t.isfinite().all()) for t in tangents):
        raise InvalidArgument("directions must be finite numbers.")
    program, solution = _solved(layer, values)
    report = examine_problem(layer.program, program, solution, torch.Size([]))
    if bool(report.decided) and not bool(report.regular):
        raise UnsupportedError(f"There is no one-sided derivative to be trusted. {report.explain()}")
    moved = torch.func.jvp(lambda *params: layer.parametric.data(params), values, tangents)[1]
    tangent = ConeProgram(program.structure, *moved)
    radius = _radius(program, solution, radius)
    auxiliary = ~Labels.of_problem(layer.program).interface.variables
    moves = one_sided(program, solution, tangent, radius, default_backend(program.structure), auxiliary)
    at = (solution.x, solution.y, solution.s)
    outputs = torch.func.jvp(lambda x, y, s: layer.program.recover(x, y, s), at, moves)[1]
    return tuple(output.to(device) for output in outputs)


def _solved(layer: CvxpyLayer, params: Sequence[Tensor]) -> tuple[ConeProgram, ConeSolution]:
    if layer.program.validate_params(params):
        raise InvalidArgument("Parameters must have no batch axes here; call once per item.")
    with torch.no_grad():
        solution = layer.solve(*params).cone.detach()
        if not bool(solution.has_solution):
            raise SolveError(f"The problem has no solution here: {Status(int(solution.status_code)).name}.")
        program = layer.program.values(*params)
        return program, sharper_solution(program, solution)


def _radius(program: ConeProgram, solution: ConeSolution, radius: float | None) -> float:
    if radius is not None:
        if not radius >= 0:
            raise InvalidArgument(f"radius must be a number at or above zero, or None, got {radius!r}.")
        return radius
    single = solution.reshape(torch.Size([1]))
    return float(possible_kink(program, single, single.y - single.s))
