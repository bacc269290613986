"""Deep equilibrium models: any cell, iterated to its fixed point."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from conelayers.errors import InvalidArgument
from conelayers.fixed_points.iterations import Anderson, FixedPointSolver
from conelayers.fixed_points.modes.implicit_adjoint import ImplicitAdjoint
from conelayers.implicit.mode import Derivative
from conelayers.implicit.products import pullback, transforming
from conelayers.layers._inputs import check_callable, check_derivative, check_float, check_solver
from conelayers.layers.fixed_point import fixed_point
from conelayers.settings import check_count, check_number

__all__ = ["DEQ", "fixed_point_correction"]


class DEQ(nn.Module):
    """z with z = cell(z, x): a deep equilibrium layer (Bai, Kolter & Koltun 2019).

    Every batch item converges by itself; memory does not depend on the number of iterations.

    Args:
        cell: Module called as cell(z, x) that returns a nest like z.
        solver: How to iterate.
        adjoint: How to differentiate.
        initial: Map from x to the start z0; None starts from zeros of the shape of x.
        spectral_norm: Bound on the largest singular value of every weight of the cell with two or more axes
            (flattened to a matrix (out, rest), as in Miyato et al. 2018); larger ones are scaled down to it, once
            per call. None leaves weights alone.
        warm_start: Start from the last solution of the same shapes, of which one detached copy is kept in `state` (not
            inside `torch.func` transforms).
        batch_dims: Leading axes that count independent items, as in `fixed_point`. A cell that lets items depend on
            each other, as batch normalization in training does, has 0: one joint system, with one convergence test.
            Otherwise that is found out when it matters, see there.
    """

    state: Any

    def __init__(
        self,
        cell: nn.Module,
        *,
        solver: FixedPointSolver = Anderson(atol=1e-6, rtol=1e-6),  # noqa: B008 (an immutable value)
        adjoint: Derivative = ImplicitAdjoint(),  # noqa: B008 (an immutable value)
        initial: Callable[[Any], Any] | None = None,
        spectral_norm: float | None = None,
        warm_start: bool = False,
        batch_dims: int | None = None,
    ) -> None:
        super().__init__()
        check_callable("cell", cell)
        check_solver(solver)
        check_derivative(adjoint)
        if initial is not None:
            check_callable("initial", initial)
        if spectral_norm is not None:
            check_number("spectral_norm", spectral_norm, "(0, inf]")
        if batch_dims is not None:
            check_count("batch_dims", batch_dims, 0)
        self.cell, self.solver, self.adjoint, self.initial = cell, solver, adjoint, initial
        self.batch_dims = batch_dims
        self.spectral_norm, self.warm_start = spectral_norm, warm_start
        self.state = None

    def forward(self, x: Any, z0: Any = None, *, return_info: bool = False) -> Any:
        """The equilibrium for the input `x`, and with `return_info` the solve's result."""
        z, info = fixed_point(
            self._map(),
            self._start(x) if z0 is None else z0,
            x,
            solver=self.solver,
            adjoint=self.adjoint,
            return_info=True,
            batch_dims=self.batch_dims,
        )
        if self.warm_start and not transforming():  # a transform's tensors must not outlive it
            with torch.inference_mode(False):  # and those of inference mode must not meet a graph
                self.state = tree_map(lambda t: t.detach().clone(), z)
        return (z, info) if return_info else z

    def reset_state(self) -> None:
        """Forget the warm start."""
        self.state = None

    def jacobian_penalty(self, z: Any, x: Any, samples: int = 1) -> Tensor:
        """Hutchinson's estimate of ||J||_F^2 / n at z, J = dcell/dz, averaged over the batch.

        Adding it to a loss keeps equilibria stable and solves short (Bai, Koltun & Kolter 2021). Differentiable in the
        cell's parameters and in x; z counts as a constant.

        Args:
            z: Equilibria, batch axis first.
            x: The cell's input.
            samples: Random probes.
        """
        check_count("samples", samples)
        check_float("z", z)
        f = self._map()
        leaves, spec = tree_flatten(tree_map(lambda t: t.detach(), z))
        shapes = [t.shape for t in leaves]

        def flat(*parts: Tensor) -> Tensor:
            return _join(tree_leaves(f(tree_unflatten(list(parts), spec), x)))

        total = leaves[0].new_zeros(())
        with torch.enable_grad():
            for _ in range(samples):
                probe = torch.randn_like(_join(leaves))
                rows = pullback(flat, leaves, probe)
                total = total + sum((r.square().sum() for r in rows if r is not None), start=total.new_zeros(()))
        return total / (samples * max(sum(s.numel() for s in shapes), 1))

    def trajectory(self, x: Any, steps: Sequence[int], z0: Any = None) -> list[Any]:
        """States after so many solver steps, each with the derivative of one application of the cell.

        Args:
            x: The cell's input.
            steps: Increasing step counts.
            z0: Start.

        Returns:
            One nest like z per entry of `steps`, for `fixed_point_correction`.
        """
        f = self._map()
        z, states, done = self._start(x) if z0 is None else z0, [], 0
        leaves, spec = tree_flatten(z)
        shapes = [t.shape for t in leaves]
        flat = _join(leaves)

        def bound(v: Tensor) -> Tensor:
            return _join(tree_leaves(f(tree_unflatten(_split(v, shapes), spec), x)))

        for count in steps:
            check_count("steps", count)
            if count <= done:
                raise InvalidArgument(f"steps must increase and be positive, got {list(steps)}.")
            flat = dataclasses.replace(self.solver, max_steps=count - done).run(bound, flat).value
            done = count
            states.append(f(tree_unflatten(_split(flat, shapes), spec), x))
        return states

    def normalized_parameters(self) -> dict[str, Tensor]:
        """The cell's parameters, those over the bound `spectral_norm` scaled down to it."""
        parameters: dict[str, Tensor] = dict(self.cell.named_parameters())
        if self.spectral_norm is None:
            return parameters
        return {name: _bounded(p, self.spectral_norm) if p.dim() >= 2 else p for name, p in parameters.items()}

    def _map(self) -> Callable[[Any, Any], Any]:
        if self.spectral_norm is None:
            return self.cell
        parameters = self.normalized_parameters()
        return lambda z, x: torch.func.functional_call(self.cell, parameters, (z, x))

    def _start(self, x: Any) -> Any:
        if self.initial is None:
            check_float("x, without `initial`,", x)
        fresh = tree_map(torch.zeros_like, x) if self.initial is None else self.initial(x)
        if not self.warm_start or self.state is None:
            return fresh
        same = [t.shape for t in tree_leaves(fresh)] == [t.shape for t in tree_leaves(self.state)]
        return tree_map(lambda t, like: t.to(like), self.state, fresh) if same else fresh


def fixed_point_correction(losses: Sequence[Tensor], decay: float = 0.8) -> Tensor:
    """The weighted sum of losses along a trajectory, the last with weight 1 and each earlier one `decay` times less.

    Sparse fixed-point correction (Bai et al. 2022) trains the path to the equilibrium as well as its end.
    """
    if not losses:
        raise InvalidArgument("losses must hold one loss or more; `DEQ.trajectory` gives the states for them.")
    total = losses[-1]
    for distance, loss in enumerate(reversed(losses[:-1]), start=1):
        total = total + decay**distance * loss
    return total


def _bounded(weight: Tensor, bound: float) -> Tensor:
    size = torch.linalg.matrix_norm(weight.flatten(1), ord=2)
    return weight * (bound / size).clamp(max=1.0)


def _join(leaves: Sequence[Tensor]) -> Tensor:
    """One matrix (batch, n) from tensors (batch, ...)."""
    return torch.cat([t.reshape(t.shape[0], t.shape[1:].numel()) for t in leaves], dim=1)


def _split(flat: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    parts = flat.split([s[1:].numel() for s in shapes], dim=1)
    return [p.reshape(s) for p, s in zip(parts, shapes, strict=True)]
