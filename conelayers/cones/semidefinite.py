"""The cone of positive semidefinite matrices, as vectors in the order of `svec`."""

import dataclasses
import math

import torch
from torch import Tensor

from conelayers.cones.base import EXACT, BlockDerivative, Cone, Kink, check_count, expand_like
from conelayers.cones.spectral import Eigenvalues
from conelayers.cones.svec import smat, svec, svec_basis, svec_size, triangle

__all__ = ["PositiveSemidefinite", "SemidefiniteDerivative"]

# Eigenvalues below this part of the largest one are rounding.
_LOST = 8e-16


@dataclasses.dataclass(frozen=True, eq=False)
class SemidefiniteDerivative(BlockDerivative):
    """D[X] = Q (B o (Q^T X Q)) Q^T with B the first divided differences of the eigenvalues."""

    basis: Tensor  # Q, shape: (*batch, n, n)
    weights: Tensor  # B, shape: (*batch, n, n)
    eigenvalues: Eigenvalues  # shape: (*batch, n)

    def _rotate(self, u: Tensor) -> Tensor:
        return self.basis.mT @ smat(u) @ self.basis

    def _restore(self, matrix: Tensor) -> Tensor:
        return svec(self.basis @ matrix @ self.basis.mT)

    def apply(self, u: Tensor) -> Tensor:
        """D u."""
        return self._restore(self.weights * self._rotate(u))

    def curvature(self, u: Tensor, w: Tensor) -> Tensor:
        """Gradient of <w, D(v) u>: sum_k f[i, j, k] (U_ik W_kj + W_ik U_kj) in the eigenbasis.

        Second derivatives of spectral functions: Lewis and Sendov, "Twice differentiable spectral functions",
        SIAM J. Matrix Anal. 2001. Second divided differences stay finite at equal eigenvalues.
        """
        one = self.eigenvalues[..., :, None, None]
        two, three = self.eigenvalues[..., None, :, None], self.eigenvalues[..., None, None, :]
        second = one.second(two, three)  # shape: (*batch, n, n, n), symmetric in all three
        rotated, other = self._rotate(u), self._rotate(w)
        half = torch.einsum("...ijk,...ik,...kj->...ij", second, rotated, other)
        return self._restore(half + half.mT)

    def spectrum(self) -> tuple[Tensor, Tensor]:
        """The svec of the symmetrised products q_i q_j^T, with the values B_ij."""
        rows, columns = triangle(self.basis.shape[-1], self.basis.device)
        return svec_basis(self.basis), self.weights[..., rows, columns]


@dataclasses.dataclass(frozen=True)
class PositiveSemidefinite(Cone):
    """Positive semidefinite matrices of this order, as svec vectors of n (n + 1) / 2 rows; its own dual.

    Derivative: Malick and Sendov (2006), see `spectral`: B_ij is 1 for two positive eigenvalues, 0 for two
    negative ones and l_i / (l_i - l_j) for l_i > 0 > l_j. Kinks are the singular matrices. With zero
    eigenvalues (or |l| <= radius, which are moved to zero) the pairs of zeros get 0 in the smallest element
    and 1 in the largest, a zero beside a positive eigenvalue gets 1, beside a negative one 0.

    Barrier for `mu`: -log det.
    """

    order: int

    def __post_init__(self) -> None:
        """Check the order."""
        check_count("order", self.order)

    @property
    def dim(self) -> int:
        """Number of rows, n (n + 1) / 2."""
        return svec_size(self.order)

    @property
    def polyhedral(self) -> bool:  # type: ignore[override]
        """Only the half-line is."""
        return self.order <= 1

    def dual(self) -> "PositiveSemidefinite":
        """The same cone."""
        return self

    def project(self, v: Tensor, *, mu: float | Tensor | None = None) -> Tensor:
        """Eigenvalues l replaced by max(l, 0), or by (l + sqrt(l^2 + 4 mu)) / 2."""
        values, basis = torch.linalg.eigh(smat(v))
        values = Eigenvalues(values, None if mu is None else expand_like(mu, v)).y
        return svec((basis * values.unsqueeze(-2)) @ basis.mT)

    def derivative(self, v: Tensor, *, mu: float | Tensor | None = None, kink: Kink = EXACT) -> SemidefiniteDerivative:
        """First divided differences of the eigenvalues, in their eigenbasis."""
        values, basis = torch.linalg.eigh(smat(v))
        if mu is None:
            size = values.abs()
            # What rounding leaves of a zero would count as an active face.
            lost = _LOST * size.amax(-1, keepdim=True) if self.order else size
            values = torch.where(size <= torch.maximum(lost, expand_like(kink.radius, v)), 0, values)
        parts = Eigenvalues(values, None if mu is None else expand_like(mu, v), kink.value)
        weights = parts[..., :, None].first(parts[..., None, :])
        return SemidefiniteDerivative(basis, weights, parts)

    def margin(self, v: Tensor) -> Tensor:
        """Least |l_i|, exactly (infinity for order = 0)."""
        if self.order == 0:
            return v.new_full(v.shape[:-1], torch.inf)
        return torch.linalg.eigvalsh(smat(v)).abs().amin(-1)

    def near_kink(self, y: Tensor, s: Tensor, v: Tensor, reach: Tensor) -> Tensor:
        """Y + S = |V| has the moduli of V's eigenvalues: whether it is positive definite beyond the reach."""
        modulus = smat(y + s)
        identity = torch.eye(modulus.shape[-1], dtype=y.dtype, device=y.device)
        return torch.linalg.cholesky_ex(modulus - reach[..., None, None] * identity).info != 0

    def critical_parts(self, weak: Tensor) -> list[tuple[Tensor, Cone | None]] | None:
        """The semidefinite cone of the zero eigenvalues (Sun and Sun 2002)."""
        return [(weak, PositiveSemidefinite(round((math.sqrt(8 * weak.shape[1] + 1) - 1) / 2)))]

    def turning(self, v: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(2) r / g, with g the least modulus of the eigenvalues on the other side.

        By Davis and Kahan's sin-theta theorem for half-lines the range of the nonnegative part of V' is within r / g of
        the span of the eigenvalues >= -r of V, g the least modulus below -r; for the symmetric matrices on that range
        the distance is at most sqrt(2) r / g. Likewise on the other side.
        """
        values = torch.linalg.eigvalsh(smat(v))
        radius = torch.as_tensor(radius, dtype=v.dtype).expand(values.shape[:-1])
        reach = radius.unsqueeze(-1)
        return _sine(values, values < -reach, radius), _sine(values, values > reach, radius)


def _sine(values: Tensor, outside: Tensor, radius: Tensor) -> Tensor:
    """sqrt(2) r / g with g the least |eigenvalue| among `outside`; zero if there is none, or nothing else."""
    gap = torch.where(outside, values.abs(), torch.inf).amin(-1)
    turn = (math.sqrt(2.0) * radius / gap).clamp(max=1.0)
    return torch.where(outside.all(-1), 0.0, turn)
