"""Regressors that choose their penalties by cross-validation and implicit differentiation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.base import MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import validate_data

from conelayers.lasso import (
    L1,
    Design,
    ElasticNet,
    GroupLasso,
    MultitaskL1,
    MultitaskQuadratic,
    ProximalModel,
    Quadratic,
)
from conelayers.lasso.designs import as_values
from conelayers.model_selection.estimators.base import DTYPES, ImplicitCV
from conelayers.model_selection.searches import Safeguarded, Search
from conelayers.model_selection.space import LogSpace

__all__ = [
    "ElasticNetImplicitCV",
    "GroupLassoImplicitCV",
    "LassoImplicitCV",
    "MultiTaskLassoImplicitCV",
    "Regressor",
]


@dataclass(kw_only=True, eq=False, repr=False)
class Regressor(RegressorMixin, ImplicitCV):
    """A linear regressor with one output.

    Attributes:
        alpha_: The chosen penalty.
        coef_: Coefficients of the fit to all data, shape (n_features,).
        intercept_: Its intercept.
        history_: All evaluations of the criterion; `history_.plot()` draws them.
        best_criterion_: Mean held-out squared error at `alpha_`.
        dual_gap_: Duality gap of the final fit, in units of the objective.
    """

    def _validate(self, X: Any, y: Any) -> tuple[Any, torch.Tensor]:
        X, y = validate_data(self, X, y, accept_sparse="csc", dtype=DTYPES, y_numeric=True, ensure_min_samples=2)
        return X, as_values(np.asarray(y, dtype=np.float64))

    def _finish(self, coef: np.ndarray, intercept: np.ndarray) -> None:
        self.coef_, self.intercept_ = coef, float(intercept)

    def predict(self, X: Any) -> np.ndarray:
        """Predicted targets, shape (n_samples,)."""
        return self._linear(X)


@dataclass(kw_only=True, eq=False, repr=False)
class LassoImplicitCV(Regressor):
    """Lasso with its penalty found by cross-validation; a drop-in for scikit-learn's `LassoCV`.

    Args:
        positive: Require nonnegative coefficients.

    The other arguments are those of `ImplicitCV`, the attributes those of `Regressor`.
    """

    positive: bool = False

    def _model(self) -> ProximalModel:
        return ProximalModel(Quadratic(), L1(self.positive), self.fit_intercept, self._solver())


_FLAT = 10.0  # the largest l2 penalty, in units of the largest curvature
_STARTS = (0.9999, 0.5)  # shares of l1: where l2 adds nothing, its logarithm has no slope left to lower it by


def _curvature(design: Design, weight: Any, fit_intercept: bool) -> float:
    """Largest second moment of a feature, about its mean where an intercept takes that away."""
    shares = as_values(np.ones(design.shape[0]) if weight is None else weight).to(torch.float64)
    shares = shares / shares.sum()
    moments = design.squared_norms(shares)
    if fit_intercept:
        moments = (moments - design.rmatmul(shares).square()).clamp_min(0.0)
    return float(moments.max())


@dataclass(kw_only=True, eq=False, repr=False)
class ElasticNetImplicitCV(LassoImplicitCV):
    """Elastic net with both penalties found by cross-validation; a drop-in for scikit-learn's `ElasticNetCV`.

    Attributes:
        alpha_: Sum of the two penalties.
        l1_ratio_: Share of the l1 penalty in it.
    """

    def _model(self) -> ProximalModel:
        return ProximalModel(Quadratic(), ElasticNet(self.positive), self.fit_intercept, self._solver())

    def _bounds(self, largest: float, design: Design, weight: Any) -> Mapping[str, tuple[object, object]]:
        # l1 is in units of the gradient, l2 in units of the losses' curvature along a feature
        curved = _curvature(design, weight, self.fit_intercept) or largest
        return {"l1": (self.eps * largest, largest), "l2": (1e-3 * self.eps * curved, _FLAT * curved)}

    def _default_search(self, space: LogSpace) -> Search:
        largest, curved = space.upper - [0, np.log(_FLAT)]
        ladder = np.linspace(0, np.log(self.eps), 7)[1:]
        points = [[largest + a, curved + a + np.log(1 / r - 1)] for r in _STARTS for a in ladder]
        return Safeguarded(points=np.array(points), verbose=self.verbose)

    def _store(self, values: Mapping[str, Any]) -> None:
        self.alpha_ = values["l1"] + values["l2"]
        self.l1_ratio_ = values["l1"] / self.alpha_


@dataclass(kw_only=True, eq=False, repr=False)
class GroupLassoImplicitCV(Regressor):
    """Group Lasso with its penalty found by cross-validation.

    Args:
        groups: Group number of each feature, 0, 1, ... without gaps; each feature its own group by default.

    The other arguments are those of `ImplicitCV`, the attributes those of `Regressor`.
    """

    groups: Sequence[int] | None = None

    def _model(self) -> ProximalModel:
        groups = range(self.n_features_in_) if self.groups is None else self.groups
        penalty = GroupLasso(tuple(groups))
        return ProximalModel(Quadratic(), penalty, self.fit_intercept, self._solver())


@dataclass(kw_only=True, eq=False, repr=False)
class MultiTaskLassoImplicitCV(MultiOutputMixin, Regressor):
    """Multitask Lasso with its penalty found by cross-validation; like scikit-learn's `MultiTaskLassoCV`.

    Coefficients have the shape (n_outputs, n_features), intercepts (n_outputs,), unless y has one axis.
    """

    def _validate(self, X: Any, y: Any) -> tuple[Any, torch.Tensor]:
        X, y = validate_data(
            self, X, y, accept_sparse="csc", dtype=DTYPES, y_numeric=True, multi_output=True, ensure_min_samples=2
        )
        y = np.asarray(y, dtype=np.float64)
        self._single = y.ndim == 1
        return X, as_values(y.reshape(y.shape[0], -1))

    def _model(self) -> ProximalModel:
        return ProximalModel(MultitaskQuadratic(), MultitaskL1(), self.fit_intercept, self._solver())

    def _finish(self, coef: np.ndarray, intercept: np.ndarray) -> None:
        self.coef_ = coef[:, 0] if self._single else coef.T
        self.intercept_ = float(intercept[0]) if self._single else intercept
