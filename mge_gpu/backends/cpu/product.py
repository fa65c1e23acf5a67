"""Matrix-vector products with the adjacency, straight from the blocks."""

from collections.abc import Callable, Sequence

import numba
import numpy as np

from mge_gpu.backends.adjacency import Block
from mge_gpu.backends.cpu.threads import balanced, num_threads, run


@numba.njit(inline="always")
def _along(w: float, x: np.ndarray, s: int, ds: int, y: np.ndarray, t: int, dt: int, n: int) -> None:
    """y[t + j dt] += w x[s + j ds] for j < n. Slices spare the loop the check for negative indices."""
    if ds == 1 and dt == 1:
        a, b = x[s : s + n], y[t : t + n]
        for j in range(n):
            b[j] += w * a[j]
    elif dt == 0 and ds == 1:
        total = 0.0
        a = x[s : s + n]
        for j in range(n):
            total += a[j]
        y[t] += w * total
    elif ds == 0 and dt == 1:
        add = w * x[s]
        b = y[t : t + n]
        for j in range(n):
            b[j] += add
    elif dt == 1:
        b = y[t : t + n]
        for j in range(n):
            b[j] += w * x[np.uint64(s + j * ds)]
    elif ds == 1:
        a = x[s : s + n]
        for j in range(n):
            y[np.uint64(t + j * dt)] += w * a[j]
    else:
        for j in range(n):
            y[np.uint64(t + j * dt)] += w * x[np.uint64(s + j * ds)]


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def accumulate(
    target_channel: np.ndarray,
    source_channel: np.ndarray,
    tap: np.ndarray,
    weight: np.ndarray,
    first: int,
    last: int,
    run_ptr: np.ndarray,
    runs: np.ndarray,
    target_offset: int,
    source_offset: int,
    target_stride: int,
    source_stride: int,
    x: np.ndarray,
    y: np.ndarray,
    forward: bool,
    backward: bool,
) -> None:
    """Add W x (if ``forward``) and W^T x (if ``backward``) of nonzeros first..last to y."""
    for k in range(first, last):
        t0 = target_offset + np.int64(target_channel[k]) * target_stride
        s0 = source_offset + np.int64(source_channel[k]) * source_stride
        w = np.float64(weight[k])
        for r in range(run_ptr[tap[k]], run_ptr[tap[k] + 1]):
            t, s, n, dt, ds = runs[r, 0] + t0, runs[r, 1] + s0, runs[r, 2], runs[r, 3], runs[r, 4]
            if forward:
                _along(w, x, s, ds, y, t, dt, n)
            if backward:
                _along(w, x, t, dt, y, s, ds, n)


def operator(forward: Sequence[Block], backward: Sequence[Block]) -> Callable[[np.ndarray], np.ndarray]:
    """x -> A^T x (towards targets) over ``forward`` plus A x over ``backward``; (N,) float64 to the same.

    Each core adds into a vector of its own, so the result does not depend on their timing.
    """
    both = {id(b) for b in forward} & {id(b) for b in backward}
    work = [(b, True, id(b) in both) for b in forward] + [
        (b, False, True) for b in backward if id(b) not in both
    ]
    size = max((len(b.tap) for b, _, _ in work), default=0)
    parts = num_threads() if size > 1 << 10 else 1
    cuts = [balanced(b.pair_count[b.tap], parts) for b, _, _ in work]

    def apply(x: np.ndarray) -> np.ndarray:
        x = np.ascontiguousarray(x, np.float64)
        out = [np.zeros(len(x), np.float64) for _ in range(parts)]

        def task(k: int) -> None:
            for (b, ahead, back), c in zip(work, cuts, strict=True):
                accumulate(
                    b.target_channel,
                    b.source_channel,
                    b.tap,
                    b.weight,
                    c[k],
                    c[k + 1],
                    b.run_ptr,
                    b.runs,
                    b.target_offset,
                    b.source_offset,
                    b.target_channel_stride,
                    b.source_channel_stride,
                    x,
                    out[k],
                    ahead,
                    back,
                )

        run(task, parts)
        for extra in out[1:]:
            out[0] += extra
        return out[0]

    return apply
