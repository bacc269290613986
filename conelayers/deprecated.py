"""Names of the last release, importable with a DeprecationWarning for one more. Delete this file and its one import.

Modules that moved stand in `sys.modules` under their old names; names that left a package are found by its
`__getattr__`.
"""

from __future__ import annotations

import importlib
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any

__all__ = ["install"]

_FIXED_POINTS, _BILEVEL = "conelayers.fixed_points", "conelayers.bilevel"
_ITERATIONS = f"{_FIXED_POINTS}.iterations"

_MODULES = {
    "conelayers.implicit.bilevel": f"{_BILEVEL}.hypergradient",
    "conelayers.implicit.bilevel_iterative": f"{_BILEVEL}.iterative",
    "conelayers.implicit.bilevel_stochastic": f"{_BILEVEL}.stochastic",
    "conelayers.implicit.fixed_point": f"{_FIXED_POINTS}.equation",
    "conelayers.implicit.neumann": "conelayers.linalg.neumann",
    "conelayers.implicit.resolvent": f"{_FIXED_POINTS}.resolvent",
    "conelayers.iterations": _ITERATIONS,
    "conelayers.layers.well_posedness": f"{_FIXED_POINTS}.well_posedness",
    "conelayers.residual.fixed_point": f"{_FIXED_POINTS}.certificates",
    **{
        f"conelayers.implicit.{name}": f"{_FIXED_POINTS}.modes.{name}"
        for name in ("implicit_adjoint", "one_step", "phantom_gradient", "piggyback", "unrolled")
    },
    **{
        f"conelayers.iterations.{name}": f"{_ITERATIONS}.{name}"
        for name in ("anderson", "base", "broyden", "newton_krylov", "picard", "splitting")
    },
}

_NAMES = {
    "conelayers.implicit": {
        **dict.fromkeys(
            (
                "AdjointInfo",
                "FixedPointEquation",
                "ImplicitAdjoint",
                "OneStep",
                "PhantomGradient",
                "Piggyback",
                "Unrolled",
            ),
            _FIXED_POINTS,
        ),
        **dict.fromkeys(
            ("BilevelProblem", "Hypergradient", "StochasticNeumann", "adapt", "implicit_hypergradient", "inner_descent")
            + ("iterative_hypergradient",),
            _BILEVEL,
        ),
        **dict.fromkeys(("Neumann", "NeumannGMRES"), "conelayers.linalg"),
        **dict.fromkeys(("against", "along"), "conelayers.implicit.itemwise"),
        **dict.fromkeys(("Linearization", "ReverseMode"), "conelayers.implicit.mode"),
        **dict.fromkeys(("ConjugateGradient", "FixedPointAdjoint"), __name__),
    },
    f"{_BILEVEL}.hypergradient": {
        **dict.fromkeys(("ConjugateGradient", "FixedPointAdjoint", "Neumann"), __name__),
        **dict.fromkeys(("flatten", "gradients", "leaves", "recorded", "scalar", "unflatten"), f"{_BILEVEL}.functions"),
    },
}


def install() -> None:
    """Make the old names importable; nothing is imported by it."""
    for old, new in _MODULES.items():
        sys.modules.setdefault(old, _Moved(old, new))
    for package, names in _NAMES.items():
        sys.modules[package].__dict__["__getattr__"] = _finder(package, names)


class _Moved(types.ModuleType):
    """A module under its old name: what is asked of it comes from the new one."""

    def __init__(self, old: str, new: str) -> None:
        super().__init__(old, f"Moved to `{new}`.")
        self.__dict__.update(_new=new, __path__=[])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(importlib.import_module(self._new), name)
        _warn(f"{self.__name__}.{name}", f"{self._new}.{name}")
        return value


def _finder(package: str, names: dict[str, str]) -> Callable[[str], Any]:
    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        _warn(f"{package}.{name}", f"{names[name]}.{name}")
        return getattr(importlib.import_module(names[name]), name)

    return find


def _warn(old: str, new: str) -> None:
    warnings.warn(f"{old} is now {new}; the old name goes in the next release.", DeprecationWarning, stacklevel=3)


def ConjugateGradient(steps: int = 50, rtol: float = 1e-10) -> Any:  # noqa: N802
    """`conelayers.linalg.CG(tolerance=rtol, max_iterations=steps)`."""
    from conelayers.linalg import CG

    return CG(tolerance=rtol, max_iterations=steps)


def FixedPointAdjoint(steps: int = 20, step: float = 0.1) -> Any:  # noqa: N802
    """`conelayers.linalg.Neumann(step=step, max_iterations=steps)`, with a `start`."""
    return Neumann(steps, step)


def Neumann(terms: int = 20, step: float = 0.1) -> Any:  # noqa: N802
    """`conelayers.linalg.Neumann(step=step, max_iterations=terms)`."""
    from conelayers import linalg

    return linalg.Neumann(step=step, max_iterations=terms)
