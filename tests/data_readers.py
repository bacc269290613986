"""Readers of public collections as `ConeProgram`s. The folder is given by the environment variable CONELAYERS_DATA."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
import torch

from conelayers.cones import Nonnegative, PositiveSemidefinite, ProductCone, Zero
from conelayers.program import ConeProgram, ConeStructure

__all__ = ["data_folder", "read_maros", "read_sdplib"]


def data_folder(collection: str) -> Path:
    """The collection's folder; skips the test where there is none."""
    root = os.environ.get("CONELAYERS_DATA")
    if root is None or not (Path(root) / collection).is_dir():
        pytest.skip(f"CONELAYERS_DATA names no folder with {collection}/")
    return Path(root) / collection


def read_maros(path: Path) -> tuple[ConeProgram, float]:
    """A Maros-Meszaros QP, minimise 1/2 x'Px + q'x + r subject to l <= Ax <= u, and its constant r."""
    data = scipy.io.loadmat(path)
    A, lower, upper = sp.csr_array(data["A"]), data["l"].ravel(), data["u"].ravel()
    lower, upper = (np.where(np.abs(bound) >= 1e19, np.sign(bound) * np.inf, bound) for bound in (lower, upper))
    equal = lower == upper
    above, below = ~equal & np.isfinite(upper), ~equal & np.isfinite(lower)
    rows = sp.vstack([A[equal], A[above], -A[below]], format="csc")
    b = np.concatenate([upper[equal], upper[above], -lower[below]])
    cone = ProductCone([Zero(int(equal.sum())), Nonnegative(int(above.sum() + below.sum()))])
    return _program(data["P"], data["q"].ravel(), rows, b, cone), float(np.ravel(data.get("r", [0.0]))[0])


def read_sdplib(path: Path) -> ConeProgram:
    """An SDPA problem, minimise c'x subject to sum x_i F_i - F_0 positive semidefinite (size < 0: diagonal)."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and line[0] not in '*"']
    translate = str.maketrans("{}(),", "     ")
    n = int(lines[0].split()[0])
    sizes = [int(float(size)) for size in lines[2].translate(translate).split()[: int(lines[1].split()[0])]]
    c = np.array(lines[3].translate(translate).split(), float)[:n]
    offsets = np.cumsum([0] + [size * (size + 1) // 2 if size > 0 else -size for size in sizes])
    rows, columns, values = [], [], []
    b = np.zeros(offsets[-1])
    for line in lines[4:]:
        matrix, block, i, j, value = line.translate(translate).split()[:5]
        k, (i, j) = int(block) - 1, sorted((int(i) - 1, int(j) - 1), reverse=True)  # i >= j
        size = sizes[k]
        # Lower triangle by columns, off-diagonals times sqrt(2).
        within = i if size < 0 else j * size - j * (j - 1) // 2 + (i - j)
        scaled = float(value) * (1 if i == j else np.sqrt(2))
        if int(matrix) == 0:
            b[offsets[k] + within] -= scaled
        else:
            rows.append(offsets[k] + within), columns.append(int(matrix) - 1), values.append(-scaled)
    A = sp.csc_array((values, (rows, columns)), shape=(offsets[-1], n))
    cones = [PositiveSemidefinite(size) if size > 0 else Nonnegative(-size) for size in sizes]
    return _program(None, c, A, b, ProductCone(cones))


def _program(P, q, A, b, cone) -> ConeProgram:
    A = sp.csc_array(A)
    A.sort_indices()
    upper = None if P is None else sp.csc_array(sp.triu(sp.csc_array(P)))
    if upper is not None:
        upper.sort_indices()
    structure = ConeStructure.from_matrices(upper, A, cone)
    P_values = np.zeros(0) if upper is None else upper.data
    return ConeProgram(structure, *(torch.from_numpy(np.asarray(value, float)) for value in (P_values, q, A.data, b)))
