"""Optional libraries, and what to say where one is missing."""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["optional"]


def optional(module: str, extra: str, purpose: str) -> ModuleType:
    """Import a module that the package does without in most of its work.

    Raises:
        ImportError: It is not installed; the message names the extra and its command.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if error.name is not None and error.name.partition(".")[0] != module.partition(".")[0]:
            raise
        raise ImportError(
            f"{purpose} needs {module.partition('.')[0]}, which is not installed: pip install 'conelayers[{extra}]'",
            name=error.name,
        ) from error
