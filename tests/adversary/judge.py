"""What a layer says about programmes whose answers are known, and whether it is true."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from adversary.closed_forms import FAMILIES
from adversary.constructed import Constructed, Spread, construct

from conelayers import ConeLayer, CvxpyLayer, Status
from conelayers.cones import (
    Cone,
    DualExponential,
    DualPower,
    Exponential,
    Nonnegative,
    PositiveSemidefinite,
    Power,
    SecondOrder,
    Zero,
)

__all__ = ["CONSTRUCTED", "LIMIT", "Outcome", "judge_closed_form", "judge_constructed"]

LIMIT = 1e-6
"""Largest error of a value or gradient that is called solved, relative to the item's own scale."""

# Solutions of programmes worse conditioned than this are not determined by their data to `LIMIT`.
_CONDITION = 1e7

#: Spreads of numbers by name: units of rows, columns and objective; sizes of slacks and multipliers.
CONSTRUCTED = {
    "plain": Spread(),
    "units": Spread(rows=4, columns=3, objective=4),
    "large units": Spread(rows=8, columns=4, objective=8),
    "sizes": Spread(points=2),
    "large sizes": Spread(points=4),
    "all": Spread(rows=3, columns=2, objective=3, points=2),
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One item's verdict.

    Attributes:
        status: What the layer says.
        value: Error of the solution in its own scale; infinite where none exists.
        gradient: Error of the gradient in its own scale; NaN if not judged.
        judged: Whether the data determine the answer to `LIMIT`.
        regular: Whether the certificate calls the item regular.
    """

    status: Status
    value: float
    gradient: float
    judged: bool = True
    regular: bool = False

    @property
    def wrong(self) -> bool:
        """Called solved, and is not."""
        accurate = max(self.value, np.nan_to_num(self.gradient)) <= LIMIT
        return self.judged and self.status is Status.SOLVED and not accurate


def judge_closed_form(family: str, seed: int, items: int, solver: str | None = None) -> list[Outcome]:
    """Solve one draw of a family of `closed_forms` as one batch."""
    rng = np.random.default_rng([seed, *family.encode()])
    drawn = FAMILIES[family](rng, items)
    layer = CvxpyLayer(drawn.problem, [drawn.parameter], [drawn.variable], solver=solver, on_failure="nan")
    values = torch.tensor(drawn.values, dtype=torch.float64, requires_grad=True)
    solution = layer.solve(values)
    found = solution.variables[0].mT if drawn.variable.ndim == 2 else solution.variables[0]
    found = found.reshape(items, -1)
    cotangents = rng.normal(size=(items, found.shape[1]))
    unit = np.broadcast_to(np.asarray(drawn.unit, dtype=float), cotangents.shape)
    (gradients,) = torch.autograd.grad((found * torch.tensor(cotangents)).nansum(), values)
    outcomes = []
    for i in range(items):
        value = np.abs((found[i].detach().numpy() - drawn.solutions[i]) / unit[i]).max()
        gradient = np.nan
        if drawn.derivative is not None:
            right = drawn.derivative(i, cotangents[i])
            gradient = float(np.abs((gradients[i].numpy() - right) / drawn.gradient_unit).max())
        outcomes.append(Outcome(_status(solution.status, i), np.inf if np.isnan(value) else float(value), gradient))
    return outcomes


def judge_constructed(name: str, seed: int, items: int, solver: str | None = None) -> list[Outcome]:
    """Solve one batch of programmes of one structure, each made from a solution of its own."""
    rng = np.random.default_rng([seed, *name.encode()])
    cones, n, rank = _draw_structure(rng)
    made = [construct(cones, n, rng, CONSTRUCTED[name], rank=rank) for _ in range(items)]
    m = len(made[0].b)
    layer = ConeLayer(cones, np.ones((m, n)), np.ones((n, n)), on_failure="nan", solver=solver)
    data = [torch.tensor(np.stack([getattr(c, part) for c in made]), requires_grad=True) for part in "PqAb"]
    solution = layer(*data)
    cotangents = rng.normal(size=(items, n))
    units = torch.tensor(np.stack([c.column_units for c in made]).astype(float))
    loss = (torch.tensor(cotangents) * solution.x / units).nansum()
    gradients = torch.autograd.grad(loss, data)
    regular = solution.regularity().regular
    outcomes = []
    for i, programme in enumerate(made):
        found = {part: getattr(solution, part)[i].detach().numpy() for part in "xys"}
        pulled = {f"d{part}": gradient[i].numpy() for part, gradient in zip("PqAb", gradients, strict=True)}
        outcomes.append(
            Outcome(
                _status(solution.status, i),
                _value_error(programme, found),
                _gradient_error(programme, pulled, cotangents[i]),
                programme.condition <= _CONDITION,
                bool(regular[i]),
            )
        )
    return outcomes


def _value_error(programme: Constructed, found: dict[str, np.ndarray]) -> float:
    """The largest error of x, y and s; each relative to its largest entry and to what it is determined by."""
    base = {part: programme.in_base_units(part, getattr(programme, part)) for part in "xys"}
    q, b = programme.in_base_units("q", programme.q), programme.in_base_units("b", programme.b)
    least = {"x": 0.0, "y": np.abs(q).max(), "s": np.abs(b).max()}
    return _largest(base, {part: programme.in_base_units(part, value) for part, value in found.items()}, least)


def _gradient_error(programme: Constructed, found: dict[str, np.ndarray], cotangent: np.ndarray) -> float:
    """The largest error of the gradients; those that are zero (at vertices) relative to the cotangent, about 1."""
    right = programme.gradients(cotangent)
    found = {part: programme.in_base_units(part, value) for part, value in found.items()}
    return _largest(right, found, dict.fromkeys(right, 1.0))


def _largest(right: dict[str, np.ndarray], found: dict[str, np.ndarray], least: dict[str, float]) -> float:
    errors = []
    for part, value in found.items():
        error = float(np.abs(value - right[part]).max() / max(np.abs(right[part]).max(), least[part]))
        errors.append(np.inf if np.isnan(error) else error)
    return max(errors)


def _draw_structure(rng: np.random.Generator) -> tuple[Sequence[Cone], int, int]:
    """A product of cones, a number of variables and the rank of P."""
    cones: list[Cone] = []
    if rng.random() < 0.6:
        cones.append(Zero(int(rng.integers(1, 3))))
    if rng.random() < 0.8:
        cones.append(Nonnegative(int(rng.integers(1, 9))))
    curved = [
        *(lambda: SecondOrder(int(rng.integers(2, 6))), lambda: PositiveSemidefinite(int(rng.integers(2, 5)))),
        *(Exponential, DualExponential),
        *(lambda: Power(rng.uniform(0.1, 0.9)), lambda: DualPower(rng.uniform(0.1, 0.9))),
    ]
    for _ in range(int(rng.integers(0 if cones else 1, 4))):
        cones.append(curved[int(rng.integers(len(curved)))]())
    m = sum(cone.dim for cone in cones)
    n = int(rng.integers(max(2, 2 * m // 3), m + 4))
    return cones, n, n if rng.random() < 0.6 else int(rng.integers(max(1, 2 * n // 3), n + 1))


def _status(status: Status | np.ndarray, i: int) -> Status:
    return status[i] if isinstance(status, np.ndarray) else status
