"""Sparse models inside transforms, on every kind of design, with the same numbers; empty batches; mapped labels."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from conelayers.lasso import (
    L1,
    Logistic,
    Multinomial,
    MultitaskL1,
    MultitaskQuadratic,
    ProximalModel,
    Quadratic,
    Quantile,
    WeightedL1,
    WorkingSet,
)

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((30, 6))
Y = X[:, 0] - X[:, 1] + 0.1 * RANDOM.standard_normal(30)
MODEL = ProximalModel(Quadratic(), L1(), solver=WorkingSet(tol=1e-14))
DESIGNS = {
    "array": lambda: X,
    "tensor": lambda: torch.tensor(X),
    "list": X.tolist,
    "columns": lambda: sp.csc_array(X),
    "sparse tensor": lambda: torch.tensor(X).to_sparse(),
}
ORDERS = {
    "hessian": torch.func.hessian,
    "forward over forward": lambda f: torch.func.jacfwd(torch.func.jacfwd(f)),
    "reverse over forward": lambda f: torch.func.jacrev(torch.func.jacfwd(f)),
    "reverse over reverse": lambda f: torch.func.jacrev(torch.func.jacrev(f)),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("design", DESIGNS)
def test_second_derivatives_on_every_design(design, order):
    """On the support S the coefficients are affine in alpha, b = b0 - alpha (C_S)^-1 sign(b), C the covariance."""
    given, alpha = DESIGNS[design](), torch.tensor(0.1)
    found = ORDERS[order](lambda a: MODEL(given, Y, a)[0].square().sum())(alpha)
    coef = MODEL.fit(X, Y, 0.1).coef.numpy()
    used = coef != 0
    centered = (X - X.mean(0))[:, used]
    slope = np.linalg.solve(centered.T @ centered / 30, np.sign(coef[used]))
    np.testing.assert_allclose(float(found), 2 * slope @ slope, rtol=1e-9)


MODELS = {
    "least squares": (MODEL, Y, ()),
    "weighted": (ProximalModel(Quadratic(), WeightedL1()), Y, (6,)),
    "tasks": (ProximalModel(MultitaskQuadratic(), MultitaskL1()), np.stack([Y, -Y], 1), ()),
    "classes": (ProximalModel(Multinomial(3), L1()), np.arange(30) % 3, ()),
    "quantile": (ProximalModel(Quantile(0.5, 0.0), L1()), Y, ()),
}


@pytest.mark.parametrize("batch", [(0,), (0, 3), (2, 0)])
@pytest.mark.parametrize("name", MODELS)
def test_empty_batches_of_hyperparameters(name, batch):
    model, y, event = MODELS[name]
    one = model(X, y, torch.full(event, 0.1))
    alpha, design = torch.zeros(*batch, *event, requires_grad=True), torch.tensor(X, requires_grad=True)

    def coefficients(a):
        return model(X, y, a)[0]

    outputs = model(design, y, alpha)
    assert [z.shape for z in outputs] == [(*batch, *z.shape) for z in one]
    slopes = torch.autograd.grad(outputs[0].sum() + outputs[1].sum(), (alpha, design))
    assert slopes[0].shape == alpha.shape and torch.equal(slopes[1], torch.zeros_like(design))
    value, moved = torch.func.jvp(coefficients, (alpha.detach(),), (alpha.detach(),))
    assert value.shape == moved.shape == (*batch, *one[0].shape)
    assert torch.func.jacrev(coefficients)(alpha.detach()).shape == (*value.shape, *alpha.shape)


def test_empty_batches_of_weights():
    assert MODEL(X, Y, 0.1, sample_weight=torch.ones(0, 30))[0].shape == (0, 6)


LABELS = torch.tensor(RANDOM.integers(0, 3, (4, 30)))


@pytest.mark.parametrize(
    ("datafit", "labels"), [(Logistic(), 2 * (LABELS > 0).long() - 1), (Multinomial(3), LABELS)], ids=["two", "three"]
)
def test_labels_may_be_mapped(datafit, labels):
    model = ProximalModel(datafit, L1())
    found = torch.func.vmap(lambda y: model(X, y, 0.02)[0])(labels)
    expected = torch.stack([model(X, y, 0.02)[0] for y in labels])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
