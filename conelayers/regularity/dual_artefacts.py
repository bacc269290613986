"""Null vectors of (a) that are the lifting's and leave the user's problem regular.

*Multipliers of epigraphs.* The rows t >= r, t >= 0, w >= -r, w >= 0 of pos(r) and neg(r) are dependent where r = 0, and
all are active; but the user never sees their multipliers. Let A'u = 0 with u in linear rows whose multipliers are
positive (or free). If A'u and u'b are zero for all parameters and no multiplier of the user moves along u, then one of
these rows can be left out: the others stay active nearby, which keeps its slack zero, and multipliers of the remaining
problem are made positive by a multiple of u.

*Hermitian matrices.* One of order n, lifted to a symmetric one of order 2n, X = JXJ' with J = [[0, -I], [I, 0]], has a
dual that is unique up to matrices with Y = -JYJ', which are orthogonal to all slacks. The projection and its derivative
commute with the symmetry; so if v has it, the null vectors of (a) that lack any symmetric part are no fault of the
user's problem: its own Jacobian is J(D) on symmetric vectors.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from conelayers.cones import ProductCone
from conelayers.cones.svec import smat, svec
from conelayers.regularity.artefacts import RowKinds, Verdict
from conelayers.regularity.interface import Interface

__all__ = ["is_dual_artefact"]

_TOUCHES = 1e-6


def is_dual_artefact(vectors: Tensor, scale: Tensor, v: Tensor, kinds: RowKinds, interface: Interface) -> Verdict:
    """Whether null vectors of (a) leave the user's problem regular; None where nothing is proved.

    Args:
        vectors: All null vectors, in scaled rows, (k, m).
        scale: y = scale * (scaled y), the same for all rows of a block, (m,).
        v: y - s, (m,).
        kinds: What the rows are.
        interface: What belongs to the user.
    """
    if interface.hermitian is not None and interface.hermitian.any():
        lifted = _lack_symmetric_part(vectors, v, interface.structure.cone, interface.hermitian)
        if lifted is not False:
            return lifted
    u = (vectors * scale).numpy().T
    if interface.reads(u) or interface.moves_constraints(u):
        return False
    used = (vectors.abs() > _TOUCHES).any(0).numpy()
    return None if np.any(used & ~kinds.strong) else True


def _lack_symmetric_part(vectors: Tensor, v: Tensor, cone: ProductCone, hermitian: np.ndarray) -> Verdict:
    """Whether all vectors are antisymmetric in lifted blocks and zero elsewhere; None where v lacks the symmetry."""
    symmetric, point = vectors.clone(), torch.zeros_like(v)
    for position in np.flatnonzero(hermitian):
        rows = slice(cone.offsets[position], cone.offsets[position + 1])
        symmetric[:, rows] = _symmetric_part(vectors[:, rows])
        point[rows] = v[rows] - _symmetric_part(v[rows])
    if bool((symmetric.norm(dim=-1) > _TOUCHES * vectors.norm(dim=-1)).any()):
        return False
    return True if point.norm() <= _TOUCHES * v.norm() else None


def _symmetric_part(u: Tensor) -> Tensor:
    """Svec of (X + JXJ') / 2."""
    X = smat(u)
    n = X.shape[-1] // 2
    (a, b), (c, d) = ((X[..., i, :n], X[..., i, n:]) for i in (slice(None, n), slice(n, None)))
    turned = torch.cat([torch.cat([d, -c], -1), torch.cat([-b, a], -1)], -2)
    return svec((X + turned) / 2)
