"""Gradient descent that circles for ever: a linear programme as a layer, and a certificate that says why.

Minimise (x - s1)^2 + 4 (y - s2)^2 over (x, y), where s solves the linear programme

    maximise (a + b)(-3x + y + 2)  over  0 <= a <= 3, -1 <= b <= 5.

Off the line -3x + y + 2 = 0 the solution s is a vertex, (3, 5) or (0, -1), and does not move: its derivative is zero,
the implicit function theorem holds, and gradient descent heads for the current vertex. Each vertex lies on the other
side of the line. So the iterates cross, turn round, cross again, and never come near a critical point, because on the
line itself s is a set and no derivative can tell what happens there. (Bolte, Le, Pauwels & Silveti-Falls, NeurIPS
2021.)

The certificate at the iterate itself has nothing to object off the line; with a radius it warns before each crossing.

Run: python examples/cyclic_dynamics.py [--steps 3250] [--figure FILE]
"""

import argparse
import os
from pathlib import Path

import cvxpy as cp
import matplotlib.pyplot as plt
import torch
from tqdm import trange

from conelayers import CvxpyLayer

STEP = 1e-3
RADIUS = 0.5


def vertex_layer() -> CvxpyLayer:
    """(x, y) to a solution (a, b) of the linear programme."""
    s, point = cp.Variable(2, name="(a, b)"), cp.Parameter(2)
    height = -3 * point[0] + point[1] + 2
    bounds = [(s[0] >= 0).set_label("a >= 0"), (s[0] <= 3).set_label("a <= 3")]
    bounds += [(s[1] >= -1).set_label("b >= -1"), (s[1] <= 5).set_label("b <= 5")]
    return CvxpyLayer(cp.Problem(cp.Maximize(cp.sum(s) * height), bounds), parameters=[point], variables=[s])


def loss(point: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    """The outer objective, shape (*batch,)."""
    return (point[..., 0] - s[..., 0]) ** 2 + 4 * (point[..., 1] - s[..., 1]) ** 2


def descend(layer: CvxpyLayer, start: tuple[float, float], steps: int, step: float = STEP) -> torch.Tensor:
    """Iterates of gradient descent through the layer, shape (steps + 1, 2)."""
    points = [torch.tensor(start, dtype=torch.float64)]
    for _ in trange(steps, desc="gradient descent", ncols=90):
        point = points[-1].clone().requires_grad_()
        (s,) = layer(point)
        (gradient,) = torch.autograd.grad(loss(point, s), point)
        points.append((point - step * gradient).detach())
    return torch.stack(points)


def crossings(points: torch.Tensor) -> list[int]:
    """Indices of the first iterate on the other side of the line."""
    side = (-3 * points[:, 0] + points[:, 1] + 2) > 0
    return (torch.nonzero(side[1:] != side[:-1])[:, 0] + 1).tolist()


def main(arguments: list[str] | None = None) -> dict[str, object]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3250)
    figures = Path(os.environ.get("CONELAYERS_FIGURES", "examples/figures"))
    parser.add_argument("--figure", type=Path, default=figures / "cyclic_dynamics.png")
    options = parser.parse_args(arguments)

    layer = vertex_layer()
    points = descend(layer, (1.0, 2.0), options.steps)
    turns = crossings(points)
    period = STEP * (turns[-1] - turns[-3]) if len(turns) > 2 else float("nan")
    print("crossings:", [tuple(round(v, 3) for v in points[i].tolist()) for i in turns], f"period {period:.3f}")

    # The certificate along the orbit: one batch.
    solution = layer.solve(points)
    pointwise, ball = solution.regularity(), solution.regularity(radius=RADIUS)
    on_line = layer.solve(torch.tensor([1.0, 1.0], dtype=torch.float64)).regularity()
    warned = ~ball.regular
    print(
        f"regular at the iterate: {int(pointwise.regular.sum())} of {len(points)}; with radius {RADIUS}: "
        f"{int(ball.regular.sum())}; on the line: {bool(on_line.regular)}"
    )
    print(on_line.explain())
    lead = [i - 1 - int(torch.nonzero(~warned[:i])[-1]) for i in turns]
    print("iterations of warning before each crossing:", lead)

    draw(points, turns, pointwise, ball, options.figure)
    print(f"figure: {options.figure}")
    return {
        "crossings": points[turns],
        "period": period,
        "pointwise": pointwise,
        "ball": ball,
        "on_line": on_line,
        "turns": turns,
        "lead": lead,
        "points": points,
    }


def draw(points, turns, pointwise, ball, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    warned = ~ball.regular
    left.plot(*points.T, lw=1, color="C0", label="iterates")
    left.plot(*points[warned].T, ".", ms=3, color="C3", label=f"certificate with radius {RADIUS} warns")
    x = torch.linspace(-0.2, 2.6, 2)
    left.plot(x, 3 * x - 2, "k--", lw=1, label="-3x + y + 2 = 0")
    left.plot([3, 0], [5, -1], "k*", label="the two vertices")
    left.plot(*points[0], "ko", ms=4)
    left.set(xlabel="x", ylabel="y", title="Gradient descent through a linear programme")
    left.legend(fontsize=8)
    time = STEP * torch.arange(len(points))
    right.semilogy(time, pointwise.margin, label="margin: distance to the nearest kink")
    right.axhline(RADIUS, color="C3", lw=1, label="radius")
    for turn in turns:
        right.axvline(time[turn], color="k", lw=0.6, ls=":")
    right.set(xlabel="step x iterations", title="The certificate along the orbit")
    right.legend(fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    main()
