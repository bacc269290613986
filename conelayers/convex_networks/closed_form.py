"""The optimal batch-normalized network where the data have rank n - 1: no solver needed."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from conelayers.convex_networks.features import Normalized, as_matrix
from conelayers.convex_networks.networks import as_network
from conelayers.errors import InvalidArgument
from conelayers.settings import check_number

__all__ = ["batch_norm_closed_form"]


def batch_norm_closed_form(X: Any, y: Any, weight_decay: float) -> nn.Sequential:
    """Return a global optimum of squared loss and weight decay for a batch-normalized two-layer network.

    At rank n - 1 the features [U, 1/sqrt n] are an orthogonal matrix F, and the programme of `ConvexReLU` separates:
    one neuron (|(y)_+| - weight_decay)_+ F'(y)_+ / |(y)_+|, and one for (-y)_+ of negative output (Ergen, Sahiner,
    Ozturkler, Pauly, Mardani & Pilanci 2022). For one-hot targets one neuron per class, in the same way.

    Args:
        X: Shape (n, d), of rank n - 1 after subtracting the mean.
        y: Shape (n,), or (n, classes) with nonnegative entries, at most one in each row not 0.
        weight_decay: >= 0, with the penalty weight_decay/2 on the squares of gamma sqrt(n), alpha sqrt(n) and the
            second layer, gamma and alpha those of `nn.BatchNorm1d`.

    Returns:
        `nn.Sequential(Linear, BatchNorm1d, ReLU, Linear)` in float64 and evaluation mode; outputs (rows, 1 or classes).

    Raises:
        InvalidArgument: If sizes do not fit, the rank is less than n - 1, or targets are of another kind.
    """
    rows = as_matrix("X", X)
    targets = np.asarray(y, dtype=np.float64)
    if targets.ndim not in (1, 2) or len(targets) != len(rows) or not np.isfinite(targets).all():
        raise InvalidArgument(f"y must have shape ({len(rows)},) or ({len(rows)}, classes), got {targets.shape}.")
    if targets.ndim == 2 and (targets.min(initial=0) < 0 or ((targets != 0).sum(axis=1) > 1).any()):
        raise InvalidArgument("y of several classes must be one-hot: nonnegative, at most one entry per row not 0.")
    check_number("weight_decay", weight_decay, "[0, inf)")
    features = Normalized(rows)
    if features.matrix.shape[1] < len(rows):
        raise InvalidArgument(
            f"X must have rank n - 1 = {len(rows) - 1} after subtracting its mean, got {features.matrix.shape[1] - 1}: "
            "use ConvexReLU(X, batch_norm=True)."
        )
    if targets.ndim == 1:
        wanted, directions = np.maximum(np.stack([targets, -targets]), 0), np.array([[1.0], [-1.0]])
    else:
        wanted, directions = targets.T, np.eye(targets.shape[1])
    lengths = np.linalg.norm(wanted, axis=1)
    sizes = np.maximum(lengths - weight_decay, 0)
    stay = sizes > 0
    # Weight decay is least where both layers share a neuron's size: sqrt(size) each.
    share = np.sqrt(sizes[stay])[:, None]
    neurons = share * (wanted[stay] / lengths[stay, None]) @ features.matrix
    return as_network(features, neurons, share * directions[stay])
