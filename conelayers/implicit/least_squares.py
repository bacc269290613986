"""A derivative for problems whose Jacobian is singular."""

import dataclasses

from conelayers.errors import InvalidArgument
from conelayers.implicit.mode import Derivative, Linearization, Tangent, TransposableLinearization

__all__ = ["LeastSquares"]


@dataclasses.dataclass(frozen=True)
class LeastSquares(Derivative):
    """The minimum-norm least-squares solution of the linearised equation.

    Defined even where the implicit function theorem is not, so it always answers; where the Jacobian is singular the
    answer is not a derivative of anything, and depends on the canonical form through the norm (Euclidean, in the
    unknowns (x, v) of the cone programme).

    Attributes:
        rtol: Singular values below rtol times the largest count as zero.
    """

    rtol: float = 1e-9

    def __post_init__(self) -> None:
        if not 0 <= self.rtol < 1:
            raise InvalidArgument(f"rtol must lie in [0, 1), got {self.rtol}.")

    @property
    def reduces_adjoint(self) -> bool:
        """False: pinv(J)' is not had from systems with J where J is singular."""
        return False

    def solve(self, linearization: Linearization[Tangent], rhs: Tangent) -> Tangent:
        """Solve in the least-squares sense."""
        return linearization.solve_least_squares(rhs, self.rtol)

    def solve_transposed(self, linearization: TransposableLinearization[Tangent], rhs: Tangent) -> Tangent:
        """Solve with J' in the least-squares sense."""
        return linearization.solve_least_squares(rhs, self.rtol, transposed=True)
