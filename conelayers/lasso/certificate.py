"""Whether the implicit function theorem holds at a solution, and which features are about to enter or leave."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from conelayers.lasso.problem import Problem
from conelayers.lasso.support import Support, SupportSystem

__all__ = ["SupportCertificate", "certify"]


@dataclass(frozen=True)
class SupportCertificate:
    """Regularity of a proximal model at a solution.

    Attributes:
        regular: Whether every element of the Clarke Jacobian of the fixed-point residual is invertible. For a convex
            model its elements are diag(q) J + (I - diag(q)) with q = 1 on the support, q = 0 on strictly inactive
            entries and any q in [0, 1] on weakly active ones; they are all invertible if and only if the matrix J of
            the equicorrelation set (support and weakly active entries) is positive definite.
        smallest: Smallest eigenvalue of J on the equicorrelation set, scaled to unit diagonal.
        support: Entries of the generalised support, positions in coef.flatten().
        weak: Weakly active entries off the support, positions in coef.flatten().
        margin: Smallest slack among the entries off the support that are not weak, relative to the gradient at zero.
    """

    regular: bool
    smallest: float
    support: Tensor
    weak: Tensor
    margin: float


def certify(problem: Problem, coef: Tensor, intercept: Tensor, radius: float = 1e-8) -> SupportCertificate:
    """Test a solution.

    Args:
        problem: The problem that was solved.
        coef: Its coefficients.
        intercept: Its intercept.
        radius: Entries off the support whose slack is at most this, relative to the gradient at zero, are weakly
            active. Should be of the size of the solver's tolerance, or larger to be told of kinks nearby.
    """
    with torch.no_grad():
        gradient, _ = problem.gradients(problem.predictions(coef, intercept))
        slack = problem.term.slack(coef, gradient) / problem.measured()[1]
        weak = (slack <= radius) & ~problem.term.support(coef)
        support = Support.of(problem.term, coef, also=weak)
        sub = problem.restrict(support.features)
        local = coef[support.features]
        hessian = problem.datafit.hessian(sub.predictions(local, intercept), problem.y, problem.weights)
        system = SupportSystem(
            sub.design, hessian, sub.term, local, support.entries, problem.fit_intercept, problem.datafit
        )
        matrix = system.matrix()
        root = matrix.diagonal().abs().clamp_min(torch.finfo(matrix.dtype).tiny).rsqrt()
        sizes = torch.linalg.eigvalsh(matrix * root[:, None] * root) if root.numel() else matrix.new_ones(1)
        smallest = float(sizes[0]) if problem.term.convex else float(sizes.abs().min())
        beyond = slack[(slack > radius) & slack.isfinite()]
    return SupportCertificate(
        regular=smallest > 1e-12 * max(1.0, float(sizes.abs().max())),
        smallest=smallest,
        support=torch.nonzero(problem.term.support(coef).flatten()).flatten(),
        weak=torch.nonzero(weak.flatten()).flatten(),
        margin=float(beyond.min()) if beyond.numel() else float("inf"),
    )
