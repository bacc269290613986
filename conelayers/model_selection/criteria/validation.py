"""Held-out loss and cross-validation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from conelayers.errors import InvalidArgument
from conelayers.lasso import ProximalModel, as_design
from conelayers.lasso.designs import Design, as_values, require_finite
from conelayers.lasso.problem import warn_unsolved
from conelayers.model_selection.criteria.base import Criterion, Evaluation, evaluate_torch, squared_error
from conelayers.model_selection.criteria.classes import REMEDY, unseen
from conelayers.model_selection.extras import optional
from conelayers.model_selection.parallel import run_parallel
from conelayers.model_selection.space import LogSpace
from conelayers.settings import require_kinds

__all__ = ["CrossValidation", "HeldOut"]

Loss = Callable[[Tensor, Tensor], Tensor]


def _default_loss(model: ProximalModel) -> Loss:
    return squared_error if model.datafit.quadratic else model.datafit.loss


@dataclass(frozen=True)
class HeldOut(Criterion):
    """Mean loss on held-out samples of a model fitted to others.

    Args:
        model: The model.
        space: Names, shapes and bounds of its hyperparameters, in the order of `model.penalty.names`.
        X: Training design.
        y: Training targets.
        X_held: Held-out design.
        y_held: Held-out targets.
        loss: (predictions, targets) -> loss by sample, torch code; by default squared error for least squares and the
            datafit's loss otherwise. Targets come in the form of the datafit (one-hot for several classes).
        sample_weight: Weights of the training samples.
        weight_held: Weights of the held-out samples.

    Warns:
        UserWarning: Some held-out samples have a class that no training sample has. Their loss is infinite whatever
            the penalty; they do not count.
    """

    model: ProximalModel
    space: LogSpace
    X: Any
    y: Any
    X_held: Any
    y_held: Any
    loss: Loss | None = None
    sample_weight: Any = None
    weight_held: Any = None

    def __post_init__(self) -> None:
        require_kinds(self, model=ProximalModel, space=LogSpace)
        # conversions are made once, not at every evaluation
        for name in ("X", "X_held"):
            object.__setattr__(self, name, as_design(getattr(self, name)))
        for name in ("y", "y_held"):
            object.__setattr__(self, name, as_values(getattr(self, name), self.X.device, name))
        held, features = self.X_held.shape
        if held == 0 or features != self.X.shape[1]:
            raise InvalidArgument(
                f"X_held must have a sample, and the {self.X.shape[1]} features of X; got {held, features}"
            )
        if self.y_held.shape[:1] != (held,):
            raise InvalidArgument(f"y_held must have {held} samples as X_held, got shape {tuple(self.y_held.shape)}")
        if self.weight_held is not None:
            object.__setattr__(self, "weight_held", _weights("weight_held", self.weight_held, held))
        self._leave_out_unseen()

    def _leave_out_unseen(self) -> None:
        if self.loss is not None:
            return
        weight = None if self.sample_weight is None else as_values(self.sample_weight, self.y.device)
        mask = unseen(self.model.datafit, self.y, weight, self.y_held, self.weight_held)
        if not bool(mask.any()):
            return
        left = ~mask if self.weight_held is None else self.weight_held * ~mask
        what = f"{int(mask.sum())} of {mask.numel()} samples of y_held have classes that no training sample has"
        if not bool(left.any()):
            raise InvalidArgument(f"y_held must hold classes that are trained on: {what}. {REMEDY}")
        warnings.warn(f"{what}; they do not count. {REMEDY}", UserWarning, stacklevel=4)
        object.__setattr__(self, "weight_held", left.to(torch.float64))

    def evaluate(
        self, point: np.ndarray, *, tol: float | None = None, state: Any = None, gradient: bool = True
    ) -> Evaluation:
        """See `Criterion.evaluate`; the state is the last solution."""
        out = evaluate_torch(lambda x: self._value(x, tol, state), point, gradient)
        # that of the Lasso: its support (Zou, Hastie & Tibshirani 2007)
        return replace(out, freedom=int(torch.count_nonzero(out.state[0])) / self._entries)

    @property
    def _entries(self) -> int:
        """Numbers that the model predicts of the training samples."""
        return self.y.numel() * (self.model.datafit.targets(self.y[:1]).numel() if self.y.ndim == 1 else 1)

    def value(self, x: Tensor, tol: float | None = None, state: Any = None) -> tuple[Tensor, Any]:
        """The loss as a differentiable function of the point x, shape (d,), and the solution as a state.

        Warns:
            InaccurateWarning: The model was not solved to its tolerance.
        """
        value, solution, unsolved = self._value(x, tol, state)
        warn_unsolved(unsolved, "HeldOut", 2)
        return value, solution

    def _value(self, x: Tensor, tol: float | None, state: Any) -> tuple[Tensor, Any, list[float]]:
        model = self.model if tol is None else self.model.with_tolerance(tol)
        theta = [t.to(self.X.device) for t in self.space.unpack(x)]
        coef, intercept, unsolved = model.solution(
            self.X, self.y, *theta, sample_weight=self.sample_weight, start=state
        )
        losses = self._losses(coef, intercept)
        if self.weight_held is None:
            value = losses.mean()
        else:
            weight = self.weight_held.to(losses)
            value = (weight @ losses) / weight.sum().clamp_min(1e-300)
        return value, (coef.detach(), intercept.detach()), unsolved

    def _losses(self, coef: Tensor, intercept: Tensor) -> Tensor:
        # only the features in use are read, so a held-out set costs no more than the support
        with torch.no_grad():
            used = torch.nonzero(coef != 0 if coef.ndim == 1 else (coef != 0).any(-1)).flatten()
        prediction = self.X_held.columns(used).matmul(coef[used]) + intercept
        loss = self.loss or _default_loss(self.model)
        return loss(prediction, self.model.datafit.targets(self.y_held))


class CrossValidation(Criterion):
    """Mean over folds of the mean held-out loss.

    Folds are views of X: none is copied.

    Args:
        model: The model.
        space: Names, shapes and bounds of its hyperparameters.
        X: Design matrix.
        y: Targets.
        cv: Number of folds, a scikit-learn splitter, or an iterable of (train, test) indices.
        groups: Group labels for the splitter.
        loss: See `HeldOut`.
        sample_weight: Weights, for fitting and for the mean within a fold; folds count alike.
        n_jobs: Folds evaluated in parallel by joblib, under whatever backend the caller has chosen
            (`joblib.parallel_config`), such as threads, processes, Dask or Ray.

    Raises:
        InvalidArgument: No fold trains on the classes that it tests, or an argument is wrong.

    Warns:
        UserWarning: Some folds train without a class that they test; those test samples do not count.
    """

    def __init__(
        self,
        model: ProximalModel,
        space: LogSpace,
        X: Any,
        y: Any,
        *,
        cv: Any = 5,
        groups: Any = None,
        loss: Loss | None = None,
        sample_weight: Any = None,
        n_jobs: int | None = None,
    ) -> None:
        self.space, self.n_jobs = space, n_jobs
        design, targets = as_design(X), as_values(y, name="y")
        n = design.shape[0]
        if targets.shape[:1] != (n,):
            raise InvalidArgument(f"y must have {n} samples as X, got shape {tuple(targets.shape)}")
        weights = None if sample_weight is None else _weights("sample_weight", sample_weight, n)
        self.folds: list[HeldOut] = []
        self.splits: list[tuple[np.ndarray, np.ndarray]] = []
        sizes, absent = [], 0
        for train, test in _splits(cv, design, targets, groups):
            self.splits.append((_indices(train, n), _indices(test, n)))
            train, test = (torch.as_tensor(part).to(design.device) for part in self.splits[-1])
            held = None if weights is None else weights[test]
            kept = None if weights is None else weights[train]
            alien = unseen(model.datafit, targets[train], kept, targets[test], held)
            if loss is None and bool(alien.any()):
                held = (~alien).to(torch.float64) if held is None else held * ~alien
                absent += 1
            parts = (design.rows(train), targets[train], design.rows(test), targets[test])
            self.folds.append(HeldOut(model, space, *parts, loss, kept, held))
            sizes.append(float(held is None or bool(held.any())))  # a fold without weight has no say
        if not self.folds:
            raise InvalidArgument("cv yields no folds")
        if absent:
            what = f"{absent} of {len(sizes)} folds train without a class that their test samples have"
            if not any(sizes):
                raise InvalidArgument(f"cv must train on the classes that it tests: {what}, and no others. {REMEDY}")
            warnings.warn(f"cv: {what}; those test samples do not count. {REMEDY}", UserWarning, stacklevel=2)
        if not any(sizes):
            raise InvalidArgument("sample_weight must not be zero on the test samples of all folds")
        self.shares = np.asarray(sizes) / sum(sizes)

    def evaluate(
        self, point: np.ndarray, *, tol: float | None = None, state: Any = None, gradient: bool = True
    ) -> Evaluation:
        """See `Criterion.evaluate`; the state is the list of the folds' solutions."""
        states = [None] * len(self.folds) if state is None else state
        calls = [(fold, point, tol, one, gradient) for fold, one in zip(self.folds, states, strict=True)]
        results = run_parallel(_evaluate_fold, calls, self.n_jobs)
        value = float(self.shares @ [r.value for r in results])
        slope = None
        if gradient:
            slope = np.sum([share * r.gradient for share, r in zip(self.shares, results, strict=True)], 0)
        unsolved = [violation for r in results for violation in r.unsolved]
        return Evaluation(value, slope, [r.state for r in results], unsolved, min(r.freedom for r in results))


def _weights(name: str, values: Any, n: int) -> Tensor:
    weights = as_values(values, name=name).detach().to(torch.float64)
    require_finite(name, weights)
    if weights.shape != (n,) or bool((weights < 0).any()):
        raise InvalidArgument(f"{name} must hold {n} nonnegative numbers, got {values!r}")
    return weights


def _indices(part: Any, n: int) -> np.ndarray:
    """Positions of samples, given as such or as a mask."""
    given = np.asarray(part)
    if given.dtype == bool and given.shape == (n,):
        return np.flatnonzero(given)
    if given.size == 0:
        return np.zeros(0, dtype=np.int64)
    if given.ndim != 1 or given.dtype.kind not in "iu" or given.min() < 0 or given.max() >= n:
        raise InvalidArgument(f"cv must yield (train, test) pairs of indices 0 .. {n - 1}, or of masks; got {part!r}")
    return given.astype(np.int64)


def _evaluate_fold(fold: HeldOut, point: np.ndarray, tol: float | None, state: Any, gradient: bool) -> Evaluation:
    return fold.evaluate(point, tol=tol, state=state, gradient=gradient)


def _splits(cv: Any, design: Design, y: Tensor, groups: Any) -> Iterable:
    if groups is not None and len(groups) != design.shape[0]:
        raise InvalidArgument(f"groups must hold {design.shape[0]} labels, one per sample; got {len(groups)}")
    target = y.cpu().numpy()
    classifier = target.ndim == 1 and target.dtype.kind in "iu"
    if isinstance(cv, Iterable) and not isinstance(cv, str):
        return cv  # the folds themselves need no scikit-learn
    if not hasattr(cv, "split"):
        selection: Any = optional("sklearn.model_selection", "lasso", f"cv={cv!r}")
        cv = selection.check_cv(cv, target, classifier=classifier)
    splitter: Any = cv
    return splitter.split(np.empty((design.shape[0], 0)), target, groups)
