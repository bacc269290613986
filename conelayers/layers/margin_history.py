"""A record of kink margins over the calls of a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from conelayers.layers.cvxpy_layer import CvxpyLayer
from conelayers.program import ConeProgram, ConeSolution
from conelayers.regularity import kink_margin
from conelayers.regularity.report import examine_problem

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MarginHistory"]


class MarginHistory:
    """Records the kink margin of every call of a layer, to see when training runs along kinks.

    Example:
        >>> with MarginHistory(layer) as history:  # doctest: +SKIP
        ...     train(layer)
        >>> history.plot()  # doctest: +SKIP

    Args:
        layer: The layer to listen to.
        certify: Also record whether items are regular, which costs rank tests in every call.

    Attributes:
        margins: One tensor per call, of the batch shape; NaN for items without a solution.
        regular: One bool tensor per call, if `certify`.
    """

    def __init__(self, layer: CvxpyLayer, *, certify: bool = False) -> None:
        self.margins: list[Tensor] = []
        self.regular: list[Tensor] = []
        self._certify = certify
        self._program = layer.program
        self._handle = layer.register_solution_hook(self._record)

    def _record(self, program: ConeProgram, solution: ConeSolution) -> None:
        if self._certify:
            report = examine_problem(self._program, program, solution, program.batch_shape)
            self.margins.append(report.margin)
            self.regular.append(report.regular)
        else:
            self.margins.append(kink_margin(solution, program.structure.cone))

    def close(self) -> None:
        """Stop listening."""
        self._handle.remove()

    def __enter__(self) -> MarginHistory:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def plot(self, ax: Axes | None = None) -> Axes:
        """Smallest and median margin of each call on a logarithmic axis; crosses mark calls with irregular items."""
        import matplotlib.pyplot as plt  # plots are an optional extra

        ax = plt.subplots()[1] if ax is None else ax
        flat = [m.reshape(-1).double().clamp(min=1e-16) for m in self.margins]
        ax.semilogy([float(m.min()) for m in flat], label="smallest in the batch")
        ax.semilogy([float(m.nanmedian()) for m in flat], label="median", alpha=0.6)
        calls = [i for i, ok in enumerate(self.regular) if not bool(ok.all())]
        if calls:
            ax.semilogy(calls, [float(flat[i].min()) for i in calls], "x", color="C3", label="not regular")
        ax.set(xlabel="call", ylabel="distance to the nearest kink")
        ax.legend()
        return ax
