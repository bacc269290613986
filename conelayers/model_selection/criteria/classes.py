"""Held-out samples of classes that no training sample has: their log-loss says nothing about a penalty.

A class that is absent has the probability zero whatever the penalty: the intercept, which is free, goes to minus
infinity. So such samples do not count, and who gave the folds is told.
"""

from __future__ import annotations

import torch
from torch import Tensor

from conelayers.lasso.datafits import Datafit

__all__ = ["REMEDY", "unseen"]

REMEDY = "Stratify: sklearn.model_selection.StratifiedKFold, with shuffle=True where samples come sorted."


def unseen(datafit: Datafit, y: Tensor, weight: Tensor | None, y_held: Tensor, weight_held: Tensor | None) -> Tensor:
    """Mask of the held-out samples that count and have a class without a training sample, shape (held,)."""
    if not datafit.classes:
        return torch.zeros(y_held.shape[:1], dtype=torch.bool, device=y_held.device)
    known = y if weight is None else y[weight.to(y.device) > 0]
    mask = ~torch.isin(y_held, known)
    return mask if weight_held is None else mask & (weight_held.to(mask.device) > 0)
