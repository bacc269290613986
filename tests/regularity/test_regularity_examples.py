"""The numbers of the examples."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def cyclic():
    return load("cyclic_dynamics")


@pytest.fixture(scope="module")
def chaotic():
    return load("lorenz_dynamics")


def reference_cycle(steps):
    """The iteration without any layer: s is (3, 5) above the line and (0, -1) below it."""
    x, y = 1.0, 2.0
    points = [(x, y)]
    for _ in range(steps):
        s1, s2 = (3.0, 5.0) if -3 * x + y + 2 > 0 else (0.0, -1.0)
        x, y = x - 1e-3 * 2 * (x - s1), y - 1e-3 * 8 * (y - s2)
        points.append((x, y))
    return torch.tensor(points, dtype=torch.float64)


def test_cycle_of_the_reference(cyclic):
    """Crossings at (2.326, 4.976) and (0.334, -0.998), period 1.657: from the closed formula, over ten rounds."""
    points = reference_cycle(18_000)
    turns = cyclic.crossings(points)
    upper, lower = points[turns[-2]], points[turns[-1]]
    upper, lower = (upper, lower) if upper[1] > 0 else (lower, upper)
    assert torch.allclose(upper, torch.tensor([2.326, 4.976]).double(), atol=2e-3)
    assert torch.allclose(lower, torch.tensor([0.334, -0.998]).double(), atol=2e-3)
    assert 1e-3 * (turns[-1] - turns[-3]) == pytest.approx(1.657, abs=2e-3)


def test_descent_through_the_layer_is_the_reference_cycle(cyclic):
    """The layer's gradient is that of the closed formula across the first switch; the certificates see it."""
    points = cyclic.descend(cyclic.vertex_layer(), (1.0, 2.0), 620)
    assert torch.allclose(points, reference_cycle(620), atol=1e-9)
    turns = cyclic.crossings(points)
    assert len(turns) == 1
    solution = cyclic.vertex_layer().solve(points)
    pointwise, ball = solution.regularity(), solution.regularity(radius=cyclic.RADIUS)
    height = -3 * points[:, 0] + points[:, 1] + 2
    assert bool(pointwise.regular.all()) and bool(ball.decided.all())
    assert torch.equal(ball.regular, height.abs() > cyclic.RADIUS)
    assert torch.allclose(pointwise.margin, height.abs(), atol=1e-7)
    assert not bool(ball.regular[turns[0] - 50 : turns[0]].any())
    on_line = cyclic.vertex_layer().solve(torch.tensor([1.0, 1.0], dtype=torch.float64)).regularity()
    assert not bool(on_line.regular) and bool(on_line.decided)
    assert list(on_line.undetermined) == ["(a, b)"]


def test_minimum_norm_descent_is_eulers_method_on_the_lorenz_system(chaotic):
    points = chaotic.descend(chaotic.unlifted(), 300)
    u = torch.tensor(chaotic.START, dtype=torch.float64)
    for _ in range(300):
        u = u + 0.01 * chaotic.lorenz(u)
    assert torch.equal(points[-1], u)


def test_euler_iterates_visit_both_lobes(chaotic):
    u, lobes = torch.tensor(chaotic.START, dtype=torch.float64), []
    for _ in range(4000):
        u = u + 0.01 * chaotic.lorenz(u)
        lobes.append(float(u[0]) > 0)
    switches = sum(a != b for a, b in zip(lobes, lobes[1:], strict=False))
    assert switches > 10 and 0.1 < sum(lobes) / len(lobes) < 0.9


def test_minimum_norms_depend_on_the_canonical_form(chaotic):
    """ds/du is the identity; the lifted answers are two multiples of it that differ, one zero as the unlifted one."""
    u = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    identity = torch.eye(3, dtype=torch.float64)
    found = []
    for layer in chaotic.lifted().values():
        jacobian = torch.func.jacrev(lambda u, layer=layer: layer(u)[0])(u)
        scale = float(jacobian[0, 0])
        assert torch.allclose(jacobian, scale * identity, atol=1e-6)
        found.append(scale)
        assert not bool(layer.solve(u).regularity().regular)
    assert found == [pytest.approx(0.5, abs=1e-6), pytest.approx(0.0, abs=1e-6)]


def test_remedies_converge(cyclic, chaotic):
    remedy = load("regular_remedy")
    points = remedy.descend(remedy.regular_layer(), 600, lambda k: 1e-2)
    assert torch.allclose(points[-1], torch.full((2,), 2 / 3).double(), atol=3e-3)
    assert bool(remedy.regular_layer().solve(points[-1]).regularity(radius=0.1).regular)
    informative = remedy.descend(remedy.informative_layer(), 150, lambda k: 1e-2 / (1 + k / 10))
    assert abs(float(-3 * informative[-1, 0] + informative[-1, 1] + 2)) < 0.2
    assert float((informative[-40:] - informative[-1]).norm(dim=-1).max()) < 0.1
    points, losses = remedy.descend_in_ball(remedy.regular_quartic(), 120)
    smallest = 5.5 - (4.5**2 + 19**2) ** 0.5  # eigenvalue of the loss's quadratic form
    assert float(losses[-1]) == pytest.approx(60.0**2 * smallest, rel=1e-6)
    assert bool((losses[1:] <= losses[:-1] + 1e-9).all())
