"""The largest eigenvalue from three vectors, against dense and sparse references."""

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from hypothesis import given
from hypothesis import strategies as st

from mge_gpu.errors import MetricError
from mge_gpu.linalg.lanczos import ConvergenceWarning
from mge_gpu.linalg.largest import largest_eigenvalue


def laplacian_of_grid(side: int) -> scipy.sparse.csr_array:
    line = scipy.sparse.diags_array([np.full(side - 1, 1.0)] * 2, offsets=[-1, 1])
    adjacency = scipy.sparse.kronsum(line, line).tocsr()
    return scipy.sparse.csr_array(scipy.sparse.diags_array(adjacency.sum(1)) - adjacency)


@given(st.integers(1, 60), st.integers(0, 10**6))
def test_equals_dense_eigenvalues(n: int, seed: int) -> None:
    matrix = np.random.default_rng(seed).standard_normal((n, n))
    matrix = matrix @ matrix.T  # positive, so that "largest" is well away from zero
    value, info = largest_eigenvalue(lambda x: matrix @ x, n, seed=seed)
    assert info.converged
    assert value == pytest.approx(np.linalg.eigvalsh(matrix)[-1], rel=1e-4)


def test_crowded_top_of_a_grid() -> None:
    """The Laplacian of a large grid, whose eigenvalues crowd below 8."""
    side = 120
    laplacian = laplacian_of_grid(side)
    expected = 2 * (2 + 2 * np.cos(np.pi / side))  # the path's largest eigenvalue, twice
    value, info = largest_eigenvalue(lambda x: laplacian @ x, side * side)
    assert info.converged
    assert value == pytest.approx(expected, rel=1e-4)
    assert value <= expected * (1 + 1e-12)


@given(st.integers(1, 60), st.integers(0, 10**6))
def test_any_start(n: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    matrix = generator.standard_normal((n, n))
    matrix = matrix @ matrix.T
    start = generator.uniform(0.01, 1, n)
    kept = start.copy()
    value, info = largest_eigenvalue(lambda x: matrix @ x, n, start=start)
    assert info.converged and (start == kept).all()
    assert value == pytest.approx(np.linalg.eigvalsh(matrix)[-1], rel=1e-4)


def test_a_start_without_what_oscillates() -> None:
    """The grid's last eigenvector changes its sign from node to node and swings nowhere else."""
    side = 120
    laplacian = laplacian_of_grid(side)
    signs = (-1.0) ** np.add.outer(np.arange(side), np.arange(side)).ravel()
    value, info = largest_eigenvalue(lambda x: laplacian @ x, side * side, start=signs)
    assert value == pytest.approx(2 * (2 + 2 * np.cos(np.pi / side)), rel=3e-5)
    assert info.products < 0.6 * largest_eigenvalue(lambda x: laplacian @ x, side * side)[1].products


@pytest.mark.parametrize("n", [0, 1, 5])
def test_zero_operator(n: int) -> None:
    value, info = largest_eigenvalue(lambda x: 0 * x, n)
    assert value == 0 and info.converged


def test_negative_spectrum() -> None:
    diagonal = -np.arange(1.0, 40.0)
    assert largest_eigenvalue(lambda x: diagonal * x, 39)[0] == pytest.approx(-1, rel=1e-4)


def test_gives_up_with_a_warning() -> None:
    diagonal = np.linspace(0, 1, 5000)
    with pytest.warns(ConvergenceWarning, match="after 8 products"):
        largest_eigenvalue(lambda x: diagonal * x, 5000, max_iterations=8)


def test_nan_is_refused() -> None:
    with pytest.raises(MetricError, match="NaN or Inf"):
        largest_eigenvalue(lambda x: x * np.nan, 10)
