"""The whole reverse mode of a cone programme in one compiled pass.

The outputs are those of `conelayers.residual.conic.adjoint_gradients`, which states the formulas in differentiable
torch code; here the same numbers come from one kernel that factors, solves and reads the gradients off the patterns.
Derivatives of this pass (second derivatives of the layer) go through the torch statement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from conelayers.implicit import Equation, Exact, zeros_for_none
from conelayers.program import ConeStructure, Status
from conelayers.program.products import A_times, A_transpose_times, P_times, outer, symmetric_outer
from conelayers.residual.compiled import ACCEPTED, compiled_kernels
from conelayers.residual.direction import OUTSIDE, Watch
from conelayers.residual.folding import Folding
from conelayers.residual.linearized import LinearizedConditions

__all__ = ["FusedAdjoint", "fuses"]

_INACCURATE = int(Status.INACCURATE)

_SMALL = 10_000_000
"""Entries of the batch's A up to which the kernel may compute their gradients for nothing."""

Gradients = Callable[..., tuple[Tensor, ...]]


def fuses(
    structure: ConeStructure, device: torch.device, matrices: tuple[bool, bool], spare: int | None = None
) -> bool:
    """Whether the pass pays: gradients of P or A are wanted, or those of `spare` entries of A are a small price."""
    wanted = any(matrices) or (spare is not None and spare <= _SMALL)
    return wanted and compiled_kernels(structure, device) is not None


class FusedAdjoint(Equation):
    """(P, A, x, y, s, gx, gy, gs, status code) to (dP, dq, dA, db), exact mode only.

    Args:
        structure: Patterns and cone, for which a compiled kernel exists.
        stated: The same map in differentiable torch code.
        watch: What is told whether the solutions are regular, or None.
    """

    def __init__(self, structure: ConeStructure, stated: Gradients, watch: Watch | None = None) -> None:
        self.structure, self.stated, self.watch = structure, stated, watch

    @property
    def event_dims(self) -> Sequence[int]:
        """Eight vectors and a number."""
        return (1,) * 8 + (0,)

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """One kernel for the batch; several cotangents of one solution share a factorization in the stated form."""
        *vectors, code = inputs
        items = code.shape[0] if code.dim() == 1 else 0
        if items and all(value.dim() == 2 and value.shape[0] == items for value in vectors[2:]):
            matrices = (value if value.dim() == 2 else value[None] for value in vectors[:2])
            return tuple(self._solve_flat([*matrices, *vectors[2:]], code))
        fixed, cotangents = vectors[:5], vectors[5:]
        folding = Folding.of([*(value.shape[:-1] for value in fixed), code.shape], [g.shape[:-1] for g in cotangents])
        if folding.rhs_count != 1:  # several cotangents, or no items
            return self.stated(*inputs)
        flat = [folding.fold_fixed(value) for value in fixed[:2]]
        flat += [folding.fold_fixed(value, always_batched=True) for value in fixed[2:]]
        flat += [folding.fold_rhs(g)[:, 0] for g in cotangents]
        codes = folding.fold_fixed(code[..., None], always_batched=True)[:, 0]
        return tuple(folding.unfold(out[:, None]) for out in self._solve_flat(flat, codes))

    def _solve_flat(self, flat: list[Tensor], codes: Tensor) -> list[Tensor]:
        """One batch axis B; nothing goes into or comes out of items without a solution."""
        if int(codes.max()) <= _INACCURATE:
            return self._gradients(flat, codes)
        failed = codes[:, None] > _INACCURATE
        held = flat[:2] + [torch.where(failed, 0.0, value) for value in flat[2:]]
        return [torch.where(failed, 0.0, gradient) for gradient in self._gradients(held, codes)]

    def _gradients(self, flat: list[Tensor], codes: Tensor) -> list[Tensor]:
        """Items that the kernel's fixed number of refinements did not solve go by the stated form."""
        kernels = compiled_kernels(self.structure, flat[0].device)
        assert kernels is not None
        watch = self.watch
        found = kernels.pullback(*flat, direction=None if watch is None else watch.rows)
        gradients, residual = [found[name] for name in ("dP", "dq", "dA", "db")], found["residual"]
        worst, outside = torch.stack([residual.max(), found["outside"].max()]).tolist()  # the device is asked once
        if watch is not None:
            watch.seen = True
            if outside > OUTSIDE:
                watch.note(self.structure, found["outside"], flat[3], flat[4])
        if not worst <= ACCEPTED:
            missed = torch.nonzero(~(residual <= ACCEPTED) & (codes <= _INACCURATE))[:, 0]
            chosen = [value if value.shape[0] == 1 else value[missed] for value in flat]
            for gradient, again in zip(gradients, self.stated(*chosen, codes[missed]), strict=True):
                gradient[missed] = again
        return gradients

    def pullback(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...]:
        """The adjoint of `pushforward`: the outer products' own, then that of the adjoint system.

        Written out, since a `torch.func.vjp` of the stated form would open a level of its own inside a backward pass,
        whose saved tensors may belong to levels that are closed.
        """
        structure, exact = self.structure, LinearizedConditions(self.structure, Exact())
        P, A, *items, code = inputs
        has_solution = (code <= _INACCURATE)[..., None]
        x, y, s, gx, gy, gs = (torch.where(has_solution, value, 0.0) for value in items)
        dP, dq, dA, db = zeros_for_none(cotangents, outputs)
        lam, nu = -outputs[1], outputs[3]
        w = nu - gs
        u = A_times(structure, A, lam) + w - gy
        to_lam = -dq - P_times(structure, dP, x) - A_transpose_times(structure, dA, y)
        to_nu = db - A_times(structure, dA, x)
        solved = P, A, y - s, gx - A_transpose_times(structure, A, gs), gy, has_solution[..., 0].to(x.dtype)
        to_P, to_A, to_v, first, second, _ = exact.pullback(solved, (lam, u, w), (to_lam, None, to_nu), (True,) * 6)
        assert to_A is not None and to_v is not None and first is not None and second is not None
        to_items = (
            -P_times(structure, dP, lam) - A_transpose_times(structure, dA, nu),
            to_v - A_times(structure, dA, lam),
            -to_v,
            first,
            second,
            to_nu - A_times(structure, A, first),
        )
        found = (torch.where(has_solution, value, 0.0) for value in to_items)
        return to_P, to_A - outer(structure, gs, first), *found, None

    def pushforward(self, inputs, outputs, tangents) -> tuple[Tensor | None, ...]:
        """The adjoint system moved: the tangents of lam and nu, then the product rule in the outer products."""
        P, A, *items, code = inputs
        dP, dA, *moving = zeros_for_none(tangents[:-1], inputs[:-1])
        has_solution = code <= _INACCURATE
        active = has_solution.to(P.dtype)
        x, y, s, gx, gy, gs = (torch.where(has_solution[..., None], value, 0.0) for value in items)
        dx, dy, ds, dgx, dgy, dgs = (torch.where(has_solution[..., None], value, 0.0) for value in moving)
        lam, nu = -outputs[1], outputs[3]
        u = A_times(self.structure, A, lam) + (nu - gs) - gy
        first = gx - A_transpose_times(self.structure, A, gs)
        first_moved = dgx - A_transpose_times(self.structure, dA, gs) - A_transpose_times(self.structure, A, dgs)
        moved: Any = LinearizedConditions(self.structure, Exact()).pushforward(
            (P, A, y - s, first, gy, active), (lam, u, nu - gs), (dP, dA, dy - ds, first_moved, dgy, None)
        )
        lam_moved, _, w_moved = moved
        nu_moved = w_moved + dgs
        return (
            -(symmetric_outer(self.structure, lam_moved, x) + symmetric_outer(self.structure, lam, dx)),
            -lam_moved,
            -(
                outer(self.structure, dy, lam)
                + outer(self.structure, y, lam_moved)
                + outer(self.structure, nu_moved, x)
                + outer(self.structure, nu, dx)
            ),
            nu_moved,
        )
