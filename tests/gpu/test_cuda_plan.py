"""Which layout a batch gets on which device."""

import pytest

pytest.importorskip("conelayers.native")

from conelayers.native.cuda.plan import Device, Plan, Problem, plan  # noqa: E402

H200 = Device(processors=132, memory=141 << 30, shared=228 << 10, shared_per_block=227 << 10)
# Dense quadratic programmes with 10 and 50 variables as CVXPY writes them, and optimal control over 20 steps.
QP10, QP50 = Problem(20, 20, 250, 255, 2_805.0), Problem(100, 100, 5_250, 6_275, 303_025.0)
CONTROL = Problem(124, 164, 892, 993, 7_076.0)


@pytest.fixture(autouse=True)
def automatic(monkeypatch):
    monkeypatch.delenv("CONELAYERS_CUDA_TEAM", raising=False)


@pytest.mark.parametrize(("problem", "few", "many"), [(QP10, 16_000, 20_000), (CONTROL, 8_000, 16_384)])
def test_threads_where_there_are_many_problems(problem, few, many):
    assert plan(1, 10, problem, H200).team == plan(few, 10, problem, H200).team == 32
    assert plan(many, 10, problem, H200) == Plan(1, 0)


def test_warps_for_dense_problems_however_many():
    assert {plan(1 << k, 10, QP50, H200).team for k in range(22)} == {32}


def test_the_cost_of_waiting():
    """The figures that docs/gpu.md prints for an H200 at 1.755 GHz: milliseconds for each factorization."""
    for problem, thread, warp in ((QP10, 0.586, 0.035), (QP50, 16.9, 0.185)):
        assert problem.cycles_of_thread / 1.755e6 == pytest.approx(thread, rel=0.01)
        assert problem.cycles_of_warp / 1.755e6 == pytest.approx(warp, rel=0.02)


@pytest.mark.parametrize(
    ("items", "table", "in_shared"),
    [
        (1, 28_463, True),  # the table of a dense quadratic programme with 50 variables: 222 of 227 kB
        (132, 28_463, True),  # one for each multiprocessor
        (133, 28_463, False),  # two do not fit
        (1, 29_057, False),
        (4_096, 7_000, True),  # four at a time
        (4_096, 7_200, False),
    ],
)
def test_shared_memory(items, table, in_shared):
    assert plan(items, table, QP50, H200) == Plan(32, 8 * table if in_shared else 0)


@pytest.mark.parametrize("setting", ["1", "32"])
def test_the_setting_decides(setting, monkeypatch):
    monkeypatch.setenv("CONELAYERS_CUDA_TEAM", setting)
    assert {plan(items, 10, p, H200).team for items in (1, 1 << 20) for p in (QP10, QP50)} == {int(setting)}


def test_settings_that_are_none(monkeypatch):
    monkeypatch.setenv("CONELAYERS_CUDA_TEAM", "7")
    with pytest.raises(ValueError, match="CONELAYERS_CUDA_TEAM is '7'; it must be 1, 32 or auto"):
        plan(1, 10, QP10, H200)
    monkeypatch.setenv("CONELAYERS_CUDA_TEAM", "auto")
    assert plan(1, 10, QP10, H200).team == 32
