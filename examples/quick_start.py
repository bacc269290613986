"""Quick start: learn what makes ground hard to cross from nothing but the paths that a guide took.

A map is a grid of handwritten digits (scikit-learn's). Crossing a cell costs its digit plus one, which nobody tells the
learner: it sees the images of 400 maps and the guide's path over each. A small network turns each image into a
cost, `CvxpyLayer` turns the costs of a map into its shortest path (a quadratic programme over flows), and the error
of that path goes back through the solution into the network.

The same network is also trained in two stages, and given the same exact shortest-path search at test time:
- on the same data, cell by cell: is this cell on the path? Its log-odds become costs by the best of 35 transforms;
- on data that the layer never sees: the true cost of every cell, by regression.

Run: python examples/quick_start.py [--seeds 5] [--steps 250] [--figure FILE]
"""

import argparse
import os
from pathlib import Path

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra
from sklearn.datasets import load_digits
from torch import nn
from tqdm import tqdm

from conelayers import CvxpyLayer

SIDE = 7
CELLS = SIDE * SIDE
BATCH = 32
TILE = 12  # pixels of a cell in the figure
LONGER = 4  # regression profits from more steps; the cell-by-cell network does not
WAYS = {
    "layer": ("trained through the shortest path", "paths"),
    "cell by cell": ("trained cell by cell, then search", "paths"),
    "told the costs": ("regression on costs, then search", "every cell's cost"),
    "fewest cells": ("the path of fewest cells", "nothing"),
}
LINES = {"best": "the guide", "layer": "through the layer", "cell by cell": "two-stage"}
BARS = {
    "layer": "through the layer\n(paths)",
    "cell by cell": "two-stage\n(paths)",
    "told the costs": "two-stage\n(every cost)",
    "fewest cells": "fewest cells",
}


def grid_arcs() -> tuple[np.ndarray, np.ndarray]:
    """Tails and heads of the arcs between neighbouring cells, both ways."""
    cell = np.arange(CELLS).reshape(SIDE, SIDE)
    right, down = (cell[:, :-1], cell[:, 1:]), (cell[:-1], cell[1:])
    pairs = [(a.ravel(), b.ravel()) for a, b in (right, down, right[::-1], down[::-1])]
    return np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs])


TAILS, HEADS = grid_arcs()


def path_layer(eps: float = 1.0) -> CvxpyLayer:
    """The layer: the cost of each cell to how much of the path enters it, corner to corner."""
    into, out = np.zeros((CELLS, len(HEADS))), np.zeros((CELLS, len(HEADS)))
    into[HEADS, np.arange(len(HEADS))] = out[TAILS, np.arange(len(HEADS))] = 1
    balance = np.zeros(CELLS)
    balance[0], balance[-1] = -1, 1
    flow, entered, cost = cp.Variable(len(HEADS), nonneg=True), cp.Variable(CELLS), cp.Parameter(CELLS)
    objective = cp.Minimize(cost @ entered + eps / 2 * cp.sum_squares(flow))
    problem = cp.Problem(objective, [entered == into @ flow, entered - out @ flow == balance])
    return CvxpyLayer(problem, parameters=[cost], variables=[entered])


def shortest_paths(costs: np.ndarray) -> np.ndarray:
    """The cells of the exact shortest path of each map, as zeros and ones, shape (maps, CELLS)."""
    paths = np.zeros_like(costs)
    for path, cost in zip(paths, costs):
        graph = csr_array((np.maximum(cost, 1e-6)[HEADS], (TAILS, HEADS)), shape=(CELLS, CELLS))
        _, before = dijkstra(graph, indices=0, return_predecessors=True)
        cell = CELLS - 1
        while cell != 0:
            path[cell] = 1
            cell = before[cell]
    return paths


def make_maps(images: np.ndarray, digits: np.ndarray, count: int, seed: int):
    """`count` maps of rolling hills: images (count, CELLS, 64), true costs and best paths (count, CELLS)."""
    random = np.random.default_rng(seed)
    hills = gaussian_filter(random.normal(size=(count, SIDE, SIDE)), (0, 0.8, 0.8), mode="nearest").reshape(
        count, CELLS
    )
    height = 4.5 + 2.2 * hills / hills.std() + 2.0 * random.normal(size=(count, 1))
    wanted = np.clip(np.rint(height), 0, 9).astype(int)
    order, start = np.argsort(digits, kind="stable"), np.searchsorted(np.sort(digits), np.arange(11))
    picks = order[(start[wanted] + random.random(wanted.shape) * np.diff(start)[wanted]).astype(int)]
    seen = images[picks] + 0.1 * random.normal(size=(*picks.shape, 64))
    costs = 1.0 + wanted
    return torch.tensor(seen, dtype=torch.float32), costs, torch.tensor(shortest_paths(costs), dtype=torch.float32)


def train(maps, targets, loss, steps: int, seed: int) -> nn.Module:
    """Train the network on random batches of maps; `loss` gets its outputs and the targets, both (batch, CELLS)."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1), nn.Flatten(-2)).float()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(steps):
        batch = torch.randint(len(maps), (BATCH,))
        optimizer.zero_grad()
        loss(network(maps[batch]), targets[batch]).backward()
        optimizer.step()
    return network


def through_the_layer(layer, maps, paths, steps: int, seed: int):
    """The network's softplus as costs, trained on the squared error of the layer's path."""

    def loss(output, path):
        (found,) = layer(F.softplus(output))
        return ((found - path) ** 2).sum(-1).mean()

    network = train(maps, paths, loss, steps, seed)
    return lambda images: F.softplus(network(images)).numpy()


def cell_by_cell(maps, paths, steps: int, seed: int):
    """Log-odds of not being on the path, made costs by the transform that finds the training paths best."""
    network = train(maps, paths, F.binary_cross_entropy_with_logits, steps, seed)

    def costs(images, shift, scale):
        return F.softplus(scale * (shift - network(images))).numpy()

    choices = [(shift, scale) for shift in (-1, 0, 0.5, 1, 2, 3, 5) for scale in (0.3, 0.5, 1, 2, 3)]
    with torch.no_grad():
        errors = [np.abs(shortest_paths(costs(maps, *choice)) - paths.numpy()).sum() for choice in choices]
    best = choices[int(np.argmin(errors))]
    return lambda images: costs(images, *best)


def told_the_costs(maps, costs, steps: int, seed: int):
    """Regression on every cell's true cost."""
    network = train(maps, torch.tensor(costs, dtype=torch.float32), F.mse_loss, steps, seed)
    return lambda images: network(images).numpy()


@torch.no_grad()
def extra_cost(predict, maps, costs, paths) -> float:
    """How much more the paths found on predicted costs cost than the best ones, over all maps."""
    found = shortest_paths(predict(maps))
    return float((costs * found).sum() / (costs * paths.numpy()).sum() - 1)


def one_seed(layer, digits, seed: int, steps: int):
    """Extra cost by way of training, what predicts, and the test maps."""
    order = np.random.default_rng(seed).permutation(len(digits.target))
    images, labels = digits.data / 16.0, digits.target
    maps, costs, paths = make_maps(images[order[:900]], labels[order[:900]], 400, seed)
    test = make_maps(images[order[900:]], labels[order[900:]], 300, 1000 + seed)
    predict = {
        "layer": through_the_layer(layer, maps, paths, steps, seed),
        "cell by cell": cell_by_cell(maps, paths, steps, seed),
        "told the costs": told_the_costs(maps, costs, LONGER * steps, seed),
        "fewest cells": lambda images: np.ones(images.shape[:2]),
    }
    return {name: extra_cost(way, *test) for name, way in predict.items()}, predict, test


def main() -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=250)
    figures = Path(os.environ.get("CONELAYERS_FIGURES", "examples/figures"))
    parser.add_argument("--figure", type=Path, default=figures / "quick_start.png")
    options = parser.parse_args()

    layer, digits = path_layer(), load_digits()
    runs = [one_seed(layer, digits, seed, options.steps) for seed in tqdm(range(options.seeds), desc="seeds", ncols=90)]
    table = {name: np.array([extra[name] for extra, _, _ in runs]) for name in runs[0][0]}

    print(f"\nHow much more than the best path: mean of {options.seeds} seeds (lowest to highest)")
    for name, (text, data) in WAYS.items():
        extra = table[name]
        print(f"  {text:34}{data:22}{extra.mean():6.1%}  ({extra.min():.1%} to {extra.max():.1%})")
    draw(table, *runs[0][1:], options.figure)
    print(f"figure: {options.figure}")
    return {name: float(extra.mean()) for name, extra in table.items()}


def draw(table, predict, test, path: Path) -> None:
    """A test map with the paths over it, what a cell was found to cost, and the table as bars."""
    maps, costs, best = test
    with torch.no_grad():
        found = {name: shortest_paths(predict[name](maps)) for name in ("layer", "cell by cell")}
        learned = predict["layer"](maps)
    # The first test map on which the two differ.
    shown = int(np.argmax((found["layer"] != found["cell by cell"]).any(-1)))
    colours = {"best": "#51cf66", "layer": "#1c7ed6", "cell by cell": "#e03131"}

    path.parent.mkdir(parents=True, exist_ok=True)
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(13, 4.6), layout="constrained", width_ratios=(1.15, 1, 1)
    )
    ink = np.pad(maps[shown].numpy().reshape(SIDE, SIDE, 8, 8), [(0, 0), (0, 0), (2, 2), (2, 2)])
    ink = np.clip(ink.transpose(0, 2, 1, 3).reshape(TILE * SIDE, TILE * SIDE), 0, 1)
    ground = np.kron(learned[shown].reshape(SIDE, SIDE), np.ones((TILE, TILE)))
    tint = plt.get_cmap("YlOrBr")(0.75 * ground / learned.max())[..., :3]
    left.imshow(tint * (1 - 0.8 * ink)[..., None], interpolation="bilinear")
    for (name, colour), width in zip(colours.items(), (13, 6, 3)):
        cells = best[shown].numpy() if name == "best" else found[name][shown]
        along = ordered(cells, costs[shown])
        left.plot(*centres(along), color=colour, lw=width, alpha=0.75, label=LINES[name])
    left.set(xticks=[], yticks=[], title="A new map, tinted by the learned cost")
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=3, frameon=False)

    digit = (costs - 1).astype(int)
    scale = (costs * learned).sum() / (learned**2).sum()
    middle.violinplot(
        [scale * learned[digit == d] for d in range(10)], positions=range(10), showmeans=True, showextrema=False
    )
    middle.plot(range(10), np.arange(1, 11), "k--", lw=1, label="true cost, never told")
    middle.set(
        xlabel="digit in the cell",
        ylabel="learned cost (scaled)",
        xticks=range(10),
        title="What a cell costs, learned from paths",
    )
    middle.legend(frameon=False)

    names = list(WAYS)
    bars = right.barh(
        [BARS[n] for n in names],
        [100 * table[n].mean() for n in names],
        color=["#1c7ed6", "#e03131", "#868e96", "#ced4da"],
    )
    for row, name in enumerate(names):
        right.plot(100 * table[name], [row] * len(table[name]), "k.", ms=4)
    right.bar_label(bars, [f"{table[n].mean():.1%}" for n in names], padding=16)
    right.margins(x=0.3)
    right.invert_yaxis()
    right.set(xlabel="% more than the best path", title=f"Test maps, {len(table['layer'])} seeds")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def centres(along: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the cells of a path lie in the picture."""
    return TILE * (along % SIDE) + TILE / 2 - 0.5, TILE * (along // SIDE) + TILE / 2 - 0.5


def ordered(cells: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """The cells of a path from the first corner to the last."""
    allowed = np.where(cells > 0, cost, 1e4)
    graph = csr_array((allowed[HEADS], (TAILS, HEADS)), shape=(CELLS, CELLS))
    _, before = dijkstra(graph, indices=0, return_predecessors=True)
    along = [CELLS - 1]
    while along[-1] != 0:
        along.append(before[along[-1]])
    return np.array(along[::-1])


if __name__ == "__main__":
    main()
