"""Everything that is read from CVXPY's internals; no other module of the package touches them.

A problem goes through CVXPY's own reduction chain towards an imaginary solver, which takes exactly the cones of
`conelayers.cones` in their own row conventions (`chain`). From the result come the affine maps of the problem data
(`data`), the cone of each row in CVXPY's own constraint order, and, by evaluating CVXPY's own code (see `probing`), how
parameters enter and how solutions and duals leave (`recovery`). `arguments` checks what the user passed.
"""

from conelayers.canonicalize._cvxpy.arguments import check_arguments, check_kinds, check_version
from conelayers.canonicalize._cvxpy.chain import canonical_form
from conelayers.canonicalize._cvxpy.preparation import prepared

__all__ = ["canonical_form", "check_arguments", "check_kinds", "check_version", "prepared"]
