"""Projections against stored high-precision values, margins against dense searches, orders of triangles against solvers."""  # noqa: E501

import clarabel
import numpy as np
import pytest
import scipy.sparse as sp
import scs
import torch

from conelayers.cones import (
    DualExponential,
    DualPower,
    Exponential,
    Free,
    Nonnegative,
    PositiveSemidefinite,
    Power,
    ProductCone,
    SecondOrder,
    Zero,
)
from conelayers.cones.svec import lower_order, smat, svec, upper_order

# The worst of 3,000 random points each (scales 1e-8 .. 1e8, near faces, apexes and boundaries): bisection of the
# optimality conditions with mpmath in 50 digits.
EXPONENTIAL = [
    ((-0.0004992208510152752, 0.0005350486008790082, -0.0005586616420210366), (-0.00058066734664263947634, 0.00029118580985063315982, 0.00003963903862383703246)),  # noqa: E501
    ((-5.111818338620315e-30, 1.0197790890039999e-19, 7.710931266931474e-36), (-2.7035117278341635883e-20, 6.3417646758622865316e-20, 4.1406563698423856227e-20)),  # noqa: E501
    ((-6.439021754770776e-07, 1.0691490305492442e-06, 4.489311894591593e-07), (-6.7860863335292540115e-7, 1.0111501851593311035e-6, 5.1683222162925153559e-7)),  # noqa: E501
    ((-9495.171144042748, 2636.3772530570805, -7781.421366749455), (-9584.8674970206960188, 2146.0765175005915415, 24.659651415796194124)),  # noqa: E501
    ((-0.3182044421778176, 0.7464283104583902, 0.48735695763489517), (-0.31820444217781767549, 0.74642831045839012748, 0.4873569576348952477)),  # noqa: E501
    ((-62991054.74551009, 67413938.62705423, 3.8286436001862075e-193), (-68019403.147910973837, 56311815.988318844421, 16827222.883207906528)),  # noqa: E501
    ((1.7222123995597795e-27, -5.353336497700098e-36, 8.765986945359398e-21), (1.7168234435160244472e-27, 9.3529977201880430674e-29, 8.765986945359398469e-21)),  # noqa: E501
    ((3.0360043309932173e-06, 4.429078420245918e-06, 5.397238009597427e-06), (1.8263118023372451631e-6, 3.8006715221452040362e-6, 6.1453839340150027158e-6)),  # noqa: E501
    ((7.734348853833795e-12, -5.993278420935677e-11, 5.966148072721139e-08), (2.5478145925591710334e-12, 2.022964022155025024e-13, 5.9661480744797564743e-8)),  # noqa: E501
    ((-7.737642303940536e-05, 0.00012245444368352056, 2.610498973381197e-05), (-0.000086503011296309049294, 0.00010587087170310872069, 0.000046766104532504778466)),  # noqa: E501
    ((4.5918708753118804e-06, -3.008533064732781e-17, -1.3479884252851861e-18), (4.9457448476383137683e-7, 4.4602165848741185881e-7, 1.3518442704042891899e-6)),  # noqa: E501
]  # fmt: skip
POWER = [
    (0.99, (-1465.0320207976208, 14775.12980131537, -3464.201628375157), (1006.4877385692279465, 14776.830220896106611, -1033.894479622975203)),  # noqa: E501
    (0.7, (-5.502417432080207e-98, 1.6880663426597693e-07, 7.059727435483033e-11), (2.5101074945730370008e-12, 1.688066342819731841e-7, 7.0469546645603407198e-11)),  # noqa: E501
    (0.97, (688.9579457772221, -402.9587418562788, 688.8197445924635), (740.06480358107461349, 2.8823217790882486926, 626.59068120478969301)),  # noqa: E501
    (0.3, (9.880296904177538e-05, -9.90436738781031e-05, 0.00010263510990307827), (0.00010390249773844009456, 0.000011213143052054740191, 0.000021867389983752423014)),  # noqa: E501
    (0.1, (-1.5231346089134055, -1.4022747345175344, 1.9570655331146138), (2.886885655438349671e-15, 2.8221316486586624295e-14, 2.2467900943388369658e-14)),  # noqa: E501
    (0.99, (1.8558588637341308e-206, 0.006746778767619396, 0.06014602773882481), (0.029917233602602958722, 0.0078923021698074180781, 0.029521216873677915094)),  # noqa: E501
    (0.97, (0.12126857407011686, -0.04420018179195796, -0.01584956699833482), (0.12126857407011686074, 4.2271984759335978951e-31, -0.015849566998334820023)),  # noqa: E501
    (0.01, (5e-09, -3e-09, 4e-09), (5.003664064403854555e-9, 5.1619468091143338534e-10, 5.2805392039069053063e-10)),
    (0.01, (200000000.0, -100000000.0, 1e-08), (200000000.0, 0.0, 0.0)),
    (0.01, (-200000000.0, 100000000.0, 3000.0), (0.0, 100000000.0, 3000.0)),
]  # fmt: skip


def tensor(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_exponential_projections_agree_with_fifty_digits():
    v, expected = tensor([row[0] for row in EXPONENTIAL]), tensor([row[1] for row in EXPONENTIAL])
    size = v.abs().amax(-1, keepdim=True)
    assert ((Exponential().project(v) - expected).abs() / size).max() < 1e-15
    assert ((DualExponential().project(-v) - (expected - v)).abs() / size).max() < 1e-15


def test_power_projections_agree_with_fifty_digits():
    cones = ProductCone([Power(row[0]) for row in POWER])
    v, expected = tensor([row[1] for row in POWER]), tensor([row[2] for row in POWER])
    size = v.abs().amax(-1, keepdim=True)
    assert ((cones.project(v.flatten()).reshape(-1, 3) - expected).abs() / size).max() < 1e-15
    assert ((cones.project_dual(-v.flatten()).reshape(-1, 3) - (expected - v)).abs() / size).max() < 1e-15


def test_coordinates_near_a_face_have_their_own_accuracy():
    alpha, v, expected = POWER[6]
    assert abs(Power(alpha).project(tensor(v))[1].item() / expected[1] - 1) < 1e-12


def dense_distance(rays: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Distance from v, inside K, to the boundary that these outward unit normals support."""
    return -(v @ rays.mT).amax(-1)


# Points about equally far from two or three parts of the boundary, where a search in one basin fails.
EXPONENTIAL_INSIDE = [
    (-0.5809504446176522, 0.4346736402386502, 0.6881536219335279),
    (-0.013527069235614196, 0.1629095087390816, 0.9865482808054992),
]
POWER_POLAR = [
    (0.3, (-0.16996288587589742, -0.17915080654402227, 0.009690292079908444)),
    (0.3, (-0.047757125108223344, -0.05380325024614809, 0.00997408876672124)),
    (0.99, (-0.758395858268285, -0.5497732896697437, 0.0035012148195621966)),
]


def test_margin_inside_the_exponential_cone_is_the_least_over_all_basins():
    r = torch.linspace(-30, 60, 400_001, dtype=torch.float64)
    normals = torch.stack([torch.ones_like(r), 1 - r, -(-r).exp()], -1)
    normals = torch.cat([normals / normals.norm(dim=-1, keepdim=True), tensor([[0.0, -1.0, 0.0]])])
    v = tensor(EXPONENTIAL_INSIDE)
    assert (Exponential().margin(v) - dense_distance(normals, v)).abs().max() < 1e-8
    assert (Exponential().margin(v) - dense_distance(normals, v)).max() < 1e-15


@pytest.mark.parametrize(("alpha", "v"), POWER_POLAR)
def test_margin_inside_the_polar_of_the_power_cone_is_the_least_over_all_basins(alpha, v):
    r = torch.linspace(-60, 60, 400_001, dtype=torch.float64)
    rays = torch.stack([((1 - alpha) * r).exp(), (-alpha * r).exp(), torch.ones_like(r)], -1)
    rays = torch.cat([rays / rays.norm(dim=-1, keepdim=True), tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])])
    margin, expected = Power(alpha).margin(tensor(v)), dense_distance(rays, tensor(v))
    assert -1e-8 < margin - expected < 1e-15


@pytest.mark.parametrize("kind", [Power, DualPower])
def test_many_exponents_at_once_agree_with_one_by_one(kind):
    alphas = [0.01, 0.03, 0.2, 0.5, 0.5, 0.8, 0.97, 0.99]
    cones = [kind(alpha) for alpha in alphas]
    product = ProductCone([cones[0], SecondOrder(4), *cones[1:]])
    v = torch.randn(3, 50, product.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    u = torch.randn(3, 50, product.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for mu in (None, 1e-3):
        derivative = product.derivative(v, mu=mu)
        projected, moved, bent = product.project(v, mu=mu), derivative.apply(u), derivative.curvature(u, v + u)
        margin = product.margin(v)
        for index, cone in enumerate(product.cones):
            rows = slice(product.offsets[index], product.offsets[index + 1])
            single = cone.derivative(v[..., rows], mu=mu)
            assert (projected[..., rows] - cone.project(v[..., rows], mu=mu)).abs().max() < 1e-14
            assert (moved[..., rows] - single.apply(u[..., rows])).abs().max() < 1e-12
            size = 1 + bent[..., rows].abs().max()
            assert (bent[..., rows] - single.curvature(u[..., rows], (v + u)[..., rows])).abs().max() < 1e-10 * size
            assert (margin[..., index] - cone.dual().margin(v[..., rows])).abs().max() < 1e-14


def test_polyhedral_cones_are_those_whose_rows_are_independent():
    assert ProductCone([Zero(2), Free(3), Nonnegative(4), SecondOrder(1), PositiveSemidefinite(1)]).is_polyhedral
    assert ProductCone([]).is_polyhedral
    curved = (SecondOrder(2), PositiveSemidefinite(2), Exponential(), DualExponential(), Power(0.4), DualPower(0.4))
    for cone in curved:
        assert not cone.polyhedral
        assert not ProductCone([Nonnegative(2), cone]).is_polyhedral
        v = torch.randn(100, cone.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        bends = ProductCone([cone]).derivative(v).curvature(v.roll(1, 0), v.roll(2, 0)).abs().max() > 1e-3
        assert bends or cone == SecondOrder(2)


# minimise <C, X> subject to X - B positive semidefinite has X = B: any mistake in the order of a triangle, or in the
# sqrt(2), moves an entry of B to another place, because all entries differ.
B = torch.tensor([[4.0, 1.0, -2.0], [1.0, 5.0, 0.5], [-2.0, 0.5, 6.0]], dtype=torch.float64)
C = torch.tensor([[2.0, 0.3, 0.1], [0.3, 3.0, -0.4], [0.1, -0.4, 5.0]], dtype=torch.float64)


def test_scs_takes_the_order_of_svec():
    data = {"A": sp.csc_matrix(-np.eye(6)), "b": -svec(B).numpy(), "c": svec(C).numpy()}
    # A x + s = b with s = x - svec(B); so the primal variable is read in svec's own order by the cone alone.
    found = scs.SCS(data, {"s": [3]}, eps_abs=1e-10, eps_rel=1e-10, verbose=False).solve()
    assert (smat(torch.from_numpy(found["x"])) - B).abs().max() < 1e-6
    assert (smat(torch.from_numpy(found["y"])) - C).abs().max() < 1e-6


def test_projections_of_asymmetric_data_agree_with_both_solvers():
    v = torch.tensor([1.0, -2.0, 0.7, 0.4, 3.0, -1.5], dtype=torch.float64)
    expected = PositiveSemidefinite(3).project(v)
    data = {"P": sp.eye(6, format="csc"), "A": sp.csc_matrix(-np.eye(6)), "b": np.zeros(6), "c": -v.numpy()}
    found = scs.SCS(data, {"s": [3]}, eps_abs=1e-11, eps_rel=1e-11, verbose=False).solve()
    assert (torch.from_numpy(found["x"]) - expected).abs().max() < 1e-8
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-11
    upper, lower = upper_order(3), lower_order(3)
    solver = clarabel.DefaultSolver(
        sp.eye(6, format="csc"),
        -v[upper].numpy(),
        sp.csc_matrix(-np.eye(6)),
        np.zeros(6),
        [clarabel.PSDTriangleConeT(3)],
        settings,
    )
    found = torch.tensor(solver.solve().x, dtype=torch.float64)
    assert (found[lower] - expected).abs().max() < 1e-5
    assert (upper[lower] - torch.arange(6)).abs().max() == 0
    assert (found - expected).abs().max() > 1e-2  # the orders differ: without the permutation this fails
