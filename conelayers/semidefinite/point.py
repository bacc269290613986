"""The projection onto the dual cone and its derivative D at one point, block by block, decomposed once."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from conelayers.semidefinite.form import Form
from conelayers.semidefinite.item import Item
from conelayers.semidefinite.reduced import ReducedSystem
from conelayers.semidefinite.small import SmallBlocks
from conelayers.semidefinite.spectral import SpectralBlock

__all__ = ["Point"]


class Point:
    """A point v = y - s of one item.

    Args:
        form: The programme's form.
        v: The point, (m,).
        mu: Barrier parameter of a smoothed projection, or None.
    """

    def __init__(self, form: Form, v: np.ndarray, mu: float | None = None) -> None:
        self.form, self.v, self.mu = form, v, mu
        self._blocks = (*form.variables, *form.inequalities)
        self._spectral = [SpectralBlock.at(v[block.rows], block.order, mu) for block in self._blocks]

    @property
    def projection(self) -> np.ndarray:
        """The projection of v onto K*, (m,)."""
        found = np.zeros_like(self.v)
        for block, spectral in zip(self._blocks, self._spectral, strict=True):
            found[block.rows] = spectral.projection
        found[self.form.rows] = self.form.cone.project_dual(self._small, mu=self.mu).numpy()
        return found

    def apply(self, u: np.ndarray) -> np.ndarray:
        """D u, (k, m)."""
        found = np.zeros_like(u)
        for block, spectral in zip(self._blocks, self._spectral, strict=True):
            found[:, block.rows] = spectral.apply(u[:, block.rows])
        found[:, self.form.rows] = self._derivative.apply(torch.from_numpy(u[:, self.form.rows])).numpy()
        return found

    def system(self, item: Item) -> ReducedSystem:
        """J(D) of a programme of this form, factored."""
        small = SmallBlocks.of(self._derivative, len(self.form.rows), item.hard)
        count = len(self.form.variables)
        return ReducedSystem(item, small, self._spectral[:count], self._spectral[count:])

    @property
    def _small(self) -> torch.Tensor:
        return torch.from_numpy(self.v[self.form.rows])

    @cached_property
    def _derivative(self):
        return self.form.cone.dual_derivative(self._small, mu=self.mu)
