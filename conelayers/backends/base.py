"""The interface of backends, and the check of what a backend can take."""

from __future__ import annotations

import abc
from typing import ClassVar, Protocol

import torch

from conelayers.cones import Cone
from conelayers.errors import InvalidArgument, UnsupportedError
from conelayers.program import ConeProgram, ConeSolution, ConeStructure

__all__ = ["Backend", "Solver", "check_positive"]


class Solver(Protocol):
    """Anything with the one method of a backend."""

    def solve(self, program: ConeProgram, warm_start: ConeSolution | None = None) -> ConeSolution:
        """Solve every programme of a batch; see `Backend.solve`."""
        ...


class Backend(abc.ABC):
    """A solver of cone programmes, as a value: its fields are its settings.

    A backend of one's own is a class with the one method `solve`; deriving from this class adds the capability check.

    Attributes:
        name: The solver's name as CVXPY spells it.
        cones: The cones it takes.
        quadratic: Whether it takes a quadratic objective (P other than empty).
        devices: Types of the devices on which it solves; programmes elsewhere are copied to the CPU for it.
    """

    name: ClassVar[str]
    cones: ClassVar[frozenset[type[Cone]]]
    quadratic: ClassVar[bool] = True
    devices: ClassVar[frozenset[str]] = frozenset({"cpu"})

    @abc.abstractmethod
    def solve(self, program: ConeProgram, warm_start: ConeSolution | None = None) -> ConeSolution:
        """Solve every programme of a batch.

        Args:
            program: The programmes, on any device; its tensors are not changed.
            warm_start: A previous solution whose batch axes broadcast to the programme's. Backends that cannot use it
                ignore it.

        Returns:
            A solution with the programme's batch axes, in double precision, on the programme's device if that is among
            `devices`, else on the CPU. Each item has its own status; an item that could not be solved holds zeros and
            costs no other item anything.

        Raises:
            UnsupportedError: If the programme has a cone or an objective that the backend does not take.
        """

    def on(self, device: torch.device) -> Backend:
        """The backend with these settings for programmes on a device; this one, if there is no other."""
        return self

    def unavailable(self, device: torch.device) -> str | None:
        """Why this backend does not solve programmes where they are, on a device; None if it does."""
        return None if device.type in self.devices else f"{self.name} solves on the CPU"

    def polishes(self, structure: ConeStructure) -> bool:
        """Whether its solutions are already the best that Newton steps on the optimality conditions give."""
        return False

    def closer(self, structure: ConeStructure) -> Solver | None:
        """What solves programmes as closely as this solver can; None if there is no closer way.

        It is asked where Newton steps from this solver's points do not reach the solution: where the multipliers are
        not unique, they need a better start than elsewhere.
        """
        return None

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


def check_positive(**settings: float) -> None:
    """Refuse tolerances, limits and counts that are not positive.

    Raises:
        InvalidArgument: Naming the setting.
    """
    for name, value in settings.items():
        if not value > 0:
            raise InvalidArgument(f"{name} is {value}; it must be positive.")
