"""Starting a solve from a previous solution."""

import cvxpy as cp
import pytest
import torch

from conelayers import ConeLayer, CvxpyLayer
from conelayers.cones import Nonnegative
from conelayers.errors import InvalidArgument


def ball(solver=None, **settings):
    """Nearest sparse point of a ball on a plane: second-order, nonnegative and zero cones."""
    x, a, radius = cp.Variable(6), cp.Parameter(6), cp.Parameter()
    objective = cp.Minimize(cp.sum_squares(x - a) + cp.norm1(x))
    problem = cp.Problem(objective, [cp.norm(x) <= radius, cp.sum(x) == 1])
    return CvxpyLayer(problem, [a, radius], [x], solver=solver, **settings)


def sample(items=5, units=1.0):
    generator = torch.Generator().manual_seed(3)
    a = torch.randn(items, 6, dtype=torch.float64, generator=generator)
    return units * a, units * torch.full((items,), 2.0, dtype=torch.float64)


def moved(params, part=1e-3):
    return params[0] * (1 + part), params[1]


@pytest.mark.parametrize("solver", [None, "BATCHED", "CLARABEL", "SCS"])
def test_solutions_and_gradients_are_those_of_a_cold_start(solver):
    layer, params = ball(solver), sample()
    start = layer.solve(*params)
    found = []
    for warm_start in (False, start, start.cone):
        leaves = [p.clone().requires_grad_() for p in moved(params)]
        (x,) = layer(*leaves, warm_start=warm_start)
        found.append((x, *torch.autograd.grad(x.square().sum(), leaves)))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-8, atol=1e-9)


def test_near_starts_leave_nothing_to_iterate():
    layer, params = ball(), sample()
    assert (layer.solve(*params).iterations > 0).all()
    assert (layer.solve(*moved(params), warm_start=layer.solve(*params)).iterations == 0).all()


@pytest.mark.parametrize("units", [1e3, 1e6])
def test_starts_keep_their_worth_in_other_units(units):
    layer, params = ball(), sample(units=units)
    cold = layer.solve(*moved(params))
    warm = layer.solve(*moved(params), warm_start=layer.solve(*params))
    assert (warm.iterations == 0).all()
    torch.testing.assert_close(warm.variables[0], cold.variables[0], rtol=1e-9, atol=1e-9 * units)


def test_one_solution_for_all_items_and_batch_axes_of_the_same_size():
    layer, (a, radius) = ball(), sample(6)
    single = layer.solve(a[0], radius[0])
    near = a[:1] * (1 + 1e-4 * torch.arange(6)[:, None])
    assert (layer.solve(near, radius, warm_start=single).iterations == 0).all()
    grid = layer.solve(a.reshape(2, 3, 6), radius.reshape(2, 3), warm_start=layer.solve(a, radius))
    assert grid.iterations.shape == (2, 3) and (grid.iterations == 0).all()


def test_starts_that_do_not_fit_are_refused():
    layer, params = ball(), sample()
    with pytest.raises(InvalidArgument, match="5 items, the batch has 4"):
        layer(*(p[:4] for p in params), warm_start=layer.solve(*params))
    x, c = cp.Variable(3), cp.Parameter(3)
    other = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [x >= 0]), [c], [x])
    with pytest.raises(InvalidArgument, match="same problem"):
        layer(*params, warm_start=other.solve(torch.ones(5, 3)))


def test_items_without_a_solution_start_afresh():
    layer = ball(on_failure="nan")
    a, radius = sample()
    radius[2] = -1.0
    start = layer.solve(a, radius)
    assert not start.cone.has_solution[2]
    radius[2] = 2.0
    again = layer.solve(a, radius, warm_start=start)
    assert again.iterations[2] > 0 and (again.iterations[[0, 1, 3, 4]] == 0).all()
    assert again.cone.has_solution.all()


def test_own_previous_solution():
    layer, params = ball(), sample()
    layer(*params, warm_start=True)
    assert (layer.solve(*moved(params), warm_start=True).iterations == 0).all()
    smaller = tuple(p[:3] for p in params)  # the last batch of an epoch
    assert (layer.solve(*smaller, warm_start=True).iterations > 0).all()
    assert (layer.solve(*smaller, warm_start=True).iterations == 0).all()


def test_transforms_leave_nothing_of_theirs_behind():
    layer, params = ball(), sample()
    (x,) = layer(*params, warm_start=True)
    jacobians = torch.func.vmap(torch.func.jacrev(lambda a, r: layer(a, r, warm_start=True)[0]))(*params)
    assert jacobians.shape == (5, 6, 6)
    torch.testing.assert_close(layer(*params, warm_start=True)[0], x)
    start = layer.solve(*params)
    torch.testing.assert_close(torch.func.vmap(lambda a, r: layer(a, r, warm_start=start)[0])(*params), x)


def test_cone_layer():
    P, A, b = torch.eye(3).double(), torch.cat([-torch.eye(3), torch.ones(1, 3)]).double(), torch.tensor([0.0, 0, 0, 1])
    layer = ConeLayer(Nonnegative(4), A, P)
    q = torch.tensor([[-1.0, 0.3, -2.0], [0.4, -0.2, 0.1]]).double()
    start = layer(P, q, A, b.double())
    warm = layer(P, q * 1.01, A, b.double(), warm_start=start)
    assert (warm.iterations == 0).all()
    torch.testing.assert_close(warm.x, layer(P, q * 1.01, A, b.double()).x, rtol=1e-10, atol=1e-12)
    with pytest.raises(InvalidArgument, match="2 items"):
        layer(P, q[[0, 1, 0]], A, b.double(), warm_start=start)
