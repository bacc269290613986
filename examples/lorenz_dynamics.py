"""Gradient descent that is chaotic: a minimum-norm derivative that silently drops the term that matters.

The inner problem s(u) = argmin |s - u|^4 has the solution s = u, so ds/du = I. But its optimality condition, the
gradient 4 |s - u|^2 (s - u) = 0, has the derivative zero at the solution: the implicit function theorem does not
apply. The minimum-norm least-squares answer to "0 ds = 0 du" is ds/du = 0. For the loss -<u, F(s)> with the Lorenz
field F this leaves the gradient -F(u), and gradient descent u <- u + step F(u) is Euler's method on the Lorenz system.

The same problem, lifted by CVXPY to a cone programme, has another singular Jacobian and another minimum-norm answer,
neither zero nor right: a minimum norm depends on the form in which the problem is written. The constants of the
experiment of Bolte, Le, Pauwels & Silveti-Falls (NeurIPS 2021) are not known here; these are chosen to show the effect.

Run: python examples/lorenz_dynamics.py [--steps 2000] [--figure FILE]
"""

import argparse
import os
from pathlib import Path

import cvxpy as cp
import matplotlib.pyplot as plt
import torch
from tqdm import trange

from conelayers import CvxpyLayer
from conelayers.implicit import LeastSquares, ResidualEquation, implicit

STEP = 0.01
START = (1.0, 1.0, 1.0)


def lorenz(s: torch.Tensor) -> torch.Tensor:
    """The Lorenz field with the constants 10, 28, 8/3; shape (*batch, 3)."""
    x, y, z = s.unbind(-1)
    return torch.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], -1)


def loss(u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    """The outer objective -<u, F(s)>."""
    return -(u * lorenz(s)).sum(-1)


def quartic_gradient(s: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Gradient in s of |s - u|^4."""
    d = s - u
    return 4 * (d * d).sum() * d


def unlifted() -> ResidualEquation:
    """s(u) as a zero of the quartic's gradient; its exact solution is u."""
    return ResidualEquation(quartic_gradient, solver=lambda u: u, mode=LeastSquares())


def lifted() -> dict[str, CvxpyLayer]:
    """The same problem as two cone programmes."""
    s, u = cp.Variable(3), cp.Parameter(3)
    forms = {
        "power(norm(s - u), 4)": cp.power(cp.norm(s - u), 4),
        "square(sum_squares(s - u))": cp.square(cp.sum_squares(s - u)),
    }
    return {
        name: CvxpyLayer(cp.Problem(cp.Minimize(form)), [u], [s], derivative=LeastSquares())
        for name, form in forms.items()
    }


def descend(equation: ResidualEquation, steps: int) -> torch.Tensor:
    """Iterates of gradient descent, shape (steps + 1, 3)."""
    points = [torch.tensor(START, dtype=torch.float64)]
    for _ in trange(steps, desc="gradient descent", ncols=90):
        u = points[-1].clone().requires_grad_()
        (s,) = implicit(equation, u)
        (gradient,) = torch.autograd.grad(loss(u, s), u)
        points.append((u - STEP * gradient).detach())
    return torch.stack(points)


def main(arguments: list[str] | None = None) -> dict[str, object]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    figures = Path(os.environ.get("CONELAYERS_FIGURES", "examples/figures"))
    parser.add_argument("--figure", type=Path, default=figures / "lorenz_dynamics.png")
    options = parser.parse_args(arguments)

    equation = unlifted()
    u = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    jacobian = torch.func.jacrev(lambda u: implicit(equation, u)[0])(u)
    print("ds/du is the identity. Minimum norm, unlifted:", jacobian.diagonal().tolist())
    lifted_jacobians = {}
    for name, layer in lifted().items():
        lifted_jacobians[name] = torch.func.jacrev(lambda u, layer=layer: layer(u)[0])(u)
        regular = bool(layer.solve(u).regularity().regular)
        diagonal = [round(v, 6) for v in lifted_jacobians[name].diagonal().tolist()]
        print(f"minimum norm, {name}: {diagonal}, regular: {regular}")

    points = descend(equation, options.steps)
    lobes = torch.sign(points[:, 0])
    visits = int((lobes[1:] != lobes[:-1]).sum())
    print(f"the iterates change lobes {visits} times; largest |u| {points.norm(dim=-1).max():.1f}")
    draw(points, options.figure)
    print(f"figure: {options.figure}")
    return {"points": points, "visits": visits, "unlifted": jacobian, "lifted": lifted_jacobians}


def draw(points: torch.Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = plt.figure(figsize=(11, 4), layout="constrained")
    left = figure.add_subplot(1, 2, 1, projection="3d")
    left.plot(*points.T, lw=0.5)
    left.set(title="Gradient descent with the minimum-norm derivative", xlabel="u1", ylabel="u2", zlabel="u3")
    right = figure.add_subplot(1, 2, 2)
    right.plot(points[:, 0], lw=0.7)
    right.set(xlabel="iteration", ylabel="u1", title="No convergence: the iterates change lobes for ever")
    figure.savefig(path, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    main()
