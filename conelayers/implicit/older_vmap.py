"""Derivatives inside `torch.autograd.grad(..., is_grads_batched=True)`.

That, `torch.autograd.functional` with vectorize=True and batched gradient checks map by an older vmap of torch. It
knows no rules of autograd functions and shows them tensors of its own kind, which cannot become arrays.
`torch.func.vmap` does the same by rules; torch has no public names for handing over to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["by_torch_func"]

Vectors = Sequence[Tensor | None]

# Missing once torch has given up that vmap: then nothing is mapped by it.
_functorch: Any = getattr(torch._C, "_functorch", None)
_is_mapped: Callable[[Tensor], bool] | None = getattr(_functorch, "is_legacy_batchedtensor", None)


def by_torch_func(function: Callable[..., Vectors], vectors: Vectors) -> Vectors:
    """function(*vectors); where the older vmap maps some of the vectors, `torch.func.vmap` takes its place.

    Args:
        function: From (co)tangents to (co)tangents; None stands for zero on both sides.
        vectors: Its arguments.
    """
    mapped = [_is_mapped is not None and vector is not None and _is_mapped(vector) for vector in vectors]
    if not any(mapped):
        return function(*vectors)
    level = _level()
    private: Any = torch
    given = [private._remove_batch_dim(v, level, 0, 0) if m else v for v, m in zip(vectors, mapped, strict=True)]
    present: list[bool] = []

    def tensors(*arguments: Tensor | None) -> tuple[Tensor, ...]:
        found = function(*arguments)
        present[:] = [value is not None for value in found]
        return tuple(value for value in found if value is not None)

    found = iter(torch.func.vmap(tensors, in_dims=tuple(0 if m else None for m in mapped))(*given))
    # Contiguous, since forward mode copies strides, which the older vmap does with the mapped axis first only.
    return [private._add_batch_dim(next(found).contiguous(), 0, level) if there else None for there in present]


def _level() -> int:
    """The depth of the innermost older vmap, as it numbers its tensors."""
    deeper = torch._C._vmapmode_increment_nesting()
    torch._C._vmapmode_decrement_nesting()
    return deeper - 1
