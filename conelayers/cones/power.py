"""The power cone and its dual."""

import dataclasses

from conelayers.cones.exponential import Exponential

__all__ = ["DualPower", "Power"]


@dataclasses.dataclass(frozen=True)
class Power(Exponential):
    """x."""

    alpha: float

    def dual(self):
        return DualPower(self.alpha)


@dataclasses.dataclass(frozen=True)
class DualPower(Exponential):
    """x."""

    alpha: float

    def dual(self):
        return Power(self.alpha)
