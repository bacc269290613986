"""A problem declared in CVXPY as a function of JAX arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np

from conelayers.backends import Backend
from conelayers.canonicalize import Block, ParametricProgram
from conelayers.errors import InvalidArgument
from conelayers.implicit import Derivative
from conelayers.jax.arguments import as_arrays, batch_shape, float_type
from conelayers.jax.equation import ParametricEquation
from conelayers.jax.outputs import read_output
from conelayers.jax.solution import ConeSolution, solve_formula, solved
from conelayers.layers import CvxpyLayer as TorchLayer
from conelayers.layers.solver_args import configure
from conelayers.residual import OnFailure

__all__ = ["CvxpyLayer", "LayerSolution"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerSolution:
    """Solution of a batch of problems; a pytree of arrays.

    Attributes:
        variables: The requested variables, shape (*batch, *shape) each.
        cone: The solution of the cone programmes behind them, with statuses and residuals.
    """

    variables: tuple[jax.Array, ...]
    cone: ConeSolution

    @property
    def status(self):
        """`conelayers.Status` of each batch item; outside of transforms."""
        return self.cone.status


class CvxpyLayer:
    """A parametrised CVXPY problem whose solution is a differentiable function of its parameters, for JAX.

    Solved and differentiated as by `conelayers.CvxpyLayer`, under `jit`, `grad`, `vmap`, `jvp` and their compositions.
    The object holds no arrays: close over it, or call it as it is.

    Example:
        >>> import cvxpy as cp, jax, jax.numpy as jnp
        >>> from conelayers.jax import CvxpyLayer
        >>> x, a = cp.Variable(2), cp.Parameter(2)
        >>> problem = cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [cp.sum(x) == 1, x >= 0])
        >>> layer = CvxpyLayer(problem, parameters=[a], variables=[x])
        >>> (solution,) = jax.jit(layer)(jnp.array([[0.3, 0.1], [2.0, 0.0]]))
        >>> solution.shape
        (2, 2)

    Args:
        problem: A disciplined parametrised programme.
        parameters: All parameters of the problem, in the order of the arrays of a call.
        variables: What a call returns: variables of the problem and dual variables of its constraints.
        solver: A backend's name or instance, or None to choose by size.
        gp: The problem is a geometric programme.
        verbose: Print the solver's output.
        canon_backend: CVXPY's canonicalization backend, or None for CVXPY's choice.
        solver_args: Options for every call.
        derivative: How solutions are differentiated.
        on_failure: "raise" an error that names the items without a solution (`jax.errors.JaxRuntimeError`, whose
            message says which), or "nan": NaN for these items and no gradient from them.
        regularity: Whether to check at every call that derivatives can be trusted: "ignore", "warn" or "raise".

    Raises:
        ValueError: If the problem is not DPP, parameters or variables do not match it, or an option is unknown.
    """

    def __init__(
        self,
        problem: cp.Problem,
        parameters: Sequence[cp.Parameter],
        variables: Sequence[cp.Variable],
        solver: str | Backend | None = None,
        gp: bool = False,
        verbose: bool = False,
        canon_backend: str | None = None,
        solver_args: Mapping[str, Any] | None = None,
        *,
        derivative: Derivative | None = None,
        on_failure: OnFailure = "raise",
        regularity: str = "ignore",
    ) -> None:
        self._layer = TorchLayer(
            *(problem, parameters, variables, solver, gp, verbose, canon_backend, solver_args),
            derivative=derivative,
            on_failure=on_failure,
            regularity=regularity,  # type: ignore[arg-type]
        )
        self.program: ParametricProgram = self._layer.program
        # JAX compiles anew for every equation that is another object: one for each set of options is kept.
        self._equations: dict[tuple, ParametricEquation] = {}

    def __call__(self, *params: Any, solver_args: Mapping[str, Any] | None = None) -> tuple[jax.Array, ...]:
        """Solve the problem for a batch of parameter values.

        Args:
            *params: One array per parameter, with the parameter's shape, or with batch axes before it: a parameter has
                no batch axes or all of them, of the common size or 1.
            solver_args: Options for this call, as `conelayers.CvxpyLayer.forward` takes them. They are fixed when a
                caller is compiled.

        Returns:
            One array per entry of `variables`, shape (*batch, *shape), in the floating type of the parameters.

        Raises:
            ValueError: If an array is missing or of the wrong shape, or the batch axes do not fit.
        """
        return self.solve(*params, solver_args=solver_args).variables

    def solve(self, *params: Any, solver_args: Mapping[str, Any] | None = None) -> LayerSolution:
        """As a call, returning the statuses, residuals and the cone solution as well."""
        layout = self.program.layout
        arrays = as_arrays(layout, params)
        batch = batch_shape(layout, arrays)
        dtype = float_type(arrays)
        equation, structure = self._equation(solver_args), self.program.structure
        inputs = [
            _read(arrays[block.parameter], block, layout.shapes[block.parameter], dtype) for block in equation.blocks
        ]
        cone = solved(solve_formula(equation, structure.n, structure.m, dtype), inputs)
        variables = tuple(read_output(output, cone.x, cone.y) for output in self.program.outputs)
        axes = cone.gap.ndim
        variables = tuple(jnp.broadcast_to(v, (*batch, *v.shape[axes:])) for v in variables)
        return LayerSolution(variables, cone)

    def _equation(self, solver_args: Mapping[str, Any] | None) -> ParametricEquation:
        """What is solved with these options."""
        options = tuple(sorted((solver_args or {}).items()))
        if options not in self._equations:
            backend = configure(self._layer.backend, dict(options)) if options else self._layer.backend
            self._equations[options] = ParametricEquation(self.program, self._layer.conditions(backend))
        return self._equations[options]

    def __repr__(self) -> str:
        names = ", ".join(self.program.layout.names)
        return f"CvxpyLayer({names} -> {', '.join(output.name for output in self.program.outputs)})"


def _read(value: jax.Array, block: Block, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
    """One vector that the affine maps act on, shape (*batch, block.size)."""
    flat = value.reshape((*value.shape[: value.ndim - len(shape)], block.size))
    if block.part == "real":
        flat = flat.real
    elif block.part == "imag":
        flat = flat.imag
    elif block.part == "log":
        # Not positive is NaN, with a gradient of zero: the item fails, and 0/0 would be the gradient of log at zero.
        flat = jnp.where(flat > 0, jnp.log(jnp.where(flat > 0, flat, 1.0)), jnp.nan)
    elif block.part != "value":
        raise InvalidArgument(f"unknown part {block.part!r} of a parameter.")
    return flat.astype(dtype)
