"""The remedy: the problems of cyclic_dynamics.py and lorenz_dynamics.py, made regular, converge.

1. The linear programme gets a quadratic term, -(eps/2)(a^2 + b^2). Its solution then moves with its parameters, the
   certificate holds with a radius as well, and gradient descent reaches a critical point with loss zero. Keeping the
   linear programme and asking for an informative gradient (`LagrangianProximal`) makes the iterates settle on the line
   instead of circling. (`Smoothed(mu)` smooths the derivative and not the solution: it does not help here.)
2. The quartic gets a quadratic term, (rho/2)|s - u|^2. The solution is s = u as before, but the Hessian is rho I, the
   implicit derivative is the identity, and what is followed is the gradient of the loss. That loss is an indefinite
   quadratic form, unbounded below, so both dynamics are projected on a ball that holds the Lorenz attractor: with the
   true derivative they converge to the minimiser on the sphere, with the minimum-norm one they wander as before.

Run: python examples/regular_remedy.py [--figure FILE]
"""

import argparse
import os
import sys
from pathlib import Path

import cvxpy as cp
import matplotlib.pyplot as plt
import torch

from conelayers import CvxpyLayer
from conelayers.implicit import Exact, LagrangianProximal, ResidualEquation, implicit

sys.path.insert(0, str(Path(__file__).parent))
import cyclic_dynamics as cyclic  # noqa: E402
import lorenz_dynamics as chaotic  # noqa: E402

RADIUS_OF_BALL = 60.0


def regular_layer(eps: float = 1.0) -> CvxpyLayer:
    """The layer of cyclic_dynamics with a quadratic term."""
    s, point = cp.Variable(2), cp.Parameter(2)
    height = -3 * point[0] + point[1] + 2
    objective = cp.sum(s) * height - eps / 2 * cp.sum_squares(s)
    bounds = [s[0] >= 0, s[0] <= 3, s[1] >= -1, s[1] <= 5]
    return CvxpyLayer(cp.Problem(cp.Maximize(objective), bounds), parameters=[point], variables=[s])


def informative_layer(tau: float = 1.0) -> CvxpyLayer:
    """The linear programme itself, with gradients from a perturbed solve."""
    layer = cyclic.vertex_layer()
    layer.derivative = LagrangianProximal(tau)
    return layer


def descend(layer: CvxpyLayer, steps: int, step) -> torch.Tensor:
    """Iterates of gradient descent with step sizes step(k), shape (steps + 1, 2)."""
    points = [torch.tensor([1.0, 2.0], dtype=torch.float64)]
    for k in range(steps):
        point = points[-1].clone().requires_grad_()
        (s,) = layer(point)
        (gradient,) = torch.autograd.grad(cyclic.loss(point, s), point)
        points.append((point - step(k) * gradient).detach())
    return torch.stack(points)


def regular_quartic(rho: float = 1.0) -> ResidualEquation:
    """The zero of the gradient of |s - u|^4 + (rho/2)|s - u|^2."""

    def gradient(s: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        return chaotic.quartic_gradient(s, u) + rho * (s - u)

    return ResidualEquation(gradient, solver=lambda u: u, mode=Exact())


def descend_in_ball(equation: ResidualEquation, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Iterates of projected gradient descent, shape (steps + 1, 3), and their losses."""
    points, losses = [torch.tensor(chaotic.START, dtype=torch.float64)], []
    for _ in range(steps):
        u = points[-1].clone().requires_grad_()
        (s,) = implicit(equation, u)
        value = chaotic.loss(u, s)
        (gradient,) = torch.autograd.grad(value, u)
        moved = (u - chaotic.STEP * gradient).detach()
        points.append(moved * (RADIUS_OF_BALL / moved.norm()).clamp(max=1.0))
        losses.append(value.detach())
    return torch.stack(points), torch.stack(losses)


def main(arguments: list[str] | None = None) -> dict[str, object]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    figures = Path(os.environ.get("CONELAYERS_FIGURES", "examples/figures"))
    parser.add_argument("--figure", type=Path, default=figures / "regular_remedy.png")
    options = parser.parse_args(arguments)

    layer = regular_layer()
    quadratic = descend(layer, 700, lambda k: 1e-2)
    report = layer.solve(quadratic[-1]).regularity(radius=0.1)
    print(f"quadratic term: {quadratic[-1].tolist()}, regular within 0.1: {bool(report.regular)}")
    informative = descend(informative_layer(), 400, lambda k: 1e-2 / (1 + k / 20))
    height = float(-3 * informative[-1, 0] + informative[-1, 1] + 2)
    spread = float((informative[-100:] - informative[-1]).norm(dim=-1).max())
    print(
        f"informative gradient: {informative[-1].tolist()}, height over the line {height:.3f}, last moves {spread:.3f}"
    )

    regular, losses = descend_in_ball(regular_quartic(), 400)
    wandering, wandering_losses = descend_in_ball(chaotic.unlifted(), 800)
    matrix = torch.tensor([[10.0, -19.0, 0.0], [-19.0, 1.0, 0.0], [0.0, 0.0, 8 / 3]], dtype=torch.float64)
    best = RADIUS_OF_BALL**2 * float(torch.linalg.eigvalsh(matrix)[0])
    print(
        f"regular quartic: loss {float(losses[-1]):.6f}, minimum on the ball {best:.6f}; minimum norm: last losses "
        f"between {float(wandering_losses[-200:].min()):.0f} and {float(wandering_losses[-200:].max()):.0f}"
    )
    draw(quadratic, informative, losses, wandering_losses, best, options.figure)
    print(f"figure: {options.figure}")
    return {
        "quadratic": quadratic,
        "report": report,
        "informative": informative,
        "height": height,
        "spread": spread,
        "regular": regular,
        "losses": losses,
        "best": best,
        "wandering": wandering,
        "wandering_losses": wandering_losses,
    }


def draw(quadratic, informative, losses, wandering_losses, best, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    left.plot(*quadratic.T, label="quadratic term")
    left.plot(*informative.T, lw=0.8, label="LagrangianProximal")
    x = torch.linspace(0.4, 1.8, 2)
    left.plot(x, 3 * x - 2, "k--", lw=1, label="-3x + y + 2 = 0")
    left.plot(*quadratic[-1], "k*")
    left.set(xlabel="x", ylabel="y", title="The cycle, made regular")
    left.legend(fontsize=8)
    right.plot(losses, label="quadratic term: true derivative")
    right.plot(wandering_losses, lw=0.7, label="minimum norm")
    right.axhline(best, color="k", lw=0.7, ls=":", label="minimum on the ball")
    right.set(xlabel="iteration", ylabel="loss", title="The quartic, made regular")
    right.legend(fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    main()
