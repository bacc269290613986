"""One large sparse QP, forward and backward, against cvxpylayers with diffcp (Clarabel inside), in the same run.

Run: python benchmarks/sparse.py [--n 10000]
Needs: pip install ".[benchmarks]"
"""

from __future__ import annotations

import argparse
import time
import warnings

import torch
from families import sparse_single
from layers import versions

from conelayers import CvxpyLayer


def timed(call, arrays) -> tuple[float, float, torch.Tensor, list[torch.Tensor]]:
    """Seconds of forward and backward, the solution and the gradients of the sum of its squares."""
    leaves = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in arrays]
    start = time.perf_counter()
    (x,) = call(*leaves)
    middle = time.perf_counter()
    gradients = torch.autograd.grad((x**2).sum(), leaves)
    return middle - start, time.perf_counter() - middle, x.detach(), list(gradients)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    from cvxpylayers.torch import CvxpyLayer as Peer

    family, arrays = sparse_single(options.n, int(0.3 * options.n))
    calls = {"conelayers": CvxpyLayer(family.problem, family.parameters, family.variables)}
    for solver in ("BATCHED", "CLARABEL"):
        calls[f"conelayers {solver}"] = CvxpyLayer(family.problem, family.parameters, family.variables, solver=solver)
    calls["cvxpylayers lsqr"] = Peer(
        family.problem, family.parameters, family.variables, solver_args={"solve_method": "Clarabel", "mode": "lsqr"}
    )
    print(versions())
    reference = None
    for name, call in calls.items():
        if "conelayers" in name:
            timed(call, arrays)  # the symbolic analysis is kept afterwards
        forward, backward, x, gradients = timed(call, arrays)
        reference = reference or (x, gradients)
        errors = [float((a - b).norm() / b.norm()) for a, b in zip([x, *gradients], [reference[0], *reference[1]])]
        print(
            f"{name:22} forward {forward:7.2f} s  backward {backward:7.3f} s  difference to the first {max(errors):.1e}"
        )


if __name__ == "__main__":
    main()
