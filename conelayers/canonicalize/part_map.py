"""How one part of a programme's data depends on the parameters."""

from __future__ import annotations

import dataclasses

from conelayers.canonicalize.affine_map import AffineMap
from conelayers.canonicalize.parameters import Block

__all__ = ["PartMap"]


@dataclasses.dataclass(frozen=True, eq=False)
class PartMap:
    """How one of P, q, A, b depends on the parameters: an affine map of the blocks that enter it, and only those.

    Attributes:
        map: The affine map.
        blocks: What its theta is made of; empty for a constant part.
    """

    map: AffineMap
    blocks: tuple[Block, ...]
