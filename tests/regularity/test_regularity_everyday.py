"""The verdict on everyday problems, with the truth known; and that a promise is kept by the layer's derivative."""

import itertools

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from regularity.everyday_problems import problems
from regularity.regularity_instances import jacobian, solved

from conelayers import CvxpyLayer
from conelayers.cones import Nonnegative, ProductCone
from conelayers.program import ConeStructure
from conelayers.regularity import certificate, certify
from conelayers.regularity.interface import Interface

EVERYDAY = {name: rest for name, *rest in problems()}
ALLOWED = {
    "regular": ["regular"],
    "not": ["not"],
    "open": ["open"],
    # multipliers grow without end: how dependent the constraints look there is a matter of where the solver stops
    "without multipliers": ["not", "open"],
}


def _verdict(report):
    assert report.decided or not report.regular
    return "regular" if report.regular else "not" if report.decided else "open"


@pytest.mark.parametrize("name", EVERYDAY)
def test_everyday_problems(name):
    """Undecided only where it must be; a promise is checked against differences of the solution."""
    truth, problem, parameters, values = EVERYDAY[name]
    layer = CvxpyLayer(problem, parameters, problem.variables())
    values = values[: len(parameters)]
    report = layer.solve(*values).regularity()
    assert _verdict(report) in ALLOWED[truth], report.explain()
    if not report.regular or not values or float(report.margin) < 1e-3:
        return
    directions = [torch.ones_like(v) / v.numel() for v in values]
    (slopes,) = [torch.func.jvp(lambda *v: layer(*v), tuple(values), tuple(directions))[1]]
    step = 1e-4
    ends = [layer(*[v + t * d for v, d in zip(values, directions, strict=True)]) for t in (step, -step)]
    for slope, ahead, behind in zip(slopes, *ends, strict=True):
        assert torch.allclose(slope, (ahead - behind) / (2 * step), atol=1e-5)


def lifted_programme(rng):
    """Two variables of the user, three auxiliary ones, sparse rows of small integers, and parameters in q and b."""
    n, m, users = 5, int(rng.integers(3, 7)), 2
    A = rng.choice([-1.0, 0, 0, 1, 1, 2], (m, n)) * (rng.random((m, n)) < 0.7)
    A[:, users:][rng.random((m, n - users)) < 0.4] = 0
    P = np.diag([1.0] * users + [0.0] * (n - users))
    v = rng.choice([-1.0, 0, 0, 1], m)
    moved_rows = rng.random(m) < 0.4
    structure = ConeStructure.from_matrices(sp.csc_array(np.ones((n, n))), sp.csc_array(np.ones((m, n))), CONES[m])
    interface = Interface(
        structure,
        np.arange(n) < users,
        sp.csr_array((0, m)),
        sp.csr_array((structure.P_nnz, 1)),
        sp.csr_array(np.eye(n)[:, :users]),
        sp.csr_array((structure.A_nnz, 1)),
        sp.csr_array(np.diag(moved_rows.astype(float))),
    )
    return P, A, v, interface, users, moved_rows


CONES = {m: ProductCone([Nonnegative(m)]) for m in range(3, 7)}


def users_derivative_exists(P, A, D, users, moved_rows):
    """Whether J(D) [dx; dv] = rhs has, for all movements of the parameters, solutions with one and the same dx."""
    n, m = P.shape[0], A.shape[0]
    J = jacobian(P, A, np.diag(D))
    left, sigma, right = np.linalg.svd(J)
    null = sigma < 1e-9
    rhs = np.eye(n + m)[:, [*range(users), *(n + np.flatnonzero(moved_rows))]]
    return np.abs(right[null][:, :users]).max(initial=0) < 1e-7 and np.abs(left[:, null].T @ rhs).max(initial=0) < 1e-7


def test_verdicts_by_trying_all_elements():
    """Decided "regular": every element has a derivative for the user. Decided "not": one has none."""
    rng, verdicts = np.random.default_rng(0), []
    for _ in range(200):
        P, A, v, interface, users, moved_rows = lifted_programme(rng)
        found = certify(*solved(P, A, v, interface.structure.cone, interface.structure), interface=interface)
        choices = [(0.0, 1.0) if t == 0 else (float(t > 0),) for t in v]
        fine = all(users_derivative_exists(P, A, d, users, moved_rows) for d in itertools.product(*choices))
        verdicts.append(bool(found.regular) if found.decided else None)
        assert verdicts[-1] is None or verdicts[-1] == fine
    assert verdicts.count(True) > 80 and verdicts.count(False) > 30 and verdicts.count(None) < 60


@pytest.mark.parametrize("name", [name for name in EVERYDAY if name.startswith(("kink", "LP", "transport", "norm"))])
def test_sparse_factorizations_give_the_same_verdicts(name, monkeypatch):
    truth, problem, parameters, values = EVERYDAY[name]
    monkeypatch.setattr(certificate, "DENSE_SIZE", 0)
    report = CvxpyLayer(problem, parameters, problem.variables()).solve(*values[: len(parameters)]).regularity()
    # Large problems are judged at the solver's point: where an auxiliary variable is known to 1e-3 only, as here at the
    # border of a sum whose terms have kinks of their own, that may leave the answer open.
    allowed = ["regular", "open"] if name == "kink: sum of huber" else ALLOWED[truth]
    assert _verdict(report) in allowed, report.explain()
