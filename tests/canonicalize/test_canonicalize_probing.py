"""Matrices of linear functions read by evaluating them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from conelayers.canonicalize.probing import matrix_of


@given(st.data())
def test_selections_take_three_evaluations(data):
    size = data.draw(st.integers(1, 40))
    columns = data.draw(hnp.arrays(np.int64, st.integers(0, 30), elements=st.integers(0, size - 1)))
    exponents = data.draw(hnp.arrays(np.float64, columns.shape, elements=st.floats(-3, 3)))
    factors = (
        data.draw(hnp.arrays(np.float64, columns.shape, elements=st.sampled_from([-1.0, 0.0, 1.0]))) * 10**exponents
    )
    calls = []

    def function(u):
        calls.append(u)
        return factors * u[columns]

    expected = np.zeros((len(columns), size))
    expected[np.arange(len(columns)), columns] = factors
    assert np.array_equal(matrix_of(function, size).toarray(), expected)
    assert len(calls) <= 3


@pytest.mark.parametrize(
    "matrix",
    [
        [[1.0, -1.0, 0.0], [0.0, 2.0, 0.0]],  # the first probe cancels
        [[0.5, 0.0, 0.5], [0.0, 0.0, 1.0]],  # the first two probes look like entry 1
        [[3.0, 4.0, 5.0]],
    ],
)
def test_combinations_are_read_column_by_column(matrix):
    matrix = np.array(matrix)
    assert np.array_equal(matrix_of(lambda u: matrix @ u, 3).toarray(), matrix)


def test_empty_sides():
    assert matrix_of(lambda u: np.zeros(3), 0).shape == (3, 0)
    assert matrix_of(lambda u: np.zeros(0), 4).shape == (0, 4)
