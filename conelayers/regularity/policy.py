"""What a layer does about solutions that are not regular: nothing, warn, or raise."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from conelayers.errors import RegularityError, RegularityWarning
from conelayers.program import ConeProgram, ConeSolution
from conelayers.regularity import suspicious
from conelayers.regularity.report import Labels, RegularityReport, examine

__all__ = ["RegularityPolicy", "enforce"]

RegularityPolicy = Literal["ignore", "warn", "raise"]


def enforce(
    policy: RegularityPolicy, labels: Callable[[], Labels], program: ConeProgram, solution: ConeSolution
) -> None:
    """Screen a solved batch; certify the suspicious items; warn or raise for those that are not regular.

    Args:
        policy: "warn" or "raise".
        labels: How to name what is at fault; called when there is something to name.
        program: The programmes.
        solution: Their solutions.

    Raises:
        RegularityError: With policy "raise", for items that are certainly not regular.
    """
    doubtful = suspicious(program, solution)
    if not bool(doubtful.any()):
        return
    batch = program.batch_shape
    flat, items = program.detach().flatten(), torch.nonzero(doubtful.reshape(-1))[:, 0].cpu()
    chosen = ConeProgram(
        program.structure, *(t if t.shape[0] == 1 else t[items.to(t.device)] for t in (flat.P, flat.q, flat.A, flat.b))
    )
    if chosen.batch_shape != (len(items),):  # all tensors shared: one item
        chosen = dataclasses.replace(chosen, q=chosen.q.expand(len(items), -1))
    points = solution.detach().reshape(torch.Size([batch.numel()])).map(lambda t: t[items.to(t.device)])
    part = examine(labels(), chosen, points, torch.Size([len(items)]))
    if bool(part.regular.all()):
        return
    report = _scattered(part, items, batch)
    if policy == "raise" and bool((~report.regular & report.decided).any()):
        raise RegularityError(report.explain())
    warnings.warn(report.explain(), RegularityWarning, stacklevel=4)


def _scattered(part: RegularityReport, items: Tensor, batch: torch.Size) -> RegularityReport:
    """The report of some items as one of the whole batch; the others were cleared by the screening."""

    def spread(values: Tensor, fill: float | bool) -> Tensor:
        out = torch.full((batch.numel(),), fill, dtype=values.dtype)
        out[items] = values
        return out.reshape(batch)

    def spread_all(marks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: spread(values & ~part.regular, False) for name, values in marks.items()}

    return dataclasses.replace(
        part,
        regular=spread(part.regular, True),
        decided=spread(part.decided, True),
        sigma_dual=spread(part.sigma_dual, torch.nan),
        sigma_primal=spread(part.sigma_primal, torch.nan),
        margin=spread(part.margin, torch.nan),
        weakly_active={k: v for k, v in spread_all(part.weakly_active).items() if bool(v.any())},
        dependent=spread_all(part.dependent),
        undetermined=spread_all(part.undetermined),
    )
