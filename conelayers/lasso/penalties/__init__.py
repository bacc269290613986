"""Families of regularisers, indexed by the hyperparameters that are tuned."""

from conelayers.lasso.penalties.base import Penalty
from conelayers.lasso.penalties.box import Box, EpsilonBox
from conelayers.lasso.penalties.concave import MCP, SCAD
from conelayers.lasso.penalties.group import GroupLasso, MultitaskL1, SparseGroupLasso, group_numbers
from conelayers.lasso.penalties.l1 import L1, ElasticNet, WeightedElasticNet, WeightedL1

__all__ = [
    "L1",
    "MCP",
    "SCAD",
    "Box",
    "ElasticNet",
    "EpsilonBox",
    "GroupLasso",
    "MultitaskL1",
    "Penalty",
    "SparseGroupLasso",
    "WeightedElasticNet",
    "WeightedL1",
    "group_numbers",
]
