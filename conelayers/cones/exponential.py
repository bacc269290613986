"""The exponential cone and its dual.

Projection by a root in one variable: Friberg, "Projection onto the exponential cone: a univariate
root-finding problem", Optimization Methods and Software 2023 (2021 preprint).
"""

import dataclasses
import functools
from typing import ClassVar

import torch
from torch import Tensor

from conelayers.cones.barrier import ProximalPoint
from conelayers.cones.base import EXACT, BlockDerivative, Cone, Kink, expand_like
from conelayers.cones.curved import CurvedCone, Frame, FrameDerivative, beside_kink
from conelayers.cones.roots import increasing_root

__all__ = ["DualExponential", "Exponential"]


@dataclasses.dataclass(frozen=True)
class Exponential(CurvedCone):
    """The closure of {(x, y, z) : y > 0, y exp(x / y) <= z}.

    Its boundary is swept by the rays (r, 1, exp r), with outward normals (exp r, (1 - r) exp r, -1), and by
    the face x <= 0 = y <= z. Where x <= 0 and y <= 0 the projection is (x, 0, max(z, 0)).

    Kinks: the boundaries of K and of its polar cone, and {x = 0 >= y}, {y = 0 >= x}, {z = 0, x <= 0, y <= 0}.
    Near the last three the axes are the eigenvectors, x has eigenvalue 1[x < 0], y has 1[y > 0] and z has 1[z
    > 0], with 0 (smallest element) or 1 (largest) where the coordinate vanishes. On the curved part of the
    boundary the smallest element is I - n^ n^T and the largest I; on that of the polar cone 0 and c^ c^T; at
    the apex 0 and I.

    Barrier for `mu`: -log(y log(z / y) - x) - log y - log z.
    """

    def dual(self) -> "DualExponential":
        """The dual exponential cone."""
        return DualExponential()

    def facing(self, root: Tensor, v: Tensor, polar: Tensor) -> Tensor:
        """-v . c^ or -v . n^."""
        big, small = _exponential(root)
        x, y, z = v.unbind(-1)
        along = -(x * root * small + y * small + z * big)
        across = -(x * big + y * (1 - root) * big - z * small)
        along = along / ((root.square() + 1) * small.square() + big.square()).sqrt()
        return torch.where(polar, along, across / (((1 - root).square() + 1) * big.square() + small.square()).sqrt())

    def frame(self, root: Tensor, v: Tensor) -> Frame:
        """The ray (r, 1, exp r) and the normal (exp r, (1 - r) exp r, -1), scaled where exp r is large."""
        big, small = _exponential(root)
        one = torch.ones_like(root)
        ray = torch.stack([root * small, small, big], -1)
        normal = torch.stack([big, (1 - root) * big, -small], -1)
        ray_length, normal_length = ray.norm(dim=-1), normal.norm(dim=-1)
        turn = 3 * (ray[..., 0] * small + ray[..., 2] * big) / ray_length.square()
        bend = 3 * (normal[..., 0] * big - normal[..., 1] * root * big) / normal_length.square()
        ray, normal = ray / ray_length.unsqueeze(-1), normal / normal_length.unsqueeze(-1)
        tangent = torch.linalg.cross(normal, ray)
        sigma = normal_length / ray_length.square() * small
        nu = ray_length / normal_length.square() * big
        return Frame(ray, tangent, normal, sigma, nu, turn + 1 - bend, one)

    def regions(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Interior of K, and the polar cone {x > 0, x exp(y / x) <= -e z} with its face {x = 0, y <= 0, z <= 0}."""
        x, y, z = v.unbind(-1)
        safe_x, safe_y = torch.where(x > 0, x, 1), torch.where(y > 0, y, 1)
        inside = (y > 0) & (y * torch.exp(x / safe_y) < z)
        polar = (x > 0) & (safe_x * torch.exp(y / safe_x - 1) <= -z)
        return inside, polar | ((x == 0) & (y <= 0) & (z <= 0))

    def nearest(self, v: Tensor, outside: Tensor) -> Frame:
        """Friberg's root, where not in the flat region x <= 0, y <= 0."""
        largest = v.abs().amax(-1, keepdim=True)
        scaled = v / torch.where(largest > 0, largest, 1)
        scaled = torch.where(scaled.abs() < torch.finfo(v.dtype).tiny ** 0.45, 0, scaled)
        scaled = torch.where((outside & ~_flat(scaled, 0.0)).unsqueeze(-1), scaled, scaled.new_tensor([1.0, 1.0, 0.0]))
        with torch.no_grad():
            root = _boundary_root(*scaled.unbind(-1))
        return self.refine(v, root)

    def project(self, v: Tensor, *, mu: float | Tensor | None = None) -> Tensor:
        """Nearest point, or the proximal point for mu."""
        projected = super().project(v, mu=mu)
        if mu is not None:
            return projected
        x, y, z = v.unbind(-1)
        flat = torch.stack([x, torch.zeros_like(y), z.clamp(min=0)], -1)
        return torch.where(_flat(v, 0.0).unsqueeze(-1), flat, projected)

    def polar_part(self, v: Tensor) -> Tensor:
        """Projection on the polar cone, v - Pi(v)."""
        x, y, z = v.unbind(-1)
        flat = torch.stack([torch.zeros_like(x), y, z.clamp(max=0)], -1)
        return torch.where(_flat(v, 0.0).unsqueeze(-1), flat, super().polar_part(v))

    def projection_derivative(self, v: Tensor, kink: Kink) -> FrameDerivative:
        """As in every curved cone, but diagonal where x <= 0 and y <= 0."""
        curved = super().projection_derivative(v, kink)
        radius = expand_like(kink.radius, v)
        flat = _flat(v, radius[..., 0]).unsqueeze(-1)
        values = torch.stack([v[..., 0] < 0, v[..., 1] > 0, v[..., 2] > 0], -1).to(v.dtype)
        values = torch.where(v.abs() <= radius, kink.value, values)
        axes = torch.eye(3, dtype=v.dtype, device=v.device)
        return FrameDerivative(
            torch.where(flat.unsqueeze(-1), axes, curved.vectors),
            torch.where(flat, values, curved.values),
            torch.where(flat, 0, curved.third),
        )

    def margin(self, v: Tensor) -> Tensor:
        """Distance to the kinks; closed forms to the flat ones, see `CurvedCone.margin` for the others."""
        x, y, z = v.unbind(-1)
        right, up = x.clamp(min=0), y.clamp(min=0)
        flat = torch.minimum(torch.hypot(x, up), torch.hypot(y, right))
        flat = torch.minimum(flat, torch.hypot(z, torch.hypot(right, up)))
        return torch.minimum(flat, torch.where(_flat(v, 0.0), torch.inf, super().margin(v)))

    def critical_parts(self, weak: Tensor) -> list[tuple[Tensor, Cone | None]] | None:
        """Coordinates beside the flat face are half-lines of their own; see `flat_parts`."""
        return flat_parts(self, weak)

    def turning(self, v: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        """As in every curved cone; zero where x and y are well below zero, and unknown beside the flat kinks' ends."""
        one, zero = super().turning(v, radius)
        radius = torch.as_tensor(radius, dtype=v.dtype).expand(one.shape)
        left, below = v[..., 0], v[..., 1]
        flat = (left < -radius) & (below < -radius)
        beside = ~flat & (torch.maximum(left, below) <= radius)
        # Beside y = 0 > x, or x = 0 > y, the curved part's frame agrees with the axes up to exp(-|x| / |y|).
        settled = flat | (beside & (torch.minimum(left, below) < -100 * radius))
        apex = v.norm(dim=-1) <= radius
        turns = (torch.where(settled, 0.0, torch.where(beside & ~apex, torch.inf, turn)) for turn in (one, zero))
        return tuple(turns)  # type: ignore[return-value]

    def proximal(self, v: Tensor, mu: Tensor) -> ProximalPoint:
        """See `_proximal`."""
        return _proximal(v, mu, 0.0)


@dataclasses.dataclass(frozen=True)
class DualExponential(Cone):
    """The dual of the exponential cone, the closure of {(u, v, w) : u < 0, -u exp(v / u) <= e w}.

    Projection and derivative by Moreau's identity, Pi_{K*}(v) = v + Pi_K(-v) and D_{K*}(v) = I - D_K(-v), so
    the smallest element of one belongs to the largest of the other. Barrier for `mu`: -log(v - u - u log(-w /
    u)) - log(-u) - log w.
    """

    kinks_attained: ClassVar[bool] = False

    @property
    def dim(self) -> int:
        """Three rows."""
        return 3

    def dual(self) -> Exponential:
        """The exponential cone."""
        return Exponential()

    def project(self, v: Tensor, *, mu: float | Tensor | None = None) -> Tensor:
        """Nearest point, or the proximal point for mu."""
        if mu is None:
            return -Exponential().polar_part(-v)
        return _swap(_proximal(_swap(v), expand_like(mu, v)[..., 0], 1.0).restored())

    def derivative(self, v: Tensor, *, mu: float | Tensor | None = None, kink: Kink = EXACT) -> BlockDerivative:
        """I - D_K(-v), or the Jacobian of the proximal map for mu."""
        if mu is None:
            return Exponential().projection_derivative(-v, kink.opposite()).complement()
        found = _proximal(_swap(v), expand_like(mu, v)[..., 0], 1.0)
        return found.derivative().permuted([1, 0, 2], [-1.0, -1.0, 1.0])

    def margin(self, v: Tensor) -> Tensor:
        """That of the exponential cone at -v."""
        return Exponential().margin(-v)

    def near_kink(self, y: Tensor, s: Tensor, v: Tensor, reach: Tensor) -> Tensor:
        """See `beside_kink`."""
        return beside_kink(self, y, s, v, reach)

    def critical_parts(self, weak: Tensor) -> list[tuple[Tensor, Cone | None]] | None:
        """Coordinates beside the flat face are half-lines of their own; see `flat_parts`."""
        return flat_parts(self, weak)

    def turning(self, v: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the exponential cone at -v, exchanged."""
        one, zero = Exponential().turning(-v, radius)
        return zero, one


def flat_parts(cone: Cone, weak: Tensor) -> "list[tuple[Tensor, Cone | None]] | None":
    """The parts of an exponential cone: two weak coordinates, the third among them, are half-lines.

    Elsewhere two weak directions mean that the flat face meets the curved boundary.
    """
    if weak.shape[1] == 2 and bool(weak[2].any()):
        return [(column[:, None], None) for column in weak.mT]
    return Cone.critical_parts(cone, weak)


def _exponential(root: Tensor) -> tuple[Tensor, Tensor]:
    """(big, small) with exp(r) = big / small, the larger of them one."""
    decay, one = torch.exp(-root.abs()), torch.ones_like(root)
    return torch.where(root > 0, one, decay), torch.where(root > 0, decay, one)


def _flat(v: Tensor, radius: float | Tensor) -> Tensor:
    """Where x <= 0 and y <= 0, up to `radius` and to what the root search takes for zero."""
    zero = torch.finfo(v.dtype).tiny ** 0.45 * v.abs().amax(-1)
    return (v[..., :2] <= torch.maximum(zero, zero.new_tensor(0) + radius).unsqueeze(-1)).all(-1)


def _swap(v: Tensor) -> Tensor:
    """(u, v, w) -> (-v, -u, w): after this isometry psi of the dual barrier differs from the primal by y."""
    return torch.stack([-v[..., 1], -v[..., 0], v[..., 2]], -1)


def _boundary_root(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Friberg's root r: v = a (r, 1, exp r) + b (1, 1 - r, -exp(-r)) with a, b >= 0.

    The first two rows give a(r), b(r) and the bracket where both are positive; the third, a e^r - b e^-r = z,
    is increasing there. It is solved as r = log E with E the positive root of a E^2 - z E - b = 0, which is
    nearly linear in r; at the ends of the bracket log E has logarithmic poles, where Newton steps are taken
    in the logarithm of the distance from the pole.
    """
    low = torch.where(x > 0, 1 - y / torch.where(x > 0, x, 1), -torch.inf)
    high = torch.where(y > 0, x / torch.where(y > 0, y, 1), torch.inf)
    # Beyond an end at infinity e^r dominates everything else that double precision can hold.
    low, high = torch.where(x > 0, low, high - 2000), torch.where(y > 0, high, low + 2000)
    half = ((high - low) / 2).clamp(max=1.0)
    start = torch.minimum(torch.maximum(torch.full_like(x, 0.5), low + half), high - half)
    info = torch.finfo(x.dtype)

    def evaluate(root: Tensor, x: Tensor, y: Tensor, z: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        shape = root * (root - 1) + 1
        a = (((root - 1) * x + y) / shape).clamp(min=info.tiny)
        b = ((x - root * y) / shape).clamp(min=info.tiny)
        spread = (z * z + 4 * a * b).sqrt()
        power = torch.where(z > 0, (z + spread) / (2 * a), 2 * b / (spread - z))
        value = root - torch.log(power)
        da, db = (x - a * (2 * root - 1)) / shape, (-y - b * (2 * root - 1)) / shape
        step = value / (1 + (da * power - db / power) / spread)
        proposal = root - step
        least = 2 * info.eps * root.abs().clamp(min=1)
        above, below = (high - root).clamp(min=info.eps**2), (root - low).clamp(min=info.eps**2)
        proposal = torch.where(proposal >= high, high - torch.maximum(above * torch.exp(step / above), least), proposal)
        return value, torch.where(
            proposal <= low, low + torch.maximum(below * torch.exp(-step / below), least), proposal
        )

    return increasing_root(evaluate, start, low, high, (x, y, z, low, high))


def _proximal(v: Tensor, mu: Tensor, delta: float) -> ProximalPoint:
    """Proximal point for the barrier -log(psi) - log y - log z with psi = y (log(z / y) + delta) - x.

    With r = log(z / y) + delta and eta = mu / psi the optimality conditions are

        r y + eta - mu / eta = v_x,   y - mu / y - (r - 1) eta = v_y,   z - (eta y + mu) / z = v_z.

    For given r the first two have one solution, because eliminating y leaves a function of eta with slope at
    least 3/4; the third then fixes r, as in the projection. The solution is unique, so the sign of its
    residual brackets r.
    """
    size = torch.maximum(v.abs().amax(-1), mu.sqrt())
    x, y, z = (v / size.unsqueeze(-1)).unbind(-1)
    mu = (mu / size.square()).expand(x.shape)
    with torch.no_grad():
        bound = 1e3 + 10 / mu
        residual = functools.partial(_proximal_residual, delta=delta)
        root = increasing_root(residual, torch.zeros_like(x), -bound, bound, (x, y, z, mu))
    eta, py, _ = _two_rows(root, x, y, mu)
    pz = _positive_root(z, eta * py + mu)
    point = torch.stack([x - eta, py, pz], -1)
    one, zero = torch.ones_like(py), torch.zeros_like(py)
    ratio = py / pz
    third = py.new_zeros(*py.shape, 3, 3, 3)
    third[..., 1, 1, 1] = 1 / py.square()
    third[..., 1, 2, 2] = third[..., 2, 1, 2] = third[..., 2, 2, 1] = -1 / pz.square()
    third[..., 2, 2, 2] = 2 * ratio / pz.square()
    return ProximalPoint(
        point=point,
        size=size,
        mu=mu,
        eta=eta.unsqueeze(-1),
        gradients=torch.stack([-one, root - 1, ratio], -1).unsqueeze(-1),
        direction=torch.stack([zero, one, -ratio], -1),
        weight=1 / py,
        third=third,
        logs=v.new_tensor([0.0, 1.0, 1.0]),
    )


def _positive_root(linear: Tensor, constant: Tensor) -> Tensor:
    """Positive root of t^2 - linear t - constant = 0, without cancellation."""
    larger = (linear.abs() + (linear.square() + 4 * constant).sqrt()) / 2
    return torch.where(linear > 0, larger, constant / larger)


def _two_rows(root: Tensor, x: Tensor, y: Tensor, mu: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Solve for eta and y the first two optimality conditions at given r, and dy/d(its linear term)."""

    def rows(eta: Tensor, root: Tensor, y: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
        py = _positive_root(y + (root - 1) * eta, mu)
        return py, py.square() / (py.square() + mu)

    def evaluate(log_eta: Tensor, root: Tensor, x: Tensor, y: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
        eta = torch.exp(log_eta)
        py, share = rows(eta, root, y, mu)
        value = root * py + eta - mu / eta - x
        noise = 4 * torch.finfo(x.dtype).eps * (root.abs() * py + eta + mu / eta + x.abs())
        value = torch.where(value.abs() <= noise, 0, value)
        # Linearised in y, the equation is quadratic in eta.
        slope = 1 + root * (root - 1) * share
        return value, _positive_root((x - root * py + (slope - 1) * eta) / slope, mu / slope).log()

    bound = torch.full_like(x, 300.0 if x.dtype == torch.float64 else 40.0)
    eta = increasing_root(evaluate, torch.zeros_like(x), -bound, bound, (root, x, y, mu)).exp()
    return eta, *rows(eta, root, y, mu)


def _proximal_residual(
    root: Tensor, x: Tensor, y: Tensor, z: Tensor, mu: Tensor, delta: float
) -> tuple[Tensor, Tensor]:
    """log(z / y) + delta against r, where z solves the third condition; and Newton's proposal for r."""
    eta, py, share = _two_rows(root, x, y, mu)
    pz = _positive_root(z, eta * py + mu)
    value = root - delta - torch.log(pz / py)
    # Derivatives in r: r dy + (1 + mu / eta^2) deta = -y and dy / share - (r - 1) deta = eta.
    stiff = 1 + mu / eta.square()
    bottom = stiff + root * (root - 1) * share
    deta = -(py + root * share * eta) / bottom
    dpy = share * (eta + (root - 1) * deta)
    dpz = (eta * dpy + py * deta) / (z.square() + 4 * (eta * py + mu)).sqrt()
    slope = 1 - dpz / pz + dpy / py
    return value, root - value / slope
