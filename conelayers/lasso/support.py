"""The linear system on the generalised support: Newton steps and derivatives use the same one.

On the support S the solution satisfies the smooth equations

    X_S' f'(X b + c) + g'(b)_S = 0,        sum_i f'_i = 0 (with an intercept c),

with Jacobian J = [[X_S' H X_S + g''_S, X_S' H 1], [1' H X_S, 1' H 1]], H the Hessian of the losses. Only the columns of
the support enter, so the cost does not grow with the number of features.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from conelayers.errors import RegularityWarning
from conelayers.lasso._compiled import compiled
from conelayers.lasso.datafits import Datafit, Multinomial
from conelayers.lasso.designs import DenseDesign, Design, SparseDesign, plain_array
from conelayers.lasso.terms import Term

__all__ = ["Support", "SupportSystem", "data_blocks", "intercept_block", "solve_symmetric"]


@dataclass(frozen=True)
class Support:
    """Where a solution moves.

    Attributes:
        features: Features with a nonzero or moving entry, int64, shape (f,).
        entries: Positions of the generalised support in coef[features].flatten(), int64, shape (s,).
    """

    features: Tensor
    entries: Tensor

    @classmethod
    def of(cls, term: Term, coef: Tensor, also: Tensor | None = None) -> Support:
        """Read the support off a solution; `also`, a mask of entries, is added to it."""
        moving = term.support(coef)
        if also is not None:
            moving = moving | also
        used = moving | (coef != 0)
        mask = used if coef.ndim == 1 else used.any(-1)
        # groups stay whole, because their norms need all entries
        features = torch.nonzero(term.whole(mask)).flatten()
        entries = torch.nonzero(moving[features].flatten()).flatten()
        return cls(features, entries)


def data_blocks(design: Design, hessian: Tensor, entries: Tensor, outputs: int | None) -> tuple[Tensor, Tensor]:
    """X_S' H X_S, shape (s, s), and X_S' H 1, shape (s, q), q = 1 or K."""
    if outputs is None:
        gram, sums = design.gram(hessian), design.rmatmul(hessian)
        if entries.numel() == design.shape[1]:
            return gram, sums[:, None]
        return gram[entries][:, entries], sums[entries, None]
    feature, output = entries // outputs, entries % outputs
    if hessian.ndim == 1:
        same = (output[:, None] == output[None, :]).to(hessian.dtype)
        onto = torch.nn.functional.one_hot(output, outputs).to(hessian.dtype)
        block = design.gram(hessian)[feature][:, feature] * same
        return block, design.rmatmul(hessian)[feature][:, None] * onto
    return _coupled_blocks(design, hessian, feature, output)


def _coupled_blocks(design: Design, hessian: Tensor, feature: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
    """`data_blocks` for entries (feature, output) and one K x K block of the Hessian per sample."""
    outputs = range(hessian.shape[-1])
    if isinstance(design, DenseDesign):
        # by output: block row k against all later ones, samples along the rows of memory
        order = torch.argsort(output, stable=True)
        X, curvature = design.dense().mT.index_select(0, feature[order]), hessian.permute(1, 2, 0).contiguous()
        ends, upper, sums, low = torch.bincount(output, minlength=len(outputs)).cumsum(0).tolist(), [], [], 0
        for k, high in enumerate(ends):
            curved = X[low:] * curvature[k][output[order[low:]]]
            upper.append(torch.nn.functional.pad(X[low:high] @ curved.mT, (low, 0)))
            sums.append(X[low:high] @ curvature[k].mT)
            low = high
        block, back = torch.cat(upper), torch.argsort(order)
        return (block.triu() + block.triu(1).mT)[back][:, back], torch.cat(sums)[back]
    pairs: dict[tuple[int, int], Tensor] = {}
    for k in outputs:
        for j in range(k + 1):
            pairs[k, j] = pairs[j, k] = design.gram(hessian[:, k, j])
    grams = torch.stack([torch.stack([pairs[k, j] for j in outputs]) for k in outputs])
    block = grams[output[:, None], output[None, :], feature[:, None], feature[None, :]]
    sums = torch.stack([design.rmatmul(hessian[:, :, k]) for k in outputs], -1)
    return block, sums[feature, output]


def intercept_block(hessian: Tensor, outputs: int | None, datafit: Datafit) -> Tensor:
    """1' H 1, shape (q, q)."""
    corner = hessian.sum(0)
    if outputs is None:
        return corner.reshape(1, 1)
    if corner.ndim == 0:
        return torch.diag(corner.expand(outputs))
    if isinstance(datafit, Multinomial):
        # softmax does not see a common shift of the intercepts; their sum is fixed at zero
        corner = corner + torch.full_like(corner, float(corner.detach().diagonal().mean()))
    return corner


@dataclass(frozen=True)
class SupportSystem:
    """J on the support, differentiable in the Hessian, the coefficients and the numbers of the term.

    Attributes:
        design: Columns of the support's features.
        hessian: `Datafit.hessian` at the solution, shape (n,) or (n, K, K).
        term: The term restricted to these features.
        coef: The coefficients of these features.
        entries: See `Support`.
        fit_intercept: Whether the intercept is an unknown; its rows come last.
        datafit: Tells whether predictions may shift freely.
    """

    design: Design
    hessian: Tensor
    term: Term
    coef: Tensor
    entries: Tensor
    fit_intercept: bool
    datafit: Datafit

    def matrix(self) -> Tensor:
        """J, shape (s + q, s + q), with q = 0 without an intercept."""
        outputs = self.coef.shape[1] if self.coef.ndim == 2 else None
        block, border = data_blocks(self.design, self.hessian, self.entries, outputs)
        curvature = self.term.curvature(self.coef, self.entries)
        block = block + (torch.diag(curvature) if curvature.ndim == 1 else curvature)
        if not self.fit_intercept:
            return block
        corner = intercept_block(self.hessian, outputs, self.datafit)
        return torch.cat([torch.cat([block, border], 1), torch.cat([border.mT, corner], 1)])

    def solve(self, rhs: Tensor, warn: bool = True) -> Tensor:
        """Solve J u = rhs, rhs of shape (*batch, s + q)."""
        recorded = torch.is_grad_enabled() and (self.hessian.requires_grad or rhs.requires_grad)
        large = isinstance(self.design, SparseDesign) and self.entries.numel() > 150
        whole = self.coef.ndim == 1 and self.entries.numel() == self.coef.numel()
        if large and whole and not recorded and rhs.ndim == 1:
            curvature = self.term.curvature(self.coef, self.entries)
            if curvature.ndim == 1 and not (torch.is_grad_enabled() and curvature.requires_grad):
                out = self._iterate(curvature, rhs)
                if out is not None:
                    return out
        return solve_symmetric(self.matrix(), rhs, warn)

    def _iterate(self, curvature: Tensor, rhs: Tensor) -> Tensor | None:
        """Conjugate gradients on the sparse columns; None if they do not converge, or are not compiled."""
        kernels = compiled()
        arrays = [plain_array(t) for t in (self.hessian, curvature.contiguous(), rhs.contiguous())]
        if kernels is None or any(a is None for a in arrays):
            return None
        X = self.design.matrix  # type: ignore[attr-defined]
        out, converged = kernels.conjugate_gradient(
            X.indptr, X.indices, X.data, *arrays, self.fit_intercept, 1e-12, 500
        )
        return torch.from_numpy(out) if converged else None


def solve_symmetric(matrix: Tensor, rhs: Tensor, warn: bool = True) -> Tensor:
    """Solve J u = rhs for rhs of shape (*batch, s + q); least squares of minimum norm where J is singular.

    Warns:
        RegularityWarning: J is singular to working precision.
    """
    if matrix.shape[0] == 0:
        return rhs
    factor, root, regular = _factorize(matrix.detach())
    if regular and factor is not None and not (torch.is_grad_enabled() and matrix.requires_grad):
        return root * torch.cholesky_solve((root * rhs)[..., None], factor)[..., 0]
    if regular:
        return torch.linalg.solve(matrix, rhs[..., None])[..., 0]
    if warn:
        warnings.warn(
            "The Jacobian on the support is singular: the solution is not a differentiable function of the "
            "hyperparameters here; the derivative is a least-squares one. A small l2 penalty makes it regular.",
            RegularityWarning,
            stacklevel=2,
        )
    return (torch.linalg.pinv(matrix, hermitian=True, rtol=1e-12) @ rhs[..., None])[..., 0]


@torch.no_grad()
def _factorize(matrix: Tensor) -> tuple[Tensor | None, Tensor, bool]:
    """Cholesky factor scaled to unit diagonal (None if indefinite), the scaling, and whether J is regular."""
    size = matrix.diagonal().abs()
    size = torch.where(size > 0, size, matrix.abs().amax(1))  # saddle points have zeros on the diagonal
    root = size.clamp_min(torch.finfo(matrix.dtype).tiny).rsqrt()
    scaled = matrix * root[:, None] * root
    factor, info = torch.linalg.cholesky_ex(scaled)
    if int(info) == 0 and float(factor.diagonal().min()) > 1e-7:
        return factor, root, True
    sizes = torch.linalg.eigvalsh(scaled).abs()  # indefinite (nonconvex penalties) or singular
    return None, root, bool(sizes.min() > 1e-13 * sizes.max())
