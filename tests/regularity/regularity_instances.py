"""Solved programmes with prescribed kinks and degeneracies, and samples of the Clarke Jacobian."""

import numpy as np
import scipy.sparse as sp
import torch

from conelayers.cones import Exponential, Nonnegative, PositiveSemidefinite, Power, ProductCone, SecondOrder, Zero
from conelayers.cones.svec import svec
from conelayers.program import ConeProgram, ConeSolution, ConeStructure


def _psd(*eigenvalues, seed=3):
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(eigenvalues),) * 2))
    return svec(torch.tensor(q @ np.diag(eigenvalues) @ q.T)).tolist()


#: Blocks (cone, part of v): points with and without kinks of every family.
BLOCKS = {
    "zero": (Zero(2), [0.3, -1.0]),
    "nonnegative": (Nonnegative(4), [1.0, -0.7, 0.0, 0.4]),
    "soc_outside": (SecondOrder(3), [0.3, 1.0, -0.5]),
    "soc_boundary": (SecondOrder(3), [5.0, 3.0, 4.0]),
    "soc_polar": (SecondOrder(3), [-5.0, 3.0, 4.0]),
    "soc_apex": (SecondOrder(3), [0.0, 0.0, 0.0]),
    "soc_inside": (SecondOrder(3), [2.0, 0.3, 0.4]),
    "psd_smooth": (PositiveSemidefinite(3), _psd(1.0, 0.5, -2.0)),
    "psd_one": (PositiveSemidefinite(3), _psd(1.0, 0.0, -2.0)),
    "psd_two": (PositiveSemidefinite(3), _psd(0.0, 0.0, -1.5)),
    # The projection on K* at v is v plus that on K at -v: same kinks.
    "exp_curved": (Exponential(), [-1.0, -1.0, -1.0]),
    "exp_boundary": (Exponential(), [-1.0, -1.0, -float(np.e)]),
    "exp_apex": (Exponential(), [0.0, 0.0, 0.0]),
    "exp_face": (Exponential(), [1.0, 0.5, -0.8]),
    "exp_face_kink": (Exponential(), [1.0, 0.5, 0.0]),
    "power_curved": (Power(0.3), [-0.5, -0.4, 1.5]),
    "power_apex": (Power(0.3), [0.0, 0.0, 0.0]),
    "power_boundary": (Power(0.5), [-1.0, -4.0, 2.0]),
}

MIXES = [
    ("nonnegative",),
    ("zero", "nonnegative"),
    ("soc_outside", "nonnegative"),
    ("soc_boundary", "zero"),
    ("soc_polar", "nonnegative"),
    ("soc_apex", "nonnegative"),
    ("soc_inside", "soc_boundary"),
    ("psd_smooth",),
    ("psd_one", "nonnegative"),
    ("psd_two", "soc_outside"),
    ("exp_curved", "nonnegative"),
    ("exp_boundary", "zero"),
    ("exp_apex", "nonnegative"),
    ("exp_face", "exp_face_kink"),
    ("exp_face_kink", "psd_one"),
    ("power_curved", "nonnegative"),
    ("power_boundary", "zero"),
    ("power_apex", "nonnegative"),
]


def build(mix, kind, seed, n=12):
    """P, A, v and K for a mix of blocks; kind is "regular", "primal", "dual" or "both" degenerate."""
    rng = np.random.default_rng(seed)
    cone = ProductCone([BLOCKS[name][0] for name in mix])
    v = np.concatenate([BLOCKS[name][1] for name in mix])
    A = rng.standard_normal((cone.dim, n))
    root = rng.standard_normal((n, n - 1))
    P = root @ root.T
    D = {
        weak: cone.dual_derivative(torch.tensor(v), weak=weak, radius=1e-9).matrix().numpy() for weak in ("min", "max")
    }
    values, vectors = np.linalg.eigh(D["max"])
    ones = vectors[:, values > 1 - 1e-9]
    values, vectors = np.linalg.eigh(D["min"])
    kept = vectors[:, values > 1e-9]
    u = ones @ rng.standard_normal(ones.shape[1])
    u = u / np.linalg.norm(u) if ones.shape[1] else u
    d = rng.standard_normal(n)
    d /= np.linalg.norm(d)
    if kind in ("primal", "both"):
        P = P - np.outer(d, d @ P)
        P = P - np.outer(P @ d, d)
        # Without the dependency below only the rows kept by the smallest element must not see d.
        A = A - (A if kind == "both" else kept @ (kept.T @ A)) @ np.outer(d, d)
    if kind in ("dual", "both"):
        A = A - np.outer(u, u @ A)
    return (P + P.T) / 2, A, v, cone, bool(ones.shape[1])


def solved(P, A, v, cone, structure=None, seed=0):
    """The programme with these P and A that has the solution v = y - s, and that solution, as batches without axes."""
    x = np.random.default_rng(seed).standard_normal(P.shape[0])
    v = torch.as_tensor(v)
    y = cone.project_dual(v)
    return programme(P, A, x, y.numpy(), (y - v).numpy(), cone, structure)


def programme(P, A, x, y, s, cone, structure=None):
    """The programme with these P and A that has the solution (x, y, s), and that solution, without batch axes."""
    n, m = P.shape[0], A.shape[0]
    if structure is None:
        structure = ConeStructure.from_matrices(sp.csc_array(np.ones((n, n))), sp.csc_array(np.ones((m, n))), cone)
    P, A, x, y, s = map(torch.as_tensor, (P, A, x, y, s))
    values = P[torch.as_tensor(structure.P_indices), torch.as_tensor(structure.P_columns)]
    program = ConeProgram(structure, values, -P @ x - A.T @ y, A.T.reshape(-1), A @ x + s)
    return program, solution_at(x, y, s)


def solution_at(x, y, s, residual=0.0):
    batch = x.shape[:-1]
    number = torch.full(batch, residual, dtype=torch.float64)
    return ConeSolution(
        x, y, s, torch.zeros(batch, dtype=torch.int8), torch.zeros(batch, dtype=torch.int64), number, number, number
    )


def jacobian(P, A, D):
    """J(D) = [[P, A'D], [A, D - I]]."""
    return np.block([[P, A.T @ D], [A, D - np.eye(len(D))]])


def samples(cone, v, count, rng, eps=1e-8):
    """Elements of the Clarke Jacobian of the projection on K* at v: limits from random sides, and mixtures of them."""
    sides = torch.tensor(rng.standard_normal((count, len(v))))
    near = cone.dual_derivative(torch.as_tensor(v) + eps * sides).matrix().numpy()
    weights = rng.dirichlet(np.full(3, 0.5), count)
    picks = rng.integers(count, size=(count, 3))
    mixtures = np.einsum("ck,ckij->cij", weights, near[picks])
    return np.concatenate([near, mixtures])
