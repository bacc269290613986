"""Transforms of JAX over the layers that offer them: which work, which are right, and what `jit(grad)` costs.

    pip install "conelayers[jax]" cvxpylayers moreau qpax
    python benchmarks/jax_transforms.py

A dense quadratic programme  min |Qx|^2 / 2 + q'x  s.t.  Gx <= h  of 10 variables and 10 inequalities. Each cell is run:
"right" is within 1e-5 of this package's torch layer (1e-12 of it for ours), relative; a missing peer costs one column.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import torch

import conelayers
from conelayers.jax import CvxpyLayer

jax.config.update("jax_enable_x64", True)
torch.set_default_dtype(torch.float64)

N = 10
WEIGHTS = np.linspace(-1, 1, N)


def problem():
    """The programme in CVXPY."""
    x, Q, q = cp.Variable(N), cp.Parameter((N, N)), cp.Parameter(N)
    G, h = cp.Parameter((N, N)), cp.Parameter(N)
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(Q @ x) + q @ x), [G @ x <= h]), [Q, q, G, h], [x]


def data(batch: int | None, seed: int = 0) -> list[np.ndarray]:
    """Values of Q, q, G and h."""
    rng = np.random.default_rng(seed)
    shape = () if batch is None else (batch,)
    return [
        rng.normal(size=(*shape, N, N)) + 2 * np.eye(N),
        rng.normal(size=(*shape, N)),
        rng.normal(size=(*shape, N, N)),
        rng.uniform(0.1, 1, size=(*shape, N)),
    ]


def peers() -> dict[str, Callable]:
    """Each layer as a function of Q, q, G and h, without batch axes."""
    ours = CvxpyLayer(*problem())
    found: dict[str, Callable] = {"conelayers.jax": lambda *p: ours(*p)[0]}
    try:
        from cvxpylayers.jax import CvxpyLayer as Theirs

        for solver in ("DIFFCP", "MOREAU"):
            layer = Theirs(*problem(), solver=solver)
            found[f"cvxpylayers.jax, {solver}"] = lambda *p, layer=layer: layer(*p)[0]
    except Exception as error:  # noqa: BLE001 - whatever keeps a peer from being there
        print(f"cvxpylayers.jax: {type(error).__name__}: {error}")
    try:
        import qpax

        none, zero = jnp.zeros((0, N)), jnp.zeros(0)
        found["qpax"] = lambda Q, q, G, h: qpax.solve_qp_primal(Q.T @ Q, q, none, zero, G, h)
    except Exception as error:  # noqa: BLE001
        print(f"qpax: {type(error).__name__}: {error}")
    return found


# Each takes (loss, parameters without batch axes, parameters with one).
TRANSFORMS: dict[str, Callable] = {
    "value": lambda f, one, many: f(*one),
    "jit": lambda f, one, many: jax.jit(f)(*one),
    "grad": lambda f, one, many: jax.grad(f, (0, 1, 2, 3))(*one),
    "jit(grad)": lambda f, one, many: jax.jit(jax.grad(f, (0, 1, 2, 3)))(*one),
    "vmap": lambda f, one, many: jax.vmap(f)(*many),
    "vmap(grad)": lambda f, one, many: jax.vmap(jax.grad(f, 1))(*many),
    "jit(vmap(grad))": lambda f, one, many: jax.jit(jax.vmap(jax.grad(f, 1)))(*many),
    "jvp": lambda f, one, many: jax.jvp(lambda q: f(one[0], q, *one[2:]), (one[1],), (one[1],))[1],
    "jacfwd": lambda f, one, many: jax.jacfwd(f, 3)(*one),
    "jacrev": lambda f, one, many: jax.jacrev(lambda q: jnp.stack([f(one[0], q, *one[2:])] * 2))(one[1]),
    "hessian": lambda f, one, many: jax.hessian(f, 1)(*one),
    "linearize": lambda f, one, many: jax.linearize(lambda q: f(one[0], q, *one[2:]), one[1])[1](one[1]),
    "checkpoint": lambda f, one, many: jax.grad(jax.checkpoint(f), 1)(*one),
    "grad of scan": lambda f, one, many: jax.grad(
        lambda q: jax.lax.scan(lambda c, _: (c + f(one[0], c, *one[2:]), None), q, None, length=2)[0].sum()
    )(one[1]),
}


def right_answers(one: list[np.ndarray], many: list[np.ndarray]) -> dict[str, object]:
    """What each transform must give, by the torch layer."""
    layer = conelayers.CvxpyLayer(*problem())
    weights = torch.tensor(WEIGHTS)

    def f(*p):
        return (layer(*p)[0] * weights).sum(-1)

    a, b = [torch.tensor(v) for v in one], [torch.tensor(v) for v in many]
    grad = torch.func.grad(f, (0, 1, 2, 3))
    value, gradient = f(*a), grad(*a)
    rows = torch.func.vmap(torch.func.grad(f, 1))(*b)

    def scanned(q):
        for _ in range(2):
            q = q + f(a[0], q, *a[2:])
        return q.sum()

    return {
        **dict.fromkeys(("value", "jit"), value),
        **dict.fromkeys(("grad", "jit(grad)"), gradient),
        "vmap": f(*b),
        **dict.fromkeys(("vmap(grad)", "jit(vmap(grad))"), rows),
        **dict.fromkeys(("jvp", "linearize"), gradient[1] @ a[1]),
        "jacfwd": gradient[3],
        "jacrev": torch.stack([gradient[1]] * 2),
        "hessian": torch.func.hessian(f, 1)(*a),
        "checkpoint": gradient[1],
        "grad of scan": torch.func.grad(scanned)(a[1]),
    }


def cell(transform: Callable, layer: Callable, one, many, right) -> str:
    """What one layer does under one transform."""

    def loss(*p):
        return (layer(*p) * WEIGHTS).sum()

    try:
        found = jax.tree.leaves(jax.block_until_ready(transform(loss, one, many)))
    except Exception as error:  # noqa: BLE001 - the table says which
        return f"raises {type(error).__name__}"
    expected = right if isinstance(right, tuple) else (right,)
    pairs = zip(found, (e.numpy() for e in expected), strict=True)
    error = max(float(np.abs(value - e).max() / max(np.abs(e).max(), 1e-12)) for value, e in pairs)
    return f"right ({error:.0e})" if error <= 1e-5 else f"WRONG ({error:.0e})"


def milliseconds(layers: dict[str, Callable], batch: int, rounds: int) -> dict[str, float]:
    """Median times of `jit(grad)`, layers taking turns; NaN for those that raise."""
    values = [jnp.asarray(v) for v in data(batch)]
    compiled, times = {}, {name: [] for name in layers}
    for name, layer in layers.items():
        batched = layer if name.startswith("conelayers") or "cvxpylayers" in name else jax.vmap(layer)
        function = jax.jit(jax.grad(lambda *p, f=batched: (f(*p) * WEIGHTS).sum(), (0, 1, 2, 3)))
        try:
            jax.block_until_ready(function(*values))
            compiled[name] = function
        except Exception:  # noqa: BLE001
            times[name] = [np.nan]
    torch_layer, tensors = conelayers.CvxpyLayer(*problem()), [torch.tensor(v) for v in data(batch)]
    times["conelayers (torch)"] = []
    for _ in range(rounds):
        for name, function in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(function(*values))
            times[name].append(time.perf_counter() - start)
        start = time.perf_counter()
        leaves = [t.requires_grad_() for t in tensors]
        torch.autograd.grad((torch_layer(*leaves)[0] * torch.tensor(WEIGHTS)).sum(), leaves)
        times["conelayers (torch)"].append(time.perf_counter() - start)
    return {name: 1e3 * float(np.median(taken)) for name, taken in times.items()}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    one, many = data(None), data(4)
    layers, right = peers(), right_answers(one, many)
    print("| transform | " + " | ".join(layers) + " |\n|" + "---|" * (len(layers) + 1))
    one, many = [jnp.asarray(v) for v in one], [jnp.asarray(v) for v in many]
    for name, transform in TRANSFORMS.items():
        cells = [cell(transform, layer, one, many, right[name]) for layer in layers.values()]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    for batch in (1, 128):
        times = milliseconds(layers, batch, options.rounds)
        print(f"jit(grad), batch {batch}, ms: " + ", ".join(f"{name} {taken:.2f}" for name, taken in times.items()))


if __name__ == "__main__":
    main()
