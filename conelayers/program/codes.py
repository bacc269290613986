"""How the compiled engine is told about a product cone: three arrays, one entry per block."""

from __future__ import annotations

import numpy as np

from conelayers.cones import (
    Cone,
    DualExponential,
    DualPower,
    Exponential,
    Nonnegative,
    PositiveSemidefinite,
    Power,
    ProductCone,
    SecondOrder,
    Zero,
)

__all__ = ["CODES", "cone_codes"]

CODES: dict[type[Cone], int] = {
    Zero: 0,
    Nonnegative: 1,
    SecondOrder: 2,
    PositiveSemidefinite: 3,
    Exponential: 4,
    DualExponential: 5,
    Power: 6,
    DualPower: 7,
}
"""The cones that the compiled engine takes."""


def cone_codes(cone: ProductCone) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kind, size (order for semidefinite cones) and exponent of each block.

    Raises:
        KeyError: If the engine does not take a block.
    """
    kinds = np.array([CODES[type(block)] for block in cone.cones], dtype=np.int64)
    sizes = [block.order if isinstance(block, PositiveSemidefinite) else block.dim for block in cone.cones]
    exponents = [block.alpha if isinstance(block, (Power, DualPower)) else 0.0 for block in cone.cones]
    return kinds, np.array(sizes, dtype=np.int64), np.array(exponents, dtype=np.float64)
