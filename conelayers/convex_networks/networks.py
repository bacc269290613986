"""The solution of the convex programme as a network of stock modules."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import nnls
from torch import nn

from conelayers.convex_networks.features import Normalized, Plain

__all__ = ["as_network", "pruned"]

# The first layer's scale is free under batch normalization: with pre-activations of this deviation torch's eps = 1e-5,
# which it adds to their variance, counts 1e-13.
_DEVIATION = 1e4


def pruned(features: np.ndarray, neurons: np.ndarray, signs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most n + 1 of the neurons, rescaled, with the same outputs and the same sum of norms.

    Outputs and the sum of norms are n + 1 nonnegative combinations of the neurons' own, with weights 1; nonnegative
    least squares ends at weights whose columns are independent (Caratheodory).

    Args:
        features: Shape (n, k).
        neurons: Vectors s, shape (h, k).
        signs: Of their output weights, shape (h,).

    Returns:
        Neurons and signs that stay.
    """
    sizes = np.linalg.norm(neurons, axis=1)
    stay = sizes > 1e-7 * max(sizes.max(initial=0.0), 1e-300)
    neurons, signs, sizes = neurons[stay], signs[stay], sizes[stay]
    if not len(neurons):
        return neurons, signs
    columns = np.vstack([signs * np.maximum(features @ neurons.T, 0), sizes])
    weights, _ = nnls(columns, columns.sum(axis=1))
    return neurons[weights > 0] * weights[weights > 0, None], signs[weights > 0]


def as_network(features: Plain | Normalized, neurons: np.ndarray, outputs: np.ndarray) -> nn.Sequential:
    """Return the network sum_j outputs_j ReLU(neuron_j), in float64 and in evaluation mode.

    Args:
        features: What a neuron sees.
        neurons: Vectors s, shape (h, k).
        outputs: Second layer's weights, shape (h, classes). Without neurons the network has one of zeros.
    """
    if not len(neurons):  # stock modules want one at least
        neurons, outputs = np.zeros((1, neurons.shape[1])), np.zeros((1, outputs.shape[1]))
    inner = neurons[:, : features.map.shape[1]]
    first = inner @ features.map.T
    modules: list[nn.Module] = [_linear(first)]
    if isinstance(features, Normalized):
        n = len(features.matrix)
        gamma = np.linalg.norm(inner, axis=1)
        # Without slope (gamma = 0) any direction will do.
        unit = np.where(gamma[:, None] > 0, inner / np.where(gamma > 0, gamma, 1)[:, None], np.eye(1, inner.shape[1]))
        first = unit @ features.map.T * (_DEVIATION * np.sqrt(n))
        norm = nn.BatchNorm1d(len(neurons), dtype=torch.float64)
        assert norm.running_mean is not None and norm.running_var is not None
        with torch.no_grad():
            norm.weight.copy_(torch.tensor(gamma / np.sqrt(n)))
            norm.bias.copy_(torch.tensor(neurons[:, -1] / np.sqrt(n)))
            norm.running_mean.copy_(torch.tensor(first @ features.mean))
            norm.running_var.fill_(_DEVIATION**2)
        modules = [_linear(first), norm]
    return nn.Sequential(*modules, nn.ReLU(), _linear(outputs.T)).eval()


def _linear(weight: np.ndarray) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
    return layer
