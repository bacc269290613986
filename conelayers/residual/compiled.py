"""The compiled derivative kernels, and how accurate a system they must have solved to be believed."""

from __future__ import annotations

from conelayers.program.compiled import compiled_differentiator, rows, thread_count

__all__ = ["ACCEPTED", "compiled_differentiator", "rows", "thread_count"]

ACCEPTED = 1e-9
"""Relative residual of a linear system up to which the kernels' solution is taken."""
