"""Cone programmes as data: one fixed structure, batched values, and solutions that certify themselves."""

from conelayers.program.absent import AbsentRows, without_absent_rows
from conelayers.program.program import ConeProgram
from conelayers.program.residuals import Residuals, residuals
from conelayers.program.solution import ConeSolution
from conelayers.program.status import Status
from conelayers.program.structure import ConeStructure

__all__ = [
    "AbsentRows",
    "ConeProgram",
    "ConeSolution",
    "ConeStructure",
    "Residuals",
    "Status",
    "residuals",
    "without_absent_rows",
]
