"""What models are given: single items, empty batches, and what is no input of theirs, named with the remedy."""

import dataclasses

import numpy as np
import pytest
import torch
from equilibria import ContractingCell
from torch import nn
from torch.utils._pytree import tree_leaves

from conelayers.errors import InvalidArgument
from conelayers.fixed_points.iterations import Anderson
from conelayers.layers import FixedPointLayer
from conelayers.layers.deq import DEQ, fixed_point_correction
from conelayers.layers.fixed_point import fixed_point
from conelayers.layers.implicit_model import ImplicitModel, InfinityNorm
from conelayers.layers.monotone_conv import MonotoneConvDEQ, MonotoneMultiTierDEQ
from conelayers.layers.monotone_deq import MonotoneDEQ

SINGLE_ITEMS = [
    (lambda: MonotoneDEQ(3, 5), (3,)),
    (lambda: MonotoneDEQ(3, 5, solver=Anderson()), (3,)),
    (lambda: ImplicitModel(3, 5, 2), (3,)),
    (lambda: DEQ(ContractingCell()), (3,)),
    (lambda: MonotoneConvDEQ(2, 3, (4, 4)), (2, 4, 4)),
    (lambda: MonotoneMultiTierDEQ(2, (3, 2), (6, 6), solver=Anderson()), (2, 6, 6)),
]


@pytest.mark.parametrize(("build", "shape"), SINGLE_ITEMS)
def test_an_item_without_batch_axis_is_solved_as_in_a_batch(build, shape):
    """Its entries depend on each other: they are one item, not a batch of them."""
    torch.manual_seed(0)
    model = build().double()
    model.solver = dataclasses.replace(model.solver, atol=1e-12, rtol=1e-12)
    x = torch.randn(4, *shape, dtype=torch.float64, requires_grad=True)

    def derivative(z):
        total = sum(t.square().sum() for t in tree_leaves(z))
        return torch.autograd.grad(total, [x, *model.parameters()])

    batch, one = model(x), [model(item) for item in x]
    mapped = torch.func.vmap(model)(x)
    rows = [torch.stack(parts) for parts in zip(*map(tree_leaves, one), strict=True)]
    for expected, stacked, found in zip(tree_leaves(batch), rows, tree_leaves(mapped), strict=True):
        torch.testing.assert_close(stacked, expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    for expected, stacked in zip(derivative(batch), derivative(one), strict=True):
        torch.testing.assert_close(stacked, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("build", "shape"), SINGLE_ITEMS)
def test_an_empty_batch_has_zero_gradients(build, shape):
    model = build()
    x = torch.zeros(0, *shape, requires_grad=True)
    z = tree_leaves(model(x))
    assert all(t.shape[0] == 0 and t.dim() >= 2 for t in z)
    found = torch.autograd.grad(sum(t.sum() for t in z), [x, *model.parameters()], allow_unused=True)
    assert all(g is None or not g.any() for g in found)


@pytest.mark.parametrize(("build", "shape"), SINGLE_ITEMS)
def test_wrong_inputs_are_named(build, shape):
    model = build()
    name = "u" if isinstance(model, ImplicitModel) else "x"
    right = torch.randn(2, *shape)
    with pytest.raises(InvalidArgument, match=f"^{name}.* must be a"):
        model(right.numpy())
    if isinstance(model, DEQ):  # what a cell takes is its own affair: the error says what it was given
        for wrong in (right.repeat(1, 2), right.float()):
            with pytest.raises(RuntimeError) as raised:
                model(wrong)
            assert f"{tuple(wrong.shape)}, {wrong.dtype}" in notes(raised)
        with pytest.raises(InvalidArgument, match="^x.* must be a floating-point"):
            model(right.long())
        return
    for wrong in (right.repeat_interleave(2, -1), right.repeat_interleave(2, -len(shape)), right[..., :-1]):
        with pytest.raises(InvalidArgument, match=f"^{name} must have shape"):
            model(wrong)
    for wrong in (right.float(), right.long(), right.to(torch.complex128)):
        with pytest.raises(InvalidArgument, match=f"^{name} must have the dtype .* convert it"):
            model(wrong)


@pytest.mark.parametrize("make", [lambda: ImplicitModel(3, 5, 2), lambda: MonotoneDEQ(3, 5, solver=Anderson())])
def test_autocast_converts_by_itself(make):
    model = make().float()
    model.solver = dataclasses.replace(model.solver, atol=0.1, rtol=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        for x in (torch.randn(2, 3, dtype=torch.float32), torch.randn(2, 3, dtype=torch.bfloat16)):
            assert model(x).isfinite().all()


def test_wrong_starts_and_bounds_are_named():
    model = MonotoneDEQ(3, 5)
    for z0 in (torch.zeros(4, 6), np.zeros((4, 5)), torch.zeros(4, 5).float(), None):
        if z0 is not None:
            with pytest.raises(InvalidArgument, match="^z0 must have the"):
                model(torch.randn(4, 3), z0)
    with pytest.raises(InvalidArgument, match="^sigma must have shape"):
        ImplicitModel(3, 5, 2).output_bound(torch.ones(4))


class Mine(Exception):
    """Of a class that nobody else raises."""


class Refusing(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, z):
        raise self.error


def notes(raised):
    return "\n".join(raised.value.__notes__)


@pytest.mark.parametrize("kind", [RuntimeError, TypeError, ValueError, AssertionError, NotImplementedError, Mine])
def test_what_a_map_raises_reaches_its_author_with_a_note(kind):
    error = kind("mine")
    with pytest.raises(kind) as raised:
        FixedPointLayer(Refusing(error))(torch.zeros(2, 3))
    assert raised.value is error and error.__cause__ is None
    assert "[(2, 3)]" in notes(raised)


def test_a_map_of_other_arguments_says_what_it_was_given():
    with pytest.raises(RuntimeError, match="cannot be multiplied") as raised:
        FixedPointLayer(nn.Linear(4, 4))(torch.zeros(2, 3))
    assert "z0 of shapes [(2, 3)]" in notes(raised)
    with pytest.raises(TypeError, match="positional argument") as raised:
        fixed_point(lambda z: z / 2, torch.zeros(2, 3), torch.zeros(7))
    assert "params [((7,)" in notes(raised)


RELU = (torch.relu, nn.functional.relu, nn.ReLU())


@pytest.mark.parametrize("activation", RELU)
def test_every_spelling_of_relu_has_splitting_solvers(activation):
    torch.manual_seed(1)
    x, model = torch.randn(4, 3), MonotoneDEQ(3, 5, activation=activation)
    model.solver = dataclasses.replace(model.solver, atol=1e-12, rtol=1e-12)
    z = model(x)
    assert (torch.relu(z @ model.W.T + model.inject(x)) - z).abs().max() < 1e-10


SETTINGS = [
    ("cell", lambda: DEQ(ContractingCell)),
    ("cell", lambda: DEQ(3)),
    ("solver", lambda: DEQ(ContractingCell(), solver=Anderson)),
    ("adjoint", lambda: DEQ(ContractingCell(), adjoint="implicit")),
    ("initial", lambda: DEQ(ContractingCell(), initial=3)),
    ("spectral_norm", lambda: DEQ(ContractingCell(), spectral_norm="a")),
    ("samples", lambda: DEQ(ContractingCell()).jacobian_penalty(torch.zeros(2, 3), torch.zeros(2, 3), 0)),
    ("z", lambda: DEQ(ContractingCell()).jacobian_penalty(np.zeros((2, 3)), torch.zeros(2, 3))),
    ("steps", lambda: DEQ(ContractingCell()).trajectory(torch.zeros(2, 3), [1.5])),
    ("losses", lambda: fixed_point_correction([])),
    ("f", lambda: FixedPointLayer(nn.Linear)),
    ("solver", lambda: FixedPointLayer(nn.Linear(2, 2), solver="anderson")),
    ("batch_dims", lambda: FixedPointLayer(nn.Linear(2, 2), batch_dims=1.5)),
    ("inputs", lambda: ImplicitModel(1.5, 3, 2)),
    ("states", lambda: ImplicitModel(1, -3, 2)),
    ("wellposed", lambda: ImplicitModel(1, 3, 2, wellposed=InfinityNorm)),
    ("activation", lambda: ImplicitModel(1, 3, 2, activation="relu")),
    ("InfinityNorm: kappa", lambda: InfinityNorm("a")),
    ("A", lambda: ImplicitModel.from_matrices(*[np.eye(2)] * 4)),
    ("A", lambda: ImplicitModel.from_matrices(*[torch.ones(2)] * 4)),
    ("C", lambda: ImplicitModel.from_matrices(torch.eye(2), torch.eye(2), torch.eye(2).float(), torch.eye(2))),
    ("network", lambda: ImplicitModel.from_feedforward(nn.Linear(2, 3))),
    ("threshold", lambda: ImplicitModel(3, 5, 2).sparsified(float("nan"))),
    ("other", lambda: ImplicitModel(3, 5, 2).sum(ImplicitModel(4, 5, 2))),
    ("other", lambda: ImplicitModel(3, 5, 2).feedback(ImplicitModel(3, 5, 2))),
    ("other", lambda: ImplicitModel(3, 5, 2).parallel(3)),
    ("after", lambda: ImplicitModel(3, 5, 2).cascade(nn.Linear(2, 2))),
    ("m", lambda: MonotoneDEQ(3, 2, m="a")),
    ("features", lambda: MonotoneDEQ(3, 2.5)),
    ("solver", lambda: MonotoneDEQ(3, 2, solver="anderson")),
    ("size", lambda: MonotoneConvDEQ(2, 3, 4)),
    ("size", lambda: MonotoneConvDEQ(2, 3, (4.0, 4.0))),
    ("kernel", lambda: MonotoneConvDEQ(2, 3, (4, 4), kernel=-1)),
    ("channels", lambda: MonotoneConvDEQ(2, 0, (4, 4))),
    ("channels", lambda: MonotoneMultiTierDEQ(2, 3, (4, 4))),
    ("steps", lambda: MonotoneDEQ(3, 2).tune_step(torch.zeros(2, 3), steps=0)),
]


@pytest.mark.parametrize(("name", "call"), SETTINGS)
def test_wrong_settings_are_named(name, call):
    with pytest.raises(InvalidArgument, match=rf"^{name} must"):
        call()


def test_steps_are_not_searched_on_nothing():
    model = MonotoneDEQ(3, 2)
    assert model.tune_step(torch.zeros(0, 3)) == 1.0


def test_penalties_of_nothing_are_zero():
    model = DEQ(ContractingCell())
    assert model.jacobian_penalty(torch.zeros(0, 3), torch.zeros(0, 3)) == 0
