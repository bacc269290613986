"""The scalar function behind nonnegative, second-order and semidefinite cones, and its divided differences.

On these symmetric cones the projection acts on eigenvalues as f(l) = max(l, 0), and the proximal map of mu F
as f(l) = (l + sqrt(l^2 + 4 mu)) / 2. Write y = f(l) and s = f(l) - l, so that l = y - s and y s = mu (0
without smoothing). Then the divided differences have forms without subtraction, the same with and without
smoothing, finite at equal eigenvalues:

    f[i, j]    = (y_i + y_j) / S_ij,                    S_ij = y_i + y_j + s_i + s_j,
    f[i, j, k] = ((y_i + y_j + y_k)(s_i + s_j + s_k) - mu) / (S_ij S_ik S_jk).

(From l_i - l_j = (y_i - y_j)(1 + mu / (y_i y_j)); for mu = 0 they are the formulas of Malick and Sendov,
"Clarke generalized Jacobian of the projection onto the cone of positive semidefinite matrices", Set-Valued
Analysis 2006.)
"""

from typing import Any

import torch
from torch import Tensor

__all__ = ["Eigenvalues"]


class Eigenvalues:
    """Eigenvalues l = y - s split into their positive parts, with the divided differences of l -> y.

    Args:
        values: eigenvalues of v, any shape.
        mu: smoothing, of as many axes as values, or one; None for the projection.
        tie: value of f[i, j] where both eigenvalues are zero, between 0 and 1.
    """

    def __init__(self, values: Tensor, mu: Tensor | None = None, tie: float = 0.0) -> None:
        self.mu, self.tie = mu, tie
        if mu is None:
            self.y, self.s = values.clamp(min=0), (-values).clamp(min=0)
        else:
            larger = (values.abs() + (values.square() + 4 * mu).sqrt()) / 2
            smaller = mu / larger
            self.y = torch.where(values >= 0, larger, smaller)
            self.s = torch.where(values >= 0, smaller, larger)

    def __getitem__(self, index: Any) -> "Eigenvalues":
        """The same eigenvalues with their tensors indexed."""
        item = Eigenvalues.__new__(Eigenvalues)
        item.y, item.s, item.tie = self.y[index], self.s[index], self.tie
        item.mu = None if self.mu is None else self.mu[index]
        return item

    def first(self, other: "Eigenvalues") -> Tensor:
        """First divided difference f[i, j]; f'(l) when both are the same."""
        top = self.y + other.y
        total = top + self.s + other.s
        return torch.where(total > 0, top / torch.where(total > 0, total, 1), self.tie)

    def second(self, j: "Eigenvalues", k: "Eigenvalues") -> Tensor:
        """Second divided difference f[i, j, k]; zero where two of the eigenvalues are zero."""
        top = (self.y + j.y + k.y) * (self.s + j.s + k.s)
        if self.mu is not None:
            top = top - self.mu
        for a, b in ((self, j), (self, k), (j, k)):
            total = a.y + b.y + a.s + b.s
            top = torch.where(total > 0, top / torch.where(total > 0, total, 1), 0)
        return top
