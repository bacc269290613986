"""A parametric cone programme in the raw, before its structure is frozen."""

from __future__ import annotations

import dataclasses

from conelayers.canonicalize.expressions import Expression
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
        outputs: The requested variables, then those that the expressions read.
        provenance: All variables and constraints of the problem.
        constant: What the objective has beside 1/2 x'Px + q'x, 1 x 1; None for nothing.
        sign: 1 where the problem minimises, -1 where it maximises.
        exponentiate: Whether the problem's objective is exp of this one: geometric programmes.
        returned: What the user asked for, as expressions of the outputs; None where that is the outputs themselves.
        returned_names: How CVXPY writes these.
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
    constant: AffineMatrix | None = None
    sign: float = 1.0
    exponentiate: bool = False
    returned: tuple[Expression, ...] | None = None
    returned_names: tuple[str, ...] = ()
