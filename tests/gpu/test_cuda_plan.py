"""Which layout a batch gets on which device."""

import pytest

pytest.importorskip("conelayers.native")

from conelayers.native.cuda.plan import Device, Plan, plan  # noqa: E402

H200 = Device(processors=132, memory=141 << 30, shared=228 << 10, shared_per_block=227 << 10)
SMALL, MIDDLE, LARGE = 3_000, 20_000, 60_000  # numbers per problem: 24, 160 and 480 kB


@pytest.fixture(autouse=True)
def automatic(monkeypatch):
    monkeypatch.delenv("CONELAYERS_CUDA_TEAM", raising=False)


@pytest.mark.parametrize(
    ("items", "entries", "team", "in_shared"),
    [
        (1, SMALL, 32, True),
        (16_895, SMALL, 32, True),
        (16_896, SMALL, 1, False),  # 128 for each multiprocessor
        (16_896, 4_096, 1, False),  # 32 kB
        (16_896, 4_097, 32, True),
        (132, MIDDLE, 32, True),  # one for each multiprocessor: its table fits
        (133, MIDDLE, 32, False),  # two do not
        (1 << 20, MIDDLE, 32, False),
        (1, LARGE, 32, False),
        (4_096, 7_000, 32, True),  # four at a time
        (4_096, 7_200, 32, False),
    ],
)
def test_choice(items, entries, team, in_shared):
    assert plan(items, entries, H200) == Plan(team, 8 * entries if in_shared else 0)


@pytest.mark.parametrize("setting", ["1", "32"])
def test_the_setting_decides(setting, monkeypatch):
    monkeypatch.setenv("CONELAYERS_CUDA_TEAM", setting)
    assert {plan(items, entries, H200).team for items in (1, 1 << 20) for entries in (1, LARGE)} == {int(setting)}


def test_settings_that_are_none(monkeypatch):
    monkeypatch.setenv("CONELAYERS_CUDA_TEAM", "7")
    with pytest.raises(ValueError, match="CONELAYERS_CUDA_TEAM is '7'; it must be 1, 32 or auto"):
        plan(1, SMALL, H200)
    monkeypatch.setenv("CONELAYERS_CUDA_TEAM", "auto")
    assert plan(1, SMALL, H200).team == 32
