"""Losses of the predictions."""

from conelayers.lasso.datafits.base import Datafit
from conelayers.lasso.datafits.logistic import Logistic, Multinomial
from conelayers.lasso.datafits.quadratic import MultitaskQuadratic, Quadratic
from conelayers.lasso.datafits.robust import Huber, Quantile

__all__ = ["Datafit", "Huber", "Logistic", "Multinomial", "MultitaskQuadratic", "Quadratic", "Quantile"]
