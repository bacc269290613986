"""Hyperparameters chosen by gradients: criteria, outer methods, scikit-learn estimators.

    search.run(criterion) -> SearchResult;  LassoImplicitCV().fit(X, y);  tune(layer, loss, bounds)

`criteria/` says what is minimised, `searches/` how, `estimators/` wrap both in scikit-learn's conventions; `tune` does
it for any layer, and `bilevel_descent` for any bilevel problem.
"""

from typing import TYPE_CHECKING, Any

from conelayers.model_selection.bilevel_descent import BilevelDescent, BilevelResult
from conelayers.model_selection.criteria import (
    GCV,
    SURE,
    Criterion,
    CrossValidation,
    Evaluation,
    HeldOut,
    Shared,
    Shrunk,
    TorchCriterion,
    squared_error,
)
from conelayers.model_selection.extras import optional
from conelayers.model_selection.history import History, Trial
from conelayers.model_selection.searches import (
    LBFGS,
    Adam,
    GradientDescent,
    GridSearch,
    MultiStart,
    Safeguarded,
    Search,
    SearchResult,
)
from conelayers.model_selection.space import LogSpace
from conelayers.model_selection.tune import tune

if TYPE_CHECKING:
    from conelayers.model_selection.estimators import (
        ElasticNetImplicitCV,
        GroupLassoImplicitCV,
        ImplicitCV,
        LassoImplicitCV,
        LogisticImplicitCV,
        MultiTaskLassoImplicitCV,
        WeightedLassoImplicitCV,
    )

__all__ = [
    "GCV",
    "LBFGS",
    "SURE",
    "Adam",
    "BilevelDescent",
    "BilevelResult",
    "Criterion",
    "CrossValidation",
    "ElasticNetImplicitCV",
    "Evaluation",
    "GradientDescent",
    "GridSearch",
    "GroupLassoImplicitCV",
    "HeldOut",
    "History",
    "ImplicitCV",
    "LassoImplicitCV",
    "LogSpace",
    "LogisticImplicitCV",
    "MultiStart",
    "MultiTaskLassoImplicitCV",
    "Safeguarded",
    "Search",
    "SearchResult",
    "Shared",
    "Shrunk",
    "TorchCriterion",
    "Trial",
    "WeightedLassoImplicitCV",
    "squared_error",
    "tune",
]

_ESTIMATORS = frozenset(name for name in __all__ if name.endswith("ImplicitCV"))


def __getattr__(name: str) -> Any:
    """The estimators, which alone need scikit-learn."""
    if name not in _ESTIMATORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    optional("sklearn", "lasso", name)
    from conelayers.model_selection import estimators

    return getattr(estimators, name)


def __dir__() -> list[str]:
    return sorted(__all__)
