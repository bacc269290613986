"""A parametric cone programme in the raw, before its structure is frozen."""

from __future__ import annotations

import dataclasses

from conelayers.canonicalize.outputs import Output
from conelayers.canonicalize.parameters import Block, ParameterLayout
from conelayers.canonicalize.provenance import Provenance
from conelayers.canonicalize.tensors import AffineMatrix
from conelayers.cones import Cone

__all__ = ["CanonicalForm"]


@dataclasses.dataclass(frozen=True, eq=False)
class CanonicalForm:
    """A parametric cone programme and its user interface, free of CVXPY objects.

    Entries of the matrices are affine in u, the concatenation of all `blocks`.

    Attributes:
        P: Upper triangle of the quadratic objective, n x n.
        q: Linear objective, n x 1.
        A, b: Constraints Ax + s = b, m x n and m x 1.
        cones: Cones of the rows, in row order.
        layout: Shapes of the parameters.
        blocks: The real vectors that make up u.
        outputs: The requested variables.
        provenance: All variables and constraints of the problem.
    """

    P: AffineMatrix
    q: AffineMatrix
    A: AffineMatrix
    b: AffineMatrix
    cones: tuple[Cone, ...]
    layout: ParameterLayout
    blocks: tuple[Block, ...]
    outputs: tuple[Output, ...]
    provenance: Provenance = Provenance()
