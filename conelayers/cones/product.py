"""Products of cones in row order: the only owner of row offsets.

Blocks of one kind and dimension form a group and are computed at once: a group gathers its rows to a tensor
(*batch, count, d), runs the cone's own functions, and the results return to row order by one concatenation
and, if the rows are interleaved, one permutation. Rows of polyhedral cones stand alone, so all of a kind form
one group.
"""

import itertools
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from conelayers.cones.base import BlockDerivative, Cone, Kink, SpectralBlocks, Weak
from conelayers.errors import InvalidArgument

__all__ = ["ConeDerivative", "ProductCone"]


class _Group(NamedTuple):
    """Blocks computed together: their cone, rows (count, d), owner (count,) among the product's cones."""

    cone: Cone
    rows: Tensor
    owner: Tensor
    start: int | None  # first row if the rows are contiguous


class _Layout(NamedTuple):
    """Groups on one device, and the permutation from group order to row order (None: they agree)."""

    groups: tuple[_Group, ...]
    restore: Tensor | None

    def take(self, v: Tensor) -> list[Tensor]:
        """Rows of each group, shape (*batch, count, d)."""
        parts = []
        for group in self.groups:
            count, size = group.rows.shape
            if group.start is None:
                part = v.index_select(-1, group.rows.reshape(-1))
            else:
                part = v.narrow(-1, group.start, count * size)
            parts.append(part.reshape(*v.shape[:-1], count, size))
        return parts

    def put(self, parts: list[Tensor], like: Tensor) -> Tensor:
        """Inverse of `take`."""
        if not parts:
            return like.clone()
        flat = [part.flatten(-2) for part in parts]
        joined = flat[0] if len(flat) == 1 else torch.cat(flat, -1)
        return joined if self.restore is None else joined.index_select(-1, self.restore)


class ConeDerivative:
    """Element D of the Clarke Jacobian of a projection on a product cone: symmetric, 0 <= D <= I.

    Arguments named u and w have the shape (*batch, m) of the point v; extra leading axes stand for several
    right-hand sides and broadcast.
    """

    def __init__(self, layout: _Layout, parts: list[BlockDerivative], like: Tensor) -> None:
        self._layout, self._parts, self._like = layout, parts, like

    def apply(self, u: Tensor) -> Tensor:
        """D u, shape (*lead, *batch, m). At v itself D v is the projection of v."""
        parts = [part.apply(rows) for part, rows in zip(self._parts, self._layout.take(u), strict=True)]
        return self._layout.put(parts, u)

    def curvature(self, u: Tensor, w: Tensor) -> Tensor:
        """Gradient with respect to v of <w, D(v) u>, shape (*lead, *batch, m); symmetric in u and w.

        Closed forms; nothing is differentiated automatically. Where D jumps, the derivative of the piece that
        `D` lies on.
        """
        left, right = self._layout.take(u), self._layout.take(w)
        parts = [part.curvature(a, b) for part, a, b in zip(self._parts, left, right, strict=True)]
        return self._layout.put(parts, u)

    def matrix(self) -> Tensor:
        """D as a dense tensor, shape (*batch, m, m)."""
        size = self._like.shape[-1]
        dense = self._like.new_zeros(*self._like.shape, size)
        for part, group in zip(self._parts, self._layout.groups, strict=True):
            dense[..., group.rows.unsqueeze(-1), group.rows.unsqueeze(-2)] = part.matrix()
        return dense

    def spectrum(self) -> list[SpectralBlocks]:
        """Eigenvectors and eigenvalues of every block, by groups whose rows partition the rows of v."""
        return [
            SpectralBlocks(group.rows, *part.spectrum())
            for part, group in zip(self._parts, self._layout.groups, strict=True)
        ]


class ProductCone:
    """The product K_1 x ... x K_k, rows in the order of the cones.

    A value: hashable, picklable, compared by its cones.

    Args:
        cones: the factors, any number.

    Attributes:
        cones: the factors, a tuple.
        offsets: k + 1 integers; the rows of factor i are offsets[i] to offsets[i + 1].
        dim: number of rows m.
        is_polyhedral: whether every factor is: then D is locally constant wherever it is continuous, and
            `ConeDerivative.curvature` vanishes.

    Raises:
        InvalidArgument: a factor is no `Cone`.
    """

    def __init__(self, cones: Sequence[Cone]) -> None:
        self.cones = tuple(cones)
        for index, cone in enumerate(self.cones):
            if not isinstance(cone, Cone):
                raise InvalidArgument(f"cones[{index}] must be a Cone, got {type(cone).__name__}.")
        self.offsets = tuple(itertools.accumulate((cone.dim for cone in self.cones), initial=0))
        self.dim = self.offsets[-1]
        self.is_polyhedral = all(cone.polyhedral for cone in self.cones)
        self._hash = hash(self.cones)
        self._dual: ProductCone | None = None
        self._layouts: dict[torch.device, _Layout] = {}

    def __eq__(self, other: object) -> bool:
        """Equal cones in equal order."""
        return isinstance(other, ProductCone) and self.cones == other.cones

    def __hash__(self) -> int:
        """Hash of the factors."""
        return self._hash

    def __repr__(self) -> str:
        """The constructor call."""
        return f"ProductCone({list(self.cones)!r})"

    def __reduce__(self) -> tuple[type["ProductCone"], tuple[tuple[Cone, ...]]]:
        """Copies and pickles carry the factors only."""
        return ProductCone, (self.cones,)

    def dual(self) -> "ProductCone":
        """The product of the dual cones."""
        if self._dual is None:
            self._dual = ProductCone([cone.dual() for cone in self.cones])
        return self._dual

    def project(self, v: Tensor, *, mu: float | Tensor | None = None) -> Tensor:
        """Projection Pi_K(v), shape (*batch, m), or its smoothing.

        With mu the proximal point y + mu grad F(y) = v of the barrier F of K.

        Args:
            v: shape (*batch, m), floating point.
            mu: None, or the smoothing: a positive float, or a tensor that broadcasts to (*batch, k), one
                value per cone, or to (*batch, m), one per row (blocks of several rows read their first one's).

        Raises:
            InvalidArgument: v or mu has the wrong shape or dtype.
        """
        layout = self._layout(v)
        settings = self._settings(layout, mu)
        parts = [
            group.cone.project(rows, mu=value)
            for group, rows, value in zip(layout.groups, layout.take(v), settings, strict=True)
        ]
        return layout.put(parts, v)

    def project_dual(self, v: Tensor, *, mu: float | Tensor | None = None) -> Tensor:
        """Projection on the dual cone, Pi_{K*}(v) = v + Pi_K(-v); with mu, the proximal point for the barrier of K*."""
        return self.dual().project(v, mu=mu)

    def derivative(
        self,
        v: Tensor,
        *,
        mu: float | Tensor | None = None,
        weak: Weak = "min",
        radius: float | Tensor = 0.0,
    ) -> ConeDerivative:
        """Element D of the Clarke Jacobian of Pi_K at v; with mu, the Jacobian of the proximal map.

        Args:
            v: shape (*batch, m), floating point.
            mu: None, or a positive float or tensor as in `project`.
            weak: "min" for the smallest element of the Clarke Jacobian at a kink, "max" for the largest.
            radius: weakly active parts within this distance of a kink count as lying on it: a float, or a
                tensor as for `mu` in `project`. Eigenvalues are then moved to 0 or 1, in the
                eigenvectors at v: exact for polyhedral cones, first-order in the radius for curved ones.
                Ignored with mu.

        Raises:
            InvalidArgument: an argument has the wrong shape, dtype or value.
        """
        if weak not in ("min", "max"):
            raise InvalidArgument(f'weak must be "min" or "max", got {weak!r}.')
        layout = self._layout(v)
        smoothings, radii = self._settings(layout, mu), self._settings(layout, radius)
        parts = [
            group.cone.derivative(rows, mu=smoothing, kink=Kink(weak, width))  # type: ignore[arg-type]
            for group, rows, smoothing, width in zip(layout.groups, layout.take(v), smoothings, radii, strict=True)
        ]
        return ConeDerivative(layout, parts, v)

    def dual_derivative(
        self,
        v: Tensor,
        *,
        mu: float | Tensor | None = None,
        weak: Weak = "min",
        radius: float | Tensor = 0.0,
    ) -> ConeDerivative:
        """Element of the Clarke Jacobian of Pi_{K*} at v; arguments as in `derivative`."""
        return self.dual().derivative(v, mu=mu, weak=weak, radius=radius)

    def margin(self, v: Tensor) -> Tensor:
        """Distance of each block of v to the points where Pi_{K*} is not differentiable, shape (*batch, k).

        Infinity for blocks without kinks. The kinks of Pi_K are those of Pi_{K*} with the sign changed.
        """
        layout = self.dual()._layout(v)
        margins = v.new_full((*v.shape[:-1], len(self.cones)), torch.inf)
        for group, rows in zip(layout.groups, layout.take(v), strict=True):
            owner = group.owner.expand(*v.shape[:-1], -1)
            margins = margins.scatter_reduce(-1, owner, group.cone.margin(rows), "amin")
        return margins

    def _layout(self, v: Tensor) -> _Layout:
        if not isinstance(v, Tensor) or not v.is_floating_point():
            raise InvalidArgument("v must be a floating-point tensor; convert it with v.double().")
        if v.dim() == 0 or v.shape[-1] != self.dim:
            raise InvalidArgument(f"v must have shape (*batch, {self.dim}), one entry per row, got {tuple(v.shape)}.")
        layout = self._layouts.get(v.device)
        if layout is None:
            layout = self._layouts[v.device] = _arrange(self.cones, self.offsets, v.device)
        return layout

    def _settings(self, layout: _Layout, parameter: float | Tensor | None) -> list[float | Tensor | None]:
        """A parameter per cone, or per row, as one per block of each group. shape: (*batch, count)."""
        if not isinstance(parameter, Tensor) or parameter.dim() == 0:
            return [parameter] * len(layout.groups)
        if parameter.shape[-1] not in (1, len(self.cones), self.dim):
            raise InvalidArgument(
                f"mu and radius must be numbers or have a last axis of 1, {len(self.cones)} (one value per cone) or "
                f"{self.dim} (one per row), got shape {tuple(parameter.shape)}."
            )
        if parameter.shape[-1] == self.dim != len(self.cones):
            return [parameter.index_select(-1, group.rows[:, 0]) for group in layout.groups]
        parameter = parameter.expand(*parameter.shape[:-1], len(self.cones))
        return [parameter.index_select(-1, group.owner) for group in layout.groups]


def _arrange(cones: tuple[Cone, ...], offsets: tuple[int, ...], device: torch.device) -> _Layout:
    """Sort the blocks of a product into groups, in the order in which the families first appear."""
    members: dict[Hashable, list[tuple[Cone, int, int]]] = {}
    for index, (cone, offset) in enumerate(zip(cones, offsets[:-1], strict=True)):
        atom, count = cone.atoms()
        blocks = [(atom, offset + i * atom.dim, index) for i in range(count)]
        if blocks and atom.dim > 0:
            members.setdefault(atom.family(), []).extend(blocks)
    groups = []
    order = torch.zeros(0, dtype=torch.int64)
    for blocks in members.values():
        atoms, starts, owners = zip(*blocks, strict=True)
        rows = torch.tensor(starts).unsqueeze(-1) + torch.arange(atoms[0].dim)
        flat = rows.reshape(-1)
        contiguous = bool((flat == flat[0] + torch.arange(len(flat))).all())
        order = torch.cat([order, flat])
        stacked = type(atoms[0]).stack(atoms)
        start = int(flat[0]) if contiguous else None
        groups.append(_Group(stacked, rows.to(device), torch.tensor(owners, device=device), start))
    agree = bool((order == torch.arange(len(order))).all())
    return _Layout(tuple(groups), None if agree else torch.argsort(order).to(device))
