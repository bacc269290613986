"""Training of a two-layer ReLU network as one convex programme, and that as a layer."""

from __future__ import annotations

import functools
import numbers
from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor, nn

from conelayers.convex_networks.features import Normalized, Plain, as_matrix
from conelayers.convex_networks.networks import as_network, pruned
from conelayers.convex_networks.patterns import activation_patterns
from conelayers.errors import InvalidArgument
from conelayers.layers import CvxpyLayer

__all__ = ["ConvexReLU", "logistic_loss", "squared_loss"]

Loss = Callable[[cp.Expression, cp.Parameter], cp.Expression]


def squared_loss(outputs: cp.Expression, y: cp.Parameter) -> cp.Expression:
    """Return half the sum of squares of outputs - y."""
    return cp.sum_squares(outputs - y) / 2


def logistic_loss(outputs: cp.Expression, y: cp.Parameter) -> cp.Expression:
    """Return the sum of log(1 + exp(-y outputs)), y of -1 and 1."""
    return cp.sum(cp.logistic(-cp.multiply(y, outputs)))  # pyright: ignore[reportReturnType]


class ConvexReLU(nn.Module):
    """The global optimum of a two-layer ReLU network with weight decay, a differentiable function of y and the decay.

    With the patterns D_i of the cells (`activation_patterns`) and a convex loss

        minimise loss(sum_i D_i X (v_i - w_i), y) + weight_decay sum_i |v_i| + |w_i|
        subject to (2 D_i - I) X v_i >= 0, (2 D_i - I) X w_i >= 0

    has the optimal value of the network x -> sum_j a_j ReLU(x'u_j) of any width above n under the penalty
    weight_decay/2 sum |u_j|^2 + a_j^2, if all patterns are given (Pilanci & Ergen 2020); with some of them it is the
    optimum among the networks of these. With batch normalization before the ReLU it is the same programme with X
    replaced by [U, 1/sqrt n], where (I - 11'/n) X = U S V' (Ergen et al. 2022).

    A call returns v and w. They need not be unique (a neuron on a wall belongs to several cells), so that their
    gradients mean nothing; those of `predict` and `objective` do.

    Args:
        X: Shape (n, d). Append a column of ones for a bias (not with batch normalization, which has one).
        patterns: Booleans of shape (patterns, n), of X, or of the normalized features with batch_norm; None for all
            cells; a number for the distinct ones among so many random directions.
        batch_norm: Normalize before the ReLU; weight decay is then on gamma, alpha and the second layer, see
            `network`.
        loss: loss(outputs, y), convex in the outputs and DPP in y, made of CVXPY atoms; None for `squared_loss`.

    Raises:
        InvalidArgument: If sizes do not fit, or X has too many cells to list.
        ValueError: If the loss is not convex or not DPP.

    Example:
        >>> model = ConvexReLU(X)
        >>> v, w = model(y, torch.tensor(0.1))
        >>> model.predict(X_new, v, w), model.objective(y, torch.tensor(0.1), v, w), model.network(v, w)
    """

    def __init__(
        self, X: Any, patterns: Any | int | None = None, batch_norm: bool = False, loss: Loss | None = None
    ) -> None:
        super().__init__()
        rows = as_matrix("X", X)
        self.features = Normalized(rows) if batch_norm else Plain(rows)
        self.loss = squared_loss if loss is None else loss
        self.n, self.d = rows.shape
        self.patterns = self._active_somewhere(patterns)
        F, D = self.features.matrix, self.patterns.T.astype(float)  # columns of D: patterns
        shape = (F.shape[1], D.shape[1])
        v, w, outputs = cp.Variable(shape), cp.Variable(shape), cp.Variable(self.n)
        y, weight_decay = cp.Parameter(self.n, name="y"), cp.Parameter(nonneg=True, name="weight_decay")
        sizes = cp.sum(cp.norm(v, axis=0)) + cp.sum(cp.norm(w, axis=0))
        problem = cp.Problem(
            cp.Minimize(self.loss(outputs, y) + weight_decay * sizes),
            [
                outputs == cp.sum(cp.multiply(D, F @ (v - w)), axis=1),
                cp.multiply(2 * D - 1, F @ v) >= 0,
                cp.multiply(2 * D - 1, F @ w) >= 0,
            ],
        )
        self.layer = CvxpyLayer(problem, [y, weight_decay], [v, w])

    def forward(self, y: Tensor, weight_decay: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights of the positive and of the negative neurons, each of shape (*batch, patterns, k).

        k is d, or the rank of the centred X plus one with batch normalization.

        Args:
            y: Targets, shape (*batch, n).
            weight_decay: > 0, shape (*batch,).

        Raises:
            SolveError: If an item could not be solved, as with a negative weight decay.
        """
        v, w = self.layer(y, torch.as_tensor(weight_decay, dtype=y.dtype, device=y.device))
        return v.mT, w.mT

    def predict(self, X: Any, v: Tensor, w: Tensor) -> Tensor:
        """Return the network's outputs on rows of shape (rows, d), shape (*batch, rows).

        Raises:
            InvalidArgument: If X has another number of columns.
        """
        inputs = torch.as_tensor(X, dtype=v.dtype, device=v.device)
        if inputs.shape[-1] != self.d:
            raise InvalidArgument(f"X must have {self.d} columns, as the training data; got {tuple(inputs.shape)}.")
        mean, map_, tail = (
            torch.as_tensor(part, dtype=v.dtype, device=v.device)
            for part in (self.features.mean, self.features.map, self.features.tail)
        )
        seen = torch.cat([(inputs - mean) @ map_, tail.expand(*inputs.shape[:-1], len(tail))], -1)
        return (seen @ v.mT).relu().sum(-1) - (seen @ w.mT).relu().sum(-1)

    def outputs(self, v: Tensor, w: Tensor) -> Tensor:
        """Return the outputs on the training rows, shape (*batch, n)."""
        seen = torch.as_tensor(self.features.matrix, dtype=v.dtype, device=v.device)
        return (seen @ v.mT).relu().sum(-1) - (seen @ w.mT).relu().sum(-1)

    def objective(self, y: Tensor, weight_decay: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """Return loss + weight_decay sum |v_i| + |w_i|, shape (*batch,), the least that training can reach."""
        sizes = v.norm(dim=-1).sum(-1) + w.norm(dim=-1).sum(-1)
        return self._loss_layer(self.outputs(v, w), y)[0] + weight_decay * sizes

    def network(self, v: Tensor, w: Tensor, prune: bool = True) -> nn.Sequential:
        """Return the network of one item as `nn.Sequential(Linear, [BatchNorm1d], ReLU, Linear)` in float64.

        Weight decay of the rebuilt network is  weight_decay/2 (|first|^2 + |second|^2),  with batch normalization
        weight_decay/2 (n |BatchNorm1d.weight|^2 + n |BatchNorm1d.bias|^2 + |second|^2);  both are minimal for its
        outputs. It is in evaluation mode, with the training data's mean and (biased) variance as running statistics:
        a forward in training mode overwrites them. Outputs have shape (rows, 1).

        Args:
            v: Of one item, shape (patterns, k).
            w: As v.
            prune: Keep at most n + 1 neurons, with the same outputs on the training rows and the same objective.

        Raises:
            InvalidArgument: If v and w have batch axes.
        """
        if v.dim() != 2 or v.shape != w.shape:
            raise InvalidArgument(f"v and w must be those of one item, got {tuple(v.shape)} and {tuple(w.shape)}.")
        neurons = torch.cat([v, w]).detach().double().cpu().numpy()
        signs = np.repeat([1.0, -1.0], len(v))
        if prune:
            neurons, signs = pruned(self.features.matrix, neurons, signs)
        sizes = np.linalg.norm(neurons, axis=1)
        share = np.sqrt(np.where(sizes > 0, sizes, 1))[:, None]  # sqrt(size) for each of the two layers
        return as_network(self.features, neurons / share, signs[:, None] * np.sqrt(sizes)[:, None])

    @functools.cached_property
    def _loss_layer(self) -> CvxpyLayer:
        """(outputs, y) -> loss: the expression at given outputs, with its derivatives."""
        outputs, value = cp.Variable(self.n), cp.Variable()
        given, y = cp.Parameter(self.n), cp.Parameter(self.n)
        problem = cp.Problem(cp.Minimize(value), [outputs == given, self.loss(outputs, y) <= value])
        return CvxpyLayer(problem, [given, y], [value])

    def _active_somewhere(self, patterns: Any | int | None) -> np.ndarray:
        """The patterns that are asked for, without the one that is active nowhere: its neurons output 0."""
        matrix = self.features.matrix
        if patterns is None or isinstance(patterns, numbers.Integral):
            patterns = activation_patterns(matrix, None if patterns is None else int(patterns))
        found = np.asarray(patterns)
        if found.ndim != 2 or found.shape[1] != self.n or not np.isin(found, (0, 1)).all():
            raise InvalidArgument(f"patterns must be booleans of shape (patterns, {self.n}), got shape {found.shape}.")
        found = found[found.any(axis=1)].astype(bool)
        if not len(found):
            raise InvalidArgument("patterns must hold one that is active somewhere.")
        return found
