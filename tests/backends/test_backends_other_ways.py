"""Items that one way does not solve well are solved in another; the best outcome counts, item by item."""

import dataclasses

import pytest
import torch
from data_readers import data_folder, read_sdplib

from conelayers.backends import Clarabel, clarabel
from conelayers.backends.outcomes import best_of
from conelayers.cones import Nonnegative, ProductCone
from conelayers.program import ConeProgram, ConeSolution, ConeStructure, Status, residuals
from conelayers.residual.solve import solve_and_polish


@dataclasses.dataclass(frozen=True)
class Way:
    """Answers x = at + error, and says how many items it was asked for."""

    status: list
    error: float
    asked: list = dataclasses.field(default_factory=list)

    def solve(self, program, warm_start=None):
        count = program.batch_shape.numel()
        self.asked.append(count)
        x = program.b[..., :1] + self.error
        x, y = x.expand(count, 1), torch.ones(count, 1)
        s, code = torch.zeros(count, 1), torch.tensor(self.status[:count], dtype=torch.int8)
        found = residuals(program, x, y, s)
        return ConeSolution(x, y, s, code, torch.ones(count, dtype=torch.int64), found.primal, found.dual, found.gap)


def test_the_best_outcome_counts():
    """minimise -x subject to x <= b, by ways of which each solves some items."""
    structure = ConeStructure.from_matrices(None, [[1.0]], ProductCone([Nonnegative(1)]))
    one = torch.ones(1)
    program = ConeProgram(structure, one[:0], -one, one, torch.tensor([[1.0], [2.0], [3.0], [4.0]]))
    solved, inaccurate, failed, infeasible = (
        *(int(Status.SOLVED), int(Status.INACCURATE)),
        *(int(Status.FAILED), int(Status.PRIMAL_INFEASIBLE)),
    )
    first = Way([solved, failed, infeasible, inaccurate], 1e-6)
    ways = [Way([inaccurate, failed], 1e-3), Way([solved, solved], 1e-9), Way([solved], 0.0)]
    found = best_of(program, first.solve(program), ways)
    assert found.status_code.tolist() == [solved, solved, infeasible, solved]
    assert [way.asked for way in ways] == [[2], [2], []]
    torch.testing.assert_close(found.x[[1, 3]], program.b[[1, 3]] + 1e-9, rtol=0, atol=1e-12)


def test_a_completed_dual_that_is_not_accurate_is_no_answer(monkeypatch):
    """Split into pieces, control1 ends "solved" with a dual of 4 % residual."""
    program = read_sdplib(data_folder("sdplib") / "control1.dat-s").flatten()
    split = Clarabel(threads=1, chordal_decomposition=True).solve(program)
    assert float(split.worst) > 1e-3
    monkeypatch.setattr(clarabel, "_is_wide", lambda structure: True)
    found = Clarabel(threads=1).solve(program)
    assert found.status == Status.SOLVED and float(found.worst) <= 1e-5
    assert float((program.q * found.x).sum()) == pytest.approx(17.78463, rel=1e-5)
    cone = program.structure.cone
    torch.testing.assert_close(cone.project_dual(found.y), found.y, rtol=0, atol=1e-8)


# Published values; they are of few digits, and the problems all but infeasible.
HARD = {"hinf2": 10.967, "hinf6": 448.95, "hinf9": 236.25, "hinf10": 108.75, "hinf15": 24.5, "control2": 8.3}


@pytest.mark.parametrize("name", HARD)
def test_hard_members_of_sdplib(name):
    path = data_folder("sdplib") / f"{name}.dat-s"
    if not path.exists():
        pytest.skip(f"the folder has no {path.name}")
    program = read_sdplib(path)
    found = solve_and_polish(program, Clarabel(threads=1))
    assert found.has_solution
    assert abs(float((program.q * found.x).sum())) == pytest.approx(HARD[name], rel=2e-2)
