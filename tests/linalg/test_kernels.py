"""Sums over long vectors against NumPy, on one thread and on two, and how often a GPU is waited for."""

import numpy as np
import pytest

from mge_gpu.linalg import device, kernels
from mge_gpu.linalg.lanczos import extreme_eigenvalues
from mge_gpu.linalg.largest import largest_eigenvalue
from tests.kernels.strict import DeviceArray


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 4095, 4097, 70_001])
def test_remove_leaves_nothing_inside_the_rows(
    n: int, dtype: type, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_NUM_THREADS", threads)
    rng = np.random.default_rng(n)
    m = min(5, n)
    rows = np.ascontiguousarray(np.linalg.qr(rng.standard_normal((n, m)))[0].T, dtype)
    x = rng.standard_normal(n)
    before = x.copy()
    found, length = kernels.remove(rows, x)
    assert length == pytest.approx(np.linalg.norm(x), rel=1e-9)
    np.testing.assert_allclose(found, rows.astype(float) @ before, atol=1e-5)
    np.testing.assert_allclose(x, before - found @ rows.astype(float), atol=1e-9)
    assert np.abs(rows.astype(float) @ x).max() < (1e-6 if dtype is np.float32 else 1e-13) * np.sqrt(n)


@pytest.mark.parametrize("piece", [device.PIECE, 3_000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("m", [0, 1, 5])
def test_a_gpu_does_the_same_at_once_and_in_pieces(
    m: int, dtype: type, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "PIECE", piece)
    rng = np.random.default_rng(m)
    rows = np.ascontiguousarray(np.linalg.qr(rng.standard_normal((701, 5)))[0].T[:m], dtype)
    x = rng.standard_normal(701)
    before, there = x.copy(), DeviceArray(x.copy())
    np.testing.assert_allclose(kernels.dots(DeviceArray(rows), there), kernels.dots(rows, x), atol=1e-12)
    for (found, length), rest in (
        (kernels.remove(rows, x), x),
        (kernels.remove(DeviceArray(rows), there), there.get()),
    ):
        np.testing.assert_allclose(found, rows.astype(float) @ before, atol=1e-5)
        np.testing.assert_allclose(rest, before - found @ rows.astype(float), atol=1e-9)
        assert length == pytest.approx(np.linalg.norm(rest), rel=1e-12)
        assert np.abs(rows.astype(float) @ rest).max(initial=0) < (1e-5 if dtype is np.float32 else 1e-13)
    if m:
        turn = np.linalg.qr(rng.standard_normal((m, m)))[0][:, : (m + 1) // 2]
        turned, whole = DeviceArray(rows.copy()), rows.T.astype(float) @ turn
        device.rotate(turned, m, turn)
        np.testing.assert_allclose(turned.get()[: turn.shape[1]], whole.T, atol=1e-6)


@pytest.mark.parametrize("n", [0, 3, 100_000])
def test_dot_and_norm(n: int) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, n))
    assert kernels.dot(x, y) == pytest.approx(float((x * y).sum()), rel=1e-10, abs=1e-10)
    assert kernels.norm(x) == pytest.approx(float(np.sqrt((x * x).sum())), rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", ["extreme", "largest"])
def test_an_iteration_reads_back_once(method: str, dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """In single precision once more where vectors are made orthogonal again, which is not each time."""
    reads = []
    for name in ("get", "__int__", "__float__", "__bool__"):
        read = getattr(DeviceArray, name)
        monkeypatch.setattr(DeviceArray, name, lambda self, read=read: (reads.append(1), read(self))[1])
    diagonal = np.random.default_rng(0).standard_normal(400).astype(dtype)
    given, like = DeviceArray(diagonal), DeviceArray(np.zeros(0, dtype))
    if method == "extreme":
        values, info = extreme_eigenvalues(lambda x: x * given, 400, 2, dtype=dtype, like=like, copies=False)
        expected = np.sort(np.abs(diagonal))[:-3:-1]
    else:
        value, info = largest_eigenvalue(lambda x: x * given, 400, dtype=dtype, like=like)
        values, expected = np.array([value]), diagonal.max()
    np.testing.assert_allclose(np.abs(values), expected, rtol=1e-4)
    again = info.iterations // 2 if method == "extreme" and dtype is np.float32 else 0
    assert info.iterations < len(reads) <= info.iterations + 1 + again
