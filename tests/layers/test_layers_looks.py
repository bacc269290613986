"""What is printed, plotted and warned about."""

import warnings

import cvxpy as cp
import pytest
import torch

from conelayers import ConeLayer, CvxpyLayer
from conelayers.backends import SCS
from conelayers.cones import Nonnegative
from conelayers.errors import ArgumentIgnoredWarning, InvalidArgument, UnsupportedError
from conelayers.layers import solver_args
from conelayers.program import Status

x, a, b = cp.Variable(2, name="x"), cp.Parameter(2, name="a"), cp.Parameter(name="b")


@pytest.fixture(scope="module")
def layer():
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [cp.sum(x) <= b, cp.norm(x) <= 9])
    return CvxpyLayer(problem, [a, b], [x, cp.sum(x)])


def test_a_layer_shows_its_interface_and_public_names(layer):
    text = repr(layer)
    assert "a(2,), b() -> x(2,), Sum(x, None, False)()" in text and "backend=BATCHED" in text
    assert "1 SecondOrder" in text and "Rescued" not in text
    assert "backend=BATCHED" in repr(ConeLayer(Nonnegative(2), torch.ones(2, 1)))


def test_a_solution_is_a_short_table(layer):
    solution = layer.solve(torch.randn(100, 2), torch.tensor(1.0))
    text = str(solution)
    assert "100 item(s): 100 SOLVED" in text and "92 more" in text and "tensor" not in text and len(text) < 1500
    assert "1 item(s)" in str(layer.solve(torch.randn(2), torch.tensor(1.0)))


def test_statuses_have_names():
    assert str(Status.SOLVED) == f"{Status.SOLVED}" == "SOLVED" and Status.SOLVED == 0


def test_plot(layer):
    pytest.importorskip("matplotlib").use("Agg")
    axes = layer.solve(torch.randn(5, 2), torch.tensor(1.0)).plot()
    assert axes.get_yscale() == "log" and "SOLVED (5)" in axes.get_legend().get_texts()[0].get_text()


def test_options_without_effect_are_reported_per_backend_at_the_users_line(layer, monkeypatch):
    monkeypatch.setattr(solver_args, "_reported", set())
    values = torch.randn(2), torch.tensor(1.0)
    option = {"acceleration_lookback": 0}
    with pytest.warns(
        ArgumentIgnoredWarning, match=r"no effect here.*leave it out.*BATCHED, whose options are tol"
    ) as seen:
        layer(*values, solver_args=option)
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(*values, solver_args=option)
    with pytest.warns(ArgumentIgnoredWarning, match="solved by SCS"):
        layer(*values, solver_args={**option, "solve_method": "SCS"})
    with pytest.warns(ArgumentIgnoredWarning, match="n_jobs_backward"):
        CvxpyLayer(
            cp.Problem(cp.Minimize(cp.sum_squares(x - a))), [a], [x], solver=SCS(), solver_args={"n_jobs_backward": 2}
        )


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((5, 2), (5, 1)), r"parameter 1 \(b\).*shape \(\) or \(5,\).*Got: 2 dimensions, shape \(5, 1\)"),
        (((5, 1, 2), (5,)), r"dimensionality for parameter"),
        (((5, 3), (5,)), r"parameter shape for parameter 0 \(a\)"),
        (((2,), (1, 1)), r"Inconsistent|dimensionality|parameter"),
    ],
)
def test_shapes_name_the_parameter_at_fault(layer, shapes, message):
    if shapes == ((2,), (1, 1)):  # one batch of two axes, which a shares
        assert layer(*(torch.zeros(s) for s in shapes))[0].shape == (1, 1, 2)
        return
    with pytest.raises(InvalidArgument, match=message):
        layer(*(torch.zeros(s) for s in shapes))


def test_a_matrix_that_is_not_symmetric_as_declared_is_said_once():
    M, y = cp.Parameter((2, 2), PSD=True, name="M"), cp.Variable(2)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(M @ y - 1))), [M], [y])
    value = torch.tensor([[2.0, 0.5], [0.1, 1.0]])
    with pytest.warns(ArgumentIgnoredWarning, match=r"parameter 0 \(M\).*used as \(X \+ X'\)/2") as seen:
        (found,) = layer(value)
    assert seen[0].filename == __file__
    torch.testing.assert_close(found, torch.linalg.solve((value + value.T) / 2, torch.ones(2)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(value)
        CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(M @ y - 1))), [M], [y])(value + value.T)


def test_export_and_meta_tensors_are_refused_in_words(layer):
    with pytest.raises(UnsupportedError, match=r"meta tensors.*\(3, 2\), \(3,\)"):
        layer(torch.zeros(3, 2, device="meta"), torch.zeros(3, device="meta"))
    with pytest.raises(UnsupportedError, match=r"torch\.export cannot take"):
        torch.export.export(layer, (torch.zeros(3, 2), torch.zeros(3)))
