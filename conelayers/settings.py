"""Checks of settings, each said once: numbers in intervals, counts, values of a kind.

All raise `InvalidArgument` with the setting's name and what it may be.
"""

from __future__ import annotations

import functools
import numbers
from typing import Any

from conelayers.errors import InvalidArgument

__all__ = ["check_count", "check_kind", "check_number", "require_counts", "require_kinds", "require_numbers"]


def check_number(name: str, value: Any, interval: str) -> None:
    """A real number (or a tensor or array that holds one) in an interval such as "(0, 1]".

    Raises:
        InvalidArgument: It is none, NaN, or outside.
    """
    number = value.item() if getattr(value, "ndim", None) == 0 else value
    if not isinstance(number, numbers.Real) or not _inside(float(number), interval):
        raise InvalidArgument(f"{name} must be a number in {interval}, got {value!r}.")


def check_count(name: str, value: Any, least: int = 1) -> None:
    """An integer, at least so large.

    Raises:
        InvalidArgument: It is none, or smaller.
    """
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise InvalidArgument(f"{name} must be an integer >= {least}, got {value!r}.")


def check_kind(name: str, value: Any, kind: type) -> None:
    """An instance of a class.

    Raises:
        InvalidArgument: It is none; the class itself is none.
    """
    if not isinstance(value, kind):
        hint = "; call it to make one" if isinstance(value, type) and issubclass(value, kind) else ""
        raise InvalidArgument(f"{name} must be an instance of {kind.__name__}, got {value!r}{hint}.")


def require_numbers(owner: object, **intervals: str) -> None:
    """`check_number` of attributes."""
    for name, interval in intervals.items():
        check_number(_full(owner, name), getattr(owner, name), interval)


def require_counts(owner: object, **least: int) -> None:
    """`check_count` of attributes."""
    for name, smallest in least.items():
        check_count(_full(owner, name), getattr(owner, name), smallest)


def require_kinds(owner: object, **kinds: type) -> None:
    """`check_kind` of attributes."""
    for name, kind in kinds.items():
        check_kind(_full(owner, name), getattr(owner, name), kind)


def _full(owner: object, name: str) -> str:
    return f"{type(owner).__name__}: {name}"


def _inside(number: float, interval: str) -> bool:
    low, high, with_low, with_high = _ends(interval)
    return (low < number < high) or (with_low and number == low) or (with_high and number == high)


@functools.cache
def _ends(interval: str) -> tuple[float, float, bool, bool]:
    low, high = interval[1:-1].split(",")
    return float(low), float(high), interval[0] == "[", interval[-1] == "]"
