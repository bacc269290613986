"""What a run of CVXPY's reduction chain leaves behind."""

from __future__ import annotations

import dataclasses
from typing import Any

from cvxpy.reductions.dgp2dcp.dgp2dcp import Dgp2Dcp

__all__ = ["Reduction", "logarithms"]


@dataclasses.dataclass(frozen=True, eq=False)
class Reduction:
    """A problem after its reductions.

    Attributes:
        stuffed: CVXPY's ParamConeProg, rows in the order of our cones.
        steps: The reductions that led to it, first to last.
        inverse_data: What each of them needs to undo itself.
    """

    stuffed: Any
    steps: tuple[Any, ...]
    inverse_data: tuple[Any, ...]


def logarithms(step: Any) -> tuple[dict[int, int], dict[int, int]] | None:
    """Ids of (variables, parameters) to ids of their logarithms, if the step reduces a geometric programme."""
    if not isinstance(step, Dgp2Dcp):
        return None
    methods: Any = step.canon_methods
    return (
        {original.id: new.id for original, new in methods._variables.items()},
        {original.id: new.id for original, new in methods._parameters.items()},
    )
