"""Matrix-vector products with the adjacency, straight from the blocks."""

from collections.abc import Callable, Sequence

import numpy as np

from mge_gpu.backends.adjacency import Block
from mge_gpu.backends.cpu.compress import jit
from mge_gpu.backends.cpu.threads import balanced, num_threads, run


@jit
def accumulate(target_channel: np.ndarray, source_channel: np.ndarray, tap: np.ndarray, weight: np.ndarray,
               first: int, last: int, run_ptr: np.ndarray, runs: np.ndarray, target_offset: int,
               source_offset: int, target_stride: int, source_stride: int, x: np.ndarray,
               to_target: np.ndarray, to_source: np.ndarray, forward: bool, backward: bool) -> None:  # fmt: skip
    """Add W x of nonzeros first..last to ``to_target`` and W^T x to ``to_source``."""
    for k in range(first, last):
        t0 = target_offset + np.int64(target_channel[k]) * target_stride
        s0 = source_offset + np.int64(source_channel[k]) * source_stride
        w = np.float64(weight[k])
        for r in range(run_ptr[tap[k]], run_ptr[tap[k] + 1]):
            t, s, n, dt, ds = runs[r, 0] + t0, runs[r, 1] + s0, runs[r, 2], runs[r, 3], runs[r, 4]
            if forward:
                if dt == 1 and ds == 1:
                    for j in range(n):
                        to_target[t + j] += w * x[s + j]
                elif dt == 0:
                    total = 0.0
                    for j in range(n):
                        total += x[s + j * ds]
                    to_target[t] += w * total
                else:
                    for j in range(n):
                        to_target[t + j * dt] += w * x[s + j * ds]
            if backward:
                if dt == 1 and ds == 1:
                    for j in range(n):
                        to_source[s + j] += w * x[t + j]
                elif ds == 0:
                    total = 0.0
                    for j in range(n):
                        total += x[t + j * dt]
                    to_source[s] += w * total
                else:
                    for j in range(n):
                        to_source[s + j * ds] += w * x[t + j * dt]


def operator(forward: Sequence[Block], backward: Sequence[Block]) -> Callable[[np.ndarray], np.ndarray]:
    """x -> A^T x (towards targets) over ``forward`` plus A x over ``backward``; (N,) float64 to the same.

    Each core adds into a vector of its own, so the result does not depend on their timing.
    """
    both = {id(b) for b in forward} & {id(b) for b in backward}
    work = [(b, True, id(b) in both) for b in forward] + [(b, False, True) for b in backward if id(b) not in both]
    size = max((len(b.tap) for b, _, _ in work), default=0)
    parts = num_threads() if size > 1 << 10 else 1
    cuts = [balanced(b.pair_count[b.tap], parts) for b, _, _ in work]

    def apply(x: np.ndarray) -> np.ndarray:
        x = np.ascontiguousarray(x, np.float64)
        out = [np.zeros(len(x), np.float64) for _ in range(parts)]

        def task(k: int) -> None:
            for (b, ahead, back), c in zip(work, cuts, strict=True):
                accumulate(
                    b.target_channel, b.source_channel, b.tap, b.weight, c[k], c[k + 1], b.run_ptr, b.runs,
                    b.target_offset, b.source_offset, b.target_channel_stride, b.source_channel_stride, x,
                    out[k], out[k], ahead, back,
                )  # fmt: skip

        run(task, parts)
        for extra in out[1:]:
            out[0] += extra
        return out[0]

    return apply
