"""Exceptions and warnings of the package, one tree.

`ConelayersError` is the root. Each class also derives from the built-in (or the peer's) exception that a caller would
expect, so code written for `ValueError` or for `diffcp.SolverError` keeps working.
"""

from typing import Any

from diffcp import SolverError as _DiffcpSolverError

__all__ = [
    "ArgumentIgnoredWarning",
    "ConelayersError",
    "InaccurateWarning",
    "InvalidArgument",
    "RegularityError",
    "RegularityWarning",
    "SolveError",
    "UnsupportedError",
]


class ConelayersError(Exception):
    """Root of every exception raised by this package."""


class InvalidArgument(ConelayersError, ValueError):
    """An argument has the wrong value, shape, dtype or device; the message names it and the remedy."""


class UnsupportedError(ConelayersError, NotImplementedError):
    """The request is meaningful but this component does not provide it; the message names the piece that does."""


class SolveError(ConelayersError, _DiffcpSolverError):
    """Some programmes of a batch have no solution; the message says which, why, and what to do.

    Attributes:
        solution: What there is all the same: a solution of the whole batch, with NaN for failed items (None where the
            error comes from another part of the package).
        status: `Status` of each item, as `solution.status`; None without a solution.
        indices: Indices of the failed items: integers, tuples where there are several batch axes; empty for a problem
            without batch axes.
    """

    def __init__(
        self, message: str, *, status: Any = None, indices: tuple[Any, ...] = (), solution: Any = None
    ) -> None:
        super().__init__(message)
        self.status, self.indices, self.solution = status, indices, solution


class RegularityError(ConelayersError):
    """The implicit function theorem does not hold at a solution, and the layer was told to refuse that."""


class InaccurateWarning(UserWarning):
    """A solution was returned at a lower accuracy than asked for."""


class RegularityWarning(UserWarning):
    """The implicit function theorem could not be verified at a solution that is being differentiated."""


class ArgumentIgnoredWarning(UserWarning):
    """An argument was accepted for compatibility and has no effect here."""
