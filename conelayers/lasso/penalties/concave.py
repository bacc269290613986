"""Nonconvex penalties."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from conelayers.lasso.penalties.base import Penalty
from conelayers.lasso.terms import MCPTerm, SCADTerm, Term

__all__ = ["MCP", "SCAD"]


@dataclass(frozen=True)
class MCP(Penalty):
    """The minimax concave penalty (Zhang 2010); solutions are stationary points."""

    names: ClassVar[tuple[str, ...]] = ("alpha", "gamma")
    above: ClassVar[Mapping[str, float]] = {"gamma": 0.0}

    def term(self, shape: tuple[int, ...], *hyperparameters: Tensor) -> Term:
        """The same threshold and concavity everywhere."""
        alpha, gamma = hyperparameters
        return MCPTerm(alpha.expand(shape), gamma.expand(shape))


@dataclass(frozen=True)
class SCAD(Penalty):
    """The smoothly clipped absolute deviation (Fan & Li 2001), gamma > 2; solutions are stationary points."""

    names: ClassVar[tuple[str, ...]] = ("alpha", "gamma")
    above: ClassVar[Mapping[str, float]] = {"gamma": 2.0}

    def term(self, shape: tuple[int, ...], *hyperparameters: Tensor) -> Term:
        """The same threshold and concavity everywhere."""
        alpha, gamma = hyperparameters
        return SCADTerm(alpha.expand(shape), gamma.expand(shape))
