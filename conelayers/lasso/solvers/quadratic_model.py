"""The second-order model of a datafit plus the term, minimised by compiled coordinate descent."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from conelayers.lasso._compiled import compiled
from conelayers.lasso.designs import SparseDesign
from conelayers.lasso.problem import Problem
from conelayers.lasso.support import data_blocks, intercept_block
from conelayers.lasso.terms import GroupTerm, SeparableTerm

__all__ = ["minimize_model", "supported"]

_Point = tuple[Tensor, Tensor]


def supported(problem: Problem) -> bool:
    """Whether the kernels know the term and are there."""
    known = isinstance(problem.term, SeparableTerm | GroupTerm)
    return known and problem.design.device.type == "cpu" and compiled() is not None


def minimize_model(sub: Problem, coef: Tensor, intercept: Tensor, eta: Tensor, target: float, floor: float) -> _Point:
    """Minimise the model at (coef, intercept), exact for quadratic datafits.

    Args:
        sub: A problem of few features.
        coef: Its coefficients.
        intercept: Its intercept.
        eta: The predictions there.
        target: Accuracy, in units of the gradient.
        floor: Least curvature of a loss in the model, as a share of its bound: 1 makes the model a majorant.
    """
    kernels = compiled()
    assert kernels is not None
    hessian = sub.datafit.hessian(eta, sub.y, sub.weights)
    if not sub.datafit.quadratic:
        # flat pieces of a loss (Huber's tails) leave no curvature of their own
        least = floor * sub.datafit.curvature * sub.weights
        hessian = torch.maximum(hessian, least) if hessian.ndim == 1 else hessian + _times_identity(least, hessian)
    if isinstance(sub.design, SparseDesign) and isinstance(sub.term, SeparableTerm) and coef.ndim == 1:
        return _by_columns(kernels, sub, coef, intercept, eta, hessian, target)
    return _by_gram(kernels, sub, coef, intercept, eta, hessian, target)


def _times_identity(least: Tensor, like: Tensor) -> Tensor:
    return least[:, None, None] * torch.eye(like.shape[-1], dtype=like.dtype)


def _reciprocal(corner: Tensor) -> Tensor:
    return torch.where(corner > 0, 1 / corner, torch.zeros_like(corner))


def _numbers(term: SeparableTerm, shape: tuple[int, ...]) -> np.ndarray:
    """The five parts of a term in the order that the kernels take, shape (5, *shape)."""
    parts = (term.linear, term.l1, term.l2, term.lower, term.upper)
    return np.stack([part.reshape(shape).numpy() for part in parts])


def _by_columns(
    kernels: ModuleType, sub: Problem, coef: Tensor, intercept: Tensor, eta: Tensor, hessian: Tensor, target: float
) -> _Point:
    """On the columns of a sparse design."""
    slope, w = sub.datafit.gradient(eta, sub.y, sub.weights).clone().numpy(), coef.clone().numpy()
    term, X = sub.term, sub.design.matrix  # type: ignore[attr-defined]
    assert isinstance(term, SeparableTerm)
    model = (X.indptr, X.indices, X.data, hessian.contiguous().numpy(), slope, sub.fit_intercept)
    move = kernels.descend_columns(*model, w, _numbers(term, coef.shape), 100, 0.3 * target)
    return torch.from_numpy(w), intercept + move


def _moving(term: Any, coef: Tensor, gradient: Tensor) -> Tensor:
    """Entries that a model of coupled outputs is made of: those at rest would only swell it."""
    if isinstance(term, GroupTerm):
        return torch.arange(coef.numel())
    return torch.nonzero(((coef != 0) | (term.violation(coef, gradient) > 0)).flatten()).flatten()


def _by_gram(
    kernels: ModuleType, sub: Problem, coef: Tensor, intercept: Tensor, eta: Tensor, hessian: Tensor, target: float
) -> _Point:
    """On the Gram matrix; outputs with the same curvature share it, as columns of the unknown."""
    outputs = coef.shape[1] if coef.ndim == 2 else None
    coupled = hessian.ndim == 3
    gradient, slope = sub.gradients(eta)
    rows = _moving(sub.term, coef, gradient) if coupled else torch.arange(coef.shape[0])
    Q, border = data_blocks(sub.design, hessian, rows, outputs if coupled else None)
    columns = 1 if coupled or outputs is None else outputs
    whole, s = coef.reshape(-1, columns), slope.reshape(-1, columns)
    g, start, gain = gradient.reshape(-1, columns)[rows], whole[rows], None
    if sub.fit_intercept:
        # minimise over the intercept first: the Schur complement centres the columns
        corner = intercept_block(hessian, outputs if coupled else None, sub.datafit)
        inverse = torch.linalg.pinv(corner, hermitian=True) if corner.numel() > 1 else _reciprocal(corner)
        gain = inverse @ torch.cat([border.mT, s], 1)
        Q, g = Q - border @ gain[:, : Q.shape[0]], g - border @ gain[:, Q.shape[0] :]
    w = _descend(kernels, sub.term, rows, np.ascontiguousarray(Q.numpy()), g, start, coef, 0.3 * target)
    if gain is not None:
        moved = gain[:, Q.shape[0] :] + gain[:, : Q.shape[0]] @ (w - start)
        intercept = intercept - moved.reshape(intercept.shape)
    return whole.index_copy(0, rows, w).reshape(coef.shape), intercept


def _descend(
    kernels: ModuleType, term: Any, rows: Tensor, Q: np.ndarray, g: Tensor, start: Tensor, coef: Tensor, target: float
) -> Tensor:
    """Coordinate descent from `start`, shape (m, r), with slopes g; several columns of a separable term one by one."""
    if isinstance(term, GroupTerm):
        feature = torch.arange(start.shape[0]) * coef.shape[0] // start.shape[0]
        group = term.group[feature].numpy()
        members = np.argsort(group, kind="stable")
        offsets = np.searchsorted(group[members], np.arange(term.scale.numel() + 1))
        w, residual = start.clone().contiguous().numpy(), g.clone().contiguous().numpy()
        l1 = np.ascontiguousarray(term.l1.reshape(start.shape).numpy())
        scale = np.ascontiguousarray(term.scale.numpy())
        kernels.descend_groups(Q, residual, w, scale, l1, members, offsets, 1000, target)
        return torch.from_numpy(w)
    numbers, out = _numbers(term, (-1, start.shape[1]))[:, rows.numpy()], []
    for c in range(start.shape[1]):
        w, residual = start[:, c].clone().numpy(), g[:, c].clone().numpy()
        kernels.descend_gram(Q, residual, w, np.ascontiguousarray(numbers[:, :, c]), 1000, target)
        out.append(torch.from_numpy(w))
    return torch.stack(out, 1)
