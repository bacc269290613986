"""How the solution of one cone programme ended."""

import enum

__all__ = ["Status"]


class Status(enum.IntEnum):
    """Outcome of one programme of a batch.

    Solutions store these as an int8 tensor (`ConeSolution.status_code`); the members compare equal to its entries.
    """

    SOLVED = 0
    """The residuals and the gap are below the backend's tolerances."""
    INACCURATE = 1
    """The backend stopped early, at a solution within its reduced tolerances."""
    PRIMAL_INFEASIBLE = 2
    """A certificate of primal infeasibility was found."""
    DUAL_INFEASIBLE = 3
    """A certificate of dual infeasibility was found: the problem is unbounded if it is feasible."""
    ITERATION_LIMIT = 4
    """The iteration limit came first."""
    FAILED = 5
    """Numerical breakdown, or data with NaN or infinite entries."""

    def __str__(self) -> str:
        return self.name

    def __format__(self, spec: str) -> str:
        return format(self.name, spec)

    @property
    def has_solution(self) -> bool:
        """Whether x, y and s are a solution that may be used and differentiated."""
        return self in (Status.SOLVED, Status.INACCURATE)
