"""Eigenvalues of many operators in step, against LAPACK's of each matrix and against one operator alone."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from mge_gpu.errors import MetricError
from mge_gpu.linalg import rows
from mge_gpu.linalg.lanczos import ConvergenceWarning, extreme_eigenvalues
from mge_gpu.linalg.largest import largest_eigenvalue
from mge_gpu.linalg.many import Apply, largest_magnitudes
from mge_gpu.linalg.many_largest import largest_of_each

pytestmark = pytest.mark.usefixtures("one_thread")

TYPES = {torch.float64: np.float64, torch.float32: np.float32}
Spectra = list[list[float]]


class Operators:
    """Matrices as operators on rows; counts products, and checks that what is behind the rows stays zero."""

    def __init__(
        self, matrices: np.ndarray, dtype: torch.dtype = torch.float64, device: str = "cpu"
    ) -> None:  # (R, n, n)
        self.matrices = torch.from_numpy(matrices).to(device, dtype)
        self.products = 0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        count, n, _ = self.matrices.shape
        assert x.shape == (count, rows.width(n)) and not x[:, n:].any()
        self.products += 1
        y = torch.zeros_like(x)
        y[:, :n] = (self.matrices @ x[:, :n, None])[..., 0]
        return y


def with_spectra(spectra: Spectra, seed: int = 0) -> np.ndarray:
    """Dense symmetric matrices with given eigenvalues, as many each, (R, n, n)."""
    generator, n = np.random.default_rng(seed), len(spectra[0])
    turns = [np.linalg.qr(generator.standard_normal((n, n)))[0] for _ in spectra]
    return np.array([(q * e) @ q.T for q, e in zip(turns, spectra, strict=True)]).reshape(-1, n, n)


def magnitudes(matrices: np.ndarray, k: int) -> np.ndarray:
    """The k largest absolute eigenvalues of each."""
    return np.sort(np.abs(np.linalg.eigvalsh(matrices)), axis=1)[:, ::-1][:, :k]


def agree(found: np.ndarray, expected: np.ndarray, rtol: float = 1e-6) -> None:
    """Each operator's, in relation to its own largest."""
    np.testing.assert_allclose(np.abs(found), expected, rtol=rtol, atol=0.0 if rtol == 0 else 1e-12)
    assert np.all(np.abs(np.abs(found) - expected) <= rtol * expected[:, :1] + 1e-300)


@st.composite
def many_spectra(draw: st.DrawFn) -> Spectra:
    """Multiplicities, pairs of both signs, zeros, low ranks, clusters; scales from 1e-9 to 1e6."""
    n, count = draw(st.integers(1, 24)), draw(st.integers(1, 5))
    one = st.sampled_from([-3.0, -2.0, -0.5, 0.0, 0.0, 1.0, 2.5, 3.0, 2.9])
    scales = st.sampled_from([1.0, 1.0, 1e-9, 1e6, 0.0])
    found = []
    for _ in range(count):
        scale = draw(scales)
        found.append([scale * draw(one) for _ in range(n)])
    return found


@settings(max_examples=60)
@given(many_spectra(), st.integers(1, 4), st.sampled_from(list(TYPES)), st.integers(0, 99))
def test_eigenvalues_are_found_as_often_as_they_occur(
    spectra: Spectra, k: int, dtype: torch.dtype, seed: int
) -> None:
    matrices = with_spectra(spectra, seed)
    operators, n = Operators(matrices, dtype), len(spectra[0])
    found, info = largest_magnitudes(operators, len(spectra), n, k, seed=seed, dtype=dtype)
    expected = magnitudes(np.array([np.diag(e) for e in spectra]), k)
    scale = np.maximum(expected[:, :1], 1e-300)
    rtol = 1e-6 if dtype is torch.float64 else 4e-6
    assert found.shape == info.bounds.shape == (len(spectra), min(k, n)) and info.converged.all()
    assert np.all(np.abs(np.abs(found) - expected) <= rtol * scale)
    assert info.products == operators.products


@pytest.mark.parametrize("dtype", list(TYPES))
def test_few_eigenvalues_in_few_dimensions(dtype: torch.dtype) -> None:
    """Krylov spaces are exhausted after a step or two, and bases fill all there is, with zeros among them."""
    generator = np.random.default_rng(0)
    for seed in range(400):
        n, count, k = (int(generator.integers(low, high)) for low, high in ((1, 12), (1, 4), (2, 5)))
        spectra = generator.choice([3.0, -3.0, 1.0, 0.0], size=(count, n)).tolist()
        operators = Operators(with_spectra(spectra, seed), dtype)
        found, info = largest_magnitudes(operators, count, n, k, seed=seed, dtype=dtype)
        expected = magnitudes(np.array([np.diag(e) for e in spectra]), k)
        assert info.converged.all() and np.abs(np.abs(found) - expected).max() < 1e-5


@settings(max_examples=20)
@given(st.integers(1, 100), st.integers(1, 4), st.sampled_from(list(TYPES)), st.integers(0, 999))
def test_random_matrices_and_one_alone(
    device: str, n: int, count: int, dtype: torch.dtype, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    dense = generator.standard_normal((count, n, n)) * (generator.random((count, n, n)) < 5 / n)
    matrices = dense + dense.transpose(0, 2, 1)
    operators = Operators(matrices, dtype, device)
    found, info = largest_magnitudes(operators, count, n, 3, dtype=dtype, device=device)
    expected = magnitudes(matrices, 3)
    assert info.converged.all()
    assert np.all(np.abs(np.abs(found) - expected) <= 4e-6 * expected[:, :1])
    if dtype is torch.float64:
        assert np.all(np.abs(np.abs(found) - expected) <= info.bounds + 1e-9 * expected[:, :1])
    matrix = matrices[0].astype(TYPES[dtype])
    alone, _ = extreme_eigenvalues(lambda x: x @ matrix, n, 3, dtype=TYPES[dtype])
    assert np.all(np.abs(np.abs(found[0]) - np.abs(alone)) <= 4e-6 * expected[0, 0])


def test_copies_in_separate_components_beside_zeros_and_a_simple_one(device: str) -> None:
    """Two equal components have each eigenvalue twice; beside them zeros, and a dominant value."""
    component = with_spectra([[2.0, -0.5, 0.25, 1.0, *np.linspace(0, 0.2, 60)]])[0]
    n = 2 * len(component)
    twice = np.zeros((n, n))
    twice[: n // 2, : n // 2] = twice[n // 2 :, n // 2 :] = component
    dominant = np.diag([60.0, *np.linspace(1, 0, n - 1)])
    operators = Operators(np.stack([twice, 0 * twice, dominant]), device=device)
    found, info = largest_magnitudes(operators, 3, n, 3, device=device)
    assert info.converged.all()
    np.testing.assert_allclose(found, [[2, 2, 1], [0, 0, 0], [60, 1, 1 - 1 / (n - 2)]], rtol=1e-6)


@pytest.mark.parametrize("dtype", list(TYPES))
def test_restarts(dtype: torch.dtype, device: str) -> None:
    """A basis of ten vectors is enough, if it takes longer; its vectors stay orthogonal."""
    spectra = [[3.0, -2.9, 2.8, *np.linspace(-2, 2, 117)], [3.0, 3.0, 2.9, *np.linspace(-2, 2, 117)]]
    operators = Operators(with_spectra(spectra), dtype, device)
    found, info = largest_magnitudes(operators, 2, 120, 3, dtype=dtype, basis_size=10, device=device)
    assert info.converged.all() and info.products > 20
    np.testing.assert_allclose(np.abs(found), [[3, 2.9, 2.8], [3, 3, 2.9]], rtol=4e-6)


@pytest.mark.parametrize("basis_size", [12, 96])
@pytest.mark.parametrize("dtype", list(TYPES))
def test_bases_of_those_that_are_done_wait(dtype: torch.dtype, basis_size: int, device: str) -> None:
    """Slow ones anywhere among quick ones; a value that is there twice is looked for of all again."""
    easy, twice, slow = [5.0, 3.0, -1.0], [4.0, 4.0, 1.0], [2.0, 1.999, -1.998]
    rest = [list(np.linspace(0, 0.01, 297)), list(np.linspace(-1.99, 1.99, 297))]
    spectra = [(x + rest[x is slow])[:300] for x in (easy, slow, twice, easy, twice, slow, easy)]
    operators, working = Operators(with_spectra(spectra), dtype, device), list[int]()

    def counted(x: torch.Tensor) -> torch.Tensor:
        working.append(int(x.any(1).sum()))
        return operators(x)

    found, info = largest_magnitudes(
        counted, len(spectra), 300, 3, dtype=dtype, basis_size=basis_size, device=device
    )
    assert info.converged.all() and info.products == len(working)
    np.testing.assert_allclose(np.abs(found), np.abs([x[:3] for x in spectra]), rtol=1e-5)
    few = [count <= 3 for count in working]
    assert working[0] == 7 and 3 * sum(few) > len(few)
    assert 7 in working[few.index(True) :]  # copies are looked for of all


@pytest.mark.parametrize("basis_size", [12, 96])
@pytest.mark.parametrize("dtype", list(TYPES))
def test_a_dominant_value_is_found_once(dtype: torch.dtype, basis_size: int) -> None:
    """No ghost of it may pass for the second value; with each operator a ratio of its own."""
    ratios, n = [1.2, 2.0, 4.0, 60.0, 1e4], 1501
    diagonals = torch.zeros(len(ratios), rows.width(n), dtype=dtype)
    diagonals[:, 1:n] = torch.linspace(1, 0, n - 1, dtype=dtype) ** 2
    diagonals[:, 0] = torch.tensor(ratios)
    found, info = largest_magnitudes(
        lambda x: diagonals * x, len(ratios), n, 2, tol=3e-5, dtype=dtype, basis_size=basis_size
    )
    assert info.converged.all()
    np.testing.assert_allclose(found, [[ratio, 1.0] for ratio in ratios], rtol=1e-3)


@pytest.mark.parametrize("n", [0, 1, 2, 5, 400])
def test_zero_matrices(n: int) -> None:
    for found, info in (
        largest_magnitudes(torch.zeros_like, 2, n, 3),
        largest_of_each(torch.zeros_like, 2, n),
    ):
        assert not found.any() and len(found) == 2 and info.converged.all()
    assert largest_magnitudes(torch.zeros_like, 0, n, 3)[0].shape == (0, min(n, 3))
    assert largest_of_each(torch.zeros_like, 0, n)[0].shape == (0,)


@settings(max_examples=40)
@given(many_spectra(), st.sampled_from(list(TYPES)), st.integers(0, 99))
def test_largest_of_each(device: str, spectra: Spectra, dtype: torch.dtype, seed: int) -> None:
    """The values of one operator alone, and LAPACK's to a relative error of the tolerance."""
    matrices, n = with_spectra(spectra, seed), len(spectra[0])
    operators = Operators(matrices, dtype, device)
    found, info = largest_of_each(operators, len(spectra), n, seed=seed, dtype=dtype, device=device)
    assert info.converged.all()
    for value, matrix, spectrum in zip(found, matrices.astype(TYPES[dtype]), spectra, strict=True):
        scale, number = np.abs(spectrum).max(), TYPES[dtype]
        alone, _ = largest_eigenvalue(lambda x, m=matrix: m @ x, n, seed=seed, dtype=number)
        assert abs(value - max(spectrum)) <= 1e-4 * scale
        assert abs(value - alone) <= (1e-9 if dtype is torch.float64 else 1e-5) * scale


def test_largest_of_each_from_its_own_start(device: str) -> None:
    n, generator = 50, np.random.default_rng(0)
    matrices = generator.standard_normal((3, n, n))
    matrices = matrices @ matrices.transpose(0, 2, 1)
    start = torch.zeros(3, rows.width(n), dtype=torch.float64)
    start[:, :n] = torch.from_numpy(generator.uniform(0.1, 1, (3, n)))
    start[2] = 0  # of an operator without anything to look for
    operators, given = Operators(matrices, torch.float64, device), start.to(device)
    found, info = largest_of_each(operators, 3, n, start=given, dtype=torch.float64, device=device)
    assert info.converged.all() and torch.equal(given.cpu(), start) and found[2] == 0
    for value, matrix, x in zip(found[:2], matrices, start.numpy(), strict=False):
        alone, _ = largest_eigenvalue(lambda y, m=matrix: m @ y, n, start=x[:n])
        assert value == pytest.approx(alone, rel=1e-9)


def test_each_settles_by_itself() -> None:
    """Crowded values are taken where they settle; the easy operator beside them has been done long before."""
    n = 1500
    crowded, easy = 8 - np.linspace(0, 2, n) ** 2, np.r_[5.0, np.zeros(n - 1)]
    diagonals = torch.zeros(2, rows.width(n), dtype=torch.float64)
    diagonals[:, :n] = torch.from_numpy(np.stack([easy, crowded]))
    found, info = largest_of_each(lambda x: diagonals * x, 2, n)
    alone = [largest_eigenvalue(lambda x, d=d: d * x, n) for d in (easy, crowded)]
    np.testing.assert_allclose(found, [v for v, _ in alone], rtol=1e-9)
    assert info.products == 4 * -(-max(i.products for _, i in alone) // 4)


@pytest.mark.parametrize("n, count", [(3, 2), (4096, 2), (4097, 3)])
@pytest.mark.parametrize("dtype", list(TYPES))
def test_sums_over_pieces(n: int, count: int, dtype: torch.dtype, device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    basis = torch.zeros(4, count, rows.width(n), dtype=dtype)
    basis[:, :, :n] = torch.randn(4, count, n, generator=generator, dtype=dtype)
    basis = basis.to(device)
    x, before = basis[3].clone(), basis.double().clone()
    found = rows.dots(basis[:3], x)
    expected = torch.einsum("mrn,rn->rm", before[:3], before[3])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7 * n)
    rows.subtract(basis[:3], found, x)
    torch.testing.assert_close(
        x.double(), before[3] - torch.einsum("rm,mrn->rn", found, before[:3]), rtol=0, atol=1e-5 * n**0.5
    )
    turn = torch.randn(count, 2, 3, generator=generator, dtype=torch.float64).to(device)
    rows.rotate(basis[:3], turn)
    torch.testing.assert_close(
        basis[:2].double(), torch.einsum("rkm,mrn->krn", turn, before[:3]), rtol=0, atol=1e-5
    )
    torch.testing.assert_close(basis[2:].double(), before[2:], rtol=0, atol=0)


class Calls(TorchDispatchMode):
    """Counts what torch is asked to do with vectors and with numbers of all operators.

    Not views, nor what `Operators` does, nor what is done with each small matrix on the host.
    """

    HERE = ("view", "slice", "select", "expand", "transpose", "squeeze", "detach", "scalar")

    def __init__(self) -> None:
        super().__init__()
        self.count, self.working = 0, True

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += self.working and not any(name in str(func) for name in self.HERE)
        return func(*args, **(kwargs or {}))

    def without(self, apply: Apply) -> Apply:
        """What it does is not counted."""

        def inside(x: torch.Tensor) -> torch.Tensor:
            self.working = False
            y = apply(x)
            self.working = True
            return y

        return inside


@pytest.mark.parametrize(
    "solve", [lambda f, r: largest_magnitudes(f, r, 60, 3), lambda f, r: largest_of_each(f, r, 60)]
)
def test_what_a_step_calls_does_not_depend_on_the_number(
    solve: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "CHUNKS", 1)
    matrix = with_spectra([list(np.linspace(-1, 2, 60))])
    found = []
    for number in (1, 7):
        operators, calls = Operators(np.repeat(matrix, number, 0)), Calls()
        with calls:
            solve(calls.without(operators), number)
        found.append((calls.count, operators.products))
    assert found[0] == found[1] and found[0][0] < 40 * found[0][1]


def test_settings_of_training_are_left_alone_and_do_not_matter(device: str) -> None:
    matmul, matrices = torch.backends.cuda.matmul, with_spectra([list(np.linspace(-1, 2, 60))])
    before, state, random = matmul.fp32_precision, torch.get_rng_state(), str(np.random.get_state())
    operators = Operators(matrices, torch.float32, device)
    expected, _ = largest_magnitudes(operators, 1, 60, 3, dtype=torch.float32, device=device)
    try:
        matmul.fp32_precision = "tf32"
        with torch.autocast(device, torch.bfloat16):
            found, _ = largest_magnitudes(operators, 1, 60, 3, dtype=torch.float32, device=device)
            assert torch.is_autocast_enabled(device) and matmul.fp32_precision == "tf32"
            with pytest.raises(MetricError):
                largest_magnitudes(lambda x: x * torch.nan, 1, 60, 3, device=device)
            assert torch.is_autocast_enabled(device) and matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before
    assert found.tolist() == expected.tolist()
    assert torch.equal(state, torch.get_rng_state()) and random == str(np.random.get_state())


def test_not_converged_is_said_of_those_that_are_not() -> None:
    """The others are accurate all the same, with their copies; those given up are within their bounds."""
    spectra = [[5.0, 5.0, -4.0, *np.zeros(197)], list(np.linspace(0, 1, 200)), [0.0] * 200]
    operators = Operators(with_spectra(spectra))
    for basis_size in (5, 13, 96):
        with pytest.warns(ConvergenceWarning, match="1 of 3 operators"):
            found, info = largest_magnitudes(operators, 3, 200, 3, max_iterations=13, basis_size=basis_size)
        assert info.converged.tolist() == [True, False, True]
        assert np.abs(found[0]).round(6).tolist() == [5, 5, 4] and not found[2].any()
        assert info.bounds[1].max() > 1e-6
        nearest = np.abs(found[1][:, None] - spectra[1]).min(1)
        assert np.all(nearest <= info.bounds[1] + 1e-12)
    with pytest.warns(ConvergenceWarning, match="1 of 3 operators .* after 9 products"):
        _, info = largest_of_each(operators, 3, 200, max_iterations=9)
    assert info.converged.tolist() == [True, False, True]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        largest_magnitudes(operators, 3, 200, 3)


def test_bad_arguments_and_operators() -> None:
    with pytest.raises(MetricError, match="at least k"):
        largest_magnitudes(torch.clone, 1, 50, 3, basis_size=4)
    for solve in (lambda f: largest_magnitudes(f, 2, 5, 3), lambda f: largest_of_each(f, 2, 5)):
        for bad in (torch.nan, torch.inf):
            with pytest.raises(MetricError, match="NaN or Inf"):
                solve(lambda x, bad=bad: x * bad)
