"""Regularisers with their numbers filled in."""

from conelayers.lasso.terms.base import Term
from conelayers.lasso.terms.concave import MCPTerm, SCADTerm
from conelayers.lasso.terms.grouped import GroupTerm
from conelayers.lasso.terms.separable import SeparableTerm

__all__ = ["GroupTerm", "MCPTerm", "SCADTerm", "SeparableTerm", "Term"]
