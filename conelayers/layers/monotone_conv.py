"""Convolutional monotone equilibrium networks: on a torus with FFT inverses, and over several resolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from conelayers.errors import InvalidArgument
from conelayers.fixed_points.certificates import ActivationCertificate, certify_activation, monotone_certificate
from conelayers.fixed_points.convolution import apply_symbol, check_kernel, downsample, padded_norm, symbol, upsample
from conelayers.fixed_points.iterations import FixedPointSolver, ForwardBackward, MonotoneSplitting, PeacemanRachford
from conelayers.fixed_points.modes.implicit_adjoint import ImplicitAdjoint
from conelayers.implicit.mode import Derivative
from conelayers.layers._inputs import check_input
from conelayers.layers.monotone_deq import MonotoneModule
from conelayers.settings import check_count

__all__ = ["MonotoneConvDEQ", "MonotoneMultiTierDEQ"]


class MonotoneConvDEQ(MonotoneModule):
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

    event_dims = 3

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
        self.setup(m, solver, adjoint)
        check_count("in_channels", in_channels)
        check_count("channels", channels)
        check_kernel(kernel, size)
        self.size = (size[0], size[1])
        scale = 1 / (2 * kernel * math.sqrt(channels))
        self.A = nn.Parameter(torch.randn(channels, channels, kernel, kernel) * scale)
        self.B = nn.Parameter(torch.randn(channels, channels, kernel, kernel) * scale)
        self.input = nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2)

    def symbol(self) -> Tensor:
        """W at every frequency of the real FFT, shape (height, width // 2 + 1, channels, channels), complex."""
        A, B = symbol(self.A, self.size), symbol(self.B, self.size)
        eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
        return (1 - self.m) * eye - A.mH @ A + B - B.mH

    def inject(self, x: Tensor) -> Tensor:
        """U x + b, shape (batch, channels, height, width)."""
        check_input("x", x, self.input.weight, [(self.input.in_channels, *self.size)], batch_axes=1)
        return self.input(x)

    def splitting(self) -> tuple[MonotoneSplitting, tuple[Any, ...]]:
        """F(z) = z - W z - injection."""
        return _Circular(), (self.symbol(),)

    def certificate(self) -> ActivationCertificate:
        """Lower bound of sigma_min(I - D W) over all Clarke elements D of the activation."""
        return certify_activation(self.symbol().detach())


class _Circular(MonotoneSplitting):
    def operator(self, z: Tensor, injection: Tensor, W: Tensor) -> Tensor:
        return z - apply_symbol(W, z) - injection

    def prox(self, v: Tensor, alpha: float) -> Tensor:
        return torch.relu(v)

    def factor(self, alpha: float, injection: Tensor, W: Tensor) -> Tensor:
        eye = torch.eye(W.shape[-1], dtype=W.dtype, device=W.device)
        return torch.linalg.inv((1 + alpha) * eye - alpha * W)

    def resolve(self, v: Tensor, alpha: float, factor: Tensor, injection: Tensor, W: Tensor) -> Tensor:
        return apply_symbol(factor, v + alpha * injection)


class MonotoneMultiTierDEQ(MonotoneModule):
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

    event_dims = 3

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
        self.setup(m, solver, adjoint)
        check_count("in_channels", in_channels)
        check_kernel(kernel, size)
        if not isinstance(channels, Sequence) or len(channels) < 2:
            raise InvalidArgument(f"channels must hold the channels of two or more tiers, got {channels!r}.")
        for count in channels:
            check_count("channels", count)
        factor = 2 ** (len(channels) - 1)
        if size[0] % factor or size[1] % factor:
            raise InvalidArgument(f"size must be divisible by {factor} for {len(channels)} tiers, got {size}.")
        self.sizes = [(size[0] >> i, size[1] >> i) for i in range(len(channels))]
        for s in self.sizes:
            check_kernel(kernel, s)

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
        check_input("x", x, self.input.weight, [(self.input.in_channels, *self.sizes[0])], batch_axes=1)
        first = self.input(x)
        rest = [
            b.expand(*first.shape[:-3], c, *s)
            for b, c, s in zip(self.bias, self.channels[1:], self.sizes[1:], strict=True)
        ]
        return [first, *rest]

    def certificate(self) -> ActivationCertificate:
        """Lower bound of sigma_min(I - D W) over all Clarke elements D of the activation.

        The margin m holds by construction. ||W|| is bounded by 1 - m + ||A||^2 + ||B - B'||, ||A|| by the norm of the
        bidiagonal matrix of its blocks' norms.
        """
        with torch.no_grad():
            weights = [symbol(w, s) for w, s in zip(self.A, self.sizes, strict=True)]
            skew = [symbol(w, s) for w, s in zip(self.B, self.sizes, strict=True)]
            norms = torch.diag(torch.tensor([float(torch.linalg.matrix_norm(w, ord=2).max()) for w in weights]))
            for i, w in enumerate(self.down):
                norms[i + 1, i] = padded_norm(w, self.sizes[i])
            turn = max(float(torch.linalg.matrix_norm(b - b.mH, ord=2).max()) for b in skew)
            bound = 1 - self.m + float(torch.linalg.matrix_norm(norms, ord=2)) ** 2 + turn
        return monotone_certificate(self.m, bound)

    def splitting(self) -> tuple[MonotoneSplitting, tuple[Any, ...]]:
        """F(z) = m z + A'A z - (B - B') z - injection."""
        A = [symbol(w, s) for w, s in zip(self.A, self.sizes, strict=True)]
        B = [symbol(w, s) for w, s in zip(self.B, self.sizes, strict=True)]
        return _Tiers(self.m), (A, [b - b.mH for b in B], list(self.down))


class _Tiers(MonotoneSplitting):
    def __init__(self, m: float) -> None:
        self.m = m

    def operator(self, z: list, injection: list, A: list, skew: list, down: list) -> list:
        product = [apply_symbol(a, t) for a, t in zip(A, z)]
        for i, w in enumerate(down):
            product[i + 1] = product[i + 1] + downsample(w, z[i])
        back = [apply_symbol(a.mH, t) for a, t in zip(A, product)]
        for i, w in enumerate(down):
            back[i] = back[i] + upsample(w, product[i + 1])
        return [self.m * t + g - apply_symbol(s, t) - b for t, g, s, b in zip(z, back, skew, injection)]

    def __call__(self, z: list, *params: Any) -> list:
        return [torch.relu(t - v) for t, v in zip(z, self.operator(z, *params))]

    def prox(self, v: list, alpha: float) -> list:
        return [torch.relu(t) for t in v]
