"""State-driven training: an implicit model fitted to the states of a trained one by convex programming.

Given the pre-activations Z, states X and outputs Y of a trained model on inputs U (one sample a row), find A, B, C, D
with Z = X A' + U B' and Y = X C' + U D' approximately, sparse, and with ||A||_inf <= kappa (Tsai, Decugis, El Ghaoui &
Atamturk 2022). No gradient passes through a fixed point, and the rows are independent: each is one small programme,
all with the same matrix.
"""

from __future__ import annotations

import warnings

import cvxpy as cp
import torch
from torch import Tensor, nn

from conelayers.errors import InvalidArgument
from conelayers.layers._inputs import check_float
from conelayers.layers.cvxpy_layer import CvxpyLayer
from conelayers.layers.implicit_model import ImplicitModel, InfinityNorm
from conelayers.settings import check_kind, check_number

__all__ = ["fit_states", "state_driven_training"]


def state_driven_training(
    teacher: ImplicitModel | nn.Sequential, u: Tensor, *, sparsity: float = 1e-3, kappa: float = 0.95
) -> ImplicitModel:
    """A sparse, well-posed implicit model that follows a trained model's states and outputs.

    Args:
        teacher: A trained implicit model, or `nn.Linear` and `nn.ReLU` in turn, see `ImplicitModel.from_feedforward`.
        u: Inputs of the teacher, shape (samples, p).
        sparsity: Weight of the l1 norm of all entries beside the mean squared errors; see `fit_states`.
        kappa: Bound on ||A||_inf, in (0, 1).

    Returns:
        The student, with the teacher's activation, solver and derivative mode and `InfinityNorm(kappa)`.
    """
    if isinstance(teacher, nn.Sequential):
        teacher = ImplicitModel.from_feedforward(teacher)
    check_kind("teacher", teacher, ImplicitModel)
    u = teacher.completed(u, 1.0)
    with torch.no_grad():
        x = teacher.state(u)
        z = x @ teacher.A.T + u @ teacher.B.T
        y = x @ teacher.C.T + u @ teacher.D.T
    matrices = fit_states(u, z, x, y, sparsity=sparsity, kappa=kappa)
    student = ImplicitModel.from_matrices(
        *matrices,
        activation=teacher.activation,
        wellposed=InfinityNorm(kappa),
        solver=teacher.solver,
        adjoint=teacher.adjoint,
    )
    student.constant = teacher.constant
    return student.project_()  # the programme's bound holds to solver accuracy, now to the last digit


def fit_states(
    u: Tensor, z: Tensor, x: Tensor, y: Tensor, *, sparsity: float = 1e-3, kappa: float = 0.95
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A, B, C and D from samples of inputs, pre-activations, states and outputs.

    Each row (a, b) of (A, B) minimises |x a + u b - z_i|^2 / (2 samples) + sparsity (|a|_1 + |b|_1) subject to |a|_1 <=
    kappa, and each row of (C, D) the same for y without the bound.

    Args:
        u: Inputs, shape (samples, p).
        z: Pre-activations, shape (samples, n).
        x: States, the activation's values at z, shape (samples, n).
        y: Outputs, shape (samples, q).
        sparsity: Nonnegative, in units of correlations of targets and features. What lies below 1e-5 of the largest is
            near the solver's accuracy.
        kappa: Bound on ||A||_inf, in (0, 1).

    Returns:
        Matrices of shapes (n, n), (n, p), (q, n), (q, p), without derivatives, in the dtype of `x`.

    Raises:
        InvalidArgument: If shapes do not fit, there is no sample, or a setting is out of range.
        SolveError: If data are not finite.

    Warns:
        UserWarning: If all entries are zero, because `sparsity` exceeds all correlations.
    """
    check_number("sparsity", sparsity, "[0, inf)")
    check_number("kappa", kappa, "(0, 1)")
    for name, value in (("u", u), ("z", z), ("x", x), ("y", y)):
        check_float(name, value)
    shapes = [tuple(t.shape) for t in (u, z, x, y)]
    if any(len(s) != 2 for s in shapes) or len({s[0] for s in shapes}) > 1 or z.shape != x.shape or len(u) == 0:
        raise InvalidArgument(f"u, z, x and y need one row per sample, and z and x one shape; got {shapes}.")
    n = x.shape[1]
    features = torch.cat([x, u], dim=1).detach().double()
    # min |F w - t|^2 = min |R w - Q't|^2 + a constant, whatever the number of samples.
    Q, R = torch.linalg.qr(features / len(u) ** 0.5)
    targets = [t.detach().double().T @ Q / len(u) ** 0.5 for t in (z, y)]
    rows = [_sparse_rows(R, t, sparsity, bounded) for t, bounded in zip(targets, ((n, kappa), None), strict=True)]
    if not any(w.any() for w in rows) and any(t.any() for t in targets):
        largest = max(float((t @ R).abs().max()) for t in targets if t.numel())
        warnings.warn(
            f"All entries are zero: correlations of targets and features are {largest:.1e} at most, and sparsity is "
            f"{sparsity:.1e}; take a smaller one.",
            stacklevel=2,
        )
    A, B, C, D = (part.to(x) for w in rows for part in (w[:, :n], w[:, n:]))
    return A, B, C, D


def _sparse_rows(R: Tensor, targets: Tensor, sparsity: float, bounded: tuple[int, float] | None) -> Tensor:
    """Argmin |R w - t|^2 / 2 + sparsity |w|_1 for each row t of `targets`; `bounded` (n, kappa): |w_:n|_1 <= kappa."""
    rows, k = len(targets), R.shape[1]
    found = R.new_zeros(rows, k)
    # Rows whose correlations do not exceed the weight are zero, exactly.
    left = ~((targets @ R).abs().amax(1) <= sparsity) if k else found.new_zeros(rows, dtype=torch.bool)
    if not left.any():
        return found
    # Data of any size are brought to size one, each row by itself: |R w - t| = high |(R / wide) v - t / high|.
    wide, high = R.abs().amax(), targets[left].abs().amax(1)
    unit = high / wide  # of the entries of w
    weight = sparsity / (wide * high)
    # With the weight of the norm at one, the solver's accuracy suffices to tell zeros from small entries.
    scale = float(weight.amax()) ** -0.5 if sparsity > 0 else 1.0
    v, t, less, bound = cp.Variable(k), cp.Parameter(R.shape[0]), cp.Parameter(nonneg=True), cp.Parameter(nonneg=True)
    objective = cp.sum_squares((scale * R / wide).cpu().numpy() @ v - t) / 2 + less * cp.norm1(v)
    constraints: list[cp.Constraint] = []
    if bounded is not None and bounded[0] > 0:
        constraints.append(cp.norm1(v[: bounded[0]]) <= bound)
    given = [scale * targets[left] / high[:, None], scale**2 * weight]
    if bounded is not None and constraints:
        given.append(bounded[1] / unit)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(objective), constraints), [t, less, bound][: len(given)], [v])
    with torch.no_grad():
        (solved,) = layer(*given)
    if sparsity > 0:
        solved = torch.where(solved.abs() > 1e-7 * solved.abs().amax(), solved, 0.0)
    return found.index_copy(0, torch.nonzero(left).flatten(), unit[:, None] * solved)
