"""Nesterov and Todd's scalings of the cones that the interior-point method knows, block by block.

With s and z inside the cone, W z = W^-1 s = lambda; H = W^2 maps z to s. Nesterov & Todd, Math. Oper. Res. 1997; the
formulas for matrices as in Todd, Toh and Tutuncu, SIAM J. Optim. 1998.
"""

from __future__ import annotations

import abc

import numpy as np

from conelayers.semidefinite.spectral import SpectralBlock, smat, svec

__all__ = ["MatrixScaling", "OrthantScaling", "Scaling"]


class Scaling(abc.ABC):
    """One block's scaling at (s, z).

    Attributes:
        degree: The block's part of the barrier parameter.
    """

    degree: int

    @abc.abstractmethod
    def target(self, sigma_mu: float, ds: np.ndarray | None, dz: np.ndarray | None) -> np.ndarray:
        """Where ds + H dz should go: W L^-1 (sigma mu e - lambda o lambda - (W^-1 ds) o (W dz)), L u = lambda o u."""

    @abc.abstractmethod
    def longest_step(self, ds: np.ndarray, dz: np.ndarray) -> float:
        """The largest step that leaves s and z inside the cone."""


class OrthantScaling(Scaling):
    """Nonnegative rows."""

    def __init__(self, s: np.ndarray, z: np.ndarray) -> None:
        self.s, self.z, self.degree = s, z, len(s)
        self.h = s / z

    def target(self, sigma_mu, ds, dz):
        """(sigma mu - ds dz) / z - s."""
        product = 0.0 if ds is None else ds * dz
        return (sigma_mu - product) / self.z - self.s

    def longest_step(self, ds, dz):
        """Ratio test."""
        worst = max((-ds / self.s).max(initial=0.0), (-dz / self.z).max(initial=0.0))
        return 1 / worst if worst > 0 else np.inf


class MatrixScaling(Scaling):
    """Semidefinite matrices: R'ZR = R^-1 S R^-T = diag(lambda), H X = G X G with G = RR'."""

    def __init__(self, s: np.ndarray, z: np.ndarray, order: int) -> None:
        self.order = self.degree = order
        lower_s, lower_z = (np.linalg.cholesky(smat(part, order)) for part in (s, z))
        left, self.values, right = np.linalg.svd(lower_z.T @ lower_s)
        root = np.sqrt(self.values)
        self.R = lower_s @ right.T / root
        self.inverse = (left / root).T @ lower_z.T  # R^-1
        G = self.R @ self.R.T
        values, basis = np.linalg.eigh(G)
        values = np.maximum(values, np.finfo(float).tiny)
        h = values[:, None] * values
        self.block = SpectralBlock(basis, 1 / (1 + h), np.zeros(0), (G, self.inverse.T @ self.inverse))

    def target(self, sigma_mu, ds, dz):
        """As `Scaling.target`; L^-1 divides entry (i, j) by (lambda_i + lambda_j) / 2."""
        right = np.diag(sigma_mu - self.values**2)
        if ds is not None and dz is not None:
            product = self._scaled_s(ds) @ self._scaled_z(dz)
            right = right - (product + product.T) / 2
        divided = 2 * right / (self.values[:, None] + self.values)
        return svec(self.R @ divided @ self.R.T)

    def longest_step(self, ds, dz):
        """By the smallest eigenvalues of lambda^-1/2 d lambda^-1/2."""
        root = np.sqrt(self.values)
        least = min(
            np.linalg.eigvalsh(moved / root[:, None] / root)[0] for moved in (self._scaled_s(ds), self._scaled_z(dz))
        )
        return -1 / least if least < 0 else np.inf

    def _scaled_s(self, ds: np.ndarray) -> np.ndarray:
        return self.inverse @ smat(ds, self.order) @ self.inverse.T

    def _scaled_z(self, dz: np.ndarray) -> np.ndarray:
        return self.R.T @ smat(dz, self.order) @ self.R
