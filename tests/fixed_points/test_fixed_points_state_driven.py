"""State-driven training: recovery, optimality by subgradients, the bound, and feed-forward teachers."""

import pytest
import torch
from torch import nn

from conelayers import ImplicitModel, state_driven_training
from conelayers.errors import InvalidArgument, SolveError
from conelayers.fixed_points.iterations import Anderson
from conelayers.layers import fit_states


def teacher(n=8, p=4, q=3):
    torch.manual_seed(0)
    model = ImplicitModel(p, n, q, solver=Anderson(atol=1e-12, rtol=0))
    with torch.no_grad():
        for M in (model.A, model.B, model.C, model.D):
            M.mul_(torch.rand_like(M) < 0.4)
        # Every state hears some input of its own: the states and inputs are far from linearly dependent.
        model.B += torch.randn_like(model.B)
    return model, torch.randn(200, p)


def states(model, u):
    with torch.no_grad():
        x = model.state(u)
        return x, x @ model.A.T + u @ model.B.T, x @ model.C.T + u @ model.D.T


def matrices(model):
    return [M.detach() for M in (model.A, model.B, model.C, model.D)]


def test_without_sparsity_the_teacher_is_recovered():
    model, u = teacher()
    student = state_driven_training(model, u, sparsity=0.0)
    for found, wanted in zip(matrices(student), matrices(model), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("sparsity", [1e-4, 1e-3, 1e-1])
@pytest.mark.parametrize("kappa", [0.95, 0.2])
def test_rows_are_optimal(sparsity, kappa):
    """Subgradient conditions of every row; the multiplier of the bound is read off the row's largest correlation."""
    model, u = teacher()
    x, z, y = states(model, u)
    A, B, C, D = fit_states(u, z, x, y, sparsity=sparsity, kappa=kappa)
    size = A.abs().sum(1)
    assert (size <= kappa * (1 + 1e-9)).all() and (kappa == 0.95 or sparsity > 1e-3 or (size > kappa - 1e-9).any())
    for own, direct, target in ((A, B, z), (C, D, y)):
        error = target - x @ own.T - u @ direct.T
        pull_own, pull_direct = error.T @ x / len(u), error.T @ u / len(u)
        weight = torch.full_like(own[:, 0], sparsity)
        if own is A:  # complementarity: a multiplier only where the bound holds with equality
            weight = torch.where(size > kappa - 1e-7, pull_own.abs().amax(1).clamp(min=sparsity), weight)
        for pull, M, limit in ((pull_own, own, weight[:, None]), (pull_direct, direct, torch.full((1, 1), sparsity))):
            assert (pull.abs() <= limit + 1e-7).all()
            assert ((pull - limit * M.sign())[M != 0].abs() < 1e-7).all()


def test_sparser_students_have_fewer_entries_and_stay_close():
    model, u = teacher()
    students = [state_driven_training(model, u, sparsity=s) for s in (1e-4, 1e-2, 1e-1)]
    counts = [sum(int((M != 0).sum()) for M in matrices(s)) for s in students]
    assert counts[0] > counts[1] > counts[2]
    with torch.no_grad():
        error = (students[0](u) - model(u)).abs().max()
    assert error < 0.02
    assert all(s.certificate().regular and s.wellposed.kappa == 0.95 for s in students)


def test_feedforward_teacher_becomes_an_implicit_student():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    u = torch.randn(300, 3)
    student = state_driven_training(net, u, sparsity=1e-5, kappa=0.99)
    ones = torch.ones(300, 1)
    assert student.A.shape == (11, 11) and student.A.abs().sum(1).max() <= 0.99
    with torch.no_grad():
        error = (student(torch.cat([u, ones], 1)) - net(u)).abs().mean() / net(u).abs().mean()
    assert error < 0.1  # the bound on A costs accuracy: the network's own rows are longer


def test_shapes_dtypes_and_degenerate_data():
    model, u = teacher()
    x, z, y = states(model, u)
    found = fit_states(u.float(), z.float(), x.float(), y.float())
    assert all(M.dtype == torch.float32 for M in found)
    few = fit_states(u[:5], z[:5], x[:5], y[:5], sparsity=1e-2)  # fewer samples than unknowns
    assert all(M.isfinite().all() for M in few)
    none = fit_states(u, z[:, :0], x[:, :0], y)
    assert [tuple(M.shape) for M in none] == [(0, 0), (0, 4), (3, 0), (3, 4)]
    for bad in (
        lambda: fit_states(u[:3], z, x, y),
        lambda: fit_states(u, z[:, :2], x, y),
        lambda: fit_states(u, z, x, y, kappa=1.0),
        lambda: fit_states(u, z, x, y, sparsity=-1.0),
        lambda: fit_states(u[:0], z[:0], x[:0], y[:0]),
    ):
        with pytest.raises(InvalidArgument):
            bad()


@pytest.mark.parametrize("size", [1e-6, 1e-3, 1e4])
def test_units_of_the_data_do_not_matter(size):
    """Rows of one size: the same matrices where the weight goes with the square of the data."""
    model, u = teacher()
    reference = fit_states(u, *states_of(model, u), sparsity=1e-3)
    found = fit_states(size * u, *states_of(model, size * u), sparsity=1e-3 * size**2)
    recovered = fit_states(size * u, *states_of(model, size * u), sparsity=0.0)
    for a, b in zip(found, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)
    for a, M in zip(recovered, matrices(model), strict=True):
        torch.testing.assert_close(a, M, rtol=0, atol=1e-9)


def test_rows_of_different_sizes_are_each_recovered():
    model, u = teacher()
    with torch.no_grad():
        model.C[0] *= 1e-7
        model.D[0] *= 1e-7
    *_, C, D = fit_states(u, *states_of(model, u), sparsity=0.0)
    assert (C - model.C)[0].abs().max() < 1e-9 * model.C[0].abs().max()
    assert (D - model.D).abs().max() < 1e-9


def test_a_weight_above_all_correlations_gives_zeros_and_says_so():
    model, u = teacher()
    with pytest.warns(UserWarning, match="take a smaller one"):
        found = fit_states(1e-6 * u, *states_of(model, 1e-6 * u), sparsity=1e-6)
    assert not any(M.any() for M in found)


@pytest.mark.parametrize("setting", ["sparsity", "kappa"])
@pytest.mark.parametrize("value", ["a", float("nan"), -1.0])
def test_settings_and_teachers_are_named(setting, value):
    model, u = teacher()
    with pytest.raises(InvalidArgument, match=f"^{setting} must be a number"):
        state_driven_training(model, u, **{setting: value})
    with pytest.raises(InvalidArgument, match="^teacher must be"):
        state_driven_training(nn.Linear(4, 2), u)
    with pytest.raises(SolveError):
        fit_states(u * torch.nan, *states_of(model, u))


def states_of(model, u):
    """Pre-activations, states and outputs, in the order of `fit_states`."""
    x, z, y = states(model, u)
    return z, x, y
