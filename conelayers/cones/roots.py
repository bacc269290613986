"""Root of an increasing function of one variable, for many functions at once."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["increasing_root"]

_LIMIT = 100


def increasing_root(
    evaluate: Callable[[Tensor], tuple[Tensor, Tensor]], start: Tensor, low: Tensor, high: Tensor
) -> Tensor:
    """Zeros of increasing functions by a fast iteration, with bisection wherever that leaves the bracket.

    Args:
        evaluate: root -> (value, proposal): the functions' values and the fast iteration's next iterates.
        start: first iterates.
        low: lower ends of the brackets, finite, of the shape of start.
        high: upper ends.

    Returns:
        The roots, to four units in the last place of max(1, |root|).
    """
    unit = 4 * torch.finfo(start.dtype).eps
    root, done = start, torch.zeros_like(start, dtype=torch.bool)
    older = old = torch.full_like(start, torch.inf)
    for _ in range(_LIMIT):
        value, proposal = evaluate(root)
        high = torch.where(value >= 0, root, high)
        low = torch.where(value <= 0, root, low)
        tolerance = unit * root.abs().clamp(min=1)
        short = (proposal - root).abs() <= tolerance
        settled = done | short | (high - low <= tolerance)
        # As in Brent's method: two steps on, a step has to be half as long, or the bracket is halved.
        sound = (proposal > low) & (proposal < high) & ((proposal - root).abs() <= older / 2)
        proposal = torch.where(sound | short, proposal, (low + high) / 2)
        older, old = old, (proposal - root).abs()
        root = torch.where(done, root, proposal)
        done = settled
        if _all(done):
            break
    return root


def _all(mask: Tensor) -> bool:
    """Whether every entry is true; False where the values are hidden from Python, as under torch.func.vmap."""
    try:
        return bool(mask.all())
    except RuntimeError:
        return False
