"""Monotone operator equilibrium networks (Winston & Kolter 2020).

z = phi(W z + U x + b) with W = (1 - m) I - A'A + B - B'. Then I - W has the symmetric part m I + A'A >= m I: it is
strongly monotone, so for every input there is exactly one equilibrium, found by operator splitting, and the
implicit function theorem applies at every point whatever the activation's Clarke element (see
`MonotoneDEQ.certificate`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conelayers.errors import InvalidArgument
from conelayers.implicit.implicit_adjoint import ImplicitAdjoint
from conelayers.implicit.mode import Derivative
from conelayers.iterations import FixedPointSolver, ForwardBackward, MonotoneSplitting, PeacemanRachford, search_step
from conelayers.layers.fixed_point import fixed_point
from conelayers.residual.fixed_point import ActivationCertificate, certify_activation

__all__ = ["MonotoneConvDEQ", "MonotoneDEQ", "MonotoneMultiTierDEQ"]

Activation = Callable[[Tensor], Tensor]


class _MonotoneModule(nn.Module):
    """What the three models share: the solve, and the search for a step length."""

    m: float
    solver: FixedPointSolver
    adjoint: Derivative

    def _setup(self, m: float, solver: FixedPointSolver, adjoint: Derivative) -> None:
        if not 0 < m <= 1:
            raise InvalidArgument(f"m must lie in (0, 1], got {m}.")
        self.m, self.solver, self.adjoint = m, solver, adjoint

    def splitting(self) -> tuple[MonotoneSplitting, tuple[Any, ...]]:
        """The inclusion and its weight tensors."""
        raise NotImplementedError

    def inject(self, x: Any) -> Any:
        """U x + b, of the structure of z."""
        raise NotImplementedError

    def forward(self, x: Any, z0: Any = None, *, return_info: bool = False) -> Any:
        """The equilibrium for the input `x`, and with `return_info` the solve's result."""
        return self._solve(self.inject(x), z0, self.solver, return_info)

    def tune_step(self, x: Any, steps: int = 40, candidates: Sequence[float] | None = None) -> float:
        """Search the solver's step length alpha on a batch of inputs, and keep the best.

        For `PeacemanRachford` and `ForwardBackward`.

        Returns:
            The step length kept.
        """
        if not isinstance(self.solver, PeacemanRachford | ForwardBackward):
            raise InvalidArgument(f"{type(self.solver).__name__} has no step length to search.")
        with torch.no_grad():
            probe = _StepSearch(self.solver, steps, candidates)
            self._solve(self.inject(x), None, probe, False)  # pyright: ignore[reportArgumentType]
        self.solver = probe.chosen
        return probe.chosen.alpha

    def _solve(self, injection: Any, z0: Any, solver: FixedPointSolver, return_info: bool) -> Any:
        splitting, weights = self.splitting()
        if z0 is None:
            z0 = (
                [torch.zeros_like(v) for v in injection] if isinstance(injection, list) else torch.zeros_like(injection)
            )
        return fixed_point(
            splitting, z0, injection, *weights,
            solver=solver, adjoint=self.adjoint, return_info=return_info, batch_dims=1,
        )  # fmt: skip


class _StepSearch:
    """A stand-in solver that searches a step length on the problem it is given."""

    def __init__(self, solver: Any, steps: int, candidates: Sequence[float] | None) -> None:
        self.solver, self.steps, self.candidates, self.chosen = solver, steps, candidates, solver

    def run(self, f: Any, z0: Tensor, fz0: Tensor | None = None, trace: bool = False) -> Any:
        self.chosen = search_step(self.solver, f, z0, self.steps, self.candidates)
        return self.chosen.run(f, z0, fz0, trace)


class MonotoneDEQ(_MonotoneModule):
    """Fully connected: z = phi(W z + U x + b).

    Args:
        in_features: Size of x.
        features: Size n of z.
        m: Strong monotonicity of I - W, in (0, 1].
        activation: A proximal map that acts entrywise, such as relu or tanh (for other than relu, alpha counts:
            solve with `Anderson()`).
        solver: How to iterate.
        adjoint: How to differentiate.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        m: float = 0.1,
        activation: Activation = torch.relu,
        solver: FixedPointSolver = PeacemanRachford(atol=1e-6, rtol=1e-6),  # noqa: B008 (an immutable value)
        adjoint: Derivative = ImplicitAdjoint(),  # noqa: B008 (an immutable value)
    ) -> None:
        super().__init__()
        self._setup(m, solver, adjoint)
        if activation is not torch.relu and isinstance(solver, PeacemanRachford | ForwardBackward):
            raise InvalidArgument(
                "splitting solvers need relu, whose prox does not depend on the step; use Anderson()."
            )
        self.activation = activation
        self.A = nn.Parameter(torch.randn(features, features) / (2 * math.sqrt(features)))
        self.B = nn.Parameter(torch.randn(features, features) / (2 * math.sqrt(features)))
        self.input = nn.Linear(in_features, features)

    @property
    def W(self) -> Tensor:
        """(1 - m) I - A'A + B - B', shape (n, n)."""
        eye = torch.eye(self.A.shape[0], dtype=self.A.dtype, device=self.A.device)
        return (1 - self.m) * eye - self.A.T @ self.A + self.B - self.B.T

    def inject(self, x: Tensor) -> Tensor:
        """U x + b."""
        return self.input(x)

    def splitting(self) -> tuple[MonotoneSplitting, tuple[Any, ...]]:
        """F(z) = z - W z - injection."""
        return _Dense(self.activation), (self.W,)

    def certificate(self) -> ActivationCertificate:
        """Lower bound of sigma_min(I - D W) over all Clarke elements D of the activation."""
        return certify_activation(self.W.detach())


class _Dense(MonotoneSplitting):
    def __init__(self, activation: Activation) -> None:
        self.activation = activation

    def operator(self, z: Tensor, injection: Tensor, W: Tensor) -> Tensor:
        return z - F.linear(z, W) - injection

    def prox(self, v: Tensor, alpha: float) -> Tensor:
        return self.activation(v)

    def factor(self, alpha: float, injection: Tensor, W: Tensor) -> Tensor:
        eye = torch.eye(W.shape[0], dtype=W.dtype, device=W.device)
        return torch.linalg.inv((1 + alpha) * eye - alpha * W)

    def resolve(self, v: Tensor, alpha: float, factor: Tensor, injection: Tensor, W: Tensor) -> Tensor:
        return F.linear(v + alpha * injection, factor)


class MonotoneConvDEQ(_MonotoneModule):
    """Convolutional on a torus: A and B are convolutions with circular padding, inverted by the FFT.

    At every frequency W is a channels x channels matrix, so a product costs two FFTs and the resolvent's inverse is one
    small matrix per frequency.

    Args:
        in_channels: Channels of x.
        channels: Channels of z.
        size: Height and width of the images.
        kernel: Odd kernel width.
        m: Strong monotonicity of I - W, in (0, 1].
        solver: How to iterate.
        adjoint: How to differentiate.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        size: tuple[int, int],
        kernel: int = 3,
        m: float = 0.1,
        solver: FixedPointSolver = PeacemanRachford(atol=1e-6, rtol=1e-6),  # noqa: B008 (an immutable value)
        adjoint: Derivative = ImplicitAdjoint(),  # noqa: B008 (an immutable value)
    ) -> None:
        super().__init__()
        self._setup(m, solver, adjoint)
        _check_kernel(kernel, size)
        self.size = size
        scale = 1 / (2 * kernel * math.sqrt(channels))
        self.A = nn.Parameter(torch.randn(channels, channels, kernel, kernel) * scale)
        self.B = nn.Parameter(torch.randn(channels, channels, kernel, kernel) * scale)
        self.input = nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2)

    def symbol(self) -> Tensor:
        """W at every frequency of the real FFT, shape (height, width // 2 + 1, channels, channels), complex."""
        A, B = _symbol(self.A, self.size), _symbol(self.B, self.size)
        eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
        return (1 - self.m) * eye - A.mH @ A + B - B.mH

    def inject(self, x: Tensor) -> Tensor:
        """U x + b, shape (batch, channels, height, width)."""
        return self.input(x)

    def splitting(self) -> tuple[MonotoneSplitting, tuple[Any, ...]]:
        """F(z) = z - W z - injection."""
        return _Circular(), (self.symbol(),)

    def certificate(self) -> ActivationCertificate:
        """Lower bound of sigma_min(I - D W) over all Clarke elements D of the activation."""
        return certify_activation(self.symbol().detach())


class _Circular(MonotoneSplitting):
    def operator(self, z: Tensor, injection: Tensor, W: Tensor) -> Tensor:
        return z - _filter(W, z) - injection

    def prox(self, v: Tensor, alpha: float) -> Tensor:
        return torch.relu(v)

    def factor(self, alpha: float, injection: Tensor, W: Tensor) -> Tensor:
        eye = torch.eye(W.shape[-1], dtype=W.dtype, device=W.device)
        return torch.linalg.inv((1 + alpha) * eye - alpha * W)

    def resolve(self, v: Tensor, alpha: float, factor: Tensor, injection: Tensor, W: Tensor) -> Tensor:
        return _filter(factor, v + alpha * injection)


class MonotoneMultiTierDEQ(_MonotoneModule):
    """Several resolutions at once: tier i + 1 has half the size of tier i and hears it through a strided convolution.

    A is block lower bidiagonal (circular convolutions on the diagonal, strided ones below), B block diagonal. z is
    a list with one tensor per tier. The inverse of I + alpha (I - W) has no short form here, so solvers are those
    without
    resolvents: `ForwardBackward` (with `tune_step`), `Anderson`, `NewtonKrylov`.

    Args:
        in_channels: Channels of x.
        channels: Channels of each tier.
        size: Height and width of the first tier, divisible by 2^(tiers - 1).
        kernel: Odd kernel width.
        m: Strong monotonicity of I - W, in (0, 1].
        solver: How to iterate.
        adjoint: How to differentiate.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        size: tuple[int, int],
        kernel: int = 3,
        m: float = 0.1,
        solver: FixedPointSolver = ForwardBackward(atol=1e-6, rtol=1e-6, alpha=0.5),  # noqa: B008 (an immutable value)
        adjoint: Derivative = ImplicitAdjoint(),  # noqa: B008 (an immutable value)
    ) -> None:
        super().__init__()
        self._setup(m, solver, adjoint)
        factor = 2 ** (len(channels) - 1)
        if len(channels) < 2 or size[0] % factor or size[1] % factor:
            raise InvalidArgument(
                f"two or more tiers and a size divisible by {factor} are needed, got {channels}, {size}."
            )
        self.sizes = [(size[0] >> i, size[1] >> i) for i in range(len(channels))]
        for s in self.sizes:
            _check_kernel(kernel, s)

        def weights(rows: int, columns: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, columns, kernel, kernel) / (2 * kernel * math.sqrt(columns)))

        self.A = nn.ParameterList([weights(c, c) for c in channels])
        self.B = nn.ParameterList([weights(c, c) for c in channels])
        self.down = nn.ParameterList([weights(c1, c0) for c0, c1 in zip(channels, channels[1:])])
        self.input = nn.Conv2d(in_channels, channels[0], kernel, padding=kernel // 2)
        self.bias = nn.ParameterList([torch.zeros(c, 1, 1) for c in channels[1:]])
        self.channels = tuple(channels)

    def inject(self, x: Tensor) -> list[Tensor]:
        """The input enters the first tier; the others have biases."""
        first = self.input(x)
        rest = [b.expand(len(x), c, *s) for b, c, s in zip(self.bias, self.channels[1:], self.sizes[1:], strict=True)]
        return [first, *rest]

    def splitting(self) -> tuple[MonotoneSplitting, tuple[Any, ...]]:
        """F(z) = m z + A'A z - (B - B') z - injection."""
        A = [_symbol(w, s) for w, s in zip(self.A, self.sizes, strict=True)]
        B = [_symbol(w, s) for w, s in zip(self.B, self.sizes, strict=True)]
        return _Tiers(self.m), (A, [b - b.mH for b in B], list(self.down))


class _Tiers(MonotoneSplitting):
    def __init__(self, m: float) -> None:
        self.m = m

    def operator(self, z: list, injection: list, A: list, skew: list, down: list) -> list:
        product = [_filter(a, t) for a, t in zip(A, z)]
        for i, w in enumerate(down):
            product[i + 1] = product[i + 1] + _downsample(w, z[i])
        back = [_filter(a.mH, t) for a, t in zip(A, product)]
        for i, w in enumerate(down):
            back[i] = back[i] + _upsample(w, product[i + 1])
        return [self.m * t + g - _filter(s, t) - b for t, g, s, b in zip(z, back, skew, injection)]

    def __call__(self, z: list, *params: Any) -> list:
        return [torch.relu(t - v) for t, v in zip(z, self.operator(z, *params))]

    def prox(self, v: list, alpha: float) -> list:
        return [torch.relu(t) for t in v]


def _symbol(kernel: Tensor, size: tuple[int, int]) -> Tensor:
    """Transfer matrices of a centred circular convolution, shape (height, width // 2 + 1, out, in)."""
    k = kernel.shape[-1]
    padded = F.pad(kernel, (0, size[1] - k, 0, size[0] - k)).roll((-(k // 2), -(k // 2)), (-2, -1))
    return torch.fft.rfft2(padded).permute(2, 3, 0, 1)


def _filter(symbol: Tensor, z: Tensor) -> Tensor:
    """Apply transfer matrices to images of shape (batch, channels, height, width)."""
    spectrum = torch.fft.rfft2(z).permute(2, 3, 1, 0)  # shape: (height, width // 2 + 1, channels, batch)
    return torch.fft.irfft2((symbol @ spectrum).permute(3, 2, 0, 1), s=z.shape[-2:])


def _downsample(w: Tensor, z: Tensor) -> Tensor:
    return F.conv2d(z, w, stride=2, padding=w.shape[-1] // 2)


def _upsample(w: Tensor, y: Tensor) -> Tensor:
    """The transpose of `_downsample` for even sizes."""
    return F.conv_transpose2d(y, w, stride=2, padding=w.shape[-1] // 2, output_padding=1)


def _check_kernel(kernel: int, size: tuple[int, int]) -> None:
    if kernel % 2 == 0 or kernel > min(size):
        raise InvalidArgument(f"kernel must be odd and at most the image size {size}, got {kernel}.")
