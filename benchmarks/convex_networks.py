"""Convex networks beside gradient descent and pyscnn, weight decay by hypergradient, and how large they may be.

python benchmarks/convex_networks.py --part adam     the example's runs on five draws of the data
python benchmarks/convex_networks.py --part peer     pyscnn's objective on the same patterns (pip install pyscnn)
python benchmarks/convex_networks.py --part tune     weight decay on diabetes data, against a grid of 20
python benchmarks/convex_networks.py --part size     seconds and sizes as rows and patterns grow
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_diabetes

from conelayers.convex_networks import ConvexReLU
from conelayers.model_selection import tune


def adam() -> None:
    path = Path(__file__).parents[1] / "examples" / "convex_networks.py"
    spec = importlib.util.spec_from_file_location("convex_networks_example", path)
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    print("| network | seed | programme | Adam: best of 12 | worst |\n|---|---|---|---|---|")
    for name, n, d, decay, batch_norm in (("plain", 10, 3, 0.1, False), ("batch norm", 6, 9, 0.3, True)):
        for seed in range(5):
            rng = np.random.default_rng(seed)
            X, y = torch.tensor(rng.standard_normal((n, d))), torch.tensor(rng.standard_normal(n))
            model, weight_decay = ConvexReLU(X, batch_norm=batch_norm), torch.tensor(decay, dtype=torch.float64)
            best = float(model.objective(y, weight_decay, *model(y, weight_decay)).detach())
            ends = example.adam(X, y, decay, batch_norm, 1500)[-1]
            print(f"| {name} | {seed} | {best:.7f} | {ends.min():.7f} | {ends.max():.5f} |")


def peer() -> None:
    from scnn.metrics import Metrics
    from scnn.models import ConvexReLU as Theirs
    from scnn.optimize import optimize_model
    from scnn.regularizers import NeuronGL1
    from scnn.solvers import AL

    rng = np.random.default_rng(0)
    X, y, gates, decay = rng.standard_normal((60, 5)), rng.standard_normal(60), rng.standard_normal((5, 40)), 1.0
    model, target = ConvexReLU(X, np.unique((X @ gates >= 0).T, axis=0)), torch.tensor(y)
    weight_decay = torch.tensor(decay, dtype=torch.float64)
    ours = float(model.objective(target, weight_decay, *model(target, weight_decay)).detach())
    theirs = Theirs(gates)
    data, targets = X.astype(np.float32), y.astype(np.float32)[:, None]
    theirs, _ = optimize_model(
        theirs,
        AL(theirs, tol=1e-8, constraint_tol=1e-8),
        Metrics(),
        data,
        targets,
        regularizer=NeuronGL1(decay / len(y)),  # its loss is a mean
        unitize_data=False,
        return_convex=True,
    )
    v, w = (np.asarray(block, float)[0] for block in theirs.parameters)
    D = (X @ theirs.G >= 0).astype(float)
    outputs = (D * (X @ (v - w).T)).sum(1)
    value = ((outputs - y) ** 2).sum() / 2 + decay * sum(np.linalg.norm(block, axis=1).sum() for block in (v, w))
    violation = max(0.0, *(-((2 * D - 1) * (X @ block.T)).min() for block in (v, w)))
    print(f"objective {ours:.6f}; pyscnn {value:.6f}, constraints violated by {violation:.1e}")


def diabetes() -> tuple[ConvexReLU, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A model of 100 rows with a bias, its targets, and 342 held-out rows."""
    X, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    X, y = np.column_stack([20 * X[order], np.ones(len(y))]), (y[order] - 152) / 77
    return ConvexReLU(X[:100], patterns=20), *(torch.tensor(part) for part in (y[:100], X[100:], y[100:]))


def search() -> None:
    model, y, X_held, y_held = diabetes()

    def error(v: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return (model.predict(X_held, v, w) - y_held).square().mean(-1)

    result = tune(model, error, {"weight_decay": (0.1, 100.0)}, arguments=lambda decay: (y, decay))
    with torch.no_grad():
        grid = error(*model(y, torch.tensor(np.geomspace(0.1, 100, 20))))
    count = len(result.history)
    print(f"held-out error {result.value:.5f} in {count} evaluations; best of a grid of 20: {grid.min():.5f}")


def size() -> None:
    print("| rows | patterns | n | m | forward, s | backward, s |\n|---|---|---|---|---|---|")
    rng = np.random.default_rng(0)
    for rows, count in ((50, 20), (100, 20), (150, 50), (300, 50)):
        X, y = rng.standard_normal((rows, 10)), torch.tensor(rng.standard_normal(rows), requires_grad=True)
        model = ConvexReLU(X, patterns=count)
        start = time.perf_counter()
        v, w = model(y, torch.tensor(1.0, dtype=torch.float64))
        middle = time.perf_counter()
        model.predict(X, v, w).square().sum().backward()
        end = time.perf_counter()
        s = model.layer.program.structure
        print(
            f"| {rows} | {len(model.patterns)} | {s.n} | {s.m} | {middle - start:.2f} | {end - middle:.2f} |",
            flush=True,
        )


PARTS = {"adam": adam, "peer": peer, "tune": search, "size": size}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, required=True)
    PARTS[parser.parse_args().part]()


if __name__ == "__main__":
    main()
