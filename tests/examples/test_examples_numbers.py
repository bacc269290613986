"""The examples' printed numbers: each is run as a user runs it, shortened where its claim allows."""

import importlib.util
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name, arguments, monkeypatch, tmp_path):
    monkeypatch.setenv("CONELAYERS_FIGURES", str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    numbers = module.main()
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    return numbers


def test_quick_start_wins_through_the_layer(monkeypatch, tmp_path):
    extra = run("quick_start", ["--seeds", "1"], monkeypatch, tmp_path)
    assert extra["layer"] < 0.65 * extra["cell by cell"], extra
    assert extra["layer"] < extra["told the costs"] + 0.01, extra


@pytest.mark.parametrize(
    ("name", "steps", "claim"),
    [
        ("quadratic_programme", 30, lambda n: n["error"] < 0.7 * n["best_single"]),
        ("second_order_cone", 40, lambda n: n["error"] < 0.3 * n["start"]),
        ("semidefinite", 15, lambda n: n["learned"] < 0.8 * n["projection"] and n["projection"] < n["raw"]),
        ("learning_a_constraint", 100, lambda n: n["error"] < 0.1 * n["start"]),
        ("dual_prices", 100, lambda n: n["error"] < 0.4 * n["start"]),
    ],
)
def test_claims(name, steps, claim, monkeypatch, tmp_path):
    numbers = run(name, ["--steps", str(steps)], monkeypatch, tmp_path)
    assert claim(numbers), numbers


def test_trained_controller_saves_what_the_horizon_loses(monkeypatch, tmp_path):
    pytest.importorskip("jax")
    pytest.importorskip("optax")
    numbers = run("jax_mpc_policy", ["--steps", "10", "--seeds", "2", "--starts", "60"], monkeypatch, tmp_path)
    assert numbers["learned"] > max(numbers["usual"] + 0.04, numbers["scaled"])
