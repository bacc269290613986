"""What the JAX primitives compute: an equation's solution, its derivatives, and derivatives of these, on arrays.

Each formula is a function of arrays of shape (*batch, *event), stated once in torch; its derivatives of any order are
formulas again (`Jvp`, `Vjp`), computed by `torch.func`. Formulas are values: equal ones share JAX's compilations.

In single precision a solution is returned as a rounded value and a remainder: derivatives are taken at their sum,
since a point rounded to 1e-7 has lost the digits by which active constraints are told from inactive ones.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from conelayers.implicit import Equation

__all__ = ["Formula", "Jvp", "Pullback", "Pushforward", "Shape", "Solve", "Vjp", "run"]

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Formula(abc.ABC):
    """A function of several arrays.

    Subclasses are frozen dataclasses of hashable values.
    """

    @property
    @abc.abstractmethod
    def arguments(self) -> tuple[int, ...]:
        """Number of trailing axes of each argument that belong to one item."""

    @property
    @abc.abstractmethod
    def results(self) -> tuple[int, ...]:
        """The same of each result."""

    @abc.abstractmethod
    def shapes(self, shapes: Sequence[Shape], dtypes: Sequence[np.dtype]) -> list[tuple[Shape, np.dtype]]:
        """Shapes and types of the results."""

    @abc.abstractmethod
    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """The results in double precision, by torch code that torch can differentiate."""


def run(formula: Formula, types: Sequence[np.dtype], arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The results of a formula as arrays of the given types."""
    with torch.no_grad():
        results = formula(*map(_tensor, arrays))
    return [_array(value, dtype) for value, dtype in zip(results, types, strict=True)]


def _tensor(array: np.ndarray) -> Tensor:
    """An array as a tensor, floating ones in double precision; arrays of JAX cannot be written on."""
    array = np.asarray(array)
    if array.dtype.kind == "f":
        return torch.from_numpy(array.astype(np.float64, copy=not array.flags.writeable))
    return torch.from_numpy(array.copy())


def _array(value: Tensor, dtype: np.dtype) -> np.ndarray:
    return value.detach().resolve_conj().contiguous().numpy().astype(dtype, copy=False)


@dataclasses.dataclass(frozen=True)
class Point:
    """How an equation's outputs are passed about.

    Attributes:
        dims: Number of trailing axes of each differentiable output that belong to one item; they come first.
        facts: Types of the other outputs (status and the like), which are numbers per item.
        dtype: "float64", or "float32" for a rounded value and a remainder each.
    """

    dims: tuple[int, ...]
    facts: tuple[str, ...]
    dtype: str

    @property
    def split(self) -> bool:
        """Whether there are remainders."""
        return self.dtype != "float64"

    @property
    def axes(self) -> tuple[int, ...]:
        """Trailing axes of all arrays: values, remainders, facts."""
        return self.dims * (2 if self.split else 1) + (0,) * len(self.facts)

    def pack(self, outputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The arrays of an equation's outputs."""
        count = len(self.dims)
        values, facts = tuple(outputs[:count]), tuple(outputs[count:])
        if not self.split:
            return (*values, *facts)
        rounded = tuple(value.float().double() for value in values)
        return (*rounded, *(torch.nan_to_num(v - r) for v, r in zip(values, rounded, strict=True)), *facts)

    def unpack(self, arrays: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """An equation's outputs from the arrays."""
        count = len(self.dims)
        if not self.split:
            return tuple(arrays)
        values = (value + rest for value, rest in zip(arrays[:count], arrays[count : 2 * count], strict=True))
        return (*values, *arrays[2 * count :])


@dataclasses.dataclass(frozen=True)
class Solve(Formula):
    """Solve an equation.

    Attributes:
        equation: The equation; compared by identity.
        sizes: Shape of one item's value of each differentiable output.
        point: How outputs are passed about.
    """

    equation: Equation
    sizes: tuple[Shape, ...]
    point: Point

    @property
    def arguments(self) -> tuple[int, ...]:
        """The equation's inputs."""
        return tuple(self.equation.event_dims)

    @property
    def results(self) -> tuple[int, ...]:
        """Values, remainders, facts."""
        return self.point.axes

    def shapes(self, shapes, dtypes):
        """All outputs carry the broadcast batch axes."""
        batch = _batch(shapes, self.arguments)
        values = [((*batch, *size), np.dtype(self.point.dtype)) for size in self.sizes]
        return values * (2 if self.point.split else 1) + [(batch, np.dtype(fact)) for fact in self.point.facts]

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """The equation's own solve."""
        return self.point.pack(self.equation.solve(*arguments))


@dataclasses.dataclass(frozen=True)
class Pushforward(Formula):
    """Tangents of the outputs from those of some inputs; arguments: inputs, the solved point, tangents.

    Attributes:
        solve: What is differentiated.
        moving: Which inputs have a tangent.
    """

    solve: Solve
    moving: tuple[bool, ...]

    @property
    def arguments(self) -> tuple[int, ...]:
        """Inputs, point, tangents."""
        return (*self.solve.arguments, *self.solve.results, *_kept(self.solve.arguments, self.moving))

    @property
    def results(self) -> tuple[int, ...]:
        """Differentiable outputs."""
        return self.solve.point.dims

    def shapes(self, shapes, dtypes):
        """Those of the outputs."""
        batch = _batch(shapes, self.arguments)
        return [((*batch, *size), np.dtype(self.solve.point.dtype)) for size in self.solve.sizes]

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """The equation's own formula."""
        inputs, outputs, given = _parts(self.solve, arguments)
        moves = iter(given)
        tangents = tuple(next(moves) if moving else None for moving in self.moving)
        found = self.solve.equation.pushforward(inputs, outputs, tangents)[: len(self.results)]
        batch = _batch([tuple(a.shape) for a in arguments], self.arguments)
        return tuple(
            torch.zeros((*batch, *size), dtype=torch.float64) if t is None else t.expand(*batch, *size)
            for t, size in zip(found, self.solve.sizes, strict=True)
        )


@dataclasses.dataclass(frozen=True)
class Pullback(Formula):
    """Cotangents of some inputs from those of some outputs; arguments: inputs, the solved point, cotangents.

    Attributes:
        solve: What is differentiated.
        needed: Which inputs' cotangents are wanted.
        given: Which outputs have a cotangent.
    """

    solve: Solve
    needed: tuple[bool, ...]
    given: tuple[bool, ...]

    @property
    def arguments(self) -> tuple[int, ...]:
        """Inputs, point, cotangents."""
        return (*self.solve.arguments, *self.solve.results, *_kept(self.solve.point.dims, self.given))

    @property
    def results(self) -> tuple[int, ...]:
        """The inputs that are wanted."""
        return tuple(_kept(self.solve.arguments, self.needed))

    def shapes(self, shapes, dtypes):
        """Those of the inputs."""
        count = len(self.needed)
        return _kept(list(zip(shapes[:count], dtypes[:count], strict=True)), self.needed)

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """The equation's own formula; axes that an input lacks are summed."""
        inputs, outputs, given = _parts(self.solve, arguments)
        if not any(self.given):
            return tuple(torch.zeros_like(x) for x in _kept(inputs, self.needed))
        values = iter(given)
        cotangents = [next(values) if use else None for use in self.given]
        cotangents += [None] * (len(outputs) - len(cotangents))
        found = self.solve.equation.pullback(inputs, outputs, tuple(cotangents), self.needed)
        pairs = _kept(list(zip(inputs, found, strict=True)), self.needed)
        return tuple(torch.zeros_like(x) if g is None else g.sum_to_size(x.shape) for x, g in pairs)


@dataclasses.dataclass(frozen=True)
class Jvp(Formula):
    """Tangents of a formula's results; arguments: its own, then tangents of some of them.

    Attributes:
        of: The formula.
        moving: Which of its arguments have a tangent.
    """

    of: Formula
    moving: tuple[bool, ...]

    @property
    def arguments(self) -> tuple[int, ...]:
        """Its arguments, tangents."""
        return (*self.of.arguments, *_kept(self.of.arguments, self.moving))

    @property
    def results(self) -> tuple[int, ...]:
        """Its results."""
        return self.of.results

    def shapes(self, shapes, dtypes):
        """Those of its results."""
        count = len(self.of.arguments)
        return self.of.shapes(shapes[:count], dtypes[:count])

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """By forward mode."""
        count = len(self.of.arguments)
        function, moved = _restricted(self.of, arguments[:count], self.moving)
        tangents = tuple(t.clone() for t in arguments[count:])
        return torch.func.jvp(function, moved, tangents)[1]


@dataclasses.dataclass(frozen=True)
class Vjp(Formula):
    """Cotangents of some of a formula's arguments; arguments: its own, then a cotangent of each result.

    Attributes:
        of: The formula.
        moving: Which of its arguments' cotangents are wanted.
    """

    of: Formula
    moving: tuple[bool, ...]

    @property
    def arguments(self) -> tuple[int, ...]:
        """Its arguments, cotangents."""
        return (*self.of.arguments, *self.of.results)

    @property
    def results(self) -> tuple[int, ...]:
        """The arguments that are wanted."""
        return tuple(_kept(self.of.arguments, self.moving))

    def shapes(self, shapes, dtypes):
        """Those of the arguments."""
        count = len(self.moving)
        return _kept(list(zip(shapes[:count], dtypes[:count], strict=True)), self.moving)

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """By reverse mode."""
        count = len(self.of.arguments)
        function, moved = _restricted(self.of, arguments[:count], self.moving)
        with torch.enable_grad():
            pull = torch.func.vjp(function, *moved)[1]
            return pull(tuple(arguments[count:]))


def _restricted(formula: Formula, arguments: Sequence[Tensor], moving: Sequence[bool]):
    """The formula as a function of some of its arguments, and these."""

    def function(*moved: Tensor) -> tuple[Tensor, ...]:
        values = iter(moved)
        return formula(*(next(values) if use else a for a, use in zip(arguments, moving, strict=True)))

    return function, tuple(_kept(arguments, moving))


def _parts(solve: Solve, arguments: Sequence[Tensor]) -> tuple[tuple, tuple, tuple]:
    """Inputs, outputs, and what follows them."""
    first, second = len(solve.arguments), len(solve.arguments) + len(solve.results)
    return tuple(arguments[:first]), solve.point.unpack(arguments[first:second]), tuple(arguments[second:])


def _kept(values: Sequence, mask: Sequence[bool]) -> list:
    return [value for value, use in zip(values, mask, strict=True) if use]


def _batch(shapes: Sequence[Shape], axes: Sequence[int]) -> Shape:
    """The broadcast batch axes."""
    return np.broadcast_shapes(*(shape[: len(shape) - k] for shape, k in zip(shapes, axes, strict=True)))
