"""A model predictive controller whose terminal cost is trained through a nonlinear simulator, in JAX.

A cart is pushed so that the pole on it stays up, with a force of at most 3 N. The controller solves, at every period, a
quadratic programme over the linearised model: with a short horizon it does not see that the force will not suffice, and
loses starts that a long horizon saves. The usual terminal cost is the Riccati equation's, which knows no bound; people
tune its scale by hand. Here the whole matrix is trained: the simulator's cost is differentiated through 30 periods,
each with a programme solved for every start and every seed at once. Training is one compiled function: `jit` of `vmap`
over the seeds of `scan` over `optax` steps.

Run: python examples/jax_mpc_policy.py [--steps 15] [--seeds 3] [--figure FILE]
"""

import argparse
import functools
import os
from pathlib import Path

import cvxpy as cp
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from scipy.linalg import solve_discrete_are

from conelayers.jax import CvxpyLayer

FORCE, PERIOD = 3.0, 0.05
STATE_WEIGHTS, FORCE_WEIGHT = (1.0, 0.1, 1.0, 0.1), 0.01
SHORT, LONG = 3, 30
TRAINED_PERIODS, TESTED_PERIODS = 30, 60
STARTS = 32


def simulate(state: jax.Array, force: jax.Array) -> jax.Array:
    """One period of the cart-pole of Barto, Sutton and Anderson (1983), without friction, by the midpoint rule.

    States are position, velocity, angle from upright and angular velocity.
    """
    cart, pole, length, gravity = 1.0, 0.1, 0.5, 9.8

    def rate(state):
        _, velocity, angle, turning = state
        sine, cosine = jnp.sin(angle), jnp.cos(angle)
        pushed = (force + pole * length * turning**2 * sine) / (cart + pole)
        turned = (gravity * sine - cosine * pushed) / (length * (4 / 3 - pole * cosine**2 / (cart + pole)))
        return jnp.stack([velocity, pushed - pole * length * turned * cosine / (cart + pole), turning, turned])

    return state + PERIOD * rate(state + PERIOD / 2 * rate(state))


def linear_model() -> tuple[np.ndarray, np.ndarray]:
    """The simulator's derivatives at rest: A of shape (4, 4) and B of shape (4, 1)."""
    A, B = jax.jacobian(simulate, (0, 1))(jnp.zeros(4), jnp.zeros(()))
    return np.asarray(A, np.float64), np.asarray(B, np.float64)[:, None]


def riccati() -> tuple[jax.Array, jax.Array]:
    """A root R of the cost-to-go |Rx|^2 of the linear model without the bound, and the gain of its controller."""
    A, B = linear_model()
    P = solve_discrete_are(A, B, np.diag(STATE_WEIGHTS), np.array([[FORCE_WEIGHT]]))
    gain = np.linalg.solve(FORCE_WEIGHT + B.T @ P @ B, B.T @ P @ A)[0]
    return jnp.asarray(np.linalg.cholesky(P).T), jnp.asarray(gain)


def controller(horizon: int) -> CvxpyLayer:
    """State and root of the terminal cost -> the forces of the next periods."""
    A, B = linear_model()
    x, u = cp.Variable((horizon + 1, 4)), cp.Variable((horizon, 1))
    start, root = cp.Parameter(4), cp.Parameter((4, 4))
    stages = cp.sum_squares(x[1:horizon] @ np.diag(np.sqrt(STATE_WEIGHTS))) + FORCE_WEIGHT * cp.sum_squares(u)
    rows = [x[0] == start, x[1:] == x[:-1] @ A.T + u @ B.T, cp.abs(u) <= FORCE]
    return CvxpyLayer(cp.Problem(cp.Minimize(stages + cp.sum_squares(root @ x[horizon])), rows), [start, root], [u])


def rollout(policy, starts: jax.Array, periods: int) -> tuple[jax.Array, jax.Array]:
    """Cost of each start, shape (starts,), and the states, shape (periods + 1, starts, 4)."""

    def advance(states, _):
        force = policy(states)
        cost = states**2 @ jnp.array(STATE_WEIGHTS) + FORCE_WEIGHT * force**2
        return jax.vmap(simulate)(states, force), (cost, states)

    last, (costs, states) = jax.lax.scan(advance, starts, length=periods)
    return costs.sum(0), jnp.concatenate([states, last[None]])


def draw_starts(key: jax.Array, count: int) -> jax.Array:
    """States near rest, some of which the force can only just save."""
    return jnp.array([0.5, 0.3, 0.15, 0.3]) * jax.random.uniform(key, (count, 4), minval=-1, maxval=1)


def training_loss(layer: CvxpyLayer, terminal: jax.Array, root: jax.Array, starts: jax.Array) -> jax.Array:
    """The mean logarithm of the simulated cost: without it, the few starts that fall would be all that counts."""
    cost, states = rollout(lambda x: layer(x, terminal)[0][:, 0, 0], starts, TRAINED_PERIODS)
    later = ((states[-1] @ root.T) ** 2).sum(-1)  # priced by the Riccati equation
    return jnp.log(cost + later).mean()


@functools.partial(jax.jit, static_argnums=2)
def tune(key: jax.Array, root: jax.Array, layer: CvxpyLayer) -> jax.Array:
    """The Riccati root at the scale, of seven, that is best in training: what is tuned by hand."""
    starts = draw_starts(key, 48)
    roots = jnp.sqrt(jnp.geomspace(0.1, 10.0, 7))[:, None, None] * root
    losses = jax.vmap(lambda terminal: training_loss(layer, terminal, root, starts))(roots)
    return roots[jnp.argmin(losses)]


@functools.partial(jax.jit, static_argnums=(2, 3))
def train(keys: jax.Array, root: jax.Array, layer: CvxpyLayer, steps: int) -> tuple[jax.Array, jax.Array]:
    """One root of the terminal cost per key, shape (keys, 4, 4), begun at `root`, and losses, shape (keys, steps)."""
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(0.1, steps)))

    def loss(change, starts):
        return training_loss(layer, root @ (jnp.eye(4) + change), root, starts)

    def update(carry, key):
        change, state = carry
        value, gradient = jax.value_and_grad(loss)(change, draw_starts(key, STARTS))
        moves, state = optimizer.update(gradient, state)
        return (optax.apply_updates(change, moves), state), value

    def one_seed(key):
        start = jnp.zeros_like(root)
        (change, _), losses = jax.lax.scan(update, (start, optimizer.init(start)), jax.random.split(key, steps))
        return root @ (jnp.eye(4) + change), losses

    return jax.vmap(one_seed)(keys)


def judge(policy, starts: jax.Array) -> dict[str, np.ndarray]:
    """Costs, states, and which starts never let the pole fall below the horizontal."""
    cost, states = jax.jit(rollout, static_argnums=(0, 2))(policy, starts, TESTED_PERIODS)
    return {
        "cost": np.asarray(cost),
        "states": np.asarray(states),
        "up": (np.abs(states[..., 2]) < np.pi / 2).all(0),
    }


def plot(path: Path, results: dict[str, dict[str, np.ndarray]]) -> None:
    """Starts saved, one start that the short horizon loses, and the costs of all starts in order."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    shown = {name: found for name, found in results.items() if "seed" not in name or name.endswith("seed 0")}
    colors = {name: f"C{min(k, len(shown) - 1)}" for k, name in enumerate(results)}
    shares = [100 * found["up"].mean() for found in results.values()]
    bars = left.barh(list(results), shares, color=list(colors.values()))
    left.bar_label(bars, fmt="%.0f %%", padding=2)
    left.invert_yaxis()
    left.set(xlim=(80, 104), title="Starts from which the pole stays up")
    usual, learned = (shown[name] for name in ("horizon 3, Riccati", "horizon 3, learned, seed 0"))
    # Of the starts that only training saves, the one that costs most.
    lost = np.flatnonzero(learned["up"] & ~usual["up"])
    chosen = int(lost[np.argmax(learned["cost"][lost])] if len(lost) else np.argmax(usual["cost"]))
    for name, found in shown.items():
        seconds = PERIOD * np.arange(TESTED_PERIODS + 1)
        middle.plot(seconds, found["states"][:, chosen, 2], colors[name])
        right.plot(np.sort(found["cost"]), np.linspace(0, 1, len(found["cost"])), colors[name], label=name)
    middle.set(ylim=(-0.5, 1.5), xlabel="time (s)", ylabel="angle (rad)", title="A start that the short horizon loses")
    right.set(xscale="log", xlabel="cost", ylabel="share of starts below", title="All test starts")
    right.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    print(f"figure: {path}")


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--starts", type=int, default=100, help="states to test from")
    default = Path(os.environ.get("CONELAYERS_FIGURES", Path(__file__).parent / "figures"))
    parser.add_argument("--figure", type=Path, default=default / "jax_mpc_policy.png")
    options = parser.parse_args(argv)

    root, gain = riccati()
    short, long = controller(SHORT), controller(LONG)
    roots, _ = train(jax.random.split(jax.random.key(0), options.seeds), root, short, options.steps)
    starts = draw_starts(jax.random.key(1_000), options.starts)

    def policy(layer, root):
        return lambda states: layer(states, root)[0][:, 0, 0]

    results = {
        "LQR, clipped": judge(lambda states: jnp.clip(-states @ gain, -FORCE, FORCE), starts),
        "horizon 3, Riccati": judge(policy(short, root), starts),
        "horizon 3, Riccati, scaled": judge(policy(short, tune(jax.random.key(500), root, short)), starts),
        "horizon 30, Riccati": judge(policy(long, root), starts),
    }
    results |= {f"horizon 3, learned, seed {k}": judge(policy(short, r), starts) for k, r in enumerate(roots)}

    print(f"{'policy':<28} {'pole up':>8} {'median cost':>12} {'mean cost':>10}")
    for name, found in results.items():
        print(f"{name:<28} {found['up'].mean():8.0%} {np.median(found['cost']):12.3f} {found['cost'].mean():10.2f}")
    plot(options.figure, results)
    learned = [results[f"horizon 3, learned, seed {k}"] for k in range(options.seeds)]
    return {
        "usual": float(results["horizon 3, Riccati"]["up"].mean()),
        "long": float(results["horizon 30, Riccati"]["up"].mean()),
        "scaled": float(results["horizon 3, Riccati, scaled"]["up"].mean()),
        "learned": float(np.mean([found["up"].mean() for found in learned])),
    }


if __name__ == "__main__":
    main()
