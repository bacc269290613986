"""Readers of public collections as `ConeProgram`s. The folder is given by the environment variable CONELAYERS_DATA."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
import torch

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
from conelayers.program import ConeProgram, ConeStructure

__all__ = ["data_folder", "read_cblib", "read_maros", "read_sdplib"]


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
    lower, upper = (np.where(np.abs(bound) >= 1e19, np.copysign(np.inf, bound), bound) for bound in (lower, upper))
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


def read_cblib(path: Path) -> tuple[ConeProgram, float]:
    """A problem in the conic benchmark format (`.cbf.gz`) as a minimisation, and the constant of its objective.

    Variables and affine expressions a(x) + b lie in cones; both become rows, free ones none. Integrality is dropped.
    """
    sections = dict(_cbf_sections(gzip.decompress(path.read_bytes()).decode().splitlines()))
    unknown = sections.keys() & {"PSDVAR", "PSDCON"}
    assert not unknown, f"{path.name} has {unknown}, which this reader does not know"
    sense = -1.0 if sections["OBJSENSE"] == ["MAX"] else 1.0
    n, rows = int(sections["VAR"][0].split()[0]), int(sections.get("CON", ["0 0"])[0].split()[0])
    powers = _cbf_powers(sections.get("POWCONES", [])) | _cbf_powers(sections.get("POW*CONES", []), dual=True)
    q, constants = np.zeros(n), np.zeros(n + rows)
    for line in sections.get("OBJACOORD", ["0"])[1:]:
        q[int(line.split()[0])] = sense * float(line.split()[1])
    for line in sections.get("BCOORD", ["0"])[1:]:
        constants[n + int(line.split()[0])] = float(line.split()[1])
    triplets = np.array([line.split() for line in sections.get("ACOORD", ["0"])[1:]], float).reshape(-1, 3)
    shape = (rows, n)
    maps = sp.coo_array((triplets[:, 2], (triplets[:, 0].astype(int), triplets[:, 1].astype(int))), shape=shape)
    domains = sections["VAR"][1:] + sections.get("CON", ["0 0"])[1:]
    turn, cones = _cbf_cones(domains, powers)
    # turn (F x + constants) in K, so that A = -turn F and b = turn constants.
    F = sp.vstack([sp.eye_array(n), maps], format="csr")
    program = _program(None, q, -(turn @ F), turn @ constants, ProductCone(cones))
    return program, sense * float(sections.get("OBJBCOORD", ["0"])[0])


def _cbf_sections(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Keyword and lines of each section; sections end with an empty line."""
    section: list[str] = []
    for line in [*(line.strip() for line in lines if not line.startswith("#")), ""]:
        if line:
            section.append(line)
        elif section:
            yield section[0], section[1:]
            section = []


def _cbf_powers(lines: list[str], dual: bool = False) -> dict[str, Cone]:
    """Power cones by the names that domains give them."""
    found: dict[str, Cone] = {}
    position = 1
    for index in range(int(lines[0].split()[0]) if lines else 0):
        count = int(lines[position])
        weights = [float(value) for value in lines[position + 1 : position + 1 + count]]
        assert count == 2, "only power cones of three dimensions are known here"
        alpha = weights[0] / sum(weights)
        found[f"@{index}:POW{'*' if dual else ''}"] = DualPower(alpha) if dual else Power(alpha)
        position += 1 + count
    return found


def _cbf_cones(domains: list[str], powers: dict[str, Cone]) -> tuple[sp.csr_array, list[Cone]]:
    """The map from entries in CBF's domains to rows in this package's cones, and these cones."""
    swap = np.fliplr(np.eye(3))
    half = np.sqrt(0.5)
    blocks, cones = [], []
    for domain in domains:
        name, size = domain.split()[0], int(domain.split()[1])
        block, cone = sp.eye_array(size, format="csr"), None
        match name:
            case "F":
                block = sp.csr_array((0, size))
            case "L=":
                cone = Zero(size)
            case "L+":
                cone = Nonnegative(size)
            case "L-":
                block, cone = -block, Nonnegative(size)
            case "Q":
                cone = SecondOrder(size)
            case "QR":  # 2 u v >= ||w||^2
                block, cone = sp.lil_array(block), SecondOrder(size)
                block[:2, :2] = np.array([[half, half], [half, -half]])
            case "EXP" | "EXP*":  # the other way round
                block, cone = sp.csr_array(swap), Exponential() if name == "EXP" else DualExponential()
            case _:
                cone = powers[name]
        blocks.append(block)
        cones += [] if cone is None else [cone]
    return sp.csr_array(sp.block_diag(blocks, format="csr")), cones


def _program(P, q, A, b, cone) -> ConeProgram:
    A = sp.csc_array(A)
    A.sort_indices()
    upper = None if P is None else sp.csc_array(sp.triu(sp.csc_array(P)))
    if upper is not None:
        upper.sort_indices()
    structure = ConeStructure.from_matrices(upper, A, cone)
    P_values = np.zeros(0) if upper is None else upper.data
    return ConeProgram(structure, *(torch.from_numpy(np.asarray(value, float)) for value in (P_values, q, A.data, b)))
