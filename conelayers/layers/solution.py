"""What `layer.solve` returns: the variables, the cone solution behind them, and how good they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from conelayers.errors import UnsupportedError
from conelayers.program import ConeProgram, ConeSolution, Status
from conelayers.regularity.report import Labels, RegularityReport, examine

__all__ = ["CertifiedSolution", "LayerSolution"]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LayerSolution:
    """Solution of a batch of problems.

    Attributes:
        variables: The requested variables, as `forward` returns them, connected for differentiation.
        cone: The solution (x, y, s) of the cone programmes, float64, connected for differentiation.
        certifier: What `regularity` calls; set by the layer.
        evaluator: What `value` calls; set by the layer.
    """

    variables: tuple[Tensor, ...]
    cone: ConeSolution
    certifier: Callable[[float], RegularityReport] | None = dataclasses.field(default=None, repr=False)
    evaluator: Callable[[ConeSolution], Tensor] | None = dataclasses.field(default=None, repr=False)

    @cached_property
    def value(self) -> Tensor:
        """The optimal value in the problem's own sense, with its constant, shape (*batch,); computed when asked for.

        It is a differentiable function of the parameters, by the envelope theorem: its gradient is that of the
        Lagrangian at the solution, and costs no linear system. Infeasible and unbounded items have infinite values
        (+inf for an infeasible minimisation), other failures NaN.
        """
        if self.evaluator is None:
            raise UnsupportedError("Only solutions made by a layer's solve(...) keep what the value needs.")
        return self.evaluator(self.cone)

    @property
    def status(self) -> Status | np.ndarray:
        """`Status` of each batch item: a member without batch axes, else an object array of members."""
        return self.cone.status

    @property
    def iterations(self) -> Tensor:
        """Iterations of the backend, shape (*batch,)."""
        return self.cone.iterations

    @property
    def primal_residual(self) -> Tensor:
        """Relative primal residual, shape (*batch,)."""
        return self.cone.primal_residual

    @property
    def dual_residual(self) -> Tensor:
        """Relative dual residual, shape (*batch,)."""
        return self.cone.dual_residual

    @property
    def gap(self) -> Tensor:
        """Relative duality gap, shape (*batch,)."""
        return self.cone.gap

    def __repr__(self) -> str:
        return _table(self.cone, [tuple(value.shape) for value in self.variables])

    def plot(self, ax: Any = None) -> Any:
        """Draw the residuals of all items, coloured by status; needs matplotlib.

        Args:
            ax: Axes to draw on, or None for new ones.

        Returns:
            The axes.
        """
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.subplots()[1]
        codes = self.cone.status_code.detach().cpu().reshape(-1).numpy()
        worst = self.cone.worst.detach().cpu().reshape(-1).numpy()
        for code in np.unique(codes):
            here = np.flatnonzero(codes == code)
            shown = np.where(np.isfinite(worst[here]), np.maximum(worst[here], 1e-17), np.nan)
            label = f"{Status(int(code))} ({len(here)})"
            ax.plot(here, shown, "o", markersize=3, label=label)
        ax.set(yscale="log", xlabel="item", ylabel="largest relative residual")
        ax.legend()
        return ax

    def regularity(self, radius: float = 0.0) -> RegularityReport:
        """Whether derivatives at these solutions can be trusted: does the implicit function theorem hold?

        Args:
            radius: Ask the same for all points whose blocks v = y - s lie within this distance, so that kinks nearby
                count as well. Exact where the constraints are linear; for curved ones the answer may be "undecided".

        Returns:
            A report with tensors of the batch shape; `print` it for an explanation.
        """
        if self.certifier is None:
            raise UnsupportedError("Only solutions made by a layer's solve(...) keep what the test needs.")
        return self.certifier(radius)


class CertifiedSolution(ConeSolution):
    """Solutions of cone programmes given as data, which can be asked whether their derivatives can be trusted.

    A `ConeSolution` in every other respect; what is derived from it (`map`, `detach`, ...) is one without the question.
    """

    _programmes: tuple[ConeProgram, ConeSolution]

    @classmethod
    def of(cls, program: ConeProgram, solution: ConeSolution, dtype: torch.dtype) -> CertifiedSolution:
        """The solution with its floating tensors in `dtype`, and the programmes behind it."""
        found = cls(
            **{
                field.name: value.to(dtype) if (value := getattr(solution, field.name)).is_floating_point() else value
                for field in dataclasses.fields(solution)
            }
        )
        object.__setattr__(found, "_programmes", (program.detach(), solution.detach()))
        return found

    def regularity(self, radius: float = 0.0) -> RegularityReport:
        """As `LayerSolution.regularity`; constraints are named by their cones, variables by their places in x."""
        program, solution = self._programmes
        return examine(Labels.of_cones(program.structure), program, solution, program.batch_shape, radius)


_SHOWN = 8


def _table(cone: ConeSolution, shapes: list[tuple[int, ...]]) -> str:
    """A few lines on a batch: what was returned, how the items ended, and the residuals of the first ones."""
    codes = cone.status_code.detach().cpu().reshape(-1).numpy()
    ends = ", ".join(f"{int((codes == code).sum())} {Status(int(code))}" for code in np.unique(codes))
    lines = [f"LayerSolution of {codes.size} item(s): {ends or 'none'}; variables of shapes {shapes}"]
    columns = (cone.iterations, cone.primal_residual, cone.dual_residual, cone.gap)
    values = [value.detach().cpu().reshape(-1).tolist() for value in columns]
    if codes.size:
        lines.append(f"{'item':>6} {'status':<17} {'iterations':>10} {'primal':>8} {'dual':>8} {'gap':>8}")
    for i in range(min(codes.size, _SHOWN)):
        count, *rest = (value[i] for value in values)
        numbers = " ".join(f"{value:8.1e}" for value in rest)
        lines.append(f"{i:>6} {Status(int(codes[i])):<17} {count:>10} {numbers}")
    if codes.size > _SHOWN:
        lines.append(f"   ... {codes.size - _SHOWN} more")
    return "\n".join(lines)
