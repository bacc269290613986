"""CVXPY's functions of values, in torch: trailing axes are the functions' own, leading ones a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = [
    "divide",
    "dual_norm_of_matrix",
    "entropy",
    "geometric_mean",
    "huber",
    "imaginary_part",
    "kl_divergence",
    "largest",
    "largest_eigenvalue",
    "largest_entries",
    "log_det",
    "log_sum_exp",
    "matmul",
    "matrix_frac",
    "maximum",
    "minimum",
    "multiply",
    "norm",
    "power",
    "product",
    "quadratic_form",
    "real_part",
    "relative_entropy",
    "smallest",
    "squares_over",
    "trace_of_inverse",
    "x_exp",
]

Axes = Sequence[int]


def multiply(x: Tensor, y: Tensor) -> Tensor:
    """Entry by entry."""
    return x * y


def divide(x: Tensor, y: Tensor) -> Tensor:
    """Entry by entry."""
    return x / y


def maximum(*values: Tensor) -> Tensor:
    """The largest of each entry; ties share the gradient."""
    found = values[0]
    for value in values[1:]:
        found = torch.maximum(found, value)
    return found


def minimum(*values: Tensor) -> Tensor:
    """The smallest of each entry; ties share the gradient."""
    found = values[0]
    for value in values[1:]:
        found = torch.minimum(found, value)
    return found


def matmul(x: Tensor, y: Tensor, axes: tuple[int, int]) -> Tensor:
    """Product of matrices or vectors with the given numbers of own axes."""
    x = x.unsqueeze(-2) if axes[0] == 1 else x
    y = y.unsqueeze(-1) if axes[1] == 1 else y
    dtype = torch.promote_types(x.dtype, y.dtype)
    found = x.to(dtype) @ y.to(dtype)
    found = found.squeeze(-2) if axes[0] == 1 else found
    return found.squeeze(-1) if axes[1] == 1 else found


def norm(x: Tensor, p: float, axes: Axes, keepdim: bool = False) -> Tensor:
    """The p-norm over axes; for p < 1 CVXPY's concave (sum of x^p)^(1/p). Its gradient at zero is zero for p >= 1."""
    if p >= 1 or not axes:
        return torch.linalg.vector_norm(x, p, dim=tuple(axes), keepdim=keepdim)
    return x.pow(p).sum(tuple(axes), keepdim=keepdim).pow(1 / p)


def largest(x: Tensor, axes: Axes, keepdim: bool = False) -> Tensor:
    """The largest entry over axes; ties share the gradient."""
    return x.amax(tuple(axes), keepdim=keepdim) if axes else x


def smallest(x: Tensor, axes: Axes, keepdim: bool = False) -> Tensor:
    """The smallest entry over axes; ties share the gradient."""
    return x.amin(tuple(axes), keepdim=keepdim) if axes else x


def log_sum_exp(x: Tensor, axes: Axes, keepdim: bool = False) -> Tensor:
    """Log of the sum of exponentials over axes."""
    return torch.logsumexp(x, tuple(axes), keepdim=keepdim) if axes else x


def product(x: Tensor, axes: Axes, keepdim: bool = False) -> Tensor:
    """Product over axes."""
    for axis in axes:  # negative, and kept until all are done
        x = x.prod(axis, keepdim=True)
    return x if keepdim else _squeezed(x, axes)


def squares_over(x: Tensor, y: Tensor, axes: Axes, keepdim: bool = False) -> Tensor:
    """Sum over axes of |x|^2, divided by the number y."""
    total = x.abs().square() if x.is_complex() else x.square()
    total = total.sum(tuple(axes), keepdim=keepdim) if axes else total
    return total / y.reshape((*y.shape, *(1,) * (total.dim() - y.dim())))


def quadratic_form(x: Tensor, P: Tensor) -> Tensor:
    """x^H P x; x of shape (*batch, n) or (*batch, n, 1)."""
    x = x.reshape((*x.shape[: P.dim() - 2], P.shape[-1]))
    dtype = torch.promote_types(x.dtype, P.dtype)
    x = x.to(dtype)
    return (x.conj() * (P.to(dtype) @ x.unsqueeze(-1)).squeeze(-1)).sum(-1).real


def matrix_frac(X: Tensor, P: Tensor) -> Tensor:
    """Trace of X^H P^-1 X; X of shape (*batch, n) or (*batch, n, k)."""
    X = X.unsqueeze(-1) if X.dim() < P.dim() else X
    dtype = torch.promote_types(X.dtype, P.dtype)
    X = X.to(dtype)
    batch = torch.broadcast_shapes(X.shape[:-2], P.shape[:-2])
    X, P = X.expand(*batch, *X.shape[-2:]), P.to(dtype).expand(*batch, *P.shape[-2:])
    return (X.conj() * torch.linalg.solve(P, X)).sum((-2, -1)).real


def real_part(x: Tensor) -> Tensor:
    """The real part, also of real values."""
    return x.real if x.is_complex() else x


def imaginary_part(x: Tensor) -> Tensor:
    """The imaginary part, also of real values."""
    return x.imag if x.is_complex() else torch.zeros_like(x)


def power(x: Tensor, exponent: float) -> Tensor:
    """Entries to a constant power."""
    return x.pow(exponent)


def huber(x: Tensor, M: float) -> Tensor:
    """x^2 up to M, 2 M |x| - M^2 beyond."""
    size = x.abs()
    return torch.where(size <= M, size.square(), 2 * M * size - M**2)


def entropy(x: Tensor) -> Tensor:
    """-x log x, 0 at 0."""
    return torch.special.entr(x)


def relative_entropy(x: Tensor, y: Tensor) -> Tensor:
    """The function x log(x / y), 0 at x = 0."""
    return torch.special.xlogy(x, x / y)


def kl_divergence(x: Tensor, y: Tensor) -> Tensor:
    """The function x log(x / y) - x + y."""
    return relative_entropy(x, y) - x + y


def x_exp(x: Tensor) -> Tensor:
    """The function x e^x."""
    return x * x.exp()


def log_det(X: Tensor) -> Tensor:
    """Log of the determinant of a positive definite matrix."""
    return 2 * torch.linalg.cholesky(X).diagonal(dim1=-2, dim2=-1).real.log().sum(-1)


def trace_of_inverse(X: Tensor) -> Tensor:
    """Trace of the inverse of a positive definite matrix."""
    return torch.linalg.inv(X).diagonal(dim1=-2, dim2=-1).real.sum(-1)


def largest_eigenvalue(X: Tensor) -> Tensor:
    """The largest eigenvalue of a symmetric matrix."""
    return torch.linalg.eigvalsh(X)[..., -1]


def dual_norm_of_matrix(X: Tensor, order: str) -> Tensor:
    """The sum ("nuc") or the largest ("2") of the singular values."""
    return torch.linalg.matrix_norm(X, "nuc" if order == "nuc" else 2)


def largest_entries(x: Tensor, k: float, axes: Axes, keepdim: bool = False) -> Tensor:
    """The sum of the k largest entries over axes; of the next one, the fraction that k has."""
    kept = x.dim() - len(axes)
    last = sorted(axis + x.dim() for axis in axes)
    rest = [axis for axis in range(x.dim()) if axis not in last]
    flat = x.permute(*rest, *last).flatten(len(rest)) if len(axes) else x.unsqueeze(-1)
    whole, fraction = math.floor(k), k - math.floor(k)
    top = flat.topk(min(math.ceil(k), flat.shape[-1]), dim=-1).values
    total = top[..., :whole].sum(-1)
    total = total + fraction * top[..., whole] if fraction and whole < flat.shape[-1] else total
    assert total.dim() == kept
    return _unsqueezed(total, axes) if keepdim else total


def geometric_mean(x: Tensor, weights: Sequence[float], axes: Axes, keepdim: bool = False) -> Tensor:
    """Product of x_i^w_i over the one axis, or over all entries, whose weights sum to one."""
    w = torch.as_tensor(list(weights), dtype=x.dtype, device=x.device)
    if len(axes) == 1:
        w = w.reshape((w.numel(), *(1,) * (-axes[0] - 1)))
    else:
        w = w.reshape(x.shape[min(axes) + x.dim() :])
    return product(x.pow(w), axes, keepdim)


def _squeezed(x: Tensor, axes: Axes) -> Tensor:
    for axis in sorted((axis + x.dim() for axis in axes), reverse=True):
        x = x.squeeze(axis)
    return x


def _unsqueezed(x: Tensor, axes: Axes) -> Tensor:
    total = x.dim() + len(axes)
    for axis in sorted(axis + total for axis in axes):
        x = x.unsqueeze(axis)
    return x
