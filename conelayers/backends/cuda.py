"""The compiled engine on a GPU as a backend: a whole batch at once, one programme per warp or per thread."""

from __future__ import annotations

import dataclasses
import threading
import weakref
from typing import TYPE_CHECKING, ClassVar

import torch

from conelayers.backends.base import Backend, check_positive
from conelayers.backends.clarabel import Clarabel
from conelayers.backends.outcomes import proven, report, without_certificates
from conelayers.backends.scaling import ALMOST_EXACT
from conelayers.cones import Cone
from conelayers.errors import UnsupportedError
from conelayers.program import ConeProgram, ConeSolution, ConeStructure
from conelayers.program.codes import CODES
from conelayers.program.compiled import described, device_differentiator, suits_kernels

if TYPE_CHECKING:
    from conelayers.native.cuda import DeviceEngine

__all__ = ["Cuda"]

_engines: weakref.WeakKeyDictionary[ConeStructure, dict[torch.device, DeviceEngine]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Cuda(Backend):
    """The batched interior-point method of `Batched` on a CUDA device, in double precision; solutions come polished.

    Programmes on a CUDA device are solved there, on torch's current stream; those on the CPU are copied to the current
    CUDA device and back. The few that are called infeasible by a certificate that does not hold in their data go to
    `Clarabel`. Kernels are compiled at their first use, for the cones at hand, and kept on disk. Warm starts are
    ignored.

    Attributes:
        tol: Relative and absolute tolerance of residuals, gap and certificates.
        max_iter: Limit on interior-point iterations.
        verbose: Print the number of items, iterations and outcomes of each call (which waits for the device).
    """

    tol: float = 1e-8
    max_iter: int = 100
    verbose: bool = False

    name: ClassVar[str] = "CUDA"
    cones: ClassVar[frozenset[type[Cone]]] = frozenset(CODES)
    devices: ClassVar[frozenset[str]] = frozenset({"cuda"})

    def __post_init__(self) -> None:
        check_positive(tol=self.tol, max_iter=self.max_iter)

    def unavailable(self, device: torch.device) -> str | None:
        """Why this backend cannot run on a device, with the remedy; None if it can."""
        try:
            from conelayers.native.cuda import unavailable  # only here: the package imports without a compiled engine
        except ImportError as error:
            return str(error)
        return unavailable(device)

    def polishes(self, structure: ConeStructure) -> bool:
        """True where the derivative kernels, which make the Newton steps, suit the cones."""
        return suits_kernels(structure)

    def solve(self, program: ConeProgram, warm_start: ConeSolution | None = None) -> ConeSolution:
        """Solve every programme of a batch; see `Backend.solve`. `warm_start` is ignored.

        Raises:
            UnsupportedError: If there is no CUDA device, or its compiler is not installed; the message says how to.
        """
        self.check(program.structure)
        home = program.q.device
        device = home if home.type == "cuda" else _current_device()
        reason = self.unavailable(device)
        if reason is not None:
            raise UnsupportedError(f"Backend CUDA cannot run on {device}: {reason}.")
        return self._solve(program, device).to(home)

    def _solve(self, program: ConeProgram, device: torch.device) -> ConeSolution:
        batch_shape = program.batch_shape
        flat = program.detach().flatten()
        P, q, A, b = (value.to(device, torch.float64) for value in (flat.P, flat.q, flat.A, flat.b))
        settings = {"tol": self.tol, "max_iter": self.max_iter}
        newton = device_differentiator(program.structure, device)
        engine = _engine(program.structure, device)
        found = engine.solve(P, q, A, b, batch_shape.numel(), differentiator=newton, **settings)
        if self.verbose:
            report(self.name, found["status"].cpu().numpy(), found["iterations"].cpu().numpy())
        solution = ConeSolution(
            **{name: value for name, value in found.items() if name != "status"}, status_code=found["status"]
        )
        if not bool(solution.status_code.any()):
            return solution.reshape(batch_shape)
        flat = ConeProgram(program.structure, P, q, A, b)
        return without_certificates(proven(flat, solution, self._on_cpu)).reshape(batch_shape)

    def _on_cpu(self, program: ConeProgram) -> ConeSolution:
        """A second way, for the few items whose certificate does not hold."""
        data = (value.cpu() for value in (program.P, program.q, program.A, program.b))
        other = Clarabel(tol=self.tol, tol_infeas=ALMOST_EXACT, verbose=self.verbose)
        return other.solve(ConeProgram(program.structure, *data)).to(program.q.device)


def _current_device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cuda", 0)


def _engine(structure: ConeStructure, device: torch.device) -> DeviceEngine:
    """The engine of this structure on a device, made once and kept for as long as the structure lives."""
    from conelayers.native.cuda import DeviceEngine  # only here: the package imports without a compiled engine

    with _lock:
        engines = _engines.setdefault(structure, {})
        if device not in engines:
            engines[device] = DeviceEngine(*described(structure), device=device)
        return engines[device]
