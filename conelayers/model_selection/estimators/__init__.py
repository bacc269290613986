"""Scikit-learn estimators."""

from conelayers.model_selection.estimators.base import ImplicitCV
from conelayers.model_selection.estimators.classification import LogisticImplicitCV
from conelayers.model_selection.estimators.regression import (
    ElasticNetImplicitCV,
    GroupLassoImplicitCV,
    LassoImplicitCV,
    MultiTaskLassoImplicitCV,
)
from conelayers.model_selection.estimators.weighted import WeightedLassoImplicitCV

__all__ = [
    "ElasticNetImplicitCV",
    "GroupLassoImplicitCV",
    "ImplicitCV",
    "LassoImplicitCV",
    "LogisticImplicitCV",
    "MultiTaskLassoImplicitCV",
    "WeightedLassoImplicitCV",
]
