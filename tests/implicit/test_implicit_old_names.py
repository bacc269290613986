"""Names of the last release: importable with a warning that says where they went; and the size of what is exported."""

import importlib

import pytest

import conelayers
from conelayers import implicit

MOVED = {
    "conelayers.iterations": ["Anderson", "FixedPointSolver", "search_step"],
    "conelayers.iterations.base": ["FixedPointResult"],
    "conelayers.implicit": ["ImplicitAdjoint", "BilevelProblem", "ConjugateGradient", "Neumann", "adapt", "along"],
    "conelayers.implicit.bilevel": ["Hypergradient", "Neumann", "scalar"],
    "conelayers.implicit.bilevel_iterative": ["inner_descent"],
    "conelayers.implicit.neumann": ["NeumannGMRES"],
    "conelayers.implicit.unrolled": ["Unrolled"],
    "conelayers.layers.well_posedness": ["InfinityNorm"],
    "conelayers.residual.fixed_point": ["certify_activation"],
}


@pytest.mark.parametrize("module", MOVED)
def test_old_names_warn_and_are_the_new_ones(module):
    for name in MOVED[module]:
        with pytest.warns(DeprecationWarning, match="next release"):
            found = getattr(importlib.import_module(module), name)
        assert found.__name__ == name


def test_settings_of_old_solvers_are_those_of_the_new():
    with pytest.warns(DeprecationWarning):
        from conelayers.implicit.bilevel import ConjugateGradient, FixedPointAdjoint, Neumann
    assert ConjugateGradient(steps=7, rtol=1e-3) == conelayers.linalg.CG(tolerance=1e-3, max_iterations=7)
    assert Neumann(5, 0.2) == FixedPointAdjoint(5, 0.2) == conelayers.linalg.Neumann(step=0.2, max_iterations=5)


def test_implicit_exports_what_equations_need():
    assert len(implicit.__all__) <= 18
    with pytest.raises(AttributeError, match="no attribute"):
        getattr(implicit, "nothing_of_this_name")  # noqa: B009
