"""Trace estimates against the trace, and their standard errors against the spread of many estimates."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mge_gpu.errors import MetricError
from mge_gpu.linalg.trace import hutchinson, trace_of_fourth_power


def random_graph(n: int, density: float, seed: int) -> np.ndarray:
    """Symmetric 0/1 adjacency without loops."""
    upper = np.triu(np.random.default_rng(seed).random((n, n)) < density, 1).astype(np.float64)
    return upper + upper.T


@settings(max_examples=20)
@given(st.integers(2, 60), st.floats(0.05, 1), st.integers(0, 99))
def test_fourth_power_within_five_standard_errors(n: int, density: float, seed: int) -> None:
    matrix = random_graph(n, density, seed)
    exact = np.trace(np.linalg.matrix_power(matrix, 4))
    estimate, error = trace_of_fourth_power(lambda x: x @ matrix, n, num_samples=200, seed=seed)
    assert abs(estimate - exact) <= 5 * error + 1e-9 * exact


def test_standard_error_is_the_spread_of_estimates() -> None:
    matrix = random_graph(40, 0.2, 0)
    runs = [trace_of_fourth_power(lambda x: x @ matrix, 40, num_samples=50, seed=s) for s in range(200)]
    estimates, errors = np.array(runs).T
    assert np.mean(errors) == pytest.approx(np.std(estimates), rel=0.2)
    assert np.mean(estimates) == pytest.approx(np.trace(np.linalg.matrix_power(matrix, 4)), rel=0.05)


def test_relative_error_is_reached_or_the_limit() -> None:
    matrix = random_graph(40, 0.2, 0)
    drawn = []

    def form(z: np.ndarray) -> np.ndarray:
        assert set(np.unique(z)) <= {-1.0, 1.0}
        drawn.append(len(z))
        return np.sum((z @ matrix) ** 2, axis=1)

    estimate, error = hutchinson(form, 40, relative_error=0.01, seed=3)
    assert error <= 0.01 * estimate and sum(drawn) > 8
    drawn.clear()
    estimate, error = hutchinson(form, 40, relative_error=1e-9, max_samples=30)
    assert sum(drawn) == 30 and error > 1e-9 * estimate


def test_small_and_certain() -> None:
    assert hutchinson(lambda z: z.sum(axis=1), 0, num_samples=3) == (0.0, 0.0)
    assert hutchinson(lambda z: (z * z).sum(axis=1), 7, num_samples=1) == (7.0, np.inf)
    assert hutchinson(lambda z: (z * z).sum(axis=1), 7, relative_error=0.1) == (7.0, 0.0)


def test_private_generator() -> None:
    state = str(np.random.get_state())
    runs = {hutchinson(lambda z: z[:, 0] * z[:, 1], 5, num_samples=9, seed=1) for _ in range(2)}
    assert len(runs) == 1 and str(np.random.get_state()) == state


def test_bad_arguments() -> None:
    for arguments in (
        {},
        {"num_samples": 3, "relative_error": 0.1},
        {"num_samples": 0},
        {"relative_error": 0.0},
    ):
        with pytest.raises(MetricError, match="expected"):
            hutchinson(lambda z: z.sum(axis=1), 5, **arguments)
    with pytest.raises(MetricError, match="finite"):
        hutchinson(lambda z: z, 5, num_samples=2)
