"""Programmes with large semidefinite blocks: Newton steps and derivatives without forming the blocks densely."""

from conelayers.semidefinite.form import Form, semidefinite_form
from conelayers.semidefinite.kernels import SemidefiniteKernels

__all__ = ["Form", "SemidefiniteKernels", "semidefinite_form"]
