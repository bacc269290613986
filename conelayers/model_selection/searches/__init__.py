"""Outer methods."""

from conelayers.model_selection.searches.adam import Adam
from conelayers.model_selection.searches.base import Objective, Search, SearchResult
from conelayers.model_selection.searches.gradient_descent import GradientDescent
from conelayers.model_selection.searches.lbfgs import LBFGS
from conelayers.model_selection.searches.multi_start import MultiStart
from conelayers.model_selection.searches.safeguarded import GridSearch, Safeguarded

__all__ = [
    "LBFGS",
    "Adam",
    "GradientDescent",
    "GridSearch",
    "MultiStart",
    "Objective",
    "Safeguarded",
    "Search",
    "SearchResult",
]
