"""Parametric cone programmes: parameters in, programme data out; cone solutions in, user variables out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from conelayers.canonicalize import _cvxpy
from conelayers.canonicalize.affine_map import AffineMap
from conelayers.canonicalize.expressions import Expression
from conelayers.canonicalize.form import CanonicalForm
from conelayers.canonicalize.hermitian import hermitian_blocks, without_freedom
from conelayers.canonicalize.objective import Objective
from conelayers.canonicalize.outputs import Output
from conelayers.canonicalize.parameters import Block, ParameterLayout
from conelayers.canonicalize.part_map import PartMap
from conelayers.canonicalize.presolve import substitute_epigraphs
from conelayers.canonicalize.provenance import Owners, Provenance
from conelayers.canonicalize.tensors import AffineMatrix
from conelayers.cones import ProductCone
from conelayers.program import ConeProgram, ConeStructure

if TYPE_CHECKING:
    import cvxpy as cp

__all__ = ["ParametricProgram"]


@dataclasses.dataclass(frozen=True, eq=False)
class ParametricProgram:
    """A family of cone programmes indexed by the parameters of a CVXPY problem. Immutable, picklable, free of CVXPY.

    Attributes:
        structure: Patterns, shapes and cone, the same for all parameter values.
        P, q, A, b: Maps from parameters to the stored values of each part.
        layout: Names and shapes of the parameters.
        outputs: The requested variables, then those that the requested expressions read.
        objective: The user's objective in terms of the programme's.
        provenance: All variables and constraints of the problem, to name them in reports.
        returned: What was asked for, as expressions of the outputs; None where that is the outputs themselves.
        returned_names: How CVXPY writes these.
    """

    structure: ConeStructure
    P: PartMap
    q: PartMap
    A: PartMap
    b: PartMap
    layout: ParameterLayout
    outputs: tuple[Output, ...]
    objective: Objective
    provenance: Provenance = Provenance()
    returned: tuple[Expression, ...] | None = None
    returned_names: tuple[str, ...] = ()

    @classmethod
    def from_problem(
        cls,
        problem: cp.Problem,
        parameters: Sequence[cp.Parameter],
        variables: Sequence[cp.Variable | cp.Expression],
        *,
        gp: bool = False,
        canon_backend: str | None = None,
        verbose: bool = False,
        presolve: bool = True,
        quadratic: bool = True,
        fix_unlisted: bool = False,
    ) -> ParametricProgram:
        """Canonicalize a CVXPY problem once, for all parameter values.

        Args:
            problem: A DPP problem (with gp=True, a DPP geometric programme). It is not changed, nor are the values of
                its parameters, which need none.
            parameters: All parameters of the problem, in the order in which their tensors will come.
            variables: Variables of the problem, dual variables of its constraints, or expressions of these and of
                the parameters, to return.
            gp: Whether to read the problem as a geometric programme.
            canon_backend: CVXPY's canonicalization backend, or None for its choice.
            verbose: Whether CVXPY reports its reductions.
            presolve: Whether to substitute epigraph variables by their bounds, see `presolve`.
            quadratic: Whether a quadratic objective stays one, or becomes second-order cone constraints.
            fix_unlisted: Whether parameters that are not listed are constants, at their present values.

        Raises:
            InvalidArgument: If the problem is not DPP or the lists do not match it.
            UnsupportedError: If CVXPY is too old or cannot reduce the problem to the package's cones.
        """
        _cvxpy.check_version()
        _cvxpy.check_kinds(problem, parameters, variables)
        reduced, variables = _cvxpy.prepared(problem, parameters, variables, gp, fix_unlisted)
        _cvxpy.check_arguments(problem, reduced, parameters, variables, gp, quadratic)
        options: dict[str, Any] = {"canon_backend": canon_backend, "verbose": verbose, "quadratic": quadratic}
        form = _cvxpy.canonical_form(problem, reduced, parameters, variables, gp=gp, **options)
        return cls._from_form(substitute_epigraphs(form) if presolve else form)

    @classmethod
    def _from_form(cls, form: CanonicalForm) -> ParametricProgram:
        m, n = form.A.shape
        structure = ConeStructure(n, m, form.P.indptr, form.P.rows, form.A.indptr, form.A.rows, ProductCone(form.cones))
        program = cls(
            structure,
            _part(form.P.coefficients, form.blocks),
            _part(_dense_rows(form.q), form.blocks),
            _part(form.A.coefficients, form.blocks),
            _part(_dense_rows(form.b), form.blocks),
            form.layout,
            form.outputs,
            _objective(form),
            form.provenance,
            form.returned,
            form.returned_names,
        )
        if not any(output.source == "dual" for output in form.outputs) or not program.hermitian_blocks.any():
            return program
        return dataclasses.replace(program, outputs=without_freedom(form.outputs, structure, program.hermitian_blocks))

    @property
    def parts(self) -> tuple[PartMap, PartMap, PartMap, PartMap]:
        """The maps of P, q, A and b."""
        return self.P, self.q, self.A, self.b

    @property
    def returns(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Name and shape of each entry that `recover` returns."""
        if self.returned is None:
            return tuple((output.name, output.shape) for output in self.outputs)
        return tuple(zip(self.returned_names, (tuple(e.shape) for e in self.returned), strict=True))

    @cached_property
    def owners(self) -> Owners:
        """Which of the user's constraints and variables each row and column comes from."""
        return self.provenance.owners(self.structure)

    @cached_property
    def hermitian_blocks(self) -> np.ndarray:
        """Which cones are lifted Hermitian matrices, see `hermitian`."""
        return hermitian_blocks(self.structure, self.A.map, self.b.map)

    def validate_params(self, params: Sequence[Tensor]) -> torch.Size:
        """Check the parameter tensors and return their common batch shape.

        Raises:
            InvalidArgument: If a tensor is missing, is not a tensor, or has a shape that does not fit.
        """
        return self.layout.validate(params)

    def values(self, *params: Tensor) -> ConeProgram:
        """The programmes at given parameters, without autograd.

        A part that depends on no batched parameter comes without batch axes, so backends can do its work once.

        Args:
            *params: One tensor per parameter, shape (*batch, *parameter.shape), any real or complex dtype.

        Returns:
            The programmes, float64, on the device of the parameters.

        Raises:
            InvalidArgument: As `validate_params`.
        """
        self.validate_params(params)
        device = params[0].device if params else torch.device("cpu")

        def evaluate(part: PartMap) -> Tensor:
            thetas = self.layout.read(params, part.blocks)
            return part.map.apply(*thetas) if thetas else part.map.constant(device)

        return ConeProgram(self.structure, *map(evaluate, self.parts))

    def recover(
        self, x: Tensor, y: Tensor, s: Tensor | None = None, params: Sequence[Tensor] = ()
    ) -> tuple[Tensor, ...]:
        """The requested variables and expressions, differentiable in x, y and the parameters.

        Args:
            x: Primal solution, shape (*batch, n).
            y: Dual solution, shape (*batch, m).
            s: Slacks; no variable of CVXPY is read from them.
            params: One tensor per parameter, read by expressions only.

        Returns:
            One tensor per requested variable or expression, shape (*batch, *shape), in the dtype of x (or its complex
            counterpart), with CVXPY's sign and shape conventions for dual variables. Expressions have all batch axes of
            the parameters, some of size 1.
        """
        values = tuple(output.read(x, y) for output in self.outputs)
        if self.returned is None:
            return values
        shapes = self.layout.shapes
        rank = max([x.dim() - 1, *(p.dim() - len(shape) for p, shape in zip(params, shapes, strict=False))])
        return tuple(expression(values, params, rank) for expression in self.returned)


def _objective(form: CanonicalForm) -> Objective:
    width = int(np.asarray(form.q.coefficients.shape)[1])
    constant = AffineMatrix.zero((1, 1), width) if form.constant is None else form.constant
    return Objective(_part(_dense_rows(constant), form.blocks), form.sign, form.exponentiate)


def _part(coefficients: Any, blocks: Sequence[Block]) -> PartMap:
    """Keep only the blocks with a nonzero coefficient."""
    ends = np.cumsum([block.size for block in blocks], dtype=np.int64)
    used_columns = np.unique(coefficients.indices)
    kept, ranges = [], []
    for block, end in zip(blocks, ends, strict=True):
        start = end - block.size
        if np.any((used_columns >= start) & (used_columns < end)):
            kept.append(block)
            ranges.append(np.arange(start, end))
    columns = np.concatenate([*ranges, [coefficients.shape[1] - 1]]).astype(np.int64)
    matrix = sp.csr_array(sp.csc_array(coefficients)[:, columns])
    matrix.sort_indices()
    return PartMap(AffineMap(matrix, tuple(block.size for block in kept)), tuple(kept))


def _dense_rows(vector: AffineMatrix) -> sp.csr_array:
    """Coefficients of a parametric column vector with every row present, shape (rows, parameters + 1)."""
    size, entries = vector.shape[0], len(vector.rows)
    scatter: Any = sp.csr_array((np.ones(entries), (vector.rows, np.arange(entries))), shape=(size, entries))
    return sp.csr_array(scatter @ vector.coefficients)
