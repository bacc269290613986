"""Programme data: the affine maps against CVXPY's own evaluation, attributes, batches, dtypes, derivatives."""

import copy
import pickle

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from canonicalize.clarabel_oracle import difference, solve, solve_with_cvxpy, tensors

from conelayers.canonicalize import AffineMap, BlockMap, ParametricProgram, sparse_product
from conelayers.canonicalize.sparse_product import SparseProduct
from conelayers.implicit import Affine, implicit
from conelayers.layers.parametric import ParametricSolution


def least_squares(rows=5, columns=3):
    A, b, lam = cp.Parameter((rows, columns)), cp.Parameter(rows), cp.Parameter(nonneg=True)
    x = cp.Variable(columns)
    objective = cp.sum_squares(A @ x - b) + lam * cp.norm1(x)
    return cp.Problem(cp.Minimize(objective), [x >= -0.5, cp.norm2(x) <= 2]), [A, b, lam], x


def set_random(parameters, seed=0):
    rng = np.random.default_rng(seed)
    for parameter in parameters:
        value = rng.normal(size=parameter.shape)
        parameter.value = np.abs(value) if parameter.attributes["nonneg"] else value


def test_values_equal_those_of_the_solver_interface():
    problem, parameters, x = least_squares()
    set_random(parameters)
    program = ParametricProgram.from_problem(problem, parameters, [x], presolve=False)
    data = program.values(*tensors(parameters))
    oracle = problem.get_problem_data(cp.CLARABEL)[0]
    structure = data.structure
    assert np.allclose(structure.A_matrix(data.A.numpy()).toarray(), oracle["A"].toarray(), atol=0, rtol=1e-15)
    assert np.allclose(structure.P_matrix(data.P.numpy()).toarray(), sp.triu(oracle["P"]).toarray(), rtol=1e-15)
    assert np.allclose(data.q.numpy(), oracle["c"], rtol=1e-15) and np.allclose(data.b.numpy(), oracle["b"], rtol=1e-15)


def test_pattern_is_the_union_over_parameters():
    x, A = cp.Variable(2), cp.Parameter((2, 2))
    program = ParametricProgram.from_problem(cp.Problem(cp.Minimize(cp.sum(x)), [A @ x >= 1, x >= 0]), [A], [x])
    assert program.structure.A_nnz == 6
    at_zero = program.values(torch.zeros(2, 2, dtype=torch.float64))
    assert at_zero.A.shape == (6,) and int((at_zero.A == 0).sum()) == 4


def test_constant_parts_come_without_batch_axes():
    problem, parameters, x = least_squares()
    program = ParametricProgram.from_problem(problem, parameters, [x])
    A, b, lam = torch.randn(7, 5, 3), torch.randn(7, 5), torch.rand(7)
    data = program.values(A, b, lam)
    assert data.P.dim() == 1 and data.A.shape[:-1] == (7,) and data.b.shape[:-1] == (7,) and data.q.shape[:-1] == (7,)
    assert program.P.map.is_constant and program.P.blocks == ()
    # Only the batched parameter makes its part batched.
    data = program.values(A[0], b, lam[0])
    assert data.A.dim() == 1 and data.b.shape[:-1] == (7,) and data.q.dim() == 1


def test_batches_equal_single_evaluations():
    problem, parameters, x = least_squares()
    program = ParametricProgram.from_problem(problem, parameters, [x])
    A, b, lam = torch.randn(2, 1, 5, 3), torch.randn(1, 4, 5), torch.rand(())
    data = program.values(A, b, lam)
    assert data.batch_shape == program.validate_params([A, b, lam]) == (2, 4)
    for i in range(2):
        for j in range(4):
            one = program.values(A[i, 0], b[0, j], lam)
            for name in "PqAb":
                value = getattr(data, name)
                item = value.expand(2, 4, value.shape[-1])[i, j]
                assert torch.equal(item, getattr(one, name))


# Blocks M_kb of a map of three vectors to three results; None where a vector does not enter.
SIZES, HEIGHTS = (3, 1, 4), (5, 2, 6)
ENTERING = ((0, 2), (1,), (0, 1, 2))


def block_map(seed=0):
    rng = np.random.default_rng(seed)
    maps = []
    for height, blocks in zip(HEIGHTS, ENTERING, strict=True):
        width = sum(SIZES[b] for b in blocks)
        matrix = rng.normal(size=(height, width + 1)) * (rng.random((height, width + 1)) < 0.7)
        matrix[0, :width] = 1.0
        maps.append(AffineMap(sp.csr_array(matrix), tuple(SIZES[b] for b in blocks)))
    return maps, BlockMap.join(maps, ENTERING, SIZES)


BATCHES = [
    ((), (), ()),
    ((1,), (1,), (1,)),
    ((6,), (6,), (6,)),
    ((6,), (), (1,)),
    ((), (6,), ()),
    ((2, 3), (3,), (2, 1)),
    ((2, 1), (1, 3), ()),
    ((3, 1), (1, 3), ()),
    ((3,), (1, 3), ()),
    ((0,), (), (0,)),
]


@pytest.mark.parametrize("batches", BATCHES)
@pytest.mark.parametrize("compiled", [True, False])
def test_a_block_map_is_its_maps_side_by_side(batches, compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(sparse_product, "_compiled", lambda: None)
    maps, joined = block_map()
    assert joined.entering == ENTERING
    thetas = [torch.randn(*batch, size).double() for batch, size in zip(batches, SIZES, strict=True)]
    for z, affine, blocks in zip(joined.apply(*thetas), maps, ENTERING, strict=True):
        theta = torch.cat([thetas[b].expand(*z.shape[:-1], SIZES[b]) for b in blocks], dim=-1)
        assert z.shape[:-1] == torch.broadcast_shapes(*(batches[b] for b in blocks))
        dense = torch.from_numpy(affine.matrix.toarray())
        torch.testing.assert_close(z, theta @ dense[:, :-1].mT + dense[:, -1], rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("batches", BATCHES)
def test_a_block_map_and_its_transpose_are_adjoint(batches):
    _, joined = block_map()
    thetas = [torch.randn(*batch, size).double() for batch, size in zip(batches, SIZES, strict=True)]
    values = [torch.randn_like(z) for z in joined.apply(*thetas)]
    whole = torch.broadcast_shapes(*batches)
    images = joined.linear.apply(*(theta.expand(*whole, -1) for theta in thetas))
    pulled = joined.transpose.apply(*(value.expand(*whole, -1) for value in values))
    one = sum((z * value).sum(-1) for z, value in zip(images, values, strict=True))
    other = sum((theta * g).sum(-1) for theta, g in zip(thetas, pulled, strict=True))
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("batches", BATCHES[:-1])
def test_derivatives_of_a_block_map(batches):
    _, joined = block_map()
    thetas = [torch.randn(*batch, size).double().requires_grad_() for batch, size in zip(batches, SIZES, strict=True)]
    equation = Affine(joined, len(SIZES))
    for chosen in ((0, 1, 2), (1,), (0, 2)):  # the gradients of some of the results reach some of the vectors only

        def apply(*values, chosen=chosen):
            outputs = implicit(equation, *values)
            return tuple(outputs[k] for k in chosen)

        torch.autograd.gradcheck(apply, thetas, check_forward_ad=True)
    torch.autograd.gradgradcheck(
        lambda *t: tuple(z**2 for z in implicit(equation, *t)), thetas, check_fwd_over_rev=True
    )


@pytest.mark.parametrize("mapped", [(0, None, None), (None, 0, None), (None, 0, 1), (0, 0, None)])
def test_a_mapped_block_map_shares_what_depends_on_shared_vectors(mapped):
    maps, joined = block_map()
    equation = Affine(joined, len(SIZES))
    thetas = [
        torch.randn(
            *(() if dim is None else (4, size) if dim == 0 else (size, 4)), *((size,) if dim is None else ())
        ).double()
        for size, dim in zip(SIZES, mapped, strict=True)
    ]
    found = torch.func.vmap(lambda *values: implicit(equation, *values), mapped)(*thetas)
    gradients = torch.func.vmap(
        torch.func.grad(lambda *values: sum((z**2).sum() for z in implicit(equation, *values)), (0, 1, 2)), mapped
    )(*thetas)
    for i in range(4):
        single = [t if d is None else t.select(d, i) for t, d in zip(thetas, mapped, strict=True)]
        leaves = [t.clone().requires_grad_() for t in single]
        expected = implicit(equation, *leaves)
        for z, other in zip(found, expected, strict=True):
            torch.testing.assert_close(z[i], other.detach(), rtol=1e-13, atol=1e-13)
        separate = torch.autograd.grad(sum((z**2).sum() for z in expected), leaves)
        for g, other in zip(gradients, separate, strict=True):
            torch.testing.assert_close(g[i], other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize(
    ("rows", "sizes", "density"),
    [(5, (3,), 0.5), (60, (30, 10), 0.02), (3, (50_000, 9), 0.9), (70_000, (1,) * 70, 0.02)],
)
def test_sparse_products_agree_on_every_path(batch, rows, sizes, density):
    columns = sum(sizes)
    matrix = sp.random_array((rows, columns), density=density, format="csr", rng=np.random.default_rng(0))
    product = SparseProduct(sp.csr_array(matrix), (rows,), sizes, np.arange(rows, dtype=float))
    xs = [torch.randn(1 if i % 2 else batch, size) for i, size in enumerate(sizes)]
    joined = torch.cat([x.expand(batch, -1) for x in xs], dim=-1)
    expected = torch.from_numpy((matrix @ joined.numpy().T).T + product.offset)
    assert torch.allclose(product(*xs)[0], expected, rtol=1e-12, atol=1e-12)
    assert torch.allclose(product._elsewhere(xs, batch), expected, rtol=1e-12, atol=1e-12)


def test_gradients_through_values():
    problem, parameters, x = least_squares()
    program = ParametricProgram.from_problem(problem, parameters, [x])
    inputs = [
        torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True),
        torch.randn(5, dtype=torch.float64, requires_grad=True),
        torch.rand(2, dtype=torch.float64, requires_grad=True),
    ]

    def evaluate(*values):
        return ParametricSolution(program).data(values)[1:]

    torch.autograd.gradcheck(evaluate, inputs)


@pytest.mark.parametrize("attribute", ["symmetric", "PSD"])
def test_symmetric_parameters_use_the_symmetric_part(attribute):
    S, x = cp.Parameter((3, 3), **{attribute: True}), cp.Variable(3)
    weights = np.arange(9.0).reshape(3, 3)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - S @ np.ones(3)) + cp.sum(cp.multiply(weights, S)) * x[0]), [])
    program = ParametricProgram.from_problem(problem, [S], [x])
    X = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    one, other = program.values(X), program.values((X + X.T) / 2)
    for name in "PqAb":
        assert torch.allclose(getattr(one, name), getattr(other, name), atol=1e-14)
    _, q, _, b = ParametricSolution(program).data([X])
    (gradient,) = torch.autograd.grad((q * torch.randn_like(q)).sum() + b.square().sum(), X)
    assert gradient.abs().max() > 0.1
    assert torch.allclose(gradient, gradient.T, atol=1e-14)


def test_flattening_works_inside_function_transforms():
    S, a, z = cp.Parameter((2, 2), symmetric=True), cp.Parameter(2), cp.Parameter(2, complex=True)
    x = cp.Variable(2)
    objective = cp.sum_squares(S @ x - a) + cp.real(cp.sum(z)) * x[0] + cp.imag(z[1]) * x[1]
    program = ParametricProgram.from_problem(cp.Problem(cp.Minimize(objective)), [S, a, z], [x])
    blocks = tuple(dict.fromkeys((*program.A.blocks, *program.b.blocks, *program.q.blocks)))
    assert {block.part for block in blocks} == {"value", "real", "imag"}

    def flatten(S, a, re, im):
        return torch.cat(program.layout.read([S, a, torch.complex(re, im)], blocks), dim=-1)

    single = [torch.randn(2, 2).double(), torch.randn(2).double(), torch.randn(2).double(), torch.randn(2).double()]
    batched = [torch.stack([value, 2 * value, -value]) for value in single]
    assert torch.equal(torch.func.vmap(flatten)(*batched), flatten(*batched))
    tangents = tuple(torch.randn_like(value) for value in single)
    _, pushed = torch.func.jvp(flatten, tuple(single), tangents)
    assert torch.equal(pushed, flatten(*tangents))  # flattening is linear
    assert torch.func.jacrev(flatten)(*single).shape == (flatten(*single).numel(), 2, 2)
    torch.autograd.gradcheck(flatten, [value.requires_grad_() for value in single])


def test_gradients_of_broadcast_parameters_are_sums():
    problem, parameters, x = least_squares()
    program = ParametricProgram.from_problem(problem, parameters, [x])
    A, b = torch.randn(4, 5, 3).double(), torch.randn(5).double().requires_grad_()
    lam = torch.rand(1).double().requires_grad_()
    _, q, _, rhs = ParametricSolution(program).data([A, b, lam])
    weights = torch.randn(4, program.structure.m).double(), torch.randn(4, program.structure.n).double()
    loss = (rhs * weights[0]).sum() + (q * weights[1]).sum()
    shared = torch.autograd.grad(loss, (b, lam))
    copies = b.detach().expand(4, 5).clone().requires_grad_(), lam.detach().expand(4).clone().requires_grad_()
    _, q, _, rhs = ParametricSolution(program).data([A, *copies])
    separate = torch.autograd.grad((rhs * weights[0]).sum() + (q * weights[1]).sum(), copies)
    assert torch.allclose(shared[0], separate[0].sum(0)) and torch.allclose(shared[1], separate[1].sum(0, keepdim=True))


@pytest.mark.parametrize("seed", range(5))
def test_random_mixtures_of_batch_axes_against_cvxpy(seed):
    """Values at random parameters, some shared by the batch, item by item against CVXPY's solver interface."""
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(1, 5, size=2)
    F, S, d = cp.Parameter((rows, columns)), cp.Parameter((columns, columns), PSD=True), cp.Parameter(nonneg=True)
    g, x = cp.Parameter(rows), cp.Variable(columns)
    objective = cp.quad_form(x, S) + cp.sum(S @ x) + d * cp.norm1(x)
    problem = cp.Problem(cp.Minimize(objective), [F @ x <= g, cp.norm2(F @ x - 2 * g) <= d, cp.sum(x) == d])
    parameters = [F, S, d, g]
    program = ParametricProgram.from_problem(problem, parameters, [x], presolve=False)
    batch = tuple(rng.integers(1, 4, size=rng.integers(0, 3)).tolist())
    values = []
    for parameter in parameters:
        axes = [size if rng.random() < 0.7 else 1 for size in batch] if rng.random() < 0.8 else []
        value = rng.normal(size=(*axes, *parameter.shape))
        values.append(torch.tensor(value @ value.swapaxes(-1, -2) if parameter is S else np.abs(value)))
    data = program.values(*values)
    structure, common = data.structure, program.validate_params(values)
    for item in np.ndindex(*common):
        for parameter, value in zip(parameters, values, strict=True):
            parameter.value = value.expand((*common, *parameter.shape))[item].numpy()
        oracle = problem.get_problem_data(cp.CLARABEL)[0]

        def at(name, item=item):
            tensor = getattr(data, name)
            return tensor.expand(*common, tensor.shape[-1])[item].numpy()

        assert np.allclose(structure.A_matrix(at("A")).toarray(), oracle["A"].toarray(), rtol=1e-13, atol=1e-14)
        assert np.allclose(
            structure.P_matrix(at("P")).toarray(), sp.triu(oracle["P"]).toarray(), rtol=1e-13, atol=1e-13
        )
        assert np.allclose(at("q"), oracle["c"], rtol=1e-13, atol=1e-14)
        assert np.allclose(at("b"), oracle["b"], rtol=1e-13, atol=1e-14)


def attribute_problem():
    rng = np.random.default_rng(5)
    P, N = cp.Parameter((3, 3), PSD=True), cp.Parameter((3, 3), NSD=True)
    D, S = cp.Parameter((3, 3), diag=True), cp.Parameter((3, 3), sparsity=[(0, 1, 2), (1, 2, 0)])
    positive, shift, scalar = cp.Parameter(3, nonneg=True), cp.Parameter((3, 1)), cp.Parameter()
    root = rng.normal(size=(3, 3))
    P.value, N.value = root @ root.T, -root.T @ root
    D.value = sp.diags_array([1.0, -2.0, 3.0])
    S.value_sparse = sp.coo_array(([0.5, 1.5, -1.0], S.sparse_idx), shape=(3, 3))
    positive.value, shift.value, scalar.value = [0.1, 0.2, 0.3], rng.normal(size=(3, 1)), 0.7
    x = cp.Variable((3, 1))
    objective = cp.sum_squares(x - shift) + positive @ cp.abs(x[:, 0]) + scalar * x[0, 0]
    constraints = [(P + N) @ x <= 4, D @ x >= -3, S @ x <= 0.2]
    return cp.Problem(cp.Minimize(objective), constraints), [P, N, D, S, positive, shift, scalar], x, constraints


@pytest.mark.filterwarnings("ignore:.*sparse CVXPY expression")
def test_parameter_attributes_against_cvxpy():
    problem, parameters, x, constraints = attribute_problem()
    requested = [x, *(c.dual_variables[0] for c in constraints)]
    program = ParametricProgram.from_problem(problem, parameters, requested)
    recovered = program.recover(*solve(program.values(*tensors(parameters))))
    solve_with_cvxpy(problem)
    for variable, tensor in zip(requested, recovered, strict=True):
        assert difference(variable, tensor) < 1e-8


@pytest.mark.filterwarnings("ignore:.*sparse CVXPY expression")
def test_entries_outside_the_pattern_of_diag_and_sparse_parameters_are_ignored():
    problem, parameters, x, _ = attribute_problem()
    program = ParametricProgram.from_problem(problem, parameters, [x])
    values = tensors(parameters)
    clean = program.values(*values)
    values[2] = values[2] + 9 * (1 - torch.eye(3, dtype=torch.float64))
    values[3] = values[3] + 9 * (values[3] == 0)
    for name in "PqAb":
        assert torch.equal(getattr(program.values(*values), name), getattr(clean, name))


def test_parametric_quad_form_keeps_a_quadratic_objective():
    x, P, scale = cp.Variable(3), cp.Parameter((3, 3), PSD=True), cp.Parameter(3)
    problem = cp.Problem(cp.Minimize(cp.quad_form(x, 2 * P + np.eye(3)) + scale @ x), [x >= -1, cp.norm2(x) <= 3])
    program = ParametricProgram.from_problem(problem, [P, scale], [x])
    assert [block.parameter for block in program.P.blocks] == [0]
    rng = np.random.default_rng(0)
    root = rng.normal(size=(3, 3))
    P.value, scale.value = root @ root.T, 4 * rng.normal(size=3)
    data = program.values(*tensors([P, scale]))
    block = data.structure.P_matrix(data.P.numpy()).toarray()
    expected = 2 * (2 * P.value + np.eye(3))
    columns = np.flatnonzero(np.diag(block))
    assert np.allclose(block[np.ix_(columns, columns)], np.triu(expected), atol=1e-12)
    (value,) = program.recover(*solve(data))
    # P's value is factored anew by CVXPY when it may not see the parameter.
    fixed = cp.Problem(cp.Minimize(cp.quad_form(x, 2 * P.value + np.eye(3)) + scale.value @ x), problem.constraints)
    solve_with_cvxpy(fixed)
    assert difference(x, value) < 1e-7


def test_sum_of_squares_of_a_symmetric_variable_is_kept():
    X, C = cp.Variable((3, 3), symmetric=True), cp.Parameter((3, 3))
    program = ParametricProgram.from_problem(cp.Problem(cp.Minimize(cp.sum_squares(X) + cp.trace(C @ X))), [C], [X])
    C_value = torch.randn(3, 3, dtype=torch.float64)
    (value,) = program.recover(*solve(program.values(C_value)))
    assert torch.allclose(value, -(C_value + C_value.T) / 4, atol=1e-8)


def test_float32_and_integer_parameters_are_read_in_float64():
    problem, parameters, x = least_squares()
    program = ParametricProgram.from_problem(problem, parameters, [x])
    A = torch.randint(-3, 4, (5, 3))
    data = program.values(A, torch.ones(5), torch.tensor(0.5))
    exact = program.values(A.double(), torch.ones(5).double(), torch.tensor(0.5).double())
    for name in "PqAb":
        assert getattr(data, name).dtype == torch.float64
        assert torch.equal(getattr(data, name), getattr(exact, name))


def test_parameters_with_several_axes():
    T, x = cp.Parameter((2, 3, 2)), cp.Variable((2, 3, 2))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - T)), [x <= 0.3])
    program = ParametricProgram.from_problem(problem, [T], [x])
    value = torch.randn(2, 3, 2, dtype=torch.float64)
    (solution,) = program.recover(*solve(program.values(value)))
    assert torch.allclose(solution, value.clamp(max=0.3), atol=1e-7)


def test_deepcopy_and_pickle():
    problem, parameters, x = least_squares()
    set_random(parameters)
    program = ParametricProgram.from_problem(problem, parameters, [x])
    values = tensors(parameters)
    program.values(*values)
    data = program.values(*values)
    for twin in (copy.deepcopy(program), pickle.loads(pickle.dumps(program))):
        again = twin.values(*values)
        for name in "PqAb":
            assert torch.equal(getattr(again, name), getattr(data, name))
        x_value, y_value, _ = solve(data)
        assert torch.equal(twin.recover(x_value, y_value)[0], program.recover(x_value, y_value)[0])


def test_the_problem_is_not_changed():
    problem, parameters, x = least_squares()
    dual = problem.constraints[0].dual_variables[0]
    set_random(parameters)
    before = [np.copy(p.value) for p in parameters]
    ParametricProgram.from_problem(problem, parameters, [x, dual])
    assert x.value is None and dual.value is None and problem.status is None
    solve_with_cvxpy(problem)
    solution, dual_value, cache = np.copy(x.value), np.copy(dual.value), problem._cache.param_prog
    ParametricProgram.from_problem(problem, parameters, [x, dual])
    assert np.array_equal(x.value, solution) and np.array_equal(dual.value, dual_value)
    assert problem._cache.param_prog is cache
    assert all(np.array_equal(p.value, value) for p, value in zip(parameters, before, strict=True))


def test_parameters_need_no_values_and_twice_is_the_same():
    problem, parameters, x = least_squares()
    first = ParametricProgram.from_problem(problem, parameters, [x])
    second = ParametricProgram.from_problem(problem, parameters, [x])
    values = [torch.randn(5, 3), torch.randn(5), torch.rand(())]
    for name in "PqAb":
        assert torch.equal(getattr(first.values(*values), name), getattr(second.values(*values), name))


@pytest.mark.parametrize("backend", [None, "SCIPY", "COO", "CPP"])
def test_canonicalization_backends_agree(backend):
    problem, parameters, x = least_squares()
    set_random(parameters)
    program = ParametricProgram.from_problem(problem, parameters, [x], canon_backend=backend)
    reference = ParametricProgram.from_problem(problem, parameters, [x])
    data, expected = program.values(*tensors(parameters)), reference.values(*tensors(parameters))
    for name in "PqAb":
        assert torch.allclose(getattr(data, name), getattr(expected, name), atol=1e-14)


def test_constant_map_is_returned_as_a_fresh_tensor():
    affine = AffineMap(sp.csr_array(np.array([[1.0], [2.0]])), ())
    affine.constant(torch.device("cpu")).zero_()
    assert torch.equal(affine.constant(torch.device("cpu")), torch.tensor([1.0, 2.0], dtype=torch.float64))
