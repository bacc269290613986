"""Convolutions as linear algebra: circular ones by the FFT, strided ones, and bounds of their norms."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from conelayers.errors import InvalidArgument
from conelayers.settings import check_count

__all__ = ["apply_symbol", "check_kernel", "downsample", "padded_norm", "symbol", "upsample"]


def symbol(kernel: Tensor, size: tuple[int, int]) -> Tensor:
    """Transfer matrices of a centred circular convolution, shape (height, width // 2 + 1, out, in)."""
    k = kernel.shape[-1]
    padded = F.pad(kernel, (0, size[1] - k, 0, size[0] - k)).roll((-(k // 2), -(k // 2)), (-2, -1))
    return torch.fft.rfft2(padded).permute(2, 3, 0, 1)


def apply_symbol(symbol: Tensor, z: Tensor) -> Tensor:
    """Apply transfer matrices to images of shape (batch, channels, height, width), or to a single one."""
    if z.dim() == 3:
        return apply_symbol(symbol, z[None])[0]
    if len(z) == 0:  # the FFT takes no empty batch
        return z.new_zeros(0, symbol.shape[-2], *z.shape[-2:])
    spectrum = torch.fft.rfft2(z).permute(2, 3, 1, 0)  # shape: (height, width // 2 + 1, channels, batch)
    return torch.fft.irfft2((symbol @ spectrum).permute(3, 2, 0, 1), s=z.shape[-2:])


def downsample(w: Tensor, z: Tensor) -> Tensor:
    """Convolution of stride two with zero padding."""
    return F.conv2d(z, w, stride=2, padding=w.shape[-1] // 2)


def upsample(w: Tensor, y: Tensor) -> Tensor:
    """The transpose of `downsample` for even sizes."""
    return F.conv_transpose2d(y, w, stride=2, padding=w.shape[-1] // 2, output_padding=1)


def check_kernel(kernel: int, size: tuple[int, int]) -> None:
    """Refuse what cannot be centred or does not fit.

    Raises:
        InvalidArgument: If the kernel is even or larger than the image, or either is no count.
    """
    if not isinstance(size, tuple | list) or len(size) != 2:
        raise InvalidArgument(f"size must be a pair (height, width), got {size!r}.")
    for name, value in (("kernel", kernel), ("size", size[0]), ("size", size[1])):
        check_count(name, value)
    if kernel % 2 == 0 or kernel > min(size):
        raise InvalidArgument(f"kernel must be odd and at most the image size {size}, got {kernel}.")


def padded_norm(kernel: Tensor, size: tuple[int, int]) -> float:
    """A bound of the 2-norm of a convolution with zero padding, of any stride.

    It is a circular convolution on the image widened by kernel - 1, restricted to some inputs and outputs.
    """
    wide = (size[0] + kernel.shape[-1] - 1, size[1] + kernel.shape[-1] - 1)
    return float(torch.linalg.matrix_norm(symbol(kernel, wide), ord=2).max())
