"""Classifiers that choose their penalties by cross-validation and implicit differentiation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from conelayers.errors import InvalidArgument
from conelayers.lasso import L1, Design, Logistic, Multinomial, ProximalModel, WeightedL1
from conelayers.model_selection.estimators.base import DTYPES, ImplicitCV
from conelayers.model_selection.searches import Safeguarded, Search
from conelayers.model_selection.space import LogSpace

__all__ = ["LogisticImplicitCV"]


@dataclass(kw_only=True, eq=False, repr=False)
class LogisticImplicitCV(ClassifierMixin, ImplicitCV):
    """l1-penalised logistic regression, binary or multinomial, like `LogisticRegressionCV` with the saga solver.

    Args:
        per_class: One penalty per class instead of a single one (three classes or more).

    The other arguments are those of `ImplicitCV`; folds are stratified by default.

    Attributes:
        alpha_: The penalty on the mean loss (scikit-learn's C is 1 / (alpha n_samples)), one per class if asked for.
        classes_: Class labels.
        coef_: Shape (1, n_features) or (n_classes, n_features).
        intercept_: Shape (1,) or (n_classes,).
        history_: All evaluations of the criterion, the mean held-out log-loss.
    """

    per_class: bool = False

    def _validate(self, X: Any, y: Any) -> tuple[Any, torch.Tensor]:
        X, y = validate_data(self, X, y, accept_sparse="csc", dtype=DTYPES, ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if self.classes_.size < 2:
            raise InvalidArgument(f"y holds one class only ({self.classes_[0]!r}); at least two are needed")
        codes = codes if self.classes_.size > 2 else 2 * codes - 1
        return X, torch.as_tensor(codes.astype(np.int64))

    def _model(self) -> ProximalModel:
        if self.classes_.size == 2:
            return ProximalModel(Logistic(), L1(), self.fit_intercept, self._solver())
        penalty = WeightedL1(axes=2) if self.per_class else L1()
        return ProximalModel(Multinomial(self.classes_.size), penalty, self.fit_intercept, self._solver())

    def _many(self) -> bool:
        return self.per_class and self.classes_.size > 2

    def _bounds(self, largest: float, design: Design, weight: Any) -> Mapping[str, tuple[object, object]]:
        high = np.full((1, self.classes_.size), largest) if self._many() else largest
        return {"alpha": (self.eps * np.asarray(high), high)}

    def _default_search(self, space: LogSpace) -> Search:
        return Safeguarded(verbose=self.verbose)

    def _store(self, values: Mapping[str, Any]) -> None:
        self.alpha_ = values["alpha"].ravel() if self._many() else values["alpha"]

    def _finish(self, coef: np.ndarray, intercept: np.ndarray) -> None:
        self.coef_, self.intercept_ = np.atleast_2d(coef.T), np.atleast_1d(intercept)

    def decision_function(self, X: Any) -> np.ndarray:
        """Scores, shape (n_samples,) for two classes, else (n_samples, n_classes)."""
        scores = self._linear(X)
        return scores.ravel() if self.classes_.size == 2 else scores

    def predict_proba(self, X: Any) -> np.ndarray:
        """Class probabilities, shape (n_samples, n_classes)."""
        check_is_fitted(self)
        scores = self.decision_function(X)
        if scores.ndim == 1:
            return np.column_stack([expit(-scores), expit(scores)])
        return softmax(scores, axis=1)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Logarithms of the class probabilities."""
        check_is_fitted(self)
        scores = self.decision_function(X)
        if scores.ndim == 1:
            return np.column_stack([log_expit(-scores), log_expit(scores)])
        return log_softmax(scores, axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable classes."""
        scores = self.decision_function(X)
        codes = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)
        return self.classes_[codes]
