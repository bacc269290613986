"""What the estimators share: validation, the search, the final fit."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sklearn import get_config
from sklearn.base import BaseEstimator
from sklearn.model_selection import check_cv
from sklearn.utils.extmath import safe_sparse_dot
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from conelayers.errors import InvalidArgument
from conelayers.lasso import Design, ProximalModel, WorkingSet, as_design
from conelayers.lasso.problem import warn_unsolved
from conelayers.model_selection.criteria import CrossValidation
from conelayers.model_selection.searches import Safeguarded, Search, SearchResult
from conelayers.model_selection.space import LogSpace
from conelayers.settings import check_kind, check_number

__all__ = ["DTYPES", "ImplicitCV"]

DTYPES = [np.float64, np.float32]  # in which features are read as they are; others become the first

_ROUNDING = 1e-13  # of a sum of products of numbers of size one


@dataclass(kw_only=True, eq=False, repr=False)
class ImplicitCV(BaseEstimator, abc.ABC):
    """A linear model whose hyperparameters minimise a cross-validated loss, found by implicit differentiation.

    Subclasses are keyword-only dataclasses: their fields are scikit-learn's parameters.

    Args:
        cv: Folds, a scikit-learn splitter, or an iterable of (train, test) indices; five folds by default.
        search: The outer method; by default a coarse grid refined by gradients.
        eps: Smallest over largest hyperparameter; the largest is the one at which all coefficients vanish.
        fit_intercept: Whether to fit an intercept.
        tol: Inner tolerance, relative to the gradient at zero coefficients.
        max_iter: Most outer iterations of the inner solver.
        n_jobs: Folds evaluated in parallel by joblib.
        verbose: 1 shows a progress bar (lines without tqdm), 2 a line per evaluation.
    """

    cv: Any = None
    search: Search | None = None
    eps: float = 1e-3
    fit_intercept: bool = True
    tol: float = 1e-6
    max_iter: int = 200
    n_jobs: int | None = None
    verbose: int = 0
    coef_: np.ndarray = field(init=False)
    intercept_: Any = field(init=False)

    def _default_search(self, space: LogSpace) -> Search:
        return Safeguarded(verbose=self.verbose)

    @abc.abstractmethod
    def _model(self) -> ProximalModel:
        """The model for the targets that `_validate` has seen."""

    @abc.abstractmethod
    def _validate(self, X: Any, y: Any) -> tuple[Any, torch.Tensor]:
        """Check the data, set what depends on the targets, and return X and the datafit's targets."""

    @abc.abstractmethod
    def _finish(self, coef: np.ndarray, intercept: np.ndarray) -> None:
        """Store the coefficients in scikit-learn's shapes."""

    def _bounds(self, largest: float, design: Design, weight: Any) -> Mapping[str, tuple[object, object]]:
        return {"alpha": (self.eps * largest, largest)}

    def _run(self, search: Search, criterion: CrossValidation) -> SearchResult:
        return search.run_quietly(criterion)

    def _store(self, values: Mapping[str, float | np.ndarray]) -> None:
        self.alpha_ = values["alpha"]

    def fit(self, X: Any, y: Any, sample_weight: Any = None, **params: Any) -> Any:
        """Search for the hyperparameters and fit the model to all data.

        Args:
            X: Shape (n_samples, n_features), dense or scipy.sparse; read as it is in single and double precision, dense
                by rows and sparse by columns.
            y: Targets.
            sample_weight: Shape (n_samples,); weighs the fits and the held-out losses.
            **params: What the splitter asks for, such as `groups` for `GroupKFold`: directly, or by scikit-learn's
                metadata routing where that is enabled.

        Raises:
            InvalidArgument: A parameter is out of its range, weights are negative, or the splitter takes no such
                metadata.

        Warns:
            InaccurateWarning: Inner problems were not solved to their tolerance; one warning for the whole fit.
        """
        check_number("eps", self.eps, "(0, 1)")
        if self.search is not None:
            check_kind("search", self.search, Search)
        X, target = self._validate(X, y)
        weight = None if sample_weight is None else _check_sample_weight(sample_weight, X, dtype=np.float64)
        design, model = as_design(X), self._model()
        largest = self._largest(model, design, target, weight)
        space = LogSpace.between(self._bounds(largest, design, weight))
        groups = self._groups(sample_weight, params)
        settings = {"cv": self.cv, "groups": groups, "sample_weight": weight, "n_jobs": self.n_jobs}
        criterion = CrossValidation(model, space, design, target, **settings)
        search = self.search if self.search is not None else self._default_search(space)
        result = self._run(search, criterion)
        theta = space.unpack(torch.as_tensor(result.point))
        fit = model.solver.solve(model.problem(design, target, *theta, sample_weight=weight))
        unsolved = [*result.unsolved, *([] if fit.converged else [fit.violation])]
        warn_unsolved(unsolved, f"{type(self).__name__}.fit", 2)
        self.search_result_, self.history_ = result, result.history
        self.best_criterion_, self.n_iter_ = result.value, len(result.history)
        self.dual_gap_, self.n_features_in_ = fit.gap, design.shape[1]
        self._store(result.hyperparameters)
        self._finish(fit.coef.numpy(), fit.intercept.numpy())
        return self

    def _groups(self, sample_weight: Any, params: dict[str, Any]) -> Any:
        """The group labels among what `fit` was given for the splitter."""
        if get_config().get("enable_metadata_routing"):
            params = process_routing(self, "fit", sample_weight=sample_weight, **params).splitter.split
        unknown = set(params) - {"groups"}
        if unknown:
            raise InvalidArgument(f"fit takes sample_weight and groups; got {', '.join(sorted(unknown))}")
        return params.get("groups")

    def get_metadata_routing(self) -> Any:
        """Where metadata given to `fit` goes, see scikit-learn's user guide: what the splitter asks for, to it."""
        splitter = self.cv if hasattr(self.cv, "split") else check_cv()  # folds that are listed ask for nothing
        mapping = MethodMapping().add(caller="fit", callee="split")
        return MetadataRouter(owner=self).add_self_request(self).add(splitter=splitter, method_mapping=mapping)

    def _solver(self) -> WorkingSet:
        return WorkingSet(tol=self.tol, max_iter=self.max_iter)

    @staticmethod
    def _largest(model: ProximalModel, design: Any, target: torch.Tensor, weight: Any) -> float:
        """Threshold above which all coefficients are zero: the size of the gradient there, unless that is rounding."""
        values = [torch.full((1,) * d, 1e300, dtype=torch.float64) for d in model.penalty.event_dims]
        values = [v.expand(_event(model, i, design, target)) for i, v in enumerate(values)]
        problem = model.problem(design, target, *values, sample_weight=weight)
        eta = problem.predictions(*problem.null_model())
        gradient, _ = problem.gradients(eta)
        largest = float(gradient.abs().max())
        slopes = problem.datafit.slope(torch.zeros_like(eta), problem.y)
        norms = problem.design.squared_norms(problem.weights).max() * (problem.weights @ slopes.square()).sum()
        unit = float(norms.sqrt())
        # constant targets: any positive number will do
        return largest if largest > _ROUNDING * unit else unit or 1.0

    def _linear(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse=["csr", "csc"], dtype=np.float64, reset=False)
        return np.asarray(safe_sparse_dot(X, self.coef_.T, dense_output=True)) + self.intercept_

    def __sklearn_tags__(self) -> Any:
        """Sparse input is welcome."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _event(model: ProximalModel, i: int, design: Any, target: torch.Tensor) -> tuple[int, ...]:
    dims = model.penalty.event_dims[i]
    return (design.shape[1],) + (1,) * (dims - 1) if dims else ()
