"""From a CVXPY problem to a parametric cone programme, and from its solutions back to the problem's variables."""

from conelayers.canonicalize.affine_map import AffineMap
from conelayers.canonicalize.block_map import BlockMap
from conelayers.canonicalize.outputs import Output
from conelayers.canonicalize.parameters import Block, ParameterLayout
from conelayers.canonicalize.parametric import ParametricProgram
from conelayers.canonicalize.part_map import PartMap

__all__ = ["AffineMap", "Block", "BlockMap", "Output", "ParameterLayout", "ParametricProgram", "PartMap"]
