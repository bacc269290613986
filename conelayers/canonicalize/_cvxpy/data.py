"""CVXPY's parametric tensors as matrices that are affine in the user's own parameter entries."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from conelayers.canonicalize._cvxpy.reduction import Reduction, logarithms
from conelayers.canonicalize.parameters import Block
from conelayers.canonicalize.probing import matrix_of
from conelayers.canonicalize.tensors import AffineMatrix, compress

__all__ = ["parameter_map", "problem_matrices"]


def problem_matrices(
    stuffed: Any, mixing: sp.csr_array
) -> tuple[AffineMatrix, AffineMatrix, AffineMatrix, AffineMatrix, AffineMatrix]:
    """P (upper triangle, n x n), q (n x 1), A (m x n) and b (m x 1), with s = b - A x, affine in the blocks.

    The last one is the constant of the objective (1 x 1).
    """
    n, m = stuffed.x.size, stuffed.constr_size
    P = _matrix(stuffed.P, (n, n), mixing).upper_triangle()
    # CVXPY's tensors carry the constant of the objective as a last row and that of s = A x + b as a last column.
    objective = _matrix(stuffed.q, (n + 1, 1), mixing)
    q, constant = (objective.keep_rows(np.arange(n + 1) < n), objective.keep_rows(np.arange(n + 1) == n))
    constraints = _matrix(stuffed.A, (m, n + 1), mixing)
    A = constraints.keep_columns(np.arange(n + 1) < n)
    A = dataclasses.replace(A, coefficients=sp.csr_array(-A.coefficients))
    b = constraints.keep_columns(np.arange(n + 1) == n)
    return P, q, A, b, constant


def parameter_map(parameters: Sequence[cp.Parameter], reduction: Reduction) -> tuple[tuple[Block, ...], sp.csr_array]:
    """Blocks of the user's parameters, u, and the matrix G with [CVXPY's parameter vector; 1] = G [u; 1]."""
    total = reduction.stuffed.total_param_size
    logged = {key for step in reduction.steps for key in (logarithms(step) or ({}, {}))[1]}
    blocks: list[Block] = []
    pieces: list[sp.csr_array] = []
    for index, parameter in enumerate(parameters):
        parts = ("real", "imag") if parameter.is_complex() else ("value",)
        if parameter.id in logged:
            parts = (*parts, "log")
        for part in parts:
            selection = matrix_of(lambda u, p=parameter, k=part: _forward(p, k, u, reduction), parameter.size)
            if selection.nnz:
                blocks.append(Block(index, part, parameter.size))
                pieces.append(sp.csr_array(selection @ _symmetrizer(parameter, part)))
    constant = sp.csr_array(([1.0], ([total], [0])), shape=(total + 1, 1))
    padded = [sp.vstack([piece, sp.csr_array((1, block.size))]) for piece, block in zip(pieces, blocks, strict=True)]
    return tuple(blocks), sp.csr_array(sp.hstack([*padded, constant], format="csr"))


def _forward(parameter: cp.Parameter, part: str, u: np.ndarray, reduction: Reduction) -> np.ndarray:
    """CVXPY's parameter vector when one part of one parameter is u (row-major) and everything else is zero."""
    value = u.reshape(parameter.shape)
    deltas: dict[int, Any] = {parameter.id: 1j * value if part == "imag" else value}
    for step in reduction.steps:
        maps = logarithms(step)
        if maps is None:
            deltas = step.param_forward(deltas)
        elif part == "log":  # the logarithm is a new parameter; the original may stay, as an exponent
            deltas = {maps[1][key]: delta for key, delta in deltas.items()}
    stuffed = reduction.stuffed
    vector = np.zeros(stuffed.total_param_size)
    for key, delta in deltas.items():
        if key in stuffed.param_id_to_col:
            flat = np.real(np.asarray(delta)).ravel(order="F")
            column = stuffed.param_id_to_col[key]
            vector[column : column + flat.size] = flat
    return vector


def _symmetrizer(parameter: cp.Parameter, part: str) -> sp.csr_array:
    """X -> (X + X')/2 for symmetric parameters, (X + X^H)/2 for Hermitian ones, on row-major entries of one part."""
    identity = sp.csr_array(sp.eye_array(parameter.size, format="csr"))
    attributes = parameter.attributes
    names = ("symmetric", "PSD", "NSD", "hermitian")
    if parameter.ndim < 2 or not any(attributes[name] for name in names):
        return identity
    order = np.swapaxes(np.arange(parameter.size).reshape(parameter.shape), -1, -2).ravel()
    sign = -1.0 if part == "imag" and parameter.is_hermitian() else 1.0
    return sp.csr_array((identity + sign * identity[order]) * 0.5)


def _matrix(tensor: Any, shape: tuple[int, int], mixing: Any) -> AffineMatrix:
    """CVXPY's tensor (column-major positions, parameters + 1) in terms of the user's parameters."""
    if tensor is None:
        return AffineMatrix.zero(shape, mixing.shape[1])
    entries = sp.coo_array(tensor)
    rows = sp.csr_array((entries.data, (np.arange(entries.nnz), entries.col)), shape=(entries.nnz, mixing.shape[0]))
    # Compressed before the product: the tensor has a row for every position of a dense matrix.
    positions, coefficients = compress(entries.row.astype(np.int64), rows)
    height = max(shape[0], 1)
    return AffineMatrix.from_entries(shape, positions % height, positions // height, coefficients @ mixing)
