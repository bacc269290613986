"""The linearised optimality conditions, as an equation that is its own adjoint.

With v = y - s and D an element of the Clarke Jacobian of the projection onto K* at v, the reduced residual

    F1 = Px + q + A'Pi(v),    F2 = Ax + Pi(v) - v - b

has the Jacobian J = [[P, A'D], [A, D - I]] in (x, v). Systems with J' reduce to systems with J: with cotangents
(a, c, e) of (dx, dv, w = D dv), solve J [alpha; u] = [a + A'c; c + e]; then the cotangents of the right-hand sides are
alpha and beta = D u - c. So one solver serves forward mode, reverse mode and their own derivatives. The derivative of D
enters through the cone's curvature tensor T[u, w] = d<w, D(v) u>/dv, which is symmetric in all three places because D
is a Hessian (of half the squared distance to K).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from conelayers.cones import ProductCone
from conelayers.errors import UnsupportedError
from conelayers.implicit import Derivative, Equation, implicit, zeros_for_none
from conelayers.program import ConeStructure
from conelayers.program.products import A_times, A_transpose_times, P_times, outer, symmetric_outer
from conelayers.residual.folding import Folding
from conelayers.residual.linearization import linearize

__all__ = ["LinearizedConditions"]


class LinearizedConditions(Equation):
    """J(D(v)) [dx; dv] = [r1; r2], with outputs dx, dv and w = D dv.

    Inputs: P values, A values, v, r1, r2, and `active` (one number per item: 1, or 0 where the outputs are to be zero
    because the item has no solution).

    Args:
        structure: Patterns and cone.
        mode: How the system is solved.
    """

    def __init__(self, structure: ConeStructure, mode: Derivative) -> None:
        self.structure, self.mode = structure, mode

    @property
    def event_dims(self) -> Sequence[int]:
        """Five vectors and a number."""
        return (1, 1, 1, 1, 1, 0)

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Factor once per item and solve for all right-hand sides."""
        P, A, v, r1, r2, active = inputs
        folding = Folding.of([P.shape[:-1], A.shape[:-1], v.shape[:-1], active.shape], [r1.shape[:-1], r2.shape[:-1]])
        if 0 in folding.full:
            return tuple(v.new_zeros((*folding.full, r.shape[-1])) for r in (r1, r2, r2))
        linearization = linearize(
            self.structure,
            folding.fold_fixed(P),
            folding.fold_fixed(A),
            folding.fold_fixed(v, always_batched=True),
        )
        if self.mode.smoothing is not None:
            linearization = linearization.smooth(self.mode.smoothing)  # D stands in the outputs, too
        dx, dv = self.mode.solve(linearization, (folding.fold_rhs(r1), folding.fold_rhs(r2)))
        w = linearization.project(dv)
        keep = folding.fold_fixed(active[..., None], always_batched=True).bool()[:, None]
        return tuple(folding.unfold(torch.where(keep, out, 0.0)) for out in (dx, dv, w))

    def pullback(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...]:
        """The adjoint system, and the derivative of the matrices."""
        P, A, v, r1, r2, active = inputs
        dx, dv, w = outputs
        a, c, e = (torch.where(active[..., None] > 0, g, 0.0) for g in zeros_for_none(cotangents, outputs))
        alpha, beta, u = solve_adjoint(self.structure, self.mode, P, A, v, a, c, e, active)
        return (
            -symmetric_outer(self.structure, alpha, dx) if needed[0] else None,
            -(outer(self.structure, w, alpha) + outer(self.structure, beta, dx)) if needed[1] else None,
            -_curvature(self.structure.cone, self.mode.smoothing, v, dv, u) if needed[2] else None,
            alpha,
            beta,
            None,
        )

    def pushforward(self, inputs, outputs, tangents) -> tuple[Tensor | None, ...]:
        """The same system with the moved matrices on the right-hand side."""
        P, A, v, r1, r2, active = inputs
        dx, dv, w = outputs
        dP, dA, v_dot, r1_dot, r2_dot, _ = tangents
        first = torch.zeros_like(dx) if r1_dot is None else r1_dot
        second = torch.zeros_like(dv) if r2_dot is None else r2_dot
        w_moved = torch.zeros_like(dv)
        if dP is not None:
            first = first - P_times(self.structure, dP, dx)
        if dA is not None:
            first = first - A_transpose_times(self.structure, dA, w)
            second = second - A_times(self.structure, dA, dx)
        if v_dot is not None:
            w_moved = _curvature(self.structure.cone, self.mode.smoothing, v, dv, v_dot)
            first = first - A_transpose_times(self.structure, A, w_moved)
            second = second - w_moved
        x_dot, dv_dot, w_dot = implicit(self, P, A, v, first, second, active)
        return x_dot, dv_dot, torch.where(active[..., None] > 0, w_dot + w_moved, 0.0)


def solve_adjoint(
    structure: ConeStructure, mode: Derivative, P, A, v: Tensor, a: Tensor, c: Tensor, e: Tensor, active: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The cotangents (alpha, beta) of the right-hand sides for cotangents (a, c, e) of (dx, dv, D dv).

    J'[alpha; beta] = [a; c + D e], and u = A alpha + beta - e, by the reduction of the module's docstring; or by the
    transposed system itself for a mode to which the reduction does not apply.
    """
    if not mode.reduces_adjoint:
        alpha, beta = implicit(TransposedConditions(structure, mode), P, A, v, a, c, e, active)
        return alpha, beta, A_times(structure, A, alpha) + beta - e
    alpha, u, Du = implicit(
        LinearizedConditions(structure, mode), P, A, v, a + A_transpose_times(structure, A, c), c + e, active
    )
    return alpha, Du - c, u


class TransposedConditions(Equation):
    """J'[alpha; beta] = [a; c + D e], solved as the mode solves transposed systems.

    Inputs: P values, A values, v, a, c, e, and `active`; outputs alpha and beta.
    """

    def __init__(self, structure: ConeStructure, mode: Derivative) -> None:
        self.structure, self.mode = structure, mode

    @property
    def event_dims(self) -> Sequence[int]:
        """Six vectors and a number."""
        return (1,) * 6 + (0,)

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """One decomposition per item, for all right-hand sides."""
        P, A, v, *cotangents, active = inputs
        folding = Folding.of(
            [P.shape[:-1], A.shape[:-1], v.shape[:-1], active.shape], [g.shape[:-1] for g in cotangents]
        )
        if 0 in folding.full:
            return tuple(v.new_zeros((*folding.full, g.shape[-1])) for g in cotangents[:2])
        linearization = linearize(
            self.structure, folding.fold_fixed(P), folding.fold_fixed(A), folding.fold_fixed(v, always_batched=True)
        )
        a, c, e = (folding.fold_rhs(g) for g in cotangents)
        found = self.mode.solve_transposed(linearization, (a, c + linearization.project(e)))
        keep = folding.fold_fixed(active[..., None], always_batched=True).bool()[:, None]
        return tuple(folding.unfold(torch.where(keep, out, 0.0)) for out in found)

    def pullback(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...]:
        """Not provided: where J is singular a pseudo-inverse is not differentiable in general."""
        raise UnsupportedError(f"Second derivatives are not provided with {self.mode}; use Exact() or Smoothed(mu).")

    def pushforward(self, inputs, outputs, tangents) -> tuple[Tensor | None, ...]:
        """Not provided, as `pullback`."""
        raise UnsupportedError(f"Second derivatives are not provided with {self.mode}; use Exact() or Smoothed(mu).")


class _Curvature(Equation):
    """T[u, w] = d<w, D(v) u>/dv, for inputs v, u and w."""

    def __init__(self, cone: ProductCone, mu: float | None) -> None:
        self.cone, self.mu = cone, mu

    @property
    def event_dims(self) -> Sequence[int]:
        """Three vectors."""
        return (1, 1, 1)

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The cone's own formula."""
        v, u, w = inputs
        shape = torch.broadcast_shapes(v.shape, u.shape, w.shape)
        return (self.cone.dual_derivative(v, mu=self.mu).curvature(u, w).expand(shape),)

    def pullback(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...]:
        """Linear in u and w; who asks for the derivative in v meets `_Border`."""
        v, u, w = inputs
        (g,) = zeros_for_none(cotangents, outputs)
        return (
            torch.zeros_like(v) if needed[0] else None,
            _curvature(self.cone, self.mu, v, w, g) if needed[1] else None,
            _curvature(self.cone, self.mu, v, u, g) if needed[2] else None,
        )

    def pushforward(self, inputs, outputs, tangents) -> tuple[Tensor | None, ...]:
        """Linear in u and w; who asks for the derivative in v meets `_Border`."""
        v, u, w = inputs
        _, u_dot, w_dot = tangents
        out = torch.zeros_like(outputs[0])
        if u_dot is not None:
            out = out + _curvature(self.cone, self.mu, v, u_dot, w)
        if w_dot is not None:
            out = out + _curvature(self.cone, self.mu, v, u, w_dot)
        return (out,)


class _Border(Equation):
    """v itself, whose derivative is refused.

    It stands before v in the curvature, where a backward pass comes only if the third derivative is wanted. The
    curvature's own pullback cannot tell: torch does not say which inputs a pass needs, only which have a graph, and
    `torch.autograd.functional.hvp` has one for all.
    """

    @property
    def event_dims(self) -> Sequence[int]:
        """One vector."""
        return (1,)

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """A copy."""
        return (inputs[0].clone(),)

    def pullback(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...]:
        """Refused."""
        raise UnsupportedError("Third derivatives through a curved cone are not provided; two orders are.")

    def pushforward(self, inputs, outputs, tangents) -> tuple[Tensor | None, ...]:
        """Refused."""
        raise UnsupportedError("Third derivatives through a curved cone are not provided; two orders are.")


def _is_flat(cone: ProductCone, mu: float | None) -> bool:
    """Whether D is locally constant."""
    return cone.is_polyhedral and mu is None


def _curvature(cone: ProductCone, mu: float | None, v: Tensor, u: Tensor, w: Tensor) -> Tensor:
    if _is_flat(cone, mu):
        return torch.zeros_like(v + u + w)
    (bordered,) = implicit(_Border(), v)
    return implicit(_Curvature(cone, mu), bordered, u, w)[0]
