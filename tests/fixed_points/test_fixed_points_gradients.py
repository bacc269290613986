"""Derivatives of `fixed_point` against the unrolled iteration, dense linear algebra and finite differences."""

import threading
import warnings

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from conelayers.errors import InaccurateWarning, InvalidArgument, UnsupportedError
from conelayers.fixed_points.equation import FixedPointEquation
from conelayers.fixed_points.iterations import Anderson, Broyden, NewtonKrylov, Picard
from conelayers.fixed_points.modes.implicit_adjoint import ImplicitAdjoint
from conelayers.fixed_points.modes.one_step import OneStep
from conelayers.fixed_points.modes.phantom_gradient import PhantomGradient
from conelayers.fixed_points.modes.piggyback import Piggyback
from conelayers.fixed_points.modes.unrolled import Unrolled
from conelayers.implicit import Exact, LeastSquares, Smoothed
from conelayers.layers.fixed_point import FixedPointLayer, fixed_point
from conelayers.linalg import GMRES, BiCGSTAB
from conelayers.linalg.neumann import Neumann, NeumannGMRES

TIGHT = Anderson(atol=1e-13, rtol=1e-13)
EXACT_MODES = [
    ImplicitAdjoint(),
    ImplicitAdjoint(GMRES()),
    ImplicitAdjoint(BiCGSTAB()),
    ImplicitAdjoint(Neumann()),
    ImplicitAdjoint(Broyden()),
    ImplicitAdjoint(Anderson()),
    ImplicitAdjoint(NewtonKrylov()),
    Exact(),
    LeastSquares(),
    Piggyback(),
    PhantomGradient(60, 0.9),
]


def cell(z, W, x):
    return torch.tanh(z @ W.T + x)


def relu_cell(z, W, x):
    return torch.relu(z @ W.T + x)


def make(n=6, batch=3, radius=0.8, seed=0):
    gen = torch.Generator().manual_seed(seed)
    W = torch.randn(n, n, generator=gen, dtype=torch.float64)
    W = (W * radius / torch.linalg.matrix_norm(W, ord=2)).requires_grad_()
    x = torch.randn(batch, n, generator=gen, dtype=torch.float64).requires_grad_()
    return W, x, torch.zeros_like(x)


def loss(z):
    return (z.pow(3) + z).sum()


@pytest.mark.parametrize("f", [cell, relu_cell])
@pytest.mark.parametrize("mode", EXACT_MODES, ids=repr)
def test_gradient_against_unrolled(mode, f):
    W, x, z0 = make()
    reference = torch.autograd.grad(loss(fixed_point(f, z0, W, x, adjoint=Unrolled(400))), (W, x))
    found = torch.autograd.grad(loss(fixed_point(f, z0, W, x, solver=TIGHT, adjoint=mode)), (W, x))
    for a, b in zip(found, reference):
        assert (a - b).abs().max() < 1e-8


def test_defaults_give_gradients_to_1e8():
    W, x, z0 = make(radius=0.9, n=20)
    reference = torch.autograd.grad(loss(fixed_point(cell, z0, W, x, adjoint=Unrolled(600))), (W, x))
    found = torch.autograd.grad(loss(fixed_point(cell, z0, W, x)), (W, x))
    for a, b in zip(found, reference):
        assert (a - b).abs().max() < 1e-8


def test_gradient_against_dense_formula():
    """A second oracle without any iteration: (I - J')^-1 by dense solves at the analytic Jacobian of the cell."""
    W, x, z0 = make()
    z = fixed_point(cell, z0, W, x, solver=TIGHT)
    gW, gx = torch.autograd.grad(loss(z), (W, x))
    with torch.no_grad():
        slope = 1 - z.square()
        J = slope[:, :, None] * W
        u = torch.linalg.solve(torch.eye(6, dtype=J.dtype) - J.mT, 3 * z.square() + 1)
        assert (gx - slope * u).abs().max() < 1e-10
        assert (gW - torch.einsum("bi,bj->ij", slope * u, z)).abs().max() < 1e-10


@pytest.mark.parametrize("mode", [ImplicitAdjoint(), Piggyback(), PhantomGradient(60, 0.9)], ids=repr)
def test_gradcheck_reverse_forward_and_second_order(mode):
    W, x, z0 = make(n=3, batch=2, radius=0.6)

    def solve(W, x):
        return fixed_point(cell, z0, W, x, solver=TIGHT, adjoint=mode)

    assert gradcheck(solve, (W, x), check_forward_ad=True, atol=1e-7)
    if not isinstance(mode, PhantomGradient):
        assert gradgradcheck(solve, (W, x), check_fwd_over_rev=True, atol=1e-6)


def test_hessian_against_unrolled():
    W, x, z0 = make(n=4, radius=0.5)
    W, x = W.detach(), x.detach()

    def curve(adjoint):
        return torch.func.hessian(lambda W: loss(fixed_point(cell, z0, W, x, solver=TIGHT, adjoint=adjoint)))(W)

    assert (curve(ImplicitAdjoint()) - curve(Unrolled(120))).abs().max() < 1e-8


def test_func_transforms():
    W, x, z0 = make()
    W, x = W.detach(), x.detach()

    def solve(W, x):
        return fixed_point(cell, z0, W, x, solver=TIGHT)

    def closed(W, x):
        return fixed_point(lambda z: cell(z, W, x), z0, solver=TIGHT)

    reference = torch.func.jacrev(lambda W, x: fixed_point(cell, z0, W, x, adjoint=Unrolled(300)), (0, 1))(W, x)
    for solver in (solve, closed):
        for jacobian in (torch.func.jacrev, torch.func.jacfwd):
            for a, b in zip(jacobian(solver, (0, 1))(W, x), reference):
                assert (a - b).abs().max() < 1e-8
        for mode in ("reverse-mode", "forward-mode"):  # these map by another vmap than torch.func
            found = torch.autograd.functional.jacobian(solver, (W, x), vectorize=True, strategy=mode)
            for a, b in zip(found, reference):
                assert (a - b).abs().max() < 1e-8
    Ws = torch.stack([W, 0.5 * W, -W])
    for solver in (solve, closed):
        looped = torch.stack([solve(w, x) for w in Ws])
        assert (torch.func.vmap(solver, (0, None))(Ws, x) - looped).abs().max() < 1e-11
        gradient = torch.func.grad(lambda w, solver=solver: loss(solver(w, x)))
        assert (torch.func.vmap(gradient)(Ws) - torch.stack([gradient(w) for w in Ws])).abs().max() < 1e-8


def test_clarke_element_at_a_kink():
    """At pre-activations of exactly zero the derivative is the formula with relu'(0) = 0."""
    W = torch.tensor([[0.5, 0.0], [0.0, 0.5]], dtype=torch.float64, requires_grad=True)
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    z = fixed_point(relu_cell, torch.zeros_like(x), W, x)
    assert torch.allclose(z, torch.tensor([[2.0, 0.0]], dtype=torch.float64), atol=1e-9)
    (gx,) = torch.autograd.grad(z.sum(), x)
    assert torch.allclose(gx, torch.tensor([[2.0, 0.0]], dtype=torch.float64), atol=1e-9)


def test_closure_module_and_explicit_parameters_agree():
    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 6).double()

        def forward(self, z, x):
            return torch.tanh(0.5 * self.linear(z) + x)

    torch.manual_seed(0)
    module, (_, x, z0) = Cell(), make()
    encoder = nn.Linear(6, 6).double()
    W, b = module.linear.weight, module.linear.bias
    everything = [W, b, *encoder.parameters()]

    def gradients(z):
        return torch.autograd.grad(loss(z), everything)

    explicit = gradients(
        fixed_point(lambda z, W, b, v: torch.tanh(0.5 * (z @ W.T + b) + v), z0, W, b, encoder(x), solver=TIGHT)
    )
    v = encoder(x)  # a closed-over tensor that is no leaf
    for z in (
        fixed_point(lambda z: module(z, v), z0, solver=TIGHT),
        fixed_point(module, z0, encoder(x), solver=TIGHT),
        FixedPointLayer(module, solver=TIGHT)(z0, encoder(x)),
    ):
        for a, b in zip(gradients(z), explicit, strict=True):
            assert (a - b).abs().max() < 1e-9


def test_nested_fixed_points():
    W, x, z0 = make(radius=0.3)

    def inner(z):
        return fixed_point(lambda y: torch.tanh(y @ W.T + 0.5 * z), z0, solver=TIGHT)

    def unrolled(z):
        return fixed_point(lambda y: torch.tanh(y @ W.T + 0.5 * z), z0, adjoint=Unrolled(60))

    found = torch.autograd.grad(loss(fixed_point(lambda z: 0.5 * inner(z) + x, z0, solver=TIGHT)), (W, x))
    reference = torch.autograd.grad(
        loss(fixed_point(lambda z: 0.5 * unrolled(z) + x, z0, adjoint=Unrolled(60))), (W, x)
    )
    for a, b in zip(found, reference):
        assert (a - b).abs().max() < 1e-8


def test_nests_of_tensors_and_mixed_arguments():
    W, x, _ = make()

    def f(z, weights, gain, name):
        assert name == "anything"
        a, (b,) = z["a"], z["rest"]
        return {"a": torch.tanh(b.sum(-1) @ weights["W"].T * gain + x), "rest": (torch.sin(a)[..., None] * 0.2,)}

    z0 = {"a": torch.zeros(3, 6, dtype=torch.float64), "rest": (torch.zeros(3, 6, 1, dtype=torch.float64),)}
    arguments = ({"W": W}, 0.7, "anything")
    z, info = fixed_point(f, z0, *arguments, solver=TIGHT, return_info=True)
    assert z["rest"][0].shape == (3, 6, 1) and info.residual.shape == (3,)
    assert (f(z, *arguments)["a"] - z["a"]).abs().max() < 1e-11
    u = fixed_point(f, z0, *arguments, adjoint=Unrolled(100))
    found = torch.autograd.grad(loss(z["rest"][0]), (W, x))
    for a, b in zip(found, torch.autograd.grad(loss(u["rest"][0]), (W, x))):
        assert (a - b).abs().max() < 1e-8


def test_coupled_items_need_batch_dims_zero():
    gen = torch.Generator().manual_seed(2)
    L = torch.randn(5, 5, generator=gen, dtype=torch.float64)
    L = (0.9 * L / torch.linalg.matrix_norm(L, ord=2)).requires_grad_()
    z0 = torch.zeros(5, 4, dtype=torch.float64)
    b = torch.randn(5, 4, generator=gen, dtype=torch.float64)

    def f(z):
        return torch.tanh(L @ z + b)  # rows depend on each other

    z, info = fixed_point(f, z0, batch_dims=0, solver=TIGHT, return_info=True)
    assert info.residual.shape == ()
    (found,) = torch.autograd.grad(loss(z), L)
    (reference,) = torch.autograd.grad(loss(fixed_point(f, z0, adjoint=Unrolled(400))), L)
    assert (found - reference).abs().max() < 1e-8


def test_scalar_and_vector_unknowns():
    a = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    z = fixed_point(lambda z: 0.5 * (z + a / z), torch.ones((), dtype=torch.float64))
    assert abs(float(z.detach()) - 2**0.5) < 1e-10
    (g,) = torch.autograd.grad(z, a)
    assert abs(float(g) - 0.5 / 2**0.5) < 1e-9
    v = fixed_point(lambda z: torch.cos(z) * a / 3, torch.ones(4, dtype=torch.float64), return_info=True)[1]
    assert v.residual.shape == ()


def test_one_step_and_phantom_are_the_documented_polynomials():
    W, x, z0 = make()
    z = fixed_point(cell, z0, W, x, solver=TIGHT)
    slope, g = 1 - z.detach().square(), (3 * z.square() + 1).detach()
    JT = (slope[:, :, None] * W).mT.detach()
    eye = torch.eye(6, dtype=W.dtype)
    tau = 0.6
    damped = (1 - tau) * eye + tau * JT
    cases = {OneStep(): eye.expand(3, 6, 6), PhantomGradient(3, tau): tau * (eye + damped + damped @ damped)}
    for mode, matrix in cases.items():
        (gx,) = torch.autograd.grad(loss(fixed_point(cell, z0, W, x, solver=TIGHT, adjoint=mode)), x)
        assert (gx - slope * (matrix @ g[..., None])[..., 0]).abs().max() < 1e-10


def test_unrolled_differentiates_the_start_and_counts_its_steps():
    W, x, z0 = make()
    z0.requires_grad_()
    z, info = fixed_point(cell, z0, W, x, adjoint=Unrolled(2), return_info=True)
    assert torch.equal(z, cell(cell(z0, W, x), W, x))
    assert info.iterations.tolist() == [2, 2, 2] and not info.converged.any()
    assert torch.autograd.grad(z.sum(), z0)[0].abs().max() > 0
    (g,) = torch.autograd.grad(fixed_point(cell, z0, W, x).sum(), z0, allow_unused=True)
    assert g is None or g.abs().max() == 0


def test_error_bound_covers_the_error_of_the_adjoint_solve():
    W, x, z0 = make(n=10, radius=0.95)
    for tolerance in (1e-2, 1e-5):
        mode = ImplicitAdjoint(GMRES(tolerance=tolerance, check_every=1), certify=True)
        z, info = fixed_point(cell, z0, W, x, solver=TIGHT, adjoint=mode, return_info=True)
        torch.autograd.grad(loss(z), x)
        J = (1 - z.detach().square())[:, :, None] * W.detach()
        g = (3 * z.square() + 1).detach()
        exact = torch.linalg.solve(torch.eye(10, dtype=W.dtype) - J.mT, g)
        error = (info.adjoint.solution - exact).norm(dim=-1)
        assert (error <= info.adjoint.error_bound * (1 + 1e-9) + 1e-14).all()
        assert (info.adjoint.error_bound <= 100 * tolerance * g.norm(dim=-1) * info.adjoint.inverse_norm).all()


def test_adjoint_warm_start_saves_iterations():
    W, x, z0 = make(n=20, radius=0.97)

    def solve(warm_start):
        mode = ImplicitAdjoint(GMRES(check_every=1), warm_start=warm_start)
        z, info = fixed_point(lambda z: 0.97 * z @ W.T + x, z0, solver=TIGHT, adjoint=mode, return_info=True)
        return torch.autograd.grad(loss(z), W)[0], info.adjoint

    cold, record = solve(None)
    warm, again = solve(record)
    assert (warm - cold).abs().max() < 1e-8 * cold.abs().max()
    assert again.iterations.max() < record.iterations.max()


def test_memory_does_not_grow_with_iterations():
    """Count the bytes of the tensors that autograd keeps between forward and backward."""
    W, x, z0 = make(n=30, radius=0.99)

    def footprint(steps, adjoint):
        kept = []

        def pack(t):
            kept.append(t.numel() * t.element_size())
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), warnings.catch_warnings():
            warnings.simplefilter("ignore", InaccurateWarning)
            solver = Picard(max_steps=steps, atol=0, rtol=0)
            z, info = fixed_point(
                lambda z: torch.tanh(z + 0.1 * z @ W.T + x), z0, solver=solver, adjoint=adjoint, return_info=True
            )
        assert info.iterations.max() == steps
        return sum(kept), z

    few, _ = footprint(2, ImplicitAdjoint())
    many, _ = footprint(12, ImplicitAdjoint())
    assert many == few
    assert footprint(40, Unrolled(40))[0] > 3 * many


def test_two_forwards_before_one_backward_and_threads():
    W, x, z0 = make()
    first = fixed_point(cell, z0, W, x, solver=TIGHT)
    second = fixed_point(cell, z0, 0.5 * W, 2 * x, solver=TIGHT)
    together = torch.autograd.grad(loss(first) + loss(second), (W, x))
    parts = [
        torch.autograd.grad(loss(fixed_point(cell, z0, W, x, solver=TIGHT)), (W, x)),
        torch.autograd.grad(loss(fixed_point(cell, z0, 0.5 * W, 2 * x, solver=TIGHT)), (W, x)),
    ]
    for t, a, b in zip(together, *parts):
        assert (t - a - b).abs().max() < 1e-12
    results = [None] * 4

    def work(i):
        results[i] = torch.autograd.grad(loss(fixed_point(lambda z: cell(z, W, x), z0, solver=TIGHT)), (W, x))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    for r in results:
        assert all((a - b).abs().max() < 1e-12 for a, b in zip(r, parts[0]))


def test_single_precision_in_and_out():
    W, x, z0 = make()
    W32, x32 = W.detach().float().requires_grad_(), x.detach().float().requires_grad_()
    z = fixed_point(cell, z0.float(), W32, x32)
    assert z.dtype == torch.float32
    found = torch.autograd.grad(loss(z), (W32, x32))
    for a, b in zip(found, torch.autograd.grad(loss(fixed_point(cell, z0, W, x)), (W, x))):
        assert a.dtype == torch.float32
        assert (a - b).abs().max() < 1e-4 * b.abs().max()


def test_warnings():
    W, x, z0 = make(radius=0.99)
    with pytest.warns(InaccurateWarning, match="did not reach a fixed point"):
        fixed_point(cell, z0, W, x, solver=Picard(max_steps=3))
    one = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
    z = fixed_point(lambda z: one * z, torch.ones(1, 1, dtype=torch.float64))  # every z is a fixed point: I - J = 0
    with pytest.warns(InaccurateWarning, match="linear solve"):
        torch.autograd.grad(z.sum(), one)


def test_invalid_arguments():
    W, x, z0 = make()
    with pytest.raises(InvalidArgument, match="structure and shapes of z0"):
        fixed_point(lambda z: z[:, :2], z0)
    with pytest.raises(InvalidArgument, match="dtype"):
        fixed_point(lambda z: z.float(), z0)
    with pytest.raises(InvalidArgument, match="floating-point"):
        fixed_point(lambda z: z, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(InvalidArgument, match="batch_dims"):
        fixed_point(lambda z: z, z0, batch_dims=3)
    with pytest.raises(UnsupportedError, match="cone programme"):
        torch.autograd.grad(fixed_point(cell, z0, W, x, adjoint=Smoothed(1e-3)).sum(), x)
    for bad in (lambda: Unrolled(0), lambda: PhantomGradient(0), lambda: Piggyback(max_steps=0)):
        with pytest.raises(InvalidArgument):
            bad()


def test_equation_can_be_used_directly():
    W, x, z0 = make()
    equation = FixedPointEquation(cell, TIGHT, ImplicitAdjoint(NeumannGMRES(shrinks=0.01)))
    from conelayers.implicit import implicit

    z, iterations, residual, status, trace = implicit(equation, z0, W, x)
    assert (status == 0).all() and trace.shape[0] == 3 and (residual == trace[:, -1]).all()
    assert not iterations.requires_grad
    (g,) = torch.autograd.grad(loss(z), x)
    (r,) = torch.autograd.grad(loss(fixed_point(cell, z0, W, x, solver=TIGHT)), x)
    assert (g - r).abs().max() < 1e-8


@pytest.mark.parametrize(
    "adjoint", [ImplicitAdjoint(), ImplicitAdjoint(Broyden()), Piggyback(), LeastSquares(), OneStep()], ids=repr
)
def test_a_batch_without_items_has_zero_gradients(adjoint):
    W = torch.full((3, 3), 0.1, dtype=torch.float64, requires_grad=True)
    start = {"a": torch.zeros(0, 3, dtype=torch.float64), "b": torch.zeros(0, dtype=torch.float64)}
    one = fixed_point(lambda z: torch.tanh(z @ W), start["a"], adjoint=adjoint)
    nest = fixed_point(lambda s: {"a": torch.tanh(s["a"] @ W), "b": s["b"] / 2}, start, adjoint=adjoint, batch_dims=1)
    assert one.shape == nest["a"].shape == (0, 3) and nest["b"].shape == (0,)
    (gradient,) = torch.autograd.grad(one.sum() + nest["a"].sum(), W)
    assert torch.equal(gradient, torch.zeros_like(W))


def test_a_state_without_entries_is_its_own_fixed_point():
    assert fixed_point(lambda z: z / 2, torch.zeros(3, 0)).shape == (3, 0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("solver", {"solver": "anderson"}),
        ("solver", {"solver": Anderson}),
        ("adjoint", {"adjoint": "implicit"}),
        ("adjoint", {"adjoint": OneStep}),
        ("batch_dims", {"batch_dims": 1.0}),
        ("f", {"f": None}),
    ],
)
def test_what_is_no_setting_is_named(name, options):
    with pytest.raises(InvalidArgument, match=rf"^{name} must be"):
        fixed_point(**{"f": lambda z: z / 2, "z0": torch.zeros(3, 2), **options})


def test_tolerances_must_be_numbers():
    with pytest.raises(InvalidArgument, match="atol"):
        Anderson(atol=float("nan"))
