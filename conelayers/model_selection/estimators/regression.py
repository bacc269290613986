"""Regressors that choose their penalties by cross-validation and implicit differentiation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import validate_data

from conelayers.lasso import (
    L1,
    ElasticNet,
    GroupLasso,
    MultitaskL1,
    MultitaskQuadratic,
    ProximalModel,
    Quadratic,
    WeightedL1,
)
from conelayers.model_selection.criteria import Criterion, CrossValidation
from conelayers.model_selection.estimators.base import ImplicitCV
from conelayers.model_selection.searches import LBFGS, Safeguarded, Search, SearchResult
from conelayers.model_selection.space import LogSpace

__all__ = [
    "ElasticNetImplicitCV",
    "GroupLassoImplicitCV",
    "LassoImplicitCV",
    "MultiTaskLassoImplicitCV",
    "WeightedLassoImplicitCV",
]


def _within(splits: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """All splits but the last, restricted to the training samples of the last and numbered within them."""
    kept = splits[-1][0]
    order = np.argsort(kept)

    def positions(part: np.ndarray) -> np.ndarray:
        part = part[np.isin(part, kept)]
        return order[np.searchsorted(kept[order], part)]

    pairs = [(positions(train), positions(test)) for train, test in splits[:-1]]
    return [(train, test) for train, test in pairs if train.size and test.size]


class _Regressor(RegressorMixin, ImplicitCV):
    def _validate(self, X: Any, y: Any) -> tuple[Any, torch.Tensor]:
        X, y = validate_data(self, X, y, accept_sparse="csc", dtype=np.float64, y_numeric=True, ensure_min_samples=2)
        return X, torch.as_tensor(np.asarray(y, dtype=np.float64))

    def _finish(self, coef: np.ndarray, intercept: np.ndarray) -> None:
        self.coef_, self.intercept_ = coef, float(intercept)

    def predict(self, X: Any) -> np.ndarray:
        """Predicted targets, shape (n_samples,)."""
        return self._linear(X)


class LassoImplicitCV(_Regressor):
    """Lasso with its penalty found by cross-validation; a drop-in for scikit-learn's `LassoCV`.

    Args:
        positive: Require nonnegative coefficients.
        cv: See `ImplicitCV`.
        search: See `ImplicitCV`.
        eps: See `ImplicitCV`.
        fit_intercept: See `ImplicitCV`.
        tol: See `ImplicitCV`.
        max_iter: See `ImplicitCV`.
        n_jobs: See `ImplicitCV`.
        verbose: See `ImplicitCV`.

    Attributes:
        alpha_: The chosen penalty.
        coef_: Coefficients of the fit to all data, shape (n_features,).
        intercept_: Its intercept.
        history_: All evaluations of the criterion; `history_.plot()` draws them.
        best_criterion_: Mean held-out squared error at `alpha_`.
        dual_gap_: Duality gap of the final fit, in units of the objective.
    """

    def __init__(
        self, *, positive: bool = False, cv: Any = None, search: Search | None = None, eps: float = 1e-3,
        fit_intercept: bool = True, tol: float = 1e-6, max_iter: int = 200, n_jobs: int | None = None,
        verbose: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            cv=cv, search=search, eps=eps, fit_intercept=fit_intercept, tol=tol, max_iter=max_iter, n_jobs=n_jobs,
            verbose=verbose,
        )  # fmt: skip
        self.positive = positive

    def _model(self) -> ProximalModel:
        return ProximalModel(Quadratic(), L1(self.positive), self.fit_intercept, self._solver())


class ElasticNetImplicitCV(LassoImplicitCV):
    """Elastic net with both penalties found by cross-validation; a drop-in for scikit-learn's `ElasticNetCV`.

    Attributes:
        alpha_: Sum of the two penalties.
        l1_ratio_: Share of the l1 penalty in it.
    """

    def _model(self) -> ProximalModel:
        return ProximalModel(Quadratic(), ElasticNet(self.positive), self.fit_intercept, self._solver())

    def _bounds(self, largest: float, n_features: int) -> Mapping[str, tuple[object, object]]:
        return {"l1": (self.eps * largest, largest), "l2": (1e-3 * self.eps * largest, 10 * largest)}

    def _default_search(self, largest: float) -> Search:
        alphas = np.log(largest) + np.linspace(0, np.log(self.eps), 7)[1:]
        points = [[a, a + np.log(1 / r - 1)] for r in (0.99, 0.5) for a in alphas]
        return Safeguarded(points=np.array(points), local=LBFGS(), verbose=bool(self.verbose))

    def _store(self, values: Mapping[str, Any]) -> None:
        self.alpha_ = values["l1"] + values["l2"]
        self.l1_ratio_ = values["l1"] / self.alpha_


class WeightedLassoImplicitCV(LassoImplicitCV):
    """Lasso with one penalty per feature, found from the best single penalty by gradients: beyond any grid.

    Many penalties adapt to the folds themselves: the first steps help on unseen data, later ones hurt. So the
    search runs within the training samples of the last fold, and of its points (the single penalty is the
    first) the one with the smallest error on that fold's held-out samples is taken: early stopping is the
    regulariser.

    Attributes:
        alpha_: The penalties, shape (n_features,).
    """

    def _model(self) -> ProximalModel:
        return ProximalModel(Quadratic(), WeightedL1(nonnegative=self.positive), self.fit_intercept, self._solver())

    def _bounds(self, largest: float, n_features: int) -> Mapping[str, tuple[object, object]]:
        high = np.full(n_features, 10 * largest)
        return {"alpha": (1e-2 * self.eps * high, high)}

    def _default_search(self, largest: float) -> Search:
        return LBFGS(max_evaluations=15, verbose=bool(self.verbose))

    def _run(self, search: Search, criterion: CrossValidation, space: LogSpace) -> SearchResult:
        if not _within(criterion.splits):
            return super()._run(search, criterion, space)
        judge = criterion.folds[-1]
        rest = CrossValidation(
            judge.model,
            space,
            judge.X,
            judge.y,
            cv=_within(criterion.splits),
            sample_weight=judge.sample_weight,
            n_jobs=self.n_jobs,
        )
        result = search.run(rest, self._start(rest, space))
        # the best single penalty of all folds competes as well; it has seen the judge, which favours the simple answer
        points = [self._start(criterion, space), *(trial.point for trial in result.history.trials)]
        errors = [judge.evaluate(point, gradient=False).value for point in points]
        best = points[int(np.argmin(errors))]
        value = criterion.evaluate(best, gradient=False).value
        return dataclasses.replace(result, point=best, value=value, hyperparameters=space.values(best))

    def _start(self, criterion: Criterion, space: LogSpace) -> np.ndarray:
        single = LogSpace.between({"alpha": (10 * np.exp(space.lower[0]), 0.1 * np.exp(space.upper[0]))})

        class Tied(Criterion):
            """The same criterion with all penalties equal."""

            def evaluate(self, point, *, tol=None, state=None, gradient=True):
                out = criterion.evaluate(np.full(space.size, point[0]), tol=tol, state=state, gradient=gradient)
                slope = None if out.gradient is None else np.array([out.gradient.sum()])
                return type(out)(out.value, slope, out.state)

        tied = Tied()
        tied.space = single
        return np.full(space.size, Safeguarded(verbose=bool(self.verbose)).run(tied).point[0])


class GroupLassoImplicitCV(LassoImplicitCV):
    """Group Lasso with its penalty found by cross-validation.

    Args:
        groups: Group number of each feature, 0, 1, ... without gaps; each feature its own group by default.
        cv: See `ImplicitCV`.
        search: See `ImplicitCV`.
        eps: See `ImplicitCV`.
        fit_intercept: See `ImplicitCV`.
        tol: See `ImplicitCV`.
        max_iter: See `ImplicitCV`.
        n_jobs: See `ImplicitCV`.
        verbose: See `ImplicitCV`.
    """

    def __init__(
        self, *, groups: Sequence[int] | None = None, cv: Any = None, search: Search | None = None,
        eps: float = 1e-3, fit_intercept: bool = True, tol: float = 1e-6, max_iter: int = 200,
        n_jobs: int | None = None, verbose: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            cv=cv, search=search, eps=eps, fit_intercept=fit_intercept, tol=tol, max_iter=max_iter, n_jobs=n_jobs,
            verbose=verbose,
        )  # fmt: skip
        self.groups = groups

    def _model(self) -> ProximalModel:
        groups = range(self.n_features_in_) if self.groups is None else self.groups
        penalty = GroupLasso(tuple(int(g) for g in groups))
        return ProximalModel(Quadratic(), penalty, self.fit_intercept, self._solver())


class MultiTaskLassoImplicitCV(MultiOutputMixin, LassoImplicitCV):
    """Multitask Lasso with its penalty found by cross-validation; like scikit-learn's `MultiTaskLassoCV`."""

    def __init__(
        self, *, cv: Any = None, search: Search | None = None, eps: float = 1e-3, fit_intercept: bool = True,
        tol: float = 1e-6, max_iter: int = 200, n_jobs: int | None = None, verbose: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            cv=cv, search=search, eps=eps, fit_intercept=fit_intercept, tol=tol, max_iter=max_iter, n_jobs=n_jobs,
            verbose=verbose,
        )  # fmt: skip

    def _validate(self, X: Any, y: Any) -> tuple[Any, torch.Tensor]:
        X, y = validate_data(
            self, X, y, accept_sparse="csc", dtype=np.float64, y_numeric=True, multi_output=True, ensure_min_samples=2
        )
        y = np.asarray(y, dtype=np.float64)
        self._single = y.ndim == 1
        return X, torch.as_tensor(y.reshape(y.shape[0], -1))

    def _model(self) -> ProximalModel:
        return ProximalModel(MultitaskQuadratic(), MultitaskL1(), self.fit_intercept, self._solver())

    def _finish(self, coef: np.ndarray, intercept: np.ndarray) -> None:
        self.coef_ = coef[:, 0] if self._single else coef.T
        self.intercept_ = float(intercept[0]) if self._single else intercept
