"""Proximal maps of barriers in three dimensions, and their derivatives.

The barriers of the exponential and the power cone and of their duals are F = -sum_i log psi_i - sum_j w_j log
y_j with one or two concave functions psi_i of equal Hessian Psi. At y with y + mu grad F(y) = v put eta_i =
mu / psi_i and g_i = grad psi_i. The Jacobian of v -> y is

    D = (I + mu hess F)^-1 = (B + sum_i eta_i^2 / mu g_i g_i^T)^-1,   B = I - (sum_i eta_i) Psi + diag(mu w_j
    / y_j^2),

where Psi = -weight q q^T has rank one. For small mu the sum is huge: only the Sherman-Morrison-Woodbury form,
with the vectors ghat_i = eta_i^2 / mu D g_i = B^-1 G (C^-1 + G^T B^-1 G)^-1, keeps full accuracy, and

    D'(v)[u, w] = -mu D hess'F(y)[D u, D w]

is written in ghat_i as well. (Each g_i = h -+ e in the power cones, so that their two are eliminated by hand.)
"""

import dataclasses

import torch
from torch import Tensor

from conelayers.cones.base import BlockDerivative

__all__ = ["BarrierDerivative", "ProximalPoint"]


@dataclasses.dataclass(frozen=True, eq=False)
class BarrierDerivative(BlockDerivative):
    """Jacobian D of a proximal map, and its derivative."""

    jacobian: Tensor  # D, shape: (*batch, 3, 3)
    lifted: Tensor  # ghat_i as columns, shape: (*batch, 3, k)
    cubic: Tensor  # 2 mu / eta_i^3, shape: (*batch, k)
    hessian: Tensor  # Psi, shape: (*batch, 3, 3)
    rest: Tensor  # (sum eta) psi''' + diag(2 mu w / y^3), shape: (*batch, 3, 3, 3)
    size: Tensor  # all of the above are for v / size, shape: (*batch, 1)

    def apply(self, u: Tensor) -> Tensor:
        """D u."""
        return (self.jacobian * u.unsqueeze(-2)).sum(-1)

    def curvature(self, u: Tensor, w: Tensor) -> Tensor:
        """Gradient of <w, D(v) u>."""
        a, b = self.apply(u), self.apply(w)
        bent_a = (self.hessian * a.unsqueeze(-2)).sum(-1)
        bent_b = (self.hessian * b.unsqueeze(-2)).sum(-1)
        left = (self.lifted * u.unsqueeze(-1)).sum(-2)  # shape: (*batch, k)
        right = (self.lifted * w.unsqueeze(-1)).sum(-2)
        along = self.cubic * left * right - (a * bent_b).sum(-1, keepdim=True)
        total = left.sum(-1, keepdim=True) * bent_b + right.sum(-1, keepdim=True) * bent_a
        inner = torch.einsum("...ijk,...j,...k->...i", self.rest, a, b) - total
        return ((self.lifted * along.unsqueeze(-2)).sum(-1) + self.apply(inner)) / self.size

    def permuted(self, order: list[int], signs: list[float]) -> "BarrierDerivative":
        """The derivative in the coordinates v[order] * signs."""
        sign = self.jacobian.new_tensor(signs)
        square = sign.unsqueeze(-1) * sign
        return dataclasses.replace(
            self,
            jacobian=self.jacobian[..., order, :][..., order] * square,
            lifted=self.lifted[..., order, :] * sign.unsqueeze(-1),
            hessian=self.hessian[..., order, :][..., order] * square,
            rest=self.rest[..., order, :, :][..., order, :][..., order] * (square.unsqueeze(-1) * sign),
        )

    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Eigenvectors and eigenvalues, numerically."""
        values, vectors = torch.linalg.eigh(self.jacobian)
        return vectors, values.clamp(0, 1)

    def matrix(self) -> Tensor:
        """D, shape (*batch, 3, 3)."""
        return self.jacobian


@dataclasses.dataclass(frozen=True, eq=False)
class ProximalPoint:
    """The solution y of y + mu grad F(y) = v with what the derivatives of F need."""

    size: Tensor  # length by which v, and everything below, was divided, shape: (*batch,)
    point: Tensor  # y, shape: (*batch, 3)
    mu: Tensor  # shape: (*batch,)
    eta: Tensor  # mu / psi_i, shape: (*batch, k)
    gradients: Tensor  # g_i as columns, shape: (*batch, 3, k)
    direction: Tensor  # q, shape: (*batch, 3)
    weight: Tensor  # Psi = -weight q q^T, shape: (*batch,)
    third: Tensor  # third derivative of psi, shape: (*batch, 3, 3, 3)
    logs: Tensor  # coefficients w_j, shape: broadcasts to (*batch, 3)

    def restored(self) -> Tensor:
        """Solution y in the units of v, shape (*batch, 3)."""
        return self.point * self.size.unsqueeze(-1)

    def derivative(self) -> BarrierDerivative:
        """Jacobian of v -> y."""
        mu, total = self.mu.unsqueeze(-1), self.eta.sum(-1)
        safe = torch.where(self.logs > 0, self.point, 1)
        base = 1 / (1 + mu * self.logs / safe.square())  # shape: (*batch, 3)
        scaled = base * self.direction
        bottom = (self.direction * scaled).sum(-1) + 1 / (total * self.weight)
        inverse = torch.diag_embed(base) - scaled.unsqueeze(-1) * scaled.unsqueeze(-2) / bottom[..., None, None]
        flat = mu / self.eta.square()
        single = self.gradients.shape[-1] == 1
        jacobian, lifted = _one(inverse, self.gradients, flat) if single else _pair(inverse, self.gradients, flat)
        jacobian = (jacobian + jacobian.mT) / 2
        hessian = -self.weight[..., None, None] * self.direction.unsqueeze(-1) * self.direction.unsqueeze(-2)
        rest = total[..., None, None, None] * self.third
        diagonal = torch.arange(3, device=safe.device)
        rest[..., diagonal, diagonal, diagonal] += 2 * mu * self.logs / safe**3
        return BarrierDerivative(jacobian, lifted, 2 * mu / self.eta**3, hessian, rest, self.size.unsqueeze(-1))


def _one(inverse: Tensor, gradients: Tensor, flat: Tensor) -> tuple[Tensor, Tensor]:
    """(B + g g^T / flat)^-1 and ghat = B^-1 g / (flat + g^T B^-1 g), for one gradient g."""
    bent = inverse @ gradients
    lifted = bent / (flat.unsqueeze(-1) + gradients.mT @ bent)
    return inverse - lifted @ bent.mT, lifted


def _pair(inverse: Tensor, gradients: Tensor, flat: Tensor) -> tuple[Tensor, Tensor]:
    """(B + sum_i g_i g_i^T / flat_i)^-1 and the ghat_i, for the two gradients h - e and h + e.

    Here e is the third axis, and h and the rest of B lie in the first two. In the polar cone the two gradients
    nearly cancel against each other: the Gram matrix G^T B^-1 G is almost singular there. In the basis (h, e)
    the same elimination has no subtraction in its determinant, its third row or ghat.
    """
    h = gradients.mean(-1)
    bent = (inverse @ h.unsqueeze(-1)).squeeze(-1)  # third entry zero
    beta = (h * bent).sum(-1)
    one, two = flat.unbind(-1)
    even, odd = (one + two) / 4, (two - one) / 4
    bottom = one * two / 4 + even * (1 + beta) + beta
    axis = torch.zeros_like(h)
    axis[..., 2] = 1
    columns = [
        ((one if sign > 0 else two) / 2 + 1).unsqueeze(-1) * bent
        + sign * ((one if sign > 0 else two) / 2 + beta).unsqueeze(-1) * axis
        for sign in (-1, 1)
    ]
    lifted = torch.stack(columns, -1) / (2 * bottom)[..., None, None]
    jacobian = inverse - ((even + 1) / bottom)[..., None, None] * bent.unsqueeze(-1) * bent.unsqueeze(-2)
    corner = (odd / bottom).unsqueeze(-1) * bent
    jacobian[..., 2, :] = jacobian[..., :, 2] = corner
    jacobian[..., 2, 2] = (one * two / 4 + even * beta) / bottom
    return jacobian, lifted
