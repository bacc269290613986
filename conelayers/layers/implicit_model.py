"""Implicit models x = phi(A x + B u), y = C x + D u (El Ghaoui, Gu, Travacca, Askari & Tsai 2021).

Feed-forward networks are those with A strictly upper triangular (blockwise); compositions of implicit models are
implicit models again. phi acts entrywise with slope in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conelayers.errors import InvalidArgument
from conelayers.fixed_points.certificates import ActivationCertificate, certify_activation
from conelayers.fixed_points.iterations import Anderson, FixedPointSolver
from conelayers.fixed_points.modes.implicit_adjoint import ImplicitAdjoint
from conelayers.fixed_points.well_posedness import (
    InfinityNorm,
    PerronFrobenius,
    WellPosedness,
    magnitude_radius,
    project_rows,
)
from conelayers.implicit.mode import Derivative
from conelayers.layers._inputs import check_callable, check_derivative, check_float, check_input, check_solver
from conelayers.layers.fixed_point import fixed_point
from conelayers.settings import check_count, check_kind, check_number

__all__ = ["ImplicitModel", "InfinityNorm", "PerronFrobenius", "WellPosedness", "project_rows"]

Activation = Callable[[Tensor], Tensor]


class ImplicitModel(nn.Module):
    """y = C x + D u with the state x = phi(A x + B u).

    Args:
        inputs: Size p of u.
        states: Size n of x.
        outputs: Size q of y.
        activation: phi, entrywise with slope in [0, 1].
        wellposed: The set A is kept in by `project_` (call it after every optimizer step).
        solver: How to iterate.
        adjoint: How to differentiate.

    Attributes:
        constant: The last input is the constant 1 and may be left out, as after `from_feedforward`.
    """

    constant = False

    def __init__(
        self,
        inputs: int,
        states: int,
        outputs: int,
        activation: Activation = torch.relu,
        wellposed: WellPosedness = InfinityNorm(),  # noqa: B008 (an immutable value)
        solver: FixedPointSolver = Anderson(atol=1e-6, rtol=1e-6),  # noqa: B008 (an immutable value)
        adjoint: Derivative = ImplicitAdjoint(),  # noqa: B008 (an immutable value)
    ) -> None:
        super().__init__()
        for name, count in (("inputs", inputs), ("states", states), ("outputs", outputs)):
            check_count(name, count, 0)
        check_callable("activation", activation)
        check_kind("wellposed", wellposed, WellPosedness)
        check_solver(solver)
        check_derivative(adjoint)
        self.activation, self.wellposed, self.solver, self.adjoint = activation, wellposed, solver, adjoint
        self.A = nn.Parameter(torch.randn(states, states) / max(states, 1))
        self.B = nn.Parameter(torch.randn(states, inputs) / max(inputs, 1) ** 0.5)
        self.C = nn.Parameter(torch.randn(outputs, states) / max(states, 1) ** 0.5)
        self.D = nn.Parameter(torch.randn(outputs, inputs) / max(inputs, 1) ** 0.5)
        self.project_()

    @classmethod
    def from_matrices(cls, A: Tensor, B: Tensor, C: Tensor, D: Tensor, **options) -> ImplicitModel:
        """A model with the given matrices, as they are (they are not projected).

        Raises:
            InvalidArgument: They are no floating-point matrices of one dtype, or do not fit.
        """
        for name, M in zip("ABCD", (A, B, C, D), strict=True):
            check_float(name, M)
            if M.dim() != 2 or M.dtype != A.dtype or M.device != A.device:
                raise InvalidArgument(
                    f"{name} must be a matrix of A's dtype and device, got {tuple(M.shape)}, {M.dtype}, {M.device}."
                )
        n, p, q = A.shape[0], B.shape[1], C.shape[0]
        if A.shape != (n, n) or B.shape != (n, p) or C.shape != (q, n) or D.shape != (q, p):
            shapes = [tuple(M.shape) for M in (A, B, C, D)]
            raise InvalidArgument(f"A, B, C, D must have shapes (n, n), (n, p), (q, n), (q, p); got {shapes}.")
        model = cls(p, n, q, **options)
        for name, M in zip("ABCD", (A, B, C, D), strict=True):
            setattr(model, name, nn.Parameter(M.detach().clone()))
        return model

    @classmethod
    def from_feedforward(cls, network: nn.Sequential, **options) -> ImplicitModel:
        """The implicit form of Linear layers with ReLU between them.

        The state stacks the hidden layers from the last to the first, which makes A strictly upper triangular. For the
        biases the model has one more input, the constant 1, which is appended where it is left out.

        Raises:
            InvalidArgument: If the network is not Linear, ReLU, Linear, ..., Linear.
        """
        check_kind("network", network, nn.Sequential)
        layers = list(network)
        linear = [m for m in layers[::2] if isinstance(m, nn.Linear)]
        relu = [m for m in layers[1::2] if isinstance(m, nn.ReLU)]
        if len(layers) % 2 == 0 or len(linear) + len(relu) != len(layers):
            raise InvalidArgument("network must alternate nn.Linear and nn.ReLU, beginning and ending with nn.Linear.")
        hidden = [m.out_features for m in linear[:-1]]
        offsets = [sum(hidden[i + 1 :]) for i in range(len(hidden))]  # layer i starts here: later layers come first
        n, p, q = sum(hidden), linear[0].in_features, linear[-1].out_features
        new = linear[0].weight.new_zeros
        A, B, C, D = new(n, n), new(n, p + 1), new(q, n), new(q, p + 1)
        for i, layer in enumerate(linear):
            rows = slice(offsets[i], offsets[i] + hidden[i]) if i < len(hidden) else slice(None)
            into, direct = (A, B) if i < len(hidden) else (C, D)
            if i == 0:
                direct[rows, :p] = layer.weight.detach()
            else:
                into[rows, offsets[i - 1] : offsets[i - 1] + hidden[i - 1]] = layer.weight.detach()
            if layer.bias is not None:
                direct[rows, p] = layer.bias.detach()
        model = cls.from_matrices(A, B, C, D, **options)
        model.constant = True
        return model

    def forward(self, u: Tensor, *, return_info: bool = False) -> Tensor | tuple[Tensor, object]:
        """Y for inputs of shape (*batch, p); with `return_info` also the state's `FixedPointResult`."""
        u = self.completed(u, 1.0)
        x, info = self.state(u, return_info=True)
        y = F.linear(x, self.C) + F.linear(u, self.D)
        return (y, info) if return_info else y

    def state(self, u: Tensor, *, return_info: bool = False):
        """X for inputs of shape (*batch, p), shape (*batch, n)."""
        drive = F.linear(self.completed(u, 1.0), self.B)
        return fixed_point(
            lambda x, b, A: self.activation(F.linear(x, A) + b),
            torch.zeros_like(drive),
            drive,
            self.A,
            solver=self.solver,
            adjoint=self.adjoint,
            return_info=return_info,
            batch_dims=drive.dim() - 1,
        )

    @torch.no_grad()
    def project_(self) -> ImplicitModel:
        """Project A into the well-posed set, in place."""
        if self.A.numel():
            self.A.copy_(self.wellposed.project(self.A))
        return self

    def certificate(self) -> ActivationCertificate:
        """Lower bound of sigma_min(I - D A) over all Clarke elements D of the activation."""
        return certify_activation(self.A.detach())

    def state_bound(self, sigma: Tensor) -> Tensor:
        """A bound of |x - x0| entrywise for all |u - u0| <= sigma: (I - |A|)^-1 |B| sigma, shape (*batch, n).

        Raises:
            InvalidArgument: If the spectral radius of |A| is not below 1.
        """
        return F.linear(self.completed(sigma, 0.0, "sigma"), self._magnitude_inverse() @ self.B.abs())

    def output_bound(self, sigma: Tensor) -> Tensor:
        """A bound of |y - y0| entrywise for all |u - u0| <= sigma, shape (*batch, q).

        Differentiable in the model's matrices, for robust training.
        """
        return F.linear(self.completed(sigma, 0.0, "sigma"), self.sensitivity())

    def sensitivity(self) -> Tensor:
        """The sensitivity matrix |C| (I - |A|)^-1 |B| + |D|, shape (q, p): |y - y0| <= S |u - u0|."""
        return self.C.abs() @ self._magnitude_inverse() @ self.B.abs() + self.D.abs()

    def _magnitude_inverse(self) -> Tensor:
        radius = magnitude_radius(self.A)
        if not radius < 1:
            raise InvalidArgument(f"the spectral radius of |A| is {radius:.3g}; bounds need it below 1 (see project_).")
        eye = torch.eye(self.A.shape[0], dtype=self.A.dtype, device=self.A.device)
        return torch.linalg.inv(eye - self.A.abs())

    def sparsified(self, threshold: float) -> ImplicitModel:
        """A copy whose entries of magnitude at most `threshold` are zero. It stays well-posed: |A| only shrinks."""
        check_number("threshold", threshold, "[0, inf]")
        kept = [torch.where(M.abs() > threshold, M, torch.zeros_like(M)) for M in (self.A, self.B, self.C, self.D)]
        return self._like(*kept, constant=self.constant)

    def reduced(self) -> ImplicitModel:
        """The model without states that no output and no other state hears (zero columns of A and C)."""
        keep = torch.ones(self.A.shape[0], dtype=torch.bool, device=self.A.device)
        while True:
            heard = (self.A[keep] != 0).any(0) | (self.C != 0).any(0)
            if bool((heard | ~keep).all()):
                break
            keep = keep & heard
        return self._like(self.A[keep][:, keep], self.B[keep], self.C[:, keep], self.D, constant=self.constant)

    def cascade(self, after: ImplicitModel) -> ImplicitModel:
        """The model u -> after(self(u)).

        Raises:
            InvalidArgument: If outputs and inputs do not fit, or only `after` has a constant input.
        """
        check_kind("after", after, ImplicitModel)
        middle_C, middle_D = self.C, self.D
        if after.constant:  # the constant goes through
            last = self.D.new_zeros(1, self.D.shape[1])
            last[0, -1:] = float(self.constant)
            middle_C, middle_D = torch.cat([self.C, self.C.new_zeros(1, self.C.shape[1])]), torch.cat([self.D, last])
        if after.B.shape[1] != middle_D.shape[0] or (after.constant and not self.constant):
            raise InvalidArgument(
                "cascade needs a second model whose inputs, the constant too, the first one supplies."
            )
        A = _blocks([[after.A, after.B @ middle_C], [None, self.A]])
        B = _blocks([[after.B @ middle_D], [self.B]])
        C = _blocks([[after.C, after.D @ middle_C]])
        return self._like(A, B, C, after.D @ middle_D, constant=self.constant)

    def parallel(self, other: ImplicitModel) -> ImplicitModel:
        """The model (u1, u2) -> (self(u1), other(u2)), inputs and outputs concatenated."""
        check_kind("other", other, ImplicitModel)
        pairs = [(self.A, other.A), (self.B, other.B), (self.C, other.C), (self.D, other.D)]
        return self._like(*(torch.block_diag(M, N) for M, N in pairs))

    def sum(self, other: ImplicitModel) -> ImplicitModel:
        """The model u -> self(u) + other(u).

        Raises:
            InvalidArgument: If inputs or outputs differ in size.
        """
        self._check_ends(other, self.D.shape)
        A = torch.block_diag(self.A, other.A)
        B, C, constant = torch.cat([self.B, other.B]), torch.cat([self.C, other.C], 1), self.constant and other.constant
        return self._like(A, B, C, self.D + other.D, constant=constant)

    def feedback(self, other: ImplicitModel) -> ImplicitModel:
        """The closed loop y = self(u + other(y)).

        Raises:
            InvalidArgument: If sizes do not fit, or the direct terms alone already close a singular loop (I - D1 D2 not
                invertible).
        """
        self._check_ends(other, self.D.T.shape)
        eye = torch.eye(self.D.shape[0], dtype=self.D.dtype, device=self.D.device)
        loop = eye - self.D @ other.D
        if not float(torch.linalg.cond(loop.detach())) < 1 / torch.finfo(loop.dtype).eps:  # 0 / 0 is singular too
            raise InvalidArgument("I - D1 D2 is singular: the direct terms of the two models close an algebraic loop.")
        # y = E (C1 x1 + D1 C2 x2 + D1 u), and the inner input is u + C2 x2 + D2 y.
        E = torch.linalg.inv(loop)
        y = [E @ self.C, E @ self.D @ other.C, E @ self.D]
        inner = [other.D @ y[0], other.C + other.D @ y[1]]
        direct = other.D @ y[2]
        direct = direct + torch.eye(direct.shape[0], dtype=direct.dtype, device=direct.device)
        A = _blocks([[self.A + self.B @ inner[0], self.B @ inner[1]], [other.B @ y[0], other.A + other.B @ y[1]]])
        return self._like(A, _blocks([[self.B @ direct], [other.B @ y[2]]]), _blocks([y[:2]]), y[2])

    def _check_ends(self, other: ImplicitModel, shape: torch.Size) -> None:
        check_kind("other", other, ImplicitModel)
        if other.D.shape != shape:
            (q, p), found = shape, tuple(other.D.shape[::-1])
            raise InvalidArgument(f"other must have {p} inputs and {q} outputs, got {found[0]} and {found[1]}.")

    def completed(self, u: Tensor, last: float, name: str = "u") -> Tensor:
        """Inputs, shape (*batch, p - 1) or (*batch, p), with `last` in place of a constant input that was left out.

        Raises:
            InvalidArgument: They are no tensor of such a shape, or not of the model's dtype and device.
        """
        p = self.B.shape[1]
        check_input(name, u, self.B, [(p,), (p - 1,)] if self.constant else [(p,)])
        missing = self.constant and u.shape[-1] == p - 1
        return torch.cat([u, u.new_full((*u.shape[:-1], 1), last)], -1) if missing else u

    def _like(self, A: Tensor, B: Tensor, C: Tensor, D: Tensor, constant: bool = False) -> ImplicitModel:
        model = ImplicitModel.from_matrices(
            A, B, C, D, activation=self.activation, wellposed=self.wellposed, solver=self.solver, adjoint=self.adjoint
        )
        model.constant = constant
        return model


def _blocks(rows: list[list[Tensor | None]]) -> Tensor:
    """A matrix from blocks; None is a zero block."""
    heights = [next(b.shape[0] for b in row if b is not None) for row in rows]
    widths = [next(b.shape[1] for b in column if b is not None) for column in zip(*rows, strict=True)]
    like = next(b for row in rows for b in row if b is not None)
    full = [
        torch.cat([like.new_zeros(h, w) if b is None else b for b, w in zip(row, widths, strict=True)], 1)
        for row, h in zip(rows, heights, strict=True)
    ]
    return torch.cat(full)
