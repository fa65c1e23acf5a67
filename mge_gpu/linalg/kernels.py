"""Sums over long vectors on all cores, and small eigenproblems on one, without NumPy's BLAS.

A threaded BLAS keeps its threads spinning after each call; on a machine of a few cores they take the
time of the kernels that apply the operator in between (six times slower products were measured).
Arrays that are not NumPy's go to `device`.
"""

import numba
import numpy as np
import torch

from mge_gpu.backends.cpu.serial import run_serial
from mge_gpu.backends.cpu.threads import evenly, num_threads, run
from mge_gpu.linalg import device

PIECE = 1 << 11  # elements that stay in cache while all vectors of a basis pass over them
SERIAL = 1 << 15  # shorter vectors are not worth a second thread

_sum = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})


@_sum
def _dots_of(rows: np.ndarray, part: np.ndarray, at: int, out: np.ndarray) -> None:
    """out[i] += rows[i, at:] . part; four rows at a time, so that ``part`` is read a fourth as often."""
    end, whole = at + len(part), len(rows) // 4 * 4
    for i in range(0, whole, 4):
        a, b, c, d = rows[i, at:end], rows[i + 1, at:end], rows[i + 2, at:end], rows[i + 3, at:end]
        p, q, r, s = 0.0, 0.0, 0.0, 0.0
        for j in range(len(part)):
            p += a[j] * part[j]
            q += b[j] * part[j]
            r += c[j] * part[j]
            s += d[j] * part[j]
        out[i] += p
        out[i + 1] += q
        out[i + 2] += r
        out[i + 3] += s
    for i in range(whole, len(rows)):
        row = rows[i, at:end]
        total = 0.0
        for j in range(len(part)):
            total += row[j] * part[j]
        out[i] += total


@_sum
def _less_of(rows: np.ndarray, factors: np.ndarray, at: int, part: np.ndarray) -> None:
    """part -= factors . rows[:, at:], four rows at a time as well."""
    end, whole = at + len(part), len(rows) // 4 * 4
    for i in range(0, whole, 4):
        a, b, c, d = rows[i, at:end], rows[i + 1, at:end], rows[i + 2, at:end], rows[i + 3, at:end]
        p, q, r, s = factors[i], factors[i + 1], factors[i + 2], factors[i + 3]
        for j in range(len(part)):
            part[j] -= p * a[j] + q * b[j] + r * c[j] + s * d[j]
    for i in range(whole, len(rows)):
        row, f = rows[i, at:end], factors[i]
        for j in range(len(part)):
            part[j] -= f * row[j]


@_sum
def _dots(rows: np.ndarray, x: np.ndarray, start: int, stop: int, out: np.ndarray) -> None:
    """out[i] += rows[i] . x over start..stop."""
    for at in range(start, stop, PIECE):
        _dots_of(rows, x[at : min(at + PIECE, stop)], at, out)


@_sum
def _subtract(
    rows: np.ndarray, x: np.ndarray, factors: np.ndarray, start: int, stop: int, again: bool, out: np.ndarray
) -> None:
    """x -= factors . rows over start..stop; then out[-1] += x . x and, ``again``, out[i] += rows[i] . x."""
    for at in range(start, stop, PIECE):
        part = x[at : min(at + PIECE, stop)]
        _less_of(rows, factors, at, part)
        if again:
            _dots_of(rows, part, at, out)
        total = 0.0
        for j in range(len(part)):
            total += part[j] * part[j]
        out[-1] += total


def _ranges(n: int) -> np.ndarray:
    return evenly(n, num_threads() if n > SERIAL else 1)


def dots(rows: np.ndarray, x: np.ndarray) -> np.ndarray:
    """rows @ x in float64: (m, n) float32 or float64, (n,) float64 -> (m,).

    >>> dots(np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([3.0, 4.0])).tolist()
    [11.0, 4.0]
    """
    if not isinstance(x, np.ndarray):
        return device.dots(rows, x)
    cuts = _ranges(len(x))
    out = np.zeros((len(cuts) - 1, len(rows)))
    run(lambda k: _dots(rows, x, cuts[k], cuts[k + 1], out[k]), len(out), short=True)
    total: np.ndarray = out.sum(0)
    return total


def remove(rows: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, float]:
    """Make x (n,) orthogonal to orthonormal rows (m, n), in place; what was removed, (m,), and |x| then.

    Twice, since once is not enough in floating point (Giraud, Langou and Rozložník, 2005).

    >>> x = np.array([3.0, 4.0])
    >>> remove(np.array([[1.0, 0.0]]), x), x.tolist()
    ((array([3.]), 4.0), [0.0, 4.0])
    """
    if not isinstance(x, np.ndarray):
        return device.remove(rows, x)
    first, cuts = dots(rows, x), _ranges(len(x))

    def subtract(factors: np.ndarray, again: bool) -> tuple[np.ndarray, float]:
        out = np.zeros((len(cuts) - 1, len(rows) + 1))
        run(lambda k: _subtract(rows, x, factors, cuts[k], cuts[k + 1], again, out[k]), len(out), short=True)
        total: np.ndarray = out.sum(0)
        return total[:-1], float(np.sqrt(total[-1]))

    second, length = subtract(first, True)
    rounding = 4 * float(np.finfo(rows.dtype).eps) * float(np.sqrt((first**2).sum()))
    if np.abs(second).max(initial=0.0) <= rounding:  # once was enough, as far as the rows' precision goes
        return first, length
    _, length = subtract(second, False)
    return first + second, length


@_sum
def _step(x: np.ndarray, a: float, y: np.ndarray, z: np.ndarray, start: int, stop: int, same: bool) -> float:
    """x -= a y over start..stop; returns x . z there (x . x with ``same``)."""
    total = 0.0
    for at in range(start, stop, PIECE):
        end = min(at + PIECE, stop)
        p, q, r = x[at:end], y[at:end], z[at:end]
        for j in range(len(p)):
            p[j] -= a * q[j]
        if same:
            for j in range(len(p)):
                total += np.float64(p[j]) * p[j]
        else:
            for j in range(len(p)):
                total += np.float64(p[j]) * r[j]
    return total


def advance(image: np.ndarray, beta: float, before: np.ndarray, now: np.ndarray) -> tuple[float, float]:
    """A step of Lanczos with three vectors: (alpha, |image| at the end); all (n,) of one dtype.

    The image of ``now`` becomes image - beta before - alpha now, in place; alpha makes it orthogonal to
    ``now``, whose length is 1.

    >>> image = np.array([3.0, 4.0, 1.0])
    >>> advance(image, 2.0, np.array([0.0, 0.0, 0.5]), np.array([1.0, 0.0, 0.0])), image.tolist()
    ((3.0, 4.0), [0.0, 4.0, 0.0])
    """
    if not isinstance(image, np.ndarray):
        return device.advance(image, beta, before, now)
    alpha = _less(image, beta, before, now)
    return alpha, float(np.sqrt(_less(image, alpha, now)))


def _less(x: np.ndarray, a: float, y: np.ndarray, z: np.ndarray | None = None) -> float:
    """x -= a y in place; returns x . z afterwards, or x . x without z."""
    cuts, other = _ranges(len(x)), x if z is None else z
    factor = x.dtype.type(a)
    parts = run(
        lambda k: _step(x, factor, y, other, cuts[k], cuts[k + 1], z is None), len(cuts) - 1, short=True
    )
    return float(sum(parts))


@_sum
def _diagonal_less(d: np.ndarray, x: np.ndarray, y: np.ndarray, start: int, stop: int) -> None:
    for at in range(start, stop, PIECE):
        end = min(at + PIECE, stop)
        p, q, r = d[at:end], x[at:end], y[at:end]
        for j in range(len(p)):
            r[j] = p[j] * q[j] - r[j]


def diagonal_less(d: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """d x - y element by element; y may be overwritten.

    >>> diagonal_less(np.array([2.0]), np.array([3.0]), np.array([1.0])).tolist()
    [5.0]
    """
    if not isinstance(x, np.ndarray):
        return d * x - y
    cuts = _ranges(len(x))
    run(lambda k: _diagonal_less(d, x, y, cuts[k], cuts[k + 1]), len(cuts) - 1, short=True)
    return y


def dot(x: np.ndarray, y: np.ndarray) -> float:
    """x . y of two (n,) vectors."""
    return float(dots(x[None], y)[0])


def norm(x: np.ndarray) -> float:
    """Euclidean length of an (n,) vector."""
    return float(np.sqrt(dot(x, x)))


def eigh(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (m,) and eigenvectors (m, m), in columns, of a small symmetric matrix, on one core.

    >>> eigh(np.diag([2.0, 1.0]))[0].tolist()
    [1.0, 2.0]
    """
    values, vectors = run_serial(lambda _: torch.linalg.eigh(torch.from_numpy(matrix)), 1)[0]
    return values.numpy(), vectors.numpy()
