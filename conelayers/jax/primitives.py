"""Formulas as primitives of JAX: the only file that touches what JAX does not call public.

Two primitives: one that solves, whose derivative is a formula, and one for formulas, which are linear in their last
arguments where JAX asks for a transpose.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from conelayers.errors import UnsupportedError
from conelayers.jax.formulas import Formula, Jvp, Pullback, Pushforward, Solve, Vjp, run

__all__ = ["solve"]


def solve(formula: Solve, *inputs: jax.Array) -> list[jax.Array]:
    """Solve an equation, differentiably under every transform of JAX.

    Args:
        formula: What to solve; keep and reuse it: JAX compiles anew for each that differs.
        *inputs: Arrays of shape (*batch, *event).

    Returns:
        Values, remainders and facts as `Point` lays them out.
    """
    return _solve_p.bind(*inputs, formula=formula)


def _primitive(name: str) -> Primitive:
    primitive = Primitive(name)
    primitive.multiple_results = True
    primitive.def_impl(functools.partial(_evaluate, primitive))
    primitive.def_abstract_eval(_abstract)
    mlir.register_lowering(primitive, _lower, platform="cpu")
    mlir.register_lowering(primitive, _refuse)
    batching.primitive_batchers[primitive] = functools.partial(_batch, primitive)
    return primitive


def _evaluate(primitive: Primitive, *arrays: Any, formula: Formula, **settings: Any) -> Any:
    """The primitive outside of `jax.jit`: at once, so that errors arrive as what they are and nothing is compiled."""
    known = [a for a in arrays if isinstance(a, jax.Array)]
    devices = {device for a in known for device in a.devices()}
    if len(devices) > 1 or any(device.platform != "cpu" for device in devices):
        return _compiled(primitive, formula=formula, **settings)(*arrays)  # where all of this is decided
    types = [dtype for _, dtype in formula.shapes([np.shape(a) for a in arrays], [a.dtype for a in arrays])]
    results = run(formula, types, [np.asarray(a) for a in arrays])
    if any(a.committed for a in known):
        return [jax.device_put(result, *devices) for result in results]
    with jax.default_device(*devices) if devices else contextlib.nullcontext():
        return [jnp.asarray(result) for result in results]


@functools.lru_cache(maxsize=1024)
def _compiled(primitive: Primitive, **settings: Any) -> Any:
    """The primitive as a compiled function, one for each formula."""
    return jax.jit(functools.partial(primitive.bind, **settings))


def _abstract(*arrays: Any, formula: Formula, **_: Any) -> list[ShapedArray]:
    for array in arrays:
        spec = getattr(getattr(array, "sharding", None), "spec", ())
        if any(part is not None for part in spec):
            raise UnsupportedError(
                f"conelayers.jax got an array sharded by {spec}, and solves on one device; gather it first, for "
                "example with jax.device_put(array, jax.devices('cpu')[0]), or let each device solve its part with "
                "jax.shard_map(..., check_vma=False)."
            )
    found = formula.shapes([a.shape for a in arrays], [a.dtype for a in arrays])
    return [ShapedArray(shape, dtype) for shape, dtype in found]


def _lower(context: Any, *operands: Any, formula: Formula, **_: Any) -> Any:
    types = [aval.dtype for aval in context.avals_out]

    def callback(*arrays: Any) -> tuple[np.ndarray, ...]:
        return tuple(run(formula, types, arrays))

    results, _, _ = mlir.emit_python_callback(
        context, callback, None, list(operands), context.avals_in, context.avals_out, has_side_effect=False
    )
    return results


def _refuse(*_: Any, **__: Any) -> Any:
    raise UnsupportedError(
        "conelayers.jax solves on the CPU only: move the arrays there with "
        "jax.device_put(array, jax.devices('cpu')[0]), or run under jax.default_device(jax.devices('cpu')[0])."
    )


def _batch(primitive: Primitive, arrays: Sequence[Any], axes: Sequence[Any], *, formula: Formula, **settings: Any):
    """The mapped axis becomes the first batch axis of every argument: results have the shapes of arguments."""
    size = next(a.shape[axis] for a, axis in zip(arrays, axes, strict=True) if axis is not None)
    plain = [a.shape if axis is None else np.delete(a.shape, axis) for a, axis in zip(arrays, axes, strict=True)]
    plain = [tuple(map(int, shape)) for shape in plain]
    rank = max(len(shape) - k for shape, k in zip(plain, formula.arguments, strict=True))
    moved = []
    for a, axis, shape, k in zip(arrays, axes, plain, formula.arguments, strict=True):
        a = jnp.broadcast_to(a[None], (size, *shape)) if axis is None else jnp.moveaxis(a, axis, 0)
        missing = rank - (len(shape) - k)
        moved.append(a.reshape(size, *(1,) * missing, *shape))
    results = primitive.bind(*moved, formula=formula, **settings)
    expected = formula.shapes(plain, [a.dtype for a in arrays])
    reshaped = [r.reshape(size, *shape) for r, (shape, _) in zip(results, expected, strict=True)]
    return reshaped, [0] * len(results)


def _solve_jvp(arrays: Sequence[Any], tangents: Sequence[Any], *, formula: Solve) -> tuple[list, list]:
    """Only the values move: remainders are constants beside them."""
    results = _solve_p.bind(*arrays, formula=formula)
    moving = tuple(type(t) is not ad.Zero for t in tangents)
    moves = [t for t in tangents if type(t) is not ad.Zero]
    push = Pushforward(formula, moving)
    moved = _formula_p.bind(*arrays, *results, *moves, formula=push, linear=len(moves))
    return results, [*moved, *map(_zero, results[len(moved) :])]


def _formula_jvp(arrays: Sequence[Any], tangents: Sequence[Any], *, formula: Formula, linear: int) -> tuple[list, list]:
    """Linear arguments move by the formula itself, others by the formula's derivative."""
    results = _formula_p.bind(*arrays, formula=formula, linear=linear)
    moving = [type(t) is not ad.Zero for t in tangents]
    fixed = len(arrays) - linear
    if not any(moving[:fixed]):
        moves = [ad.instantiate_zeros(t) for t in tangents[fixed:]]
        return results, _formula_p.bind(*arrays[:fixed], *moves, formula=formula, linear=linear)
    moves = [t for t in tangents if type(t) is not ad.Zero]
    moved = _formula_p.bind(*arrays, *moves, formula=Jvp(formula, tuple(moving)), linear=len(moves))
    return results, moved


def _formula_transpose(cotangents: Sequence[Any], *arrays: Any, formula: Formula, linear: int) -> list:
    fixed = len(arrays) - linear
    if all(type(g) is ad.Zero for g in cotangents):
        return [None] * len(arrays)
    known = arrays[:fixed]
    if any(ad.is_undefined_primal(a) for a in known):
        raise NotImplementedError("a formula is linear in its last arguments only")
    pulled = zip(_transposed(formula, known, cotangents), arrays[fixed:], strict=True)
    return [None] * fixed + [g if ad.is_undefined_primal(a) else None for g, a in pulled]


def _transposed(formula: Formula, known: Sequence[Any], cotangents: Sequence[Any]) -> list:
    """The transpose in the last arguments."""
    if isinstance(formula, Pushforward):
        given = tuple(type(g) is not ad.Zero for g in cotangents)
        values = [g for g in cotangents if type(g) is not ad.Zero]
        pull = Pullback(formula.solve, formula.moving, given)
        return _formula_p.bind(*known, *values, formula=pull, linear=len(values))
    values = [ad.instantiate_zeros(g) for g in cotangents]
    if isinstance(formula, Pullback):
        push = Pushforward(formula.solve, formula.needed)
        moved = _formula_p.bind(*known, *values, formula=push, linear=len(values))
        return [t for t, use in zip(moved, formula.given, strict=True) if use]
    if isinstance(formula, Jvp):
        transpose = Vjp(formula.of, formula.moving)
    elif isinstance(formula, Vjp):
        transpose = Jvp(formula.of, formula.moving)
    else:
        raise NotImplementedError(f"{type(formula).__name__} is not linear")
    return _formula_p.bind(*known, *values, formula=transpose, linear=len(values))


def _zero(value: Any) -> Any:
    return ad.Zero(jax.typeof(value).to_tangent_aval())


_solve_p = _primitive("conelayers_solve")
_formula_p = _primitive("conelayers_formula")
ad.primitive_jvps[_solve_p] = _solve_jvp
ad.primitive_jvps[_formula_p] = _formula_jvp
ad.primitive_transposes[_formula_p] = _formula_transpose
