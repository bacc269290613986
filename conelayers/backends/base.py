"""The interface of backends, and the check of what a backend can take."""

from __future__ import annotations

import abc
from typing import ClassVar

from conelayers.cones import Cone
from conelayers.errors import UnsupportedError
from conelayers.program import ConeProgram, ConeSolution, ConeStructure

__all__ = ["Backend"]


class Backend(abc.ABC):
    """A solver of cone programmes, as a value: its fields are its settings.

    A backend of one's own is a class with the one method `solve`; deriving from this class adds the capability check.

    Attributes:
        name: The solver's name as CVXPY spells it.
        cones: The cones it takes.
        quadratic: Whether it takes a quadratic objective (P other than empty).
    """

    name: ClassVar[str]
    cones: ClassVar[frozenset[type[Cone]]]
    quadratic: ClassVar[bool] = True

    @abc.abstractmethod
    def solve(self, program: ConeProgram, warm_start: ConeSolution | None = None) -> ConeSolution:
        """Solve every programme of a batch.

        Args:
            program: The programmes, on any device; its tensors are not changed.
            warm_start: A previous solution whose batch axes broadcast to the programme's. Backends that cannot use it
                ignore it.

        Returns:
            A solution with the programme's batch axes, in double precision on the CPU. Each item has its own status; an
            item that could not be solved holds zeros and costs no other item anything.

        Raises:
            UnsupportedError: If the programme has a cone or an objective that the backend does not take.
        """

    def check(self, structure: ConeStructure) -> None:
        """Refuse what the backend does not take, naming both sides.

        Raises:
            UnsupportedError: If a cone, or a quadratic objective, is missing here.
        """
        missing = {type(cone) for cone in structure.cone.cones} - self.cones
        if missing:
            names = ", ".join(sorted(cone.__name__ for cone in missing))
            known = ", ".join(sorted(cone.__name__ for cone in self.cones))
            raise UnsupportedError(
                f"The programme has cones of type {names}; backend {self.name} takes {known}. "
                "Choose a backend that takes them all."
            )
        if structure.P_nnz and not self.quadratic:
            raise UnsupportedError(
                f"The programme has a quadratic objective; backend {self.name} takes linear ones. "
                "Choose a backend with a quadratic objective (CLARABEL, SCS), or write the objective as an epigraph."
            )
