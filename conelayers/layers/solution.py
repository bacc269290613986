"""What `layer.solve` returns: the variables, the cone solution behind them, and how good they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from conelayers.errors import UnsupportedError
from conelayers.layers.regularity import Labels, RegularityReport, examine
from conelayers.program import ConeProgram, ConeSolution, Status

__all__ = ["CertifiedSolution", "LayerSolution"]


@dataclasses.dataclass(frozen=True, eq=False)
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
