"""Read the matrix of a linear function that is only given as code.

CVXPY maps parameters into its canonical form, and solutions out of it, by Python code spread over its reductions. What
these functions do is linear, and nearly always a selection with factors: each output is a multiple of one input. Two
evaluations then reveal the whole matrix, so the package asks CVXPY for its orders, shapes and signs instead of
repeating them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

__all__ = ["matrix_of"]

_AGREEMENT = 1e-10  # relative to the output's size: rounding only, the functions are linear


def matrix_of(function: Callable[[np.ndarray], np.ndarray], size: int) -> sp.csr_array:
    """The matrix M with function(u) = M u.

    With u = (1, ..., 1) and u = (1, 2, ..., size), an output that is c times input i gives c and c (i + 1). A third,
    random u checks the result; if some output combines several inputs, M is read column by column instead.

    Args:
        function: Linear, from shape (size,) to a fixed shape (outputs,), real.
        size: Number of inputs.

    Returns:
        M, shape (outputs, size).
    """
    factors = function(np.ones(size))
    if size == 0 or factors.size == 0:
        return sp.csr_array((factors.size, size))
    coded = function(np.arange(1.0, size + 1.0))
    used = np.flatnonzero(factors)
    inputs = np.rint(coded[used] / factors[used]).astype(np.int64) - 1
    check = np.random.default_rng(0).uniform(1.0, 2.0, size)
    expected = function(check)
    if np.all((inputs >= 0) & (inputs < size)):
        matrix = sp.csr_array((factors[used], (used, inputs)), shape=(factors.size, size))
        if _agrees(matrix @ check, expected):
            return matrix
    return _column_by_column(function, size)


def _column_by_column(function: Callable[[np.ndarray], np.ndarray], size: int) -> sp.csr_array:
    columns = [sp.csc_array(function(unit)[:, None]) for unit in np.eye(size)]
    return sp.csr_array(sp.hstack(columns, format="csc"))


def _agrees(left: np.ndarray, right: np.ndarray) -> bool:
    scale = np.max(np.abs(right), initial=1.0)
    return bool(np.max(np.abs(left - right), initial=0.0) <= _AGREEMENT * scale)
