"""Root of an increasing function of one variable, for many functions at once."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["increasing_root", "surely"]

_LIMIT = 100


def increasing_root(
    evaluate: Callable[..., tuple[Tensor, Tensor]],
    start: Tensor,
    low: Tensor,
    high: Tensor,
    parameters: tuple[Tensor, ...] = (),
    unit: float | None = None,
) -> Tensor:
    """Zeros of increasing functions by a fast iteration, with bisection wherever that leaves the bracket.

    A function that is not increasing must change its sign from minus to plus in the bracket; then one of its
    zeros is found.

    Args:
        evaluate: (root, *parameters) -> (value, proposal): the functions' values and the fast iteration's next
            iterates.
        start: first iterates.
        low: lower ends of the brackets, finite, of the shape of start.
        high: upper ends.
        parameters: what the functions depend on. Where given, finished functions are dropped from the work,
            and evaluate sees flat tensors of the remaining ones.
        unit: length of the last step, relative to max(1, |root|); four units in the last place if None.

    Returns:
        The roots, to this accuracy or (where the fast iteration converges fast) better.
    """
    unit, shape = 4 * torch.finfo(start.dtype).eps if unit is None else unit, start.shape
    if parameters:
        spread = torch.broadcast_tensors(start, low, high, *parameters)
        shape = spread[0].shape
        start, low, high, *rest = (tensor.reshape(-1) for tensor in spread)
        parameters = tuple(rest)
    root, done = start, torch.zeros_like(start, dtype=torch.bool)
    older = old = torch.full_like(start, torch.inf)
    found, index = None, None
    for _ in range(_LIMIT):
        value, proposal = evaluate(root, *parameters)
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
        if surely(done):
            break
        if parameters and root.numel() > 64 and surely(done.sum() > root.numel() // 2):
            if found is None or index is None:
                found, index = root.clone(), torch.arange(root.numel(), device=root.device)
            found[index] = root
            left = (~done).nonzero()[:, 0]
            index, root, low, high = index[left], root[left], low[left], high[left]
            older, old, done = older[left], old[left], done[left]
            parameters = tuple(tensor[left] for tensor in parameters)
    if found is not None and index is not None:
        found[index] = root
        root = found
    return root.reshape(shape)


def surely(mask: Tensor) -> bool:
    """Whether every entry is true; False where the values are hidden from Python, as under torch.func.vmap."""
    try:
        return bool(mask.all())
    except RuntimeError:
        return False
