"""Projections of the compiled engine over scales and faces: Moreau's conditions and the laws of a Clarke element."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

native = pytest.importorskip("conelayers.native")

from native import native_programs as programs  # noqa: E402

KINDS = {
    "zero": (programs.ZERO, 3, 0.0),
    "nonnegative": (programs.NONNEGATIVE, 3, 0.0),
    "second-order": (programs.SECOND_ORDER, 3, 0.0),
    "semidefinite": (programs.SEMIDEFINITE, 2, 0.0),
    "exponential": (programs.EXPONENTIAL, 3, 0.0),
    "dual exponential": (programs.DUAL_EXPONENTIAL, 3, 0.0),
    "power 1/2": (programs.POWER, 3, 0.5),
    "power 0.05": (programs.POWER, 3, 0.05),
    "power 0.9": (programs.POWER, 3, 0.9),
    "dual power": (programs.DUAL_POWER, 3, 0.3),
    "free": (programs.FREE, 3, 0.0),
}

# Zero, and numbers of every size between 1e-8 and 1e8, signs mixed; near-equal entries come up through `special`.
number = st.one_of(
    st.just(0.0),
    st.builds(lambda sign, exponent: sign * 10.0**exponent, st.sampled_from([-1.0, 1.0]), st.floats(-8, 8)),
)


def engine(name):
    """A differentiator for one cone and no variables."""
    kind, size, exponent = KINDS[name]
    empty = [np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int64)] * 2
    return native.Differentiator(0, 3, *empty, np.array([kind]), np.array([size]), np.array([exponent]))


ENGINES = {name: engine(name) for name in KINDS}


def contains(cone, s):
    """Whether s lies in a cone (kind, size, exponent) after a step of 1e-14 inwards; s of length about one."""
    kind, _, a = cone
    x, y, z = s + 1e-14 * INWARDS[kind](a)
    if kind == programs.ZERO:
        return np.abs(s).max() < 1e-14
    if kind == programs.FREE:
        return True
    if kind == programs.NONNEGATIVE:
        return min(x, y, z) >= 0
    if kind == programs.SECOND_ORDER:
        return np.hypot(y, z) <= x
    if kind == programs.SEMIDEFINITE:
        return min(x, z) >= 0 and x * z >= y * y / 2
    if kind == programs.DUAL_EXPONENTIAL:
        x, y, z = -y, -x, np.e * z
    if kind in (programs.EXPONENTIAL, programs.DUAL_EXPONENTIAL):
        return y > 0 and z > 0 and x <= y * np.log(z / y)
    if kind == programs.DUAL_POWER:
        x, y = x / a, y / (1 - a)
    return min(x, y) > 0 and (z == 0 or a * np.log(x) + (1 - a) * np.log(y) >= np.log(abs(z)))


INWARDS = {
    programs.ZERO: lambda a: np.zeros(3),
    programs.FREE: lambda a: np.zeros(3),
    programs.NONNEGATIVE: lambda a: np.ones(3),
    programs.SECOND_ORDER: lambda a: np.array([1.0, 0.0, 0.0]),
    programs.SEMIDEFINITE: lambda a: np.array([1.0, 0.0, 1.0]),
    programs.EXPONENTIAL: lambda a: np.array([-1.05, 0.56, 1.26]),
    programs.DUAL_EXPONENTIAL: lambda a: np.array([-0.56, 1.05, 0.47]),
    programs.POWER: lambda a: np.array([1.0, 1.0, 0.0]),
    programs.DUAL_POWER: lambda a: np.array([a, 1 - a, 0.0]),
}
DUALS = {
    programs.EXPONENTIAL: programs.DUAL_EXPONENTIAL,
    programs.DUAL_EXPONENTIAL: programs.EXPONENTIAL,
    programs.POWER: programs.DUAL_POWER,
    programs.DUAL_POWER: programs.POWER,
    programs.ZERO: programs.FREE,
    programs.FREE: programs.ZERO,
}


def dual(cone):
    """The dual cone."""
    return (DUALS.get(cone[0], cone[0]), *cone[1:])


@pytest.mark.parametrize("name", list(KINDS))
@settings(max_examples=300, deadline=None)
@given(v=st.tuples(number, number, number), copies=st.sampled_from([1, 3, 9]))
def test_moreau_and_element(name, v, copies):
    v = np.tile(np.array(v), (copies, 1))
    v[1:] *= np.linspace(0.3, 1.7, max(copies - 1, 0))[:, None]  # neighbours in the pack
    run = ENGINES[name]
    y = run.project_dual(v)
    D = run.apply_D(v, np.tile(np.eye(3), (copies, 1, 1)))
    assert np.isfinite(y).all() and np.isfinite(D).all()
    for k in range(copies):
        size = np.linalg.norm(v[k])
        if size == 0:
            assert (y[k] == 0).all()
            continue
        s = y[k] - v[k]
        assert contains(KINDS[name], s / size)
        assert contains(dual(KINDS[name]), y[k] / size)
        assert abs(y[k] @ s) < 2e-15 * size**2
        eigenvalues = np.linalg.eigvalsh(D[k])
        assert eigenvalues.min() > -1e-14 and eigenvalues.max() < 1 + 1e-14
        assert np.abs(D[k] - D[k].T).max() < 1e-14
        assert np.abs(D[k] @ v[k] - y[k]).max() < 1e-14 * size  # projections are homogeneous


@pytest.mark.parametrize("name", list(KINDS))
@settings(max_examples=60, deadline=None)
@given(v=st.tuples(*[st.floats(-1, 1)] * 3), power=st.integers(-40, 40))
def test_scale_invariance(name, v, power):
    v = np.array([v])
    scale = 2.0**power
    run = ENGINES[name]
    eye = np.eye(3)[None]
    assert np.allclose(run.project_dual(scale * v), scale * run.project_dual(v), rtol=0, atol=1e-14 * scale)
    if np.abs(v).min() > 1e-6:
        assert np.allclose(run.apply_D(scale * v, eye), run.apply_D(v, eye), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", list(KINDS))
def test_subnormal_entries(name):
    entries = np.array([1.0, -1.0, 5e-324, -5e-324, 0.0, 1e-200, -1e-200, 1e-110])
    v = np.stack(np.meshgrid(entries, entries, entries), axis=-1).reshape(-1, 3)
    y = ENGINES[name].project_dual(v)
    D = ENGINES[name].apply_D(v, np.tile(np.eye(3), (len(v), 1, 1)))
    assert np.isfinite(y).all() and np.isfinite(D).all()
    assert np.abs((y * (y - v)).sum(1)).max() < 1e-15
    assert np.abs(np.einsum("bij,bj->bi", D, v) - y).max() < 1e-14


@pytest.mark.parametrize("name", list(KINDS))
def test_smoothing_tends_to_the_projection(name):
    v = np.random.default_rng(0).standard_normal((50, 3))
    run = ENGINES[name]
    exact = run.project_dual(v)
    for mu, bound in ((1e-2, 0.5), (1e-6, 5e-3), (1e-10, 5e-5)):
        assert np.abs(run.project_dual(v, mu) - exact).max() < bound


@pytest.mark.parametrize("name", [k for k in KINDS if k not in ("zero", "free")])
def test_kinks_get_the_smallest_element(name):
    D = ENGINES[name].apply_D(np.zeros((1, 3)), np.eye(3)[None])
    assert np.abs(D).max() == 0.0


@pytest.mark.parametrize("name", [k for k in KINDS if "power" in k or "exp" in k])
@pytest.mark.parametrize("mu", [1e-8, 1e-2, 1.0, 1e4])
def test_smoothed_solution_satisfies_its_equation(name, mu):
    """(y - v) / mu = -grad F*(y): the slack pairs to the degree, <y, s> = 3 mu, and lies inside K."""
    v = np.random.default_rng(1).standard_normal((100, 3)) * 10 ** np.random.default_rng(2).uniform(-3, 3, (100, 1))
    y = ENGINES[name].project_dual(v, mu)
    s = y - v
    size = np.maximum(np.linalg.norm(v, axis=1) ** 2, mu)
    assert (np.abs((y * s).sum(1) - 3 * mu) < 1e-9 * size).all()
    assert all(contains(KINDS[name], row / np.linalg.norm(row)) for row in s)
