"""What users hand to sparse models: arrays of any layout are taken, what is no data is named."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from conelayers.errors import InvalidArgument
from conelayers.lasso import L1, ProximalModel, Quadratic

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((12, 4))
Y = X[:, 0] - X[:, 1] + 0.1 * RANDOM.standard_normal(12)
WEIGHT = RANDOM.uniform(0.5, 1.5, 12)
MODEL = ProximalModel(Quadratic(), L1())


def test_views_with_negative_strides_are_arrays_like_others():
    straight = MODEL.fit(X, Y, 0.05, sample_weight=WEIGHT)
    reverse = MODEL.fit(X[::-1], Y[::-1], 0.05, sample_weight=WEIGHT[::-1])
    torch.testing.assert_close(reverse.coef, straight.coef, rtol=1e-10, atol=1e-12)


@pytest.mark.filterwarnings("error")
def test_read_only_targets_are_taken_without_a_warning():
    frozen = Y.copy()
    frozen.setflags(write=False)
    assert torch.equal(MODEL.fit(X, frozen, 0.05).coef, MODEL.fit(X, Y, 0.05).coef)


def test_a_start_in_single_precision_is_a_start():
    start = (torch.ones(4, dtype=torch.float32), torch.zeros((), dtype=torch.float32))
    expected = MODEL.fit(X, Y, 0.05).coef
    torch.testing.assert_close(MODEL.fit(X, Y, 0.05, start=start).coef, expected)
    torch.testing.assert_close(MODEL(X, Y, 0.05, start=start)[0], expected)
    torch.testing.assert_close(MODEL(X, Y, torch.tensor([0.05]), start=(expected.numpy(), 0.0))[0][0], expected)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("alpha", lambda: MODEL.fit(X, Y, "a")),
        ("alpha", lambda: MODEL(X, Y, None)),
        ("y", lambda: MODEL.fit(X, ["a"] * 12, 0.05)),
        ("sample_weight", lambda: MODEL.fit(X, Y, 0.05, sample_weight=["a"] * 12)),
        ("start", lambda: MODEL.fit(X, Y, 0.05, start=5)),
        ("start", lambda: MODEL.fit(X, Y, 0.05, start=(torch.zeros(3), torch.zeros(())))),
        ("start", lambda: MODEL(X, Y, 0.05, start="x")),
        ("start", lambda: MODEL(X, Y, 0.05, start=(torch.zeros(3), torch.zeros(())))),
        ("start", lambda: MODEL(X, Y, torch.rand(2), start=(torch.zeros(3, 4), torch.zeros(3)))),
        ("the solution", lambda: MODEL.regularity(X, Y, 0.05, coef=torch.zeros(3), intercept=torch.zeros(()))),
        ("X", lambda: MODEL.fit("a", Y, 0.05)),
        ("X", lambda: MODEL.fit(None, Y, 0.05)),
        ("X", lambda: MODEL.fit([[1.0, 2.0], [1.0]], Y, 0.05)),
        ("X", lambda: MODEL.fit(X + 1j, Y, 0.05)),
        ("X", lambda: MODEL.fit(torch.tensor(X + 1j), Y, 0.05)),
        ("X", lambda: MODEL.fit(sp.csc_array(X + 1j), Y, 0.05)),
        ("X", lambda: MODEL.fit(torch.tensor(X + 1j).to_sparse(), Y, 0.05)),
        ("y", lambda: MODEL.fit(X, torch.tensor(Y + 1j), 0.05)),
        ("alpha", lambda: MODEL.fit(X, Y, torch.tensor(0.05 + 0j))),
        ("X", lambda: MODEL.fit(X[:0], Y[:0], 0.05)),
        ("X", lambda: MODEL(X[:, :0], Y, 0.05)),
        ("datafit", lambda: ProximalModel("quadratic", L1())),  # pyright: ignore[reportArgumentType]
        ("penalty", lambda: ProximalModel(Quadratic(), L1)),  # pyright: ignore[reportArgumentType]
        ("solver", lambda: ProximalModel(Quadratic(), L1(), solver="celer")),  # pyright: ignore[reportArgumentType]
    ],
)
def test_what_is_no_data_is_named(name, call):
    with pytest.raises(InvalidArgument, match=rf"^{name} must"):
        call()
