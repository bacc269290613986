"""Hypergradients of bilevel problems: implicit, iterative, on minibatches; inner loops of meta-learning."""

from conelayers.bilevel.hypergradient import BilevelProblem, Hypergradient, implicit_hypergradient
from conelayers.bilevel.iterative import adapt, inner_descent, iterative_hypergradient
from conelayers.bilevel.stochastic import StochasticNeumann

__all__ = [
    "BilevelProblem",
    "Hypergradient",
    "StochasticNeumann",
    "adapt",
    "implicit_hypergradient",
    "inner_descent",
    "iterative_hypergradient",
]
