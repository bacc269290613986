"""benchmarks/gpu.py from end to end, with the CPU as the device: it must not fail where a GPU is."""

from __future__ import annotations

import json
import pathlib
import sys

import pytest
import torch

pytest.importorskip("conelayers.native")

from gpu.emulated import Emulated  # noqa: E402

import conelayers.native.cuda.kernels as kernels  # noqa: E402
from conelayers import CvxpyLayer  # noqa: E402
from conelayers.backends import Cuda  # noqa: E402
from conelayers.program.compiled import device_differentiator  # noqa: E402

BENCHMARKS = pathlib.Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.skipif(not BENCHMARKS.exists(), reason="no benchmarks beside the tests")
def test_the_benchmark_runs(threads, warps, tmp_path, monkeypatch, capsys):
    import importlib

    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, "gpu", raising=False)  # the package of these tests
    benchmark = importlib.import_module("gpu")
    monkeypatch.delitem(sys.modules, "gpu")
    monkeypatch.setattr(kernels, "launcher", lambda device: Emulated({1: threads, 32: warps}))
    monkeypatch.setattr(Cuda, "unavailable", lambda self, device: None)
    monkeypatch.setattr("conelayers.backends.cuda._current_device", lambda: torch.device("cpu"))
    monkeypatch.setattr("conelayers.residual.compiled._make", device_differentiator)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "the CPU")
    monkeypatch.setattr(benchmark, "DEVICE", torch.device("cpu"))
    monkeypatch.setattr(benchmark, "CvxpyLayer", lambda *problem: CvxpyLayer(*problem, solver="CUDA"))
    monkeypatch.setattr(benchmark, "CHECKED", 2)
    monkeypatch.setattr(benchmark, "absent", lambda module: f"{module} stays out of this")
    families = {key: benchmark.FAMILIES["qp10"] for key in ("qp10", "soc", "logistic")}
    monkeypatch.setattr(benchmark, "FAMILIES", families)
    kept = tmp_path / "rows.json"
    arguments = ["--families", "qp10", "--batches", "2", "1", "--rounds", "1", "--patience", "60", "--json", str(kept)]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *arguments])
    benchmark.main()
    rows = json.loads(kept.read_text())["rows"]
    assert [row["batch"] for row in rows] == [2, 1]
    for row in rows:
        ours = [name for name in row["seconds"] if name.startswith("conelayers")]
        assert len(ours) == 4 and all(row["difference"][name] < 1e-6 for name in ours)
        assert not any(name.startswith("conelayers") for name in row["failures"])
    printed = capsys.readouterr().out
    assert "WRONG" not in printed and "FAILED" not in printed and "model of H200" in printed
