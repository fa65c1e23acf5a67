"""Sums over long vectors against NumPy, on one thread and on two."""

import numpy as np
import pytest

from mge_gpu.linalg import kernels


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
    found = kernels.remove(rows, x)
    np.testing.assert_allclose(found, rows.astype(float) @ before, atol=1e-5)
    np.testing.assert_allclose(x, before - found @ rows.astype(float), atol=1e-9)
    assert np.abs(rows.astype(float) @ x).max() < (1e-6 if dtype is np.float32 else 1e-13) * np.sqrt(n)


@pytest.mark.parametrize("n", [0, 3, 100_000])
def test_dot_and_norm(n: int) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, n))
    assert kernels.dot(x, y) == pytest.approx(float((x * y).sum()), rel=1e-10, abs=1e-10)
    assert kernels.norm(x) == pytest.approx(float(np.sqrt((x * x).sum())), rel=1e-12)
