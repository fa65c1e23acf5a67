"""Block Lanczos against dense LAPACK and SciPy: random, multiple, rank-deficient, tiny, clustered spectra."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import eigsh

from mge_gpu.errors import MetricError
from mge_gpu.linalg.lanczos import ConvergenceWarning, extreme_eigenvalues, singular_values


class Counted:
    """A matrix as an operator on rows that counts its products."""

    def __init__(self, matrix: np.ndarray | sp.csr_array) -> None:
        self.matrix, self.products = matrix, 0

    def __call__(self, x: np.ndarray) -> np.ndarray:
        self.products += len(x)
        return np.ascontiguousarray((self.matrix @ x.T).T)


def with_spectrum(eigenvalues: list[float], seed: int) -> np.ndarray:
    """A dense symmetric matrix with the given eigenvalues."""
    n = len(eigenvalues)
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))
    return (q * eigenvalues) @ q.T


def extreme(eigenvalues: np.ndarray, k: int, which: str) -> np.ndarray:
    """What is asked for, from all eigenvalues."""
    order = np.argsort(-(np.abs(eigenvalues) if which == "LM" else eigenvalues))
    return eigenvalues[order][:k]


def agree(found: np.ndarray, expected: np.ndarray, which: str, rtol: float = 1e-6) -> None:
    """Equal to the tolerance; of two values ±λ the order is not defined."""
    if which == "LM":
        found, expected = np.abs(found), np.abs(expected)
    np.testing.assert_allclose(
        found, expected, rtol=rtol, atol=1e-9 * max(1.0, np.abs(expected).max(initial=0))
    )


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from([-3.0, -2.0, -0.5, 0.0, 1.0, 2.5, 3.0, 2.9]), min_size=1, max_size=30),
    st.integers(1, 4), st.integers(1, 4), st.sampled_from(["LM", "LA"]), st.integers(0, 99),
)  # fmt: skip
def test_multiple_eigenvalues_are_found_as_often_as_they_occur(
    eigenvalues: list[float], k: int, block: int, which: str, seed: int
) -> None:
    matrix = with_spectrum(eigenvalues, seed)
    found, info = extreme_eigenvalues(Counted(matrix), len(matrix), k, which=which, block=block, seed=seed)
    agree(found, extreme(np.array(eigenvalues), k, which), which)
    assert info.converged and len(found) == len(info.bounds) == min(k, len(matrix))


@settings(max_examples=30)
@given(
    st.integers(1, 300), st.floats(0, 6), st.booleans(), st.sampled_from(["LM", "LA"]),
    st.sampled_from([(np.float64, None), (np.float32, None), (np.float64, 9), (np.float32, 12)]),
    st.integers(0, 999),
)  # fmt: skip
def test_random_sparse_matrices(
    n: int, degree: float, signed: bool, which: str, storage: tuple[type, int | None], seed: int
) -> None:
    generator = np.random.default_rng(seed)
    upper = sp.random_array((n, n), density=min(1.0, degree / n), rng=generator).tocsr()
    if signed:
        upper.data -= 0.5
    matrix = sp.csr_array(upper + upper.T)
    operator = Counted(matrix)
    dtype, basis_size = storage
    found, info = extreme_eigenvalues(operator, n, 3, which=which, dtype=dtype, basis_size=basis_size)
    expected = extreme(np.linalg.eigvalsh(matrix.toarray()), 3, which)
    agree(found, expected, which, rtol=1e-6 if dtype is np.float64 else 4e-6)
    assert info.converged and info.products == operator.products
    if dtype is np.float64:
        assert np.all(np.abs(np.abs(found) - np.abs(expected)) <= info.bounds + 1e-9 * np.abs(expected[0]))


def test_fewer_products_than_arpack() -> None:
    """Largest eigenvalue of a weighted Laplacian, against scipy's eigsh at the same tolerance."""
    n = 3000
    adjacency = sp.random_array((n, n), density=4 / n, rng=np.random.default_rng(0)).tocsr()
    adjacency = sp.csr_array(adjacency + adjacency.T)
    matrix = sp.csr_array(sp.diags_array(adjacency.sum(axis=1)) - adjacency)
    ours, theirs = Counted(matrix), Counted(matrix)
    found, _ = extreme_eigenvalues(ours, n, 1, which="LA")
    operator = sp.linalg.LinearOperator((n, n), matvec=lambda x: theirs(x.reshape(1, n))[0], dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(n)
    expected = eigsh(operator, k=1, which="LA", tol=1e-6, v0=start, return_eigenvectors=False)
    assert found == pytest.approx(expected, rel=1e-6)
    assert ours.products < theirs.products


def test_a_cluster_does_not_look_converged() -> None:
    """Two close values on top: their mixture has a residual of about their distance, and looks isolated."""
    eigenvalues = [15.6728, 15.6670, *np.linspace(0, 12, 100)]
    for seed in range(30):
        found, _ = extreme_eigenvalues(Counted(with_spectrum(eigenvalues, 0)), 102, 1, which="LA", seed=seed)
        assert found[0] == pytest.approx(15.6728, rel=1e-6)


@pytest.mark.parametrize("block", [1, 2, 3])
def test_copies_in_separate_components(block: int) -> None:
    """Equal components give exactly equal eigenvalues: here three times, and close to them a fourth."""
    component = with_spectrum([2.0, -0.5, 0.25, 1.0], 0)
    matrix = sp.block_diag([component] * 3 + [sp.diags_array([1.9] + [0.01] * 400)]).tocsr()
    found, info = extreme_eigenvalues(Counted(matrix), matrix.shape[0], 4, block=block)
    assert info.converged
    np.testing.assert_allclose(found, [2.0, 2.0, 2.0, 1.9], rtol=1e-6)


@pytest.mark.parametrize("n", [0, 1, 2, 5, 400])
@pytest.mark.parametrize("block", [1, 3])
def test_zero_matrix(n: int, block: int) -> None:
    found, info = extreme_eigenvalues(np.zeros_like, n, 3, block=block)
    assert found.tolist() == [0.0] * min(n, 3) and info.converged


def test_rank_one() -> None:
    x = np.random.default_rng(0).standard_normal(500)
    found, info = extreme_eigenvalues(Counted(np.outer(x, x)), 500, 3)
    assert info.converged
    np.testing.assert_allclose(found, [x @ x, 0, 0], atol=1e-9 * (x @ x))


@settings(max_examples=30)
@given(st.integers(1, 60), st.integers(1, 60), st.floats(0, 1), st.integers(1, 3), st.integers(0, 99))
def test_singular_values(rows: int, columns: int, density: float, block: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    matrix = generator.random((rows, columns)) * (generator.random((rows, columns)) < density)
    found, info = singular_values(Counted(matrix), Counted(matrix.T), (rows, columns), 2, block=block)
    expected = np.linalg.svd(matrix, compute_uv=False)[:2]
    # a singular value below sqrt(eps) of the largest is lost in its square
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=3e-7 * max(1.0, expected[0]))
    assert info.converged


def test_half_size_problem_of_a_bipartite_graph() -> None:
    """The sorted absolute eigenvalues of [[0, B], [Bᵀ, 0]] are σ₁, σ₁, σ₂, ..., also where σ₁ is double."""
    half = with_spectrum([2.5, 2.5, 2.25, *np.linspace(0, 2, 50)], 1)
    sigma, _ = singular_values(Counted(half), Counted(half.T), half.shape, 3)
    whole = np.block([[np.zeros_like(half), half], [half.T, np.zeros_like(half)]])
    whole_values, _ = extreme_eigenvalues(Counted(whole), len(whole), 6)
    np.testing.assert_allclose(np.abs(whole_values), np.repeat(sigma, 2), rtol=2e-6)
    np.testing.assert_allclose(sigma, [2.5, 2.5, 2.25], rtol=1e-6)


def test_not_converged_is_said() -> None:
    matrix = with_spectrum(list(np.linspace(0, 1, 200)), 0)
    with pytest.warns(ConvergenceWarning, match="raise max_iterations"):
        _, info = extreme_eigenvalues(Counted(matrix), 200, 3, max_iterations=5)
    assert not info.converged and info.iterations == 5 and info.bounds.max() > 1e-6


def test_same_seed_same_values_and_nobody_elses_generator() -> None:
    matrix = with_spectrum(list(np.linspace(0, 1, 50)), 0)
    state = str(np.random.get_state())
    first, _ = extreme_eigenvalues(Counted(matrix), 50, 2, seed=7)
    again, _ = extreme_eigenvalues(Counted(matrix), 50, 2, seed=7)
    assert first.tolist() == again.tolist() and str(np.random.get_state()) == state


def test_bad_arguments_and_operators() -> None:
    for arguments in ({"n": -1, "k": 1}, {"n": 5, "k": 0}, {"n": 5, "k": 1, "block": 0}):
        with pytest.raises(MetricError, match="expected n >= 0"):
            extreme_eigenvalues(np.copy, **arguments)
    with pytest.raises(MetricError, match="which='SM'"):
        extreme_eigenvalues(np.copy, 5, 1, which="SM")  # type: ignore[arg-type]
    with pytest.raises(MetricError, match="at least"):
        extreme_eigenvalues(np.copy, 50, 3, basis_size=4)
    with pytest.raises(MetricError, match="NaN"):
        extreme_eigenvalues(lambda x: x * np.nan, 5, 1)
    with pytest.raises(MetricError, match="shape"):
        extreme_eigenvalues(lambda x: x[:, 1:], 5, 1)


def test_converged_runs_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extreme_eigenvalues(Counted(with_spectrum([1.0, 2.0, 3.0], 0)), 3, 3)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("ratio", [1.2, 2.0, 4.0, 8.0, 60.0])
def test_a_dominant_value_is_found_once(ratio: float, dtype: type[np.floating]) -> None:
    """It multiplies the loss of orthogonality in every step; no ghost of it may pass for the second value."""
    bulk = np.linspace(1.0, 0.0, 1500) ** 2
    diagonal = np.concatenate([[ratio], bulk]).astype(dtype)
    for seed in range(3):
        values, _ = extreme_eigenvalues(
            lambda x: x * diagonal, 1501, 2, which="LA", tol=3e-5, dtype=dtype, copies=False, seed=seed
        )
        np.testing.assert_allclose(values, [ratio, 1.0], rtol=1e-3)


@pytest.mark.filterwarnings("ignore::mge_gpu.linalg.lanczos.ConvergenceWarning")
@pytest.mark.parametrize("basis_size", [10, 24, 48])
@pytest.mark.parametrize("n", [300, 20_000])
def test_restarts_do_not_add_up(n: int, basis_size: int) -> None:
    """Values that crowd at both ends take many restarts in single precision; none may come out too large."""
    diagonal = np.cos(np.pi * np.arange(n) / n).astype(np.float32)
    values, info = extreme_eigenvalues(
        lambda x: x * diagonal, n, 3, tol=3e-5, basis_size=basis_size, dtype=np.float32, copies=False
    )
    assert info.restarts >= 8
    assert np.all(np.abs(values) <= np.sort(np.abs(diagonal))[:-4:-1] + 1e-6)
    nearest = np.abs(values[:, None] - diagonal).min(1)
    assert np.all(nearest <= info.bounds + 1e-6)
