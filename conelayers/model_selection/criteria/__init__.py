"""Selection criteria."""

from conelayers.model_selection.criteria.base import Criterion, Evaluation, TorchCriterion, squared_error
from conelayers.model_selection.criteria.composed import Shared, Shrunk
from conelayers.model_selection.criteria.unbiased_risk import GCV, SURE
from conelayers.model_selection.criteria.validation import CrossValidation, HeldOut

__all__ = [
    "GCV",
    "SURE",
    "Criterion",
    "CrossValidation",
    "Evaluation",
    "HeldOut",
    "Shared",
    "Shrunk",
    "TorchCriterion",
    "squared_error",
]
