"""The exponential cone and its dual."""

import dataclasses

import torch
from torch import Tensor

from conelayers.cones.curved import CurvedCone, Frame, Location

__all__ = ["DualExponential", "Exponential"]

# Newton steps of the root search; bisection alone would need about sixty.
_STEPS = 60


@dataclasses.dataclass(frozen=True)
class Exponential(CurvedCone):
    """x."""

    def dual(self):
        return DualExponential()

    def grid(self, v):
        return None

    def margin(self, v):
        return None

    def frame(self, root: Tensor, v: Tensor) -> Frame:
        """The ray (r, 1, exp r) and the normal (exp r, (1 - r) exp r, -1)."""
        decay = torch.exp(-root.abs())
        up = root > 0
        one, zero = torch.ones_like(root), torch.zeros_like(root)
        big, small = torch.where(up, one, decay), torch.where(up, decay, one)  # exp(r) : 1, scaled
        ray = torch.stack([root * small, small, big], -1)
        normal = torch.stack([big, (1 - root) * big, -small], -1)
        ray_length, normal_length = ray.norm(dim=-1), normal.norm(dim=-1)
        turn = 3 * (ray[..., 0] * small + ray[..., 2] * big) / ray_length.square()
        bend = 3 * (normal[..., 0] * big - normal[..., 1] * root * big) / normal_length.square()
        ray, normal = ray / ray_length.unsqueeze(-1), normal / normal_length.unsqueeze(-1)
        tangent = torch.linalg.cross(normal, ray)
        sigma = normal_length / ray_length.square() * small
        nu = ray_length / normal_length.square() * big
        return Frame(ray, tangent, normal, sigma, nu, turn + 1 - bend)

    def locate(self, v: Tensor) -> Location:
        largest = v.abs().amax(-1, keepdim=True)
        scaled = v / torch.where(largest > 0, largest, 1)
        tiny = torch.finfo(v.dtype).tiny ** 0.45
        scaled = torch.where(scaled.abs() < tiny, 0, scaled)
        x, y, z = scaled.unbind(-1)
        safe_y = torch.where(y > 0, y, 1)
        safe_x = torch.where(x > 0, x, 1)
        inside = (y > 0) & (y * torch.exp((x / safe_y)) < z)
        polar = (x > 0) & (safe_x * torch.exp(y / safe_x - 1) <= -z)
        face = (x <= 0) & (y <= 0)
        polar = polar | (face & (x == 0) & (z <= 0))
        curved = ~(inside | polar | face)
        # points elsewhere: any root will do
        cx, cy, cz = (torch.where(curved, a, b) for a, b in zip((x, y, z), (1.0, 1.0, 0.0)))
        root = _root(cx, cy, cz)
        frame = self.frame(root, v)
        along = (v * frame.ray).sum(-1).clamp(min=0)
        across = (v * frame.normal).sum(-1).clamp(min=0)
        return Location(frame, along, across, inside, polar), curved, face


def _root(x, y, z):
    inf = torch.inf
    xs, ys = torch.where(x == 0, 1, x), torch.where(y == 0, 1, y)
    low = torch.where(x > 0, 1 - y / xs, -inf)
    high = torch.where(y > 0, x / ys, inf)
    low = torch.where(x > 0, low, high - 2000)
    high = torch.where(y > 0, high, low + 2000)
    half = ((high - low) / 2).clamp(max=1.0)
    root = torch.minimum(torch.maximum(torch.full_like(x, 0.5), low + half), high - half)
    eps = torch.finfo(x.dtype).eps
    n = 0
    width = high - low
    for n in range(_STEPS):
        q = root * (root - 1) + 1
        a = ((root - 1) * x + y) / q
        b = (x - root * y) / q
        a, b = a.clamp(min=1e-300), b.clamp(min=1e-300)
        disc = (z * z + 4 * a * b).sqrt()
        e = torch.where(z > 0, (z + disc) / (2 * a), 2 * b / (disc - z))
        value = root - torch.log(e)
        da = (x - a * (2 * root - 1)) / q
        db = (-y - b * (2 * root - 1)) / q
        slope = 1 + (da * e - db / e) / disc
        high = torch.where(value >= 0, root, high)
        low = torch.where(value <= 0, root, low)
        new = root - value / slope
        ok = (new > low) & (new < high)
        new = torch.where(ok, new, (low + high) / 2)
        done = ((new - root).abs() <= 2 * eps * root.abs().clamp(min=1)) | (high - low <= 2 * eps * root.abs().clamp(min=1))
        _root.hist.append(int((~done).sum()))
        root = torch.where(value == 0, root, new)
        if bool(done.all()):
            break
    return root
_root.hist = []


@dataclasses.dataclass(frozen=True)
class DualExponential(Exponential):
    """x."""

    def dual(self):
        return Exponential()
