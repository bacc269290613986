"""Whether the implicit function theorem holds at the solutions of a batch of cone programmes.

With v = y - s and D in the Clarke Jacobian of the projection onto K*, the residual has the Jacobians
J(D) = [[P, A'D], [A, D - I]]. For convex P every one of them is invertible if and only if

    (a)  A' is injective on the eigenvalue-1 space of the largest D   (constraint nondegeneracy), and
    (b)  [P; U_+'A], U_+ the range of the smallest D, has full column rank   (strong second-order condition).

`docs/theory/regularity.md` has the proof. (b) is judged modulo what the lifting leaves undetermined, see `artefacts`.
Answers have three values, because solutions are known to an accuracy only, see `accuracy`: "regular" holds for every
point that the solution may be, "not regular" at the point itself, and what is neither is undecided.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import torch
from torch import Tensor

from conelayers.cones import ProductCone
from conelayers.errors import InvalidArgument
from conelayers.program import ConeProgram, ConeSolution, without_absent_rows
from conelayers.regularity import sparse
from conelayers.regularity.accuracy import PointError, determined_error, point_error, sparse_error
from conelayers.regularity.artefacts import RowKinds, Verdict, is_artefact, row_kinds
from conelayers.regularity.dense import DENSE_SIZE
from conelayers.regularity.dual_artefacts import is_dual_artefact
from conelayers.regularity.extremes import Extremes, extremes
from conelayers.regularity.interface import Interface
from conelayers.regularity.point import Point
from conelayers.regularity.ranks import (
    RANK_TOLERANCE,
    RankMatrices,
    dual_null_vectors,
    primal_singular_values,
    rank_matrices,
    smallest_singular_values,
)
from conelayers.regularity.residual import ROUNDING, possible_kink
from conelayers.regularity.sharpening import EXACT, sharpened

__all__ = ["Certificate", "certify", "element_is_regular"]

# Entries of the dense matrices of the items that are decomposed together.
_CHUNK = 4_000_000
# Rows this near to their kink, relative to the terms that they are made of, are shown as weakly active.
_SHOWN, _SHOWN_AT_MOST = 1e-7, 1e-4
# Slack of rows without a bound.
_FAR = 1e6
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
    point = solution.detach().to(torch.device("cpu")).reshape(torch.Size([batch.numel()]))
    flat, point = _bounded(program.detach().flatten(), point)
    data = tuple(values.cpu() for values in (flat.P, flat.q, flat.A, flat.b))
    solved = point.has_solution
    x, y, s = (torch.where(solved[:, None], value, 0.0) for value in (point.x, point.y, point.s))
    radii = torch.as_tensor(radius, dtype=x.dtype).expand(batch).reshape(-1)
    start = Point.of(structure, data, x, y, s, possible_kink(ConeProgram(structure, *data), point, y - s))
    # The neighbourhood that is asked for is one in the programme's own units.
    start = start if bool((radii > 0).any()) or structure.cone.is_polyhedral else start.balanced()
    found = _Test(start, radii, interface).run()
    found = dataclasses.replace(
        found,
        regular=found.regular & solved,
        decided=found.decided & solved,
        **{name: torch.where(solved, getattr(found, name), torch.nan) for name in _NUMBERS},
        **{name: getattr(found, name) & solved[:, None] for name in ("weak", "dependent", "undetermined")},
    )
    return found.reshape(batch)


def _bounded(program: ConeProgram, solution: ConeSolution) -> tuple[ConeProgram, ConeSolution]:
    """Rows without a bound hold for all x, far from their kinks, and not so far that their rounding counts."""
    freed, absent = without_absent_rows(program)
    if absent is None:
        return program, solution
    b = torch.where(absent.rows, _FAR * freed.b, freed.b)
    inside = absent.inside(solution)
    s = torch.where(absent.rows, _FAR * inside.s, inside.s)
    return ConeProgram(program.structure, freed.P, freed.q, freed.A, b), dataclasses.replace(inside, s=s)


def element_is_regular(program: ConeProgram, x: Tensor, v: Tensor, interface: Interface) -> bool:
    """Whether J(D(v)) of a single programme is invertible, modulo what the lifting leaves undetermined.

    Args:
        program: Without batch axes.
        x: The solution, (n,).
        v: A point at which the projection has one element, (m,).
        interface: What belongs to the user.
    """
    flat, cone = program.detach().flatten(), program.structure.cone
    y = cone.project_dual(v[None])
    data = tuple(values.cpu() for values in (flat.P, flat.q, flat.A, flat.b))
    point = Point.of(program.structure, data, x[None].cpu(), y.cpu(), (y - v).cpu(), torch.zeros(1))
    test = _Test(point, torch.zeros(1), interface)
    family = extremes(cone, point.v, torch.zeros_like(point.v))
    return not len(test.judge(point, torch.tensor([0]), family, test.blank(), torch.tensor([False])))


_NUMBERS = ("sigma_dual", "sigma_primal", "margin")


class _Test:
    """The tests of one flat batch of B items."""

    def __init__(self, start: Point, radius: Tensor, interface: Interface | None) -> None:
        self.start, self.radius, self.structure = start, radius, start.structure
        self.interface = Interface.everything(start.structure) if interface is None else interface
        self.dense = self.structure.n + self.structure.m <= DENSE_SIZE

    def run(self) -> Certificate:
        """Both tests, in chunks."""
        batch, out = self.start.v.shape[0], self.blank()
        size = max(1, _CHUNK // max(1, (self.structure.n + self.structure.m) ** 2))
        for start in range(0, batch, size):
            self._judge_chunk(torch.arange(start, min(start + size, batch)), out)
        return out

    def blank(self) -> Certificate:
        """A certificate to be filled."""
        batch, m = self.start.v.shape
        n, numbers = self.structure.n, self.start.v.new_zeros(batch)
        nothing = torch.zeros(batch, dtype=torch.bool)
        rows, columns = (torch.zeros(batch, size, dtype=torch.bool) for size in (m, n))
        return Certificate(nothing, ~nothing, numbers, numbers.clone(), numbers.clone(), rows, rows.clone(), columns)

    def _judge_chunk(self, items: Tensor, out: Certificate) -> None:
        """Judge at the points as they are, then where that does not clear them, at points nearer to the solution."""
        unclear = self._judge_at(self.start.take(items), items, out)
        if not self.dense or not len(unclear):
            return
        point = self.start.take(unclear)
        blunt = (point.residual.excess > EXACT) & ~out.decided[unclear]
        if bool(blunt.any()):
            self._judge_at(sharpened(point.take(blunt)), unclear[blunt], out)

    def _judge_at(self, point: Point, items: Tensor, out: Certificate) -> Tensor:
        """Write the verdicts at these points to `out`; returns the items that are not regular."""
        error = self._error(point)
        margins = self.structure.cone.margin(point.own_v)
        out.margin[items] = margins.amin(-1) if margins.shape[-1] else torch.inf
        out.weak[items] = self._weak_rows(point, margins, error, self.radius[items])
        radius = self.radius[items][:, None]
        reach = torch.maximum(error.radius, radius)
        outer = extremes(self.structure.cone, point.v, reach, torch.where(radius > 0, reach, error.radius))
        failed = self.judge(point, items, outer, out, error.truncated)
        if len(failed) and not self.dense:  # the error may be that of null directions, which is none
            here = torch.isin(items, failed)
            guess = torch.maximum(point.guess[here][:, None].expand(-1, point.v.shape[-1]), radius[here])
            outer = extremes(self.structure.cone, point.v[here], guess, guess)
            failed = self.judge(point.take(here), failed, outer, out, torch.ones(len(failed), dtype=torch.bool))
        if len(failed):
            # Not regular for sure only if elements that do occur, at kinks that v surely lies on, are singular.
            here = torch.isin(items, failed)
            part = point.take(here)
            copy = dataclasses.replace(out, **{f.name: getattr(out, f.name).clone() for f in dataclasses.fields(out)})
            on_kink = self._surely(part)
            wide = torch.where(torch.as_tensor(_attained(self.structure.cone)), radius[here], 0.0)
            inner = extremes(self.structure.cone, part.v, torch.maximum(on_kink, wide), attained=True)
            self.judge(part, failed, inner, copy, torch.zeros(len(failed), dtype=torch.bool))
            out.decided[failed] = copy.decided[failed] & ~copy.regular[failed] & part.residual.consistent
        return failed

    def _error(self, point: Point) -> PointError:
        """The error of v; where the Jacobian is singular, so that nothing bounds it, a guess, and doubtful."""
        if self.dense:
            found = point_error(self.structure, point.matrices, point.v, point.residual)
        else:
            found = sparse_error(self.structure, point.P, point.A, point.v, point.residual)
        doubtful = found.truncated | ~found.radius.isfinite().all(-1)
        return PointError(torch.where(doubtful[:, None], point.guess[:, None], found.radius), doubtful)

    def _surely(self, point: Point) -> Tensor:
        """Rows within this distance of a kink count as on it, (B, m)."""
        if self.dense:
            return determined_error(self.structure, point.matrices, point.v, point.residual)
        return ROUNDING * point.residual.terms[:, self.structure.n :]

    def judge(self, point: Point, items: Tensor, family: Extremes, out: Certificate, doubtful: Tensor) -> Tensor:
        """Write the verdicts of these items to `out`; returns the items that are not regular.

        `doubtful` marks items whose error is not bounded in the null directions of the Jacobian: these are regular only
        if the null directions are found, and are artefacts.
        """
        out.dependent[items], out.undetermined[items] = False, False
        if not self.dense:
            return self._judge_sparse(point, items, family, out, doubtful)
        dense = point.matrices
        matrices = rank_matrices(dense.P, dense.A, family)
        ranks = smallest_singular_values(matrices)
        out.sigma_dual[items], out.sigma_primal[items] = ranks.dual, ranks.primal
        full = (ranks.dual > matrices.needed_dual) & (ranks.primal > matrices.needed_primal)
        out.regular[items] = full & ~doubtful
        out.decided[items] = out.regular[items]
        for position in torch.nonzero(~full)[:, 0].tolist():
            kinds = row_kinds(family, position, self.structure.cone)
            one = point.take(torch.tensor([position]))
            self._judge_item(one, int(items[position]), matrices.item(position), kinds, ranks.dual[position], out)
        return items[~out.regular[items]]

    def _judge_item(
        self, point: Point, item: int, matrices: RankMatrices, kinds: RowKinds, sigma: Tensor, out: Certificate
    ) -> None:
        """Tell what fails, and what is an artefact."""
        dual: Verdict = True
        if not sigma > matrices.needed_dual[0]:
            vectors, above = dual_null_vectors(matrices)
            scale = matrices.row_scale[0] * point.units[0]
            dual = is_dual_artefact(vectors, scale, point.v[0], kinds, self.interface) if len(vectors) else None
            if dual is True:
                out.sigma_dual[item] = above
                dual = True if above > matrices.needed_dual[0] else None
            else:
                out.dependent[item] = (vectors.abs() > _TAKES_PART).any(0)
        primal = self._judge_primal(point, item, matrices, kinds, out)
        out.regular[item] = dual is True and primal is True
        out.decided[item] = bool(out.regular[item]) or dual is False or primal is False

    def _judge_primal(
        self, point: Point, item: int, matrices: RankMatrices, kinds: RowKinds, out: Certificate
    ) -> Verdict:
        values, vectors = primal_singular_values(matrices)
        zero = values <= RANK_TOLERANCE
        above = float(values[~zero].min()) if bool((~zero).any()) else torch.inf
        basis, scale = vectors[zero].T.numpy(), matrices.column_scale[0].numpy()
        ball = bool(self.radius[item] > 0)
        verdict = is_artefact(
            basis, scale, *point.sparse()[1:], point.own_v[0].numpy(), kinds, self.interface, ball=ball
        )
        out.sigma_primal[item] = float(values.min()) if verdict is False else above
        if verdict is True and not above > matrices.needed_primal[0]:
            verdict = None
        if verdict is not True:
            out.undetermined[item] = torch.from_numpy(np.abs(basis).max(axis=1, initial=0.0) > _TAKES_PART)
        return verdict

    def _judge_sparse(
        self, point: Point, items: Tensor, family: Extremes, out: Certificate, doubtful: Tensor
    ) -> Tensor:
        for position, item in enumerate(items.tolist()):
            one = point.take(torch.tensor([position]))
            kinds = row_kinds(family, position, self.structure.cone)
            problem = sparse.Problem(*one.sparse(), kinds, one.v[0], self.interface, bool(self.radius[item] > 0))
            found = sparse.judge(problem, family, position)
            out.sigma_dual[item], out.sigma_primal[item] = found.sigma_dual, found.sigma_primal
            out.regular[item] = found.verdict is True and (found.free or not bool(doubtful[position]))
            out.decided[item] = found.verdict is not None
            out.dependent[item] = torch.from_numpy(found.dependent)
            out.undetermined[item] = torch.from_numpy(found.undetermined)
        return items[~out.regular[items]]

    def _weak_rows(self, point: Point, margins: Tensor, error: PointError, radius: Tensor) -> Tensor:
        """Polyhedral rows by their own distance, curved blocks as a whole."""
        cone, weak, own = self.structure.cone, torch.zeros(point.v.shape, dtype=torch.bool), point.own_v
        shown = torch.maximum(error.radius, _SHOWN * point.residual.terms[:, self.structure.n :])
        reach = torch.maximum(shown.clamp(max=_SHOWN_AT_MOST), radius[:, None])
        for position, block in enumerate(cone.cones):
            rows = slice(cone.offsets[position], cone.offsets[position + 1])
            distance = own[:, rows].abs() if block.polyhedral else margins[:, position : position + 1]
            if block.dim and bool(margins[:, position].isfinite().any()):
                weak[:, rows] = distance <= reach[:, rows]
        return weak


@functools.lru_cache(maxsize=64)
def _attained(cone: ProductCone) -> np.ndarray:
    """Rows of cones whose moved kinks lie within the radius, bool, (m,)."""
    return np.repeat([block.kinks_attained for block in cone.cones], [block.dim for block in cone.cones]).astype(bool)
