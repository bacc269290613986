"""Whether the implicit function theorem holds at the solutions of a batch of cone programmes.

With v = y - s and D in the Clarke Jacobian of the projection onto K*, the residual has the Jacobians
J(D) = [[P, A'D], [A, D - I]]. For convex P every one of them is invertible if and only if

    (a)  A' is injective on the eigenvalue-1 space of the largest D   (constraint nondegeneracy), and
    (b)  [P; U_+'A], U_+ the range of the smallest D, has full column rank   (strong second-order condition).

`docs/theory/regularity.md` has the proof. (b) is judged modulo what the lifting leaves undetermined, see `artefacts`.
Answers have three values, because solutions are known to an accuracy only: a block within sqrt(residual) of a kink may
lie on it.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from conelayers.cones import Nonnegative, ProductCone
from conelayers.errors import InvalidArgument
from conelayers.program import ConeProgram, ConeSolution
from conelayers.regularity import sparse
from conelayers.regularity.artefacts import RowKinds, Verdict, is_artefact, row_kinds
from conelayers.regularity.dual_artefacts import is_dual_artefact
from conelayers.regularity.extremes import Extremes, extremes
from conelayers.regularity.interface import Interface
from conelayers.regularity.ranks import (
    RANK_TOLERANCE,
    RankMatrices,
    dual_null_vectors,
    primal_singular_values,
    rank_matrices,
    smallest_singular_values,
)

__all__ = ["Accuracy", "Certificate", "accuracy", "certify"]

# Beyond this many rows and columns an item is tested by sparse factorization.
_DENSE_SIZE = 700
# Entries of the dense matrices of the items that are decomposed together.
_CHUNK = 4_000_000
# A row takes part in a dependency of unit norm if its entry exceeds this.
_TAKES_PART = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class Certificate:
    """Regularity of a batch of solutions. Items without a solution are neither regular nor decided.

    Attributes:
        regular: Every element of the Clarke Jacobian at the solution (in the neighbourhood) is invertible, bool,
            (*batch,).
        decided: Whether that answer is certain at the accuracy of the solution, bool, (*batch,). A positive answer
            always is.
        sigma_dual: Smallest singular value of (a), after scaling to unit rows and columns, (*batch,).
        sigma_primal: Smallest singular value of (b), likewise, modulo what the lifting leaves undetermined, (*batch,).
        margin: Distance of v to the nearest kink, in the units of y and s, (*batch,).
        weak: Rows of weakly active blocks: within the radius, or the accuracy, of a kink, bool, (*batch, m).
        dependent: Rows that take part in a linear dependency that makes (a) fail, bool, (*batch, m).
        undetermined: Variables that take part in a null direction that makes (b) fail, bool, (*batch, n).
    """

    regular: Tensor
    decided: Tensor
    sigma_dual: Tensor
    sigma_primal: Tensor
    margin: Tensor
    weak: Tensor
    dependent: Tensor
    undetermined: Tensor

    def reshape(self, batch: torch.Size) -> Certificate:
        """Other batch axes."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return Certificate(**{name: v.reshape((*batch, *v.shape[1:])) for name, v in values.items()})


@dataclasses.dataclass(frozen=True, eq=False)
class Accuracy:
    """How near to a kink a block must be to lie on it.

    Attributes:
        surely: Rounding errors and residual: within this distance a block counts as on the kink, (B,).
        possibly: A weakly active block is found only to the square root of the residual: within this distance it may
            lie on the kink, (B,). (At a residual of 1e-9 it was measured 1e-4 away.)
    """

    surely: Tensor
    possibly: Tensor


def accuracy(program: ConeProgram, solution: ConeSolution, v: Tensor) -> Accuracy:
    """The two distances, from the residuals and the size of v.

    Slack linear inequalities do not count: a bound of 1e10 that nothing comes near would hide every other number behind
    its size.

    Args:
        program: One batch axis at most.
        solution: With one batch axis B.
        v: y - s, shape (B, m); anything finite for items without a solution.
    """
    slack = torch.as_tensor(_inequalities(program.structure.cone), device=v.device) & (v < 0)
    Ax = program.A_times(solution.x)
    terms = (torch.where(slack, 0.0, value) for value in (Ax + solution.s - program.b, Ax, solution.s, program.b, v))
    left, *parts, size = (value.abs().amax(-1) if v.shape[-1] else v.new_zeros(v.shape[0]) for value in terms)
    primal = left / torch.stack(parts).amax(0).clamp(min=1.0)
    residual = torch.maximum(primal, torch.maximum(solution.dual_residual, solution.gap))
    residual = residual.nan_to_num(nan=0.0).clamp(min=1e-15)
    size = size.clamp(min=1.0)
    return Accuracy(size * (10 * residual).clamp(min=1e-10), size * 5 * residual.sqrt())


@functools.lru_cache(maxsize=64)
def _inequalities(cone: ProductCone) -> np.ndarray:
    """Which rows are linear inequalities, bool, (m,)."""
    owners = np.array([isinstance(block, Nonnegative) for block in cone.cones], dtype=bool)
    return np.repeat(owners, [block.dim for block in cone.cones])


def certify(
    program: ConeProgram,
    solution: ConeSolution,
    *,
    radius: float | Tensor = 0.0,
    interface: Interface | None = None,
) -> Certificate:
    """Test regularity at solved programmes.

    Args:
        program: The programmes, any batch axes.
        solution: Their solutions, with the programme's batch axes.
        radius: Size of the neighbourhood of v in which regularity is asked for, see `extremes`; a number, or one per
            item. P and A stay fixed in it. Exact for polyhedral, second-order and semidefinite kinks; where curved
            blocks turn, "regular" is proved by a bound or left undecided.
        interface: What belongs to the user; by default everything, so that nothing counts as an artefact.

    Raises:
        InvalidArgument: If the radius is not a number, or numbers, at or above zero.
    """
    batch, structure = program.batch_shape, program.structure
    if not isinstance(radius, int | float | Tensor) or not bool((torch.as_tensor(radius) >= 0).all()):
        raise InvalidArgument(f"radius must be a number at or above zero, or one per item, got {radius!r}.")
    flat = program.detach().flatten()
    point = solution.detach().to(torch.device("cpu")).reshape(torch.Size([batch.numel()]))
    values = [t.cpu() for t in (flat.P, flat.A)]
    v = torch.where(point.has_solution[:, None], point.y - point.s, 0.0)
    radii = torch.as_tensor(radius, dtype=v.dtype).expand(batch).reshape(-1)
    here = ConeProgram(structure, values[0], flat.q.cpu(), values[1], flat.b.cpu())
    found = _Test(structure, values[0], values[1], v, radii, accuracy(here, point, v), interface).run()
    solved = point.has_solution
    found = dataclasses.replace(
        found,
        regular=found.regular & solved,
        decided=found.decided & solved,
        **{name: torch.where(solved, getattr(found, name), torch.nan) for name in _NUMBERS},
        **{name: getattr(found, name) & solved[:, None] for name in ("weak", "dependent", "undetermined")},
    )
    return found.reshape(batch)


_NUMBERS = ("sigma_dual", "sigma_primal", "margin")


class _Test:
    """The tests of one flat batch; v (B, m), P and A values of B items or one."""

    def __init__(self, structure, P, A, v, radius, known: Accuracy, interface: Interface | None) -> None:
        self.structure, self.P, self.A, self.v, self.radius, self.known = structure, P, A, v, radius, known
        self.interface = Interface.everything(structure) if interface is None else interface
        self.dense = structure.n + structure.m <= _DENSE_SIZE

    def run(self) -> Certificate:
        """Both tests, in chunks; the attained family where the bounding one is not enough."""
        batch, m = self.v.shape
        margins = self.structure.cone.margin(self.v) if batch else self.v.new_zeros(0, len(self.structure.cone.cones))
        reach = torch.maximum(self.radius, self.known.possibly)
        out = Certificate(
            torch.zeros(batch, dtype=torch.bool),
            torch.ones(batch, dtype=torch.bool),
            self.v.new_zeros(batch),
            self.v.new_zeros(batch),
            margins.amin(-1) if margins.shape[-1] else self.v.new_full((batch,), torch.inf),
            self._weak_rows(margins, reach),
            torch.zeros(batch, m, dtype=torch.bool),
            torch.zeros(batch, self.structure.n, dtype=torch.bool),
        )
        size = max(1, _CHUNK // max(1, (self.structure.n + m) * max(self.structure.n, m)))
        for start in range(0, batch, size):
            self._judge_chunk(torch.arange(start, min(start + size, batch)), out)
        return out

    def _judge_chunk(self, items: Tensor, out: Certificate) -> None:
        outer = self._family(items, self.known.possibly, attained=False)
        unclear = self._judge(items, outer, out)
        if len(unclear):
            # Not regular for sure only if elements that do occur, at kinks that v surely lies on, are singular.
            copy = dataclasses.replace(out, **{f.name: getattr(out, f.name).clone() for f in dataclasses.fields(out)})
            inner = self._family(unclear, self.known.surely, attained=True)
            self._judge(unclear, inner, copy)
            out.decided[unclear] = copy.decided[unclear] & ~copy.regular[unclear]

    def _family(self, items: Tensor, floor: Tensor, attained: bool) -> Extremes:
        cone = self.structure.cone
        return extremes(cone, self.v[items], self.radius[items], floor[items], attained=attained)

    def _judge(self, items: Tensor, family: Extremes, out: Certificate) -> Tensor:
        """Write the verdicts of these items to `out`; returns the items that are not regular."""
        if not self.dense:
            return self._judge_sparse(items, family, out)
        matrices = rank_matrices(self._matrix_P(items), self._matrix_A(items), family)
        ranks = smallest_singular_values(matrices)
        out.sigma_dual[items], out.sigma_primal[items] = ranks.dual, ranks.primal
        passed = (ranks.dual > matrices.needed_dual) & (ranks.primal > matrices.needed_primal)
        out.regular[items] = passed
        for position in torch.nonzero(~passed)[:, 0].tolist():
            kinds = row_kinds(family, position, self.structure.cone)
            self._judge_item(int(items[position]), matrices.item(position), kinds, ranks.dual[position], out)
        return items[~out.regular[items]]

    def _judge_item(self, item: int, matrices: RankMatrices, kinds: RowKinds, sigma: Tensor, out: Certificate) -> None:
        """Tell what fails, and what is an artefact."""
        dual: Verdict = True
        if not sigma > matrices.needed_dual[0]:
            vectors, above = dual_null_vectors(matrices)
            scale = matrices.row_scale[0]
            dual = is_dual_artefact(vectors, scale, self.v[item], kinds, self.interface) if len(vectors) else None
            if dual is True:
                out.sigma_dual[item] = above
                dual = True if above > matrices.needed_dual[0] else None
            else:
                out.dependent[item] = (vectors.abs() > _TAKES_PART).any(0)
        primal = self._judge_primal(item, matrices, kinds, out)
        out.regular[item] = dual is True and primal is True
        out.decided[item] = bool(out.regular[item]) or dual is False or primal is False

    def _judge_primal(self, item: int, matrices: RankMatrices, kinds: RowKinds, out: Certificate) -> Verdict:
        values, vectors = primal_singular_values(matrices)
        zero = values <= RANK_TOLERANCE
        above = float(values[~zero].min()) if bool((~zero).any()) else torch.inf
        basis, scale = vectors[zero].T.numpy(), matrices.column_scale[0].numpy()
        verdict = is_artefact(basis, scale, *self._item(item), kinds, self.interface, ball=self._ball(item))
        out.sigma_primal[item] = float(values.min()) if verdict is False else above
        if verdict is True and not above > matrices.needed_primal[0]:
            verdict = None
        if verdict is not True:
            out.undetermined[item] = torch.from_numpy(np.abs(basis).max(axis=1, initial=0.0) > _TAKES_PART)
        return verdict

    def _item(self, item: int) -> tuple[sp.csr_array, np.ndarray]:
        """A and y of one item."""
        y = self.structure.cone.project_dual(self.v[item])
        return sp.csr_array(self.structure.A_matrix(self._values(self.A, item))), y.numpy()

    def _ball(self, item: int) -> bool:
        """Whether the radius is more than the accuracy."""
        return bool(self.radius[item] > self.known.possibly[item])

    def _judge_sparse(self, items: Tensor, family: Extremes, out: Certificate) -> Tensor:
        for position, item in enumerate(items.tolist()):
            P = self.structure.P_matrix(self._values(self.P, item))
            A, y = self._item(item)
            kinds = row_kinds(family, position, self.structure.cone)
            problem = sparse.Problem(P, A, y, kinds, self.v[item], self.interface, self._ball(item))
            found = sparse.judge(problem, family, position)
            out.sigma_dual[item], out.sigma_primal[item] = found.sigma_dual, found.sigma_primal
            out.regular[item] = found.verdict is True
            out.decided[item] = found.verdict is not None
            out.dependent[item] = torch.from_numpy(found.dependent)
            out.undetermined[item] = torch.from_numpy(found.undetermined)
        return items[~out.regular[items]]

    def _weak_rows(self, margins: Tensor, reach: Tensor) -> Tensor:
        """Polyhedral rows by their own distance, curved blocks as a whole."""
        cone, weak = self.structure.cone, torch.zeros(self.v.shape, dtype=torch.bool)
        for position, block in enumerate(cone.cones):
            rows = slice(cone.offsets[position], cone.offsets[position + 1])
            if not block.polyhedral:
                weak[:, rows] = (margins[:, position] <= reach)[:, None]
            elif block.dim and margins.shape[0] and not bool(margins[:, position].isinf().all()):
                weak[:, rows] = self.v[:, rows].abs() <= reach[:, None]
        return weak

    def _values(self, values: Tensor, item: int) -> np.ndarray:
        return values[item if values.shape[0] > 1 else 0].numpy()

    def _matrix_A(self, items: Tensor) -> Tensor:
        s, values = self.structure, self.A if self.A.shape[0] == 1 else self.A[items]
        dense = values.new_zeros(values.shape[0], s.m, s.n)
        dense[:, torch.as_tensor(s.A_indices), torch.as_tensor(s.A_columns)] = values
        return dense

    def _matrix_P(self, items: Tensor) -> Tensor:
        s, values = self.structure, self.P if self.P.shape[0] == 1 else self.P[items]
        rows, columns = torch.as_tensor(s.P_indices), torch.as_tensor(s.P_columns)
        dense = values.new_zeros(values.shape[0], s.n, s.n)
        dense[:, rows, columns] = values
        dense[:, columns, rows] = values
        return dense
