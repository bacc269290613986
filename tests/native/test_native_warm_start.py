"""Compiled solves from a given point: Newton steps alone where it is near, the whole method elsewhere."""

import dataclasses

import numpy as np
import pytest
from native.native_programmes import random_batch
from native.test_native_newton_finish import MIXES, differentiator, finished, programmes, worst

from conelayers.native import Engine
from conelayers.program import Status


def moved(batch, size, seed=5):
    rng = np.random.default_rng(seed)
    q, b = (value * (1 + size * rng.standard_normal(value.shape)) for value in (batch.q, batch.b))
    return dataclasses.replace(batch, q=q, b=b)


def point(result):
    return {key: result[key].copy() for key in ("x", "y", "s")}


@pytest.mark.parametrize("name", MIXES)
def test_small_changes_need_newton_steps_alone(name):
    batch = programmes(name)
    near = moved(batch, 1e-4)
    cold = finished(near)
    warm = finished(near, **point(finished(batch)), threads=2)
    assert (warm["status"] == Status.SOLVED).all() and worst(warm).max() < 1e-10
    assert np.mean(warm["iterations"] == 0) > 0.9
    for key in ("x", "y", "s"):
        np.testing.assert_allclose(warm[key], cold[key], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["qp", "all"])
def test_items_that_the_steps_do_not_solve_are_solved_as_without_a_start(name):
    batch = programmes(name, items=50)
    cold = finished(batch)
    start = point(cold)
    start["x"][::3] += 1e3 * np.random.default_rng(0).standard_normal(start["x"][::3].shape)
    start["y"][1::3] = np.nan
    start["s"][2::9] = np.inf
    warm = finished(batch, **start)
    near = np.arange(50) % 3 == 2
    near[2::9] = False
    np.testing.assert_array_equal(warm["iterations"], np.where(near, 0, cold["iterations"]))
    for key in ("x", "y", "s"):  # projections on curved cones iterate until the last lane is done
        tolerance = 0 if name == "qp" else 1e-12
        np.testing.assert_allclose(warm[key][~near], cold[key][~near], rtol=0, atol=tolerance)
        np.testing.assert_allclose(warm[key][near], cold[key][near], atol=1e-9)


def test_one_point_serves_all_and_bad_programmes_fail_alone():
    batch = programmes("qp", items=11)
    one = {key: value[:1] for key, value in point(finished(batch)).items()}
    same = dataclasses.replace(batch, **{key: np.repeat(getattr(batch, key)[:1], 11, 0) for key in "PqAb"})
    same.q[4, 0] = np.nan
    warm = finished(same, **one)
    whole = np.arange(11) != 4
    assert warm["status"][4] == Status.FAILED
    assert (warm["status"][whole] == Status.SOLVED).all() and (warm["iterations"][whole] == 0).all()


def test_certificates_do_not_care_about_the_start():
    """x <= -1 and x >= 1, and minimise x without a bound, from the solution of a programme beside them."""
    batch = random_batch(np.random.default_rng(0), 1, [("l", 2)], 3, quadratic=False, density=1.0)
    batch = dataclasses.replace(
        batch,
        A=np.array([[1.0, -1.0], [1.0, 1.0], [1.0, -1.0]]),
        b=np.array([[-1.0, -1.0], [1.0, 2.0], [2.0, 1.0]]),
        q=np.array([[0.0], [1.0], [1.0]]),
    )
    start = {key: value[2:] for key, value in point(finished(batch)).items()}
    expected = [Status.PRIMAL_INFEASIBLE, Status.DUAL_INFEASIBLE, Status.SOLVED]
    assert finished(batch, **start)["status"].tolist() == expected


@pytest.mark.parametrize("items", [1, 2, 9])
def test_any_number_of_items(items):
    batch = programmes("soc", items=items)
    warm = finished(batch, **point(finished(batch)))
    assert (warm["iterations"] == 0).all() and worst(warm).max() < 1e-10


def test_wrong_points_are_refused():
    batch = programmes("qp", items=3)
    start = point(finished(batch))
    engine, data = batch.engine(), (batch.P, batch.q, batch.A, batch.b, 3)
    assert isinstance(engine, Engine)
    with pytest.raises(ValueError, match="together"):
        engine.solve(*data, differentiator=differentiator(batch), x=start["x"])
    with pytest.raises(ValueError, match="y must have shape"):
        engine.solve(*data, differentiator=differentiator(batch), **{**start, "y": start["y"][:2]})
    # Without Newton steps a start is of no use.
    plain = engine.solve(*data, **start)
    np.testing.assert_array_equal(plain["iterations"], engine.solve(*data)["iterations"])
