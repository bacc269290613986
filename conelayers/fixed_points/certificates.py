"""The condition of the implicit function theorem for fixed points: certificates and measured margins.

For z = phi(W z + b) with phi acting entrywise and of slope in [0, 1], every Clarke element of the map has the
Jacobian D W with D diagonal, 0 <= D <= I, and the theorem asks that I - D W be invertible for each. Three criteria
bound its smallest singular value from below over all D at once:

- contraction: ||W|| < 1 gives 1 - ||W||;
- monotonicity: if (I - W) + (I - W)' >= 2 m I with m > 0, then for D > 0 the matrix D^-1 - W = (D^-1 - I) + (I - W) is
  m-strongly monotone, so ||(D^-1 - W)^-1|| <= 1/m; and (I - D W)^-1 = I + (D^-1 - W)^-1 W has norm <= 1 + ||W|| / m.
  By continuity sigma_min(I - D W) >= m / (m + ||W||) for all D;
- weighted infinity norm: with s > 0 and kappa = max_i (|W| s)_i / s_i < 1, ||S^-1 (I - D W)^-1 S||_inf <= 1 / (1 -
kappa),
  hence sigma_min >= (1 - kappa) min(s) / (sqrt(n) max(s)). With s = 1 this is the infinity norm; with s the Perron
  vector of |W|, kappa is its spectral radius (El Ghaoui et al. 2021).

Whether I - D W is invertible for all D can be decided exactly for small n: its determinant is affine in every entry
of D, so it has no zero on the box iff it has one sign on the vertices.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from conelayers.errors import InvalidArgument
from conelayers.implicit.products import Tape

__all__ = [
    "ActivationCertificate",
    "FixedPointCertificate",
    "SplittingCertificate",
    "certify_activation",
    "certify_fixed_point",
    "certify_splitting",
    "monotone_certificate",
]


@dataclasses.dataclass(frozen=True)
class ActivationCertificate:
    """What is known about I - D W over all diagonal D with entries in [0, 1].

    Attributes:
        lower_bound: sigma_min(I - D W) >= this for every D; 0 if no criterion holds.
        criterion: Which gave it: "contraction", "monotonicity", "infinity norm", "Perron-Frobenius" or "none".
        monotonicity: The largest m with (I - W) + (I - W)' >= 2 m I; negative if I - W is not monotone.
        contraction: ||W||_2, or an upper bound of it where W is not at hand.
        infinity_norm: Largest absolute row sum of W; NaN for a complex symbol.
        perron: Spectral radius of |W|; NaN for a complex symbol.
    """

    lower_bound: float
    criterion: str
    monotonicity: float
    contraction: float
    infinity_norm: float
    perron: float

    @property
    def regular(self) -> bool:
        """Whether the theorem's condition is certified."""
        return self.lower_bound > 0


def certify_activation(W: Tensor) -> ActivationCertificate:
    """Bound sigma_min(I - D W) from below over all Clarke elements D of an entrywise activation of slope in [0, 1].

    Args:
        W: The matrix, shape (n, n), or a block-diagonalised one, shape (*blocks, k, k), complex where it is the
            symbol of a convolution (the Fourier transform is unitary, so norms and monotonicity carry over).
    """
    eye = torch.eye(W.shape[-1], dtype=W.dtype, device=W.device)
    norm = float(torch.linalg.matrix_norm(W, ord=2).max())
    gap = eye - W
    m = float(torch.linalg.eigvalsh((gap + gap.mH) / 2).min())
    bounds = {"contraction": 1 - norm, "monotonicity": m / (m + norm) if m > 0 else 0.0}
    infinity = perron = torch.nan
    if W.dim() == 2 and not W.is_complex():
        n = W.shape[0]
        infinity = float(W.abs().sum(1).max())
        bounds["infinity norm"] = (1 - infinity) / n**0.5
        vector, perron = perron_vector(W)
        weights = W.abs() @ vector / vector
        kappa = float(weights.max())
        bounds["Perron-Frobenius"] = (1 - kappa) * float(vector.min() / vector.max()) / n**0.5
    criterion = max(bounds, key=lambda name: bounds[name])
    if bounds[criterion] <= 0:
        return ActivationCertificate(0.0, "none", m, norm, infinity, perron)
    return ActivationCertificate(bounds[criterion], criterion, m, norm, infinity, perron)


def monotone_certificate(m: float, norm: float) -> ActivationCertificate:
    """The certificate of a W known only by its margin and a bound of its norm.

    Args:
        m: (I - W) + (I - W)' >= 2 m I.
        norm: ||W||_2 or more.
    """
    bounds = {"contraction": 1 - norm, "monotonicity": m / (m + norm) if m > 0 else 0.0}
    criterion = max(bounds, key=lambda name: bounds[name])
    if bounds[criterion] <= 0:
        criterion = "none"
    return ActivationCertificate(bounds.get(criterion, 0.0), criterion, m, norm, torch.nan, torch.nan)


@dataclasses.dataclass(frozen=True)
class SplittingCertificate:
    """How fast operator splitting with step alpha converges for z = prox(W z + b), prox firmly nonexpansive.

    Attributes:
        alpha: The step length.
        forward_backward: The contraction factor ||I - alpha (I - W)|| of one forward-backward step.
        peaceman_rachford: The contraction factor ||(I - alpha (I - W)) (I + alpha (I - W))^-1|| of one
            Peaceman-Rachford step in its reflected variable.
        resolvent: sigma_min(I + alpha (I - W)), the condition of the system behind each resolvent.
    """

    alpha: float
    forward_backward: float
    peaceman_rachford: float
    resolvent: float


def certify_splitting(W: Tensor, alpha: float) -> SplittingCertificate:
    """Exact contraction factors of the affine halves of both splittings; the proximal half is nonexpansive.

    Below 1 for every alpha > 0 in Peaceman-Rachford where I - W is strongly monotone with margin m, for alpha < 2 m /
    ||I - W||^2 in forward-backward (Winston & Kolter 2020; Giselsson & Boyd 2017); and there sigma_min of the
    resolvent's system is at least 1 + alpha m.

    Args:
        W: The matrix, shape (n, n), or a block-diagonalised one, as in `certify_activation`.
        alpha: Step length.

    Raises:
        InvalidArgument: If alpha is not positive.
    """
    if not alpha > 0:
        raise InvalidArgument(f"alpha must be positive, got {alpha}.")
    eye = torch.eye(W.shape[-1], dtype=W.dtype, device=W.device)
    step = alpha * (eye - W)
    forward, backward = eye - step, eye + step
    reflected = torch.linalg.solve(backward, forward, left=False)
    return SplittingCertificate(
        alpha,
        float(torch.linalg.matrix_norm(forward, ord=2).max()),
        float(torch.linalg.matrix_norm(reflected, ord=2).max()),
        float(torch.linalg.svdvals(backward)[..., -1].min()),
    )


def perron_vector(W: Tensor, floor: float = 1e-6) -> tuple[Tensor, float]:
    """A positive vector close to the Perron vector of |W|, and the spectral radius of |W|.

    |W| plus a small multiple of the all-ones matrix is positive, so its Perron vector is unique and positive.
    """
    magnitude = W.detach().abs().double()
    if magnitude.numel() == 0:
        return W.new_zeros(0), 0.0
    scale = magnitude.max().clamp(min=1e-300)
    magnitude = magnitude / scale
    vector = _limit_of_powers(magnitude + floor * magnitude.mean().clamp(min=1e-300)).clamp(min=1e-150)
    radius = float(torch.linalg.eigvals(magnitude).abs().max() * scale)
    return vector.to(W.dtype), radius


def _limit_of_powers(M: Tensor, squarings: int = 60) -> Tensor:
    """The Perron vector of a positive matrix, of largest entry 1: the direction of M^(2^k) 1.

    Squaring needs no eigensolver: the one for general matrices gives up, or worse, where almost all entries are a
    millionth of the largest. Sums and products of positive numbers do not cancel.
    """
    M = M / M.max()
    vector = M.sum(1)
    for _ in range(squarings):
        M = M @ M
        M = M / M.max()
        last, vector = vector, M.sum(1)
        if torch.allclose(vector / vector.max(), last / last.max(), rtol=1e-13, atol=0.0):
            break
    return vector / vector.max()


def regular_over_box(W: Tensor, limit: int = 14) -> bool:
    """Whether I - D W is invertible for every diagonal D in [0, 1]^n.

    Decided exactly, up to rounding, by 2^n determinants.

    Raises:
        InvalidArgument: If n exceeds `limit`.
    """
    n = W.shape[-1]
    if n > limit:
        raise InvalidArgument(
            f"W has {n} rows; 2^n determinants are practical up to {limit}. Use certify_activation()."
        )
    codes = torch.arange(2**n, device=W.device)
    vertices = (codes[:, None] >> torch.arange(n, device=W.device)) & 1
    eye = torch.eye(n, dtype=W.dtype, device=W.device)
    determinants = torch.linalg.det(eye - vertices[:, :, None].to(W.dtype) * W)
    return bool((determinants > 0).all())  # at D = 0 it is 1


@dataclasses.dataclass(frozen=True)
class FixedPointCertificate:
    """Measured at one fixed point, per batch item.

    Attributes:
        sigma_min: Smallest singular value of I - J, shape (*batch,): the condition of the theorem for this Clarke
            element.
        contraction: ||J||_2, shape (*batch,).
        spectral_radius: Largest modulus of an eigenvalue of J, shape (*batch,): Picard converges locally below 1.
        monotonicity: Smallest eigenvalue of the symmetric part of I - J, shape (*batch,).
    """

    sigma_min: Tensor
    contraction: Tensor
    spectral_radius: Tensor
    monotonicity: Tensor


def certify_fixed_point(f: Callable[..., Any], z: Any, *params: Any, batch_dims: int = 1) -> FixedPointCertificate:
    """Measure the regularity of z = f(z, *params) at `z` with dense Jacobians (n products per item).

    Args:
        f: The map.
        z: Its fixed point, a tensor or nest with `batch_dims` leading batch axes.
        *params: Further arguments of f.
        batch_dims: Number of batch axes.
    """
    leaves, spec = tree_flatten(z)
    batch = leaves[0].shape[:batch_dims]
    shapes = [t.shape for t in leaves]
    sizes = [t[(0,) * batch_dims].numel() if t.numel() else 0 for t in leaves]

    def join(nest: Any) -> Tensor:
        return torch.cat([t.reshape(*batch, -1) for t in tree_flatten(nest)[0]], dim=-1)

    def flat(v: Tensor) -> Tensor:
        parts = [p.reshape(s) for p, s in zip(v.split(sizes, dim=-1), shapes, strict=True)]
        return join(f(tree_unflatten(parts, spec), *params))

    point = join(z).detach()
    tape = Tape(flat, point, ())
    n = point.shape[-1]
    identity = torch.eye(n, dtype=point.dtype, device=point.device)
    rows = [tape.transposed_product(e.expand_as(point)) for e in identity]  # row i of J for every item
    J = torch.stack(rows, dim=-2)  # shape: (*batch, n, n)
    gap = identity - J
    return FixedPointCertificate(
        torch.linalg.svdvals(gap)[..., -1],
        torch.linalg.matrix_norm(J, ord=2),
        torch.linalg.eigvals(J).abs().amax(-1),
        torch.linalg.eigvalsh((gap + gap.mT) / 2)[..., 0],
    )
