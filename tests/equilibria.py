"""Equilibrium models and oracles that several tests share."""

import torch
from torch import nn

from conelayers.layers.monotone_conv import MonotoneConvDEQ, MonotoneMultiTierDEQ
from conelayers.layers.monotone_deq import MonotoneDEQ

__all__ = ["MODELS", "TIGHT", "ContractingCell", "assert_close", "dense_matrix", "gradients"]

TIGHT = {"atol": 1e-12, "rtol": 1e-12}

MODELS = {
    "dense": (lambda s: MonotoneDEQ(5, 12, m=0.2, solver=s), (3, 5)),
    "conv": (lambda s: MonotoneConvDEQ(2, 3, (5, 6), m=0.2, solver=s), (3, 2, 5, 6)),
    "tiers": (lambda s: MonotoneMultiTierDEQ(2, (2, 3), (6, 6), m=0.2, solver=s), (3, 2, 6, 6)),
}


class ContractingCell(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, z, x):
        return torch.tanh(0.3 * self.linear(z) + x)


def gradients(output, module):
    return torch.autograd.grad(output.pow(2).sum(), list(module.parameters()))


def assert_close(found, reference, tolerance=1e-8):
    for a, b in zip(found, reference, strict=True):
        assert (a - b).abs().max() <= tolerance * max(1.0, float(b.detach().abs().max()))


def dense_matrix(model, x):
    """W of a monotone model, column by column, from its operator alone."""
    splitting, weights = model.splitting()
    with torch.no_grad():
        zero = model.inject(torch.zeros_like(x[:1]))
        flat = torch.cat([t.flatten() for t in zero]) if isinstance(zero, list) else zero.flatten()
        n = len(flat)

        def apply(v):
            if not isinstance(zero, list):
                z = v.reshape(zero.shape)
                return (z - splitting.operator(z, 0 * zero, *weights)).flatten()
            parts = [p.reshape(t.shape) for p, t in zip(v.split([t.numel() for t in zero]), zero)]
            out = splitting.operator(parts, [0 * t for t in zero], *weights)
            return torch.cat([(p - o).flatten() for p, o in zip(parts, out)])

        return torch.stack([apply(e) for e in torch.eye(n)], dim=1)
