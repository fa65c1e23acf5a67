"""R_k x and R_k^T y of one tap, along its runs of position pairs."""

import numba
import numpy as np

from mge_gpu.backends.cpu.jit import SUM


@numba.njit(inline="always")
def _same(runs: np.ndarray, r: int, column: int) -> bool:
    """Whether runs r and r + 1 agree in that column, in length and in steps."""
    return (
        runs[r + 1, column] == runs[r, column]
        and runs[r + 1, 2] == runs[r, 2]
        and runs[r + 1, 3] == runs[r, 3]
        and runs[r + 1, 4] == runs[r, 4]
    )


@numba.njit(**SUM)
def collect(runs: np.ndarray, first: int, last: int, base: int, x: np.ndarray, row: np.ndarray) -> None:
    """row += R x over the runs first..last: targets index ``row``, sources count from x[base].

    Where every target reads every source, runs that spread one value over the same range (or sum up the
    same range) follow each other: they are summed first, then spread. Such a tap costs its sources
    plus its targets, not their product.
    """
    zero = row[:1].sum() * 0  # of the arrays' type
    r = first
    while r < last:
        a, n, dt = np.int64(runs[r, 0]), np.int64(runs[r, 2]), np.int64(runs[r, 3])
        s, ds = base + runs[r, 1], np.int64(runs[r, 4])
        if dt == 1 and ds == 1:  # slices spare the loop the check for negative indices
            out, source = row[a : a + n], x[s : s + n]
            for j in range(n):
                out[j] += source[j]
        elif dt == 1 and ds == 0:
            value = x[s]
            while r + 1 < last and _same(runs, r, 0):
                r += 1
                value += x[base + runs[r, 1]]
            out = row[a : a + n]
            for j in range(n):
                out[j] += value
        elif dt == 0:
            total = zero
            if ds == 1:
                source = x[s : s + n]
                for j in range(n):
                    total += source[j]
            else:
                for j in range(n):
                    total += x[np.uint64(s + j * ds)]
            row[a] += total
            while r + 1 < last and _same(runs, r, 1):
                r += 1
                row[runs[r, 0]] += total
        else:
            for j in range(n):
                row[np.uint64(a + j * dt)] += x[np.uint64(s + j * ds)]
        r += 1


@numba.njit(**SUM)
def spread(runs: np.ndarray, first: int, last: int, base: int, row: np.ndarray, y: np.ndarray) -> None:
    """The transpose of `collect`: y += R^T row."""
    zero = row[:1].sum() * 0
    r = first
    while r < last:
        a, n, dt = np.int64(runs[r, 0]), np.int64(runs[r, 2]), np.int64(runs[r, 3])
        s, ds = base + runs[r, 1], np.int64(runs[r, 4])
        if dt == 1 and ds == 1:
            out, source = y[s : s + n], row[a : a + n]
            for j in range(n):
                out[j] += source[j]
        elif dt == 1 and ds == 0:
            source = row[a : a + n]
            total = zero
            for j in range(n):
                total += source[j]
            y[s] += total
            while r + 1 < last and _same(runs, r, 0):
                r += 1
                y[base + runs[r, 1]] += total
        elif dt == 0:
            value = row[a]
            while r + 1 < last and _same(runs, r, 1):
                r += 1
                value += row[runs[r, 0]]
            if ds == 1:
                out = y[s : s + n]
                for j in range(n):
                    out[j] += value
            else:
                for j in range(n):
                    y[np.uint64(s + j * ds)] += value
        else:
            for j in range(n):
                y[np.uint64(s + j * ds)] += row[np.uint64(a + j * dt)]
        r += 1
