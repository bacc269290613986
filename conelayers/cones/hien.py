"""Hien's equation in one variable for the projection on the power cone and its smoothing, solved in logarithms.

Hien, "Differential properties of Euclidean projection onto power cone", Mathematical Methods of Operations Research
2015, Proposition 2.2. Shapes are (*batch,) throughout, and z >= 0.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from conelayers.cones.barrier import ProximalPoint
from conelayers.cones.roots import increasing_root

__all__ = ["hien_means", "hien_odds", "proximal_point"]

_LOG2 = math.log(2.0)


def _mean(linear: Tensor, log_constant: Tensor) -> tuple[Tensor, Tensor]:
    """For the root t > 0 of t^2 - l t - c = 0, c = exp(log_constant): log t and l / sqrt(l^2 + 4 c)."""
    log_linear = linear.abs().log()
    log_spread = torch.logaddexp(2 * log_linear, log_constant + 2 * _LOG2) / 2
    log_larger = torch.logaddexp(log_linear, log_spread) - _LOG2
    log_root = torch.where(linear > 0, log_larger, log_constant - log_larger)
    return log_root, linear.sign() * (log_linear - log_spread).exp()


def hien_means(
    odds: Tensor, x: Tensor, y: Tensor, z: Tensor, a: Tensor, mu: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor]:
    """`_mean` of x and of y at third coordinate z sigmoid(odds), and log(z^2 sigmoid(odds) sigmoid(-odds))."""
    log_product = 2 * z.log() - softplus(odds) - softplus(-odds)
    mean_x = _mean(x, torch.logaddexp(a.log() + log_product, ((1 + a) * mu).log()))
    mean_y = _mean(y, torch.logaddexp(torch.log1p(-a) + log_product, ((2 - a) * mu).log()))
    return mean_x, mean_y, log_product


def hien_odds(x: Tensor, y: Tensor, z: Tensor, a: Tensor, mu: Tensor, shift: Tensor) -> Tensor:
    """Root t = log(p_z / (z - p_z)) of Hien's equation, with or without smoothing.

    With p_x the positive root of p_x^2 - x p_x - (a p_z (z - p_z) + (1 + a) mu) = 0 and p_y likewise, it
    reads

        a log p_x + (1 - a) log p_y + shift = 1/2 log(p_z^2 + 2 mu e^t),

    whose two sides differ by a function of t that is strictly monotone, because with sigma = sigmoid(t) and G
    in [0, 1] the slope at mu = 0 is (1 - sigma)(1 - G) + sigma G. (The direct form in p_z cancels near the
    faces.) Where both x and y are positive it flattens for large t but is linear in z - p_z; where both are
    negative it is linear in p_z for small t.
    """
    bound = (1000 / torch.minimum(a, 1 - a)).expand(x.shape)

    def evaluate(
        odds: Tensor, x: Tensor, y: Tensor, z: Tensor, a: Tensor, mu: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        log_z, log_mu = z.log(), (2 * mu).log()
        (log_px, share_x), (log_py, share_y), log_product = hien_means(odds, x, y, z, a, mu)
        log_square = 2 * (log_z - softplus(-odds))
        log_total = torch.logaddexp(log_square, log_mu + odds)
        value = log_total / 2 - a * log_px - (1 - a) * log_py - shift
        high, low = odds.sigmoid(), (-odds).sigmoid()
        parts = a * (1 - share_x) * _fraction(a.log() + log_product, (1 + a) * mu)
        parts = (parts + (1 - a) * (1 - share_y) * _fraction(torch.log1p(-a) + log_product, (2 - a) * mu)) / 2
        kept = (log_square - log_total).exp()
        slope = (high - low) * parts + low * kept + (1 - kept) / 2
        step = value / slope
        rest, point = low * (1 + high * step), high * (1 - low * step)
        in_rest = (x > 0) & (y > 0) & (odds > 0) & (rest > 0) & (rest < 1)
        in_point = (x < 0) & (y < 0) & (odds < 0) & (point > 0) & (point < 1)
        proposal = torch.where(in_rest, torch.log1p(-rest) - rest.log(), odds - step)
        return value, torch.where(in_point, point.log() - torch.log1p(-point), proposal)

    return increasing_root(evaluate, torch.zeros_like(x), -bound, bound, (x, y, z, a, mu, shift))


def _fraction(log_part: Tensor, other: Tensor) -> Tensor:
    """Share of the part, part / (part + other)."""
    return (log_part - torch.logaddexp(log_part, other.log())).exp()


def proximal_point(v: Tensor, mu: Tensor, a: Tensor, shift: Tensor | None) -> ProximalPoint:
    """Proximal point for the barrier -log(w^2 - z^2) - (1 - a) log x - a log y, w = e^shift x^a y^(1 - a).

    With g = mu / (w^2 - z^2) the third row gives z = v_z / (1 + 2 g) and the others quadratic equations for x
    and y; g follows from `hien_odds` as e^-t / 2. The logarithm splits in the two concave functions w - z and w +
    z.
    """
    size = torch.maximum(v.abs().amax(-1), mu.sqrt())
    x, y, z = (v / size.unsqueeze(-1)).unbind(-1)
    mu = (mu / size.square()).expand(x.shape)
    shift = torch.zeros_like(a) if shift is None else shift
    with torch.no_grad():
        odds = hien_odds(x, y, z.abs(), a, mu, shift)
    (log_x, _), (log_y, _), _ = hien_means(odds, x, y, z.abs(), a, mu)
    px, py, pz = log_x.exp(), log_y.exp(), z * odds.sigmoid()
    product = 2 * mu * odds.exp()  # w^2 - z^2
    w = (pz.square() + product).sqrt()
    near = product / (w + pz.abs())
    psi = torch.stack([torch.where(pz > 0, near, w - pz), torch.where(pz > 0, w + pz, near)], -1)
    one = torch.ones_like(px)
    gradient = torch.stack([a * w / px, (1 - a) * w / py], -1)
    third = _third_of_mean(a, w, px, py)
    return ProximalPoint(
        size=size,
        point=torch.stack([px, py, pz], -1),
        mu=mu,
        eta=mu.unsqueeze(-1) / psi,
        gradients=torch.stack(
            [torch.cat([gradient, -one.unsqueeze(-1)], -1), torch.cat([gradient, one.unsqueeze(-1)], -1)], -1
        ),
        direction=torch.stack([1 / px, -1 / py, torch.zeros_like(px)], -1),
        weight=a * (1 - a) * w,
        third=third,
        logs=torch.stack([1 - a, a, torch.zeros_like(a)], -1),
    )


def _third_of_mean(a: Tensor, w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Third derivative of w = x^a y^(1 - a). shape: (*batch, 3, 3, 3)."""
    third = w.new_zeros(*w.shape, 3, 3, 3)
    base = a * (1 - a) * w
    third[..., 0, 0, 0] = base * (2 - a) / x**3
    third[..., 1, 1, 1] = base * (1 + a) / y**3
    xxy, xyy = -base * (1 - a) / (x * x * y), -base * a / (x * y * y)
    third[..., 0, 0, 1] = third[..., 0, 1, 0] = third[..., 1, 0, 0] = xxy
    third[..., 0, 1, 1] = third[..., 1, 0, 1] = third[..., 1, 1, 0] = xyy
    return third
