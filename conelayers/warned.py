"""Warnings that point at the line of the user's code that led to them."""

from __future__ import annotations

import sys
import warnings

__all__ = ["warn_user"]

_INSIDE = ("conelayers", "torch")


def warn_user(message: str, category: type[Warning]) -> None:
    """Warn at the innermost line outside of this package and of torch."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in _INSIDE:
        frame = frame.f_back
        level += 1
    warnings.warn(message, category, stacklevel=level)
