"""Programmes of public collections: the two solvers and the published optimal values agree."""

import pytest
from data_readers import data_folder, read_cblib, read_maros, read_sdplib

from conelayers.backends import SCS, Clarabel, default_backend
from conelayers.residual.polish import polish

# Optimal values as the collections publish them.
MAROS = {"HS35": 1.1111111111e-1, "HS76": -4.6818181818, "DUAL4": 7.4609084180e-1, "HS118": 6.6482045000e2}
SDPLIB = {"truss1": -8.999996, "control1": 1.778463e1}


def objective(program, x):
    return float(0.5 * (x * program.P_times(x)).sum() + (program.q * x).sum())


@pytest.mark.parametrize("name", MAROS)
def test_maros(name):
    program, constant = read_maros(data_folder("maros") / f"{name}.mat")
    for backend in (Clarabel(threads=1), SCS(threads=1)):
        solution = polish(program, backend.solve(program))
        assert solution.has_solution
        assert objective(program, solution.x) + constant == pytest.approx(MAROS[name], rel=1e-6)


@pytest.mark.parametrize("name", SDPLIB)
def test_sdplib(name):
    program = read_sdplib(data_folder("sdplib") / f"{name}.dat-s")
    solution = Clarabel(threads=1).solve(program)
    assert solution.has_solution
    assert abs(objective(program, solution.x)) == pytest.approx(abs(SDPLIB[name]), rel=1e-5)


# Geometric programmes with exponential cones, and second-order cones; values of solutions polished to 1e-15.
CBLIB = {"beck753": 6.29833869004, "demb782": 0.693147180560, "rijc784": 13.3427028026, "sambal": 3.96822036176}


@pytest.mark.parametrize("name", CBLIB)
def test_cblib(name):
    program, constant = read_cblib(data_folder("cblib") / f"{name}.cbf.gz")
    for backend in (default_backend(program.structure), Clarabel(threads=1)):
        solution = polish(program, backend.solve(program))
        assert solution.has_solution
        assert objective(program, solution.x) + constant == pytest.approx(CBLIB[name], rel=1e-6)
