"""Matrix-vector products with the adjacency, straight from the blocks.

A block is sum_k W_k (x) R_k. Nonzeros that share source channel and tap share R_k x: it is gathered
once, and each of them adds a multiple of that map to its target channel, a loop over contiguous memory.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numba
import numpy as np

from mge_gpu.backends.adjacency import Block
from mge_gpu.backends.cpu.compress import jit
from mge_gpu.backends.cpu.threads import balanced, num_threads, run


class Groups(NamedTuple):
    """The nonzeros of a block grouped by (source channel, tap)."""

    source_channel: np.ndarray  # (groups,) int64
    tap: np.ndarray  # (groups,) int64
    ptr: np.ndarray  # (groups + 1,) int64
    target_channel: np.ndarray  # (nonzeros,) int32
    weight: np.ndarray  # (nonzeros,) float32


@jit
def _count(source_channel: np.ndarray, tap: np.ndarray, taps: int, start: np.ndarray) -> None:
    for k in range(len(tap)):
        start[np.int64(source_channel[k]) * taps + tap[k] + 1] += 1


@jit
def _place(
    source_channel: np.ndarray,
    tap: np.ndarray,
    taps: int,
    target_channel: np.ndarray,
    weight: np.ndarray,
    cursor: np.ndarray,
    target_out: np.ndarray,
    weight_out: np.ndarray,
) -> None:
    for k in range(len(tap)):
        key = np.int64(source_channel[k]) * taps + tap[k]
        at = cursor[key]
        cursor[key] = at + 1
        target_out[at] = target_channel[k]
        weight_out[at] = weight[k]


def group(block: Block) -> Groups:
    """Counting sort of a block's nonzeros by (source channel, tap)."""
    taps = len(block.pair_count)
    channels = int(block.source_channel.max(initial=-1)) + 1
    ptr = np.zeros(channels * taps + 1, np.int64)
    _count(block.source_channel, block.tap, taps, ptr)
    np.cumsum(ptr, out=ptr)
    target, weight = np.empty_like(block.target_channel), np.empty_like(block.weight)
    _place(
        block.source_channel,
        block.tap,
        taps,
        block.target_channel,
        block.weight,
        ptr[:-1].copy(),
        target,
        weight,
    )
    used = np.flatnonzero(np.diff(ptr))
    return Groups(used // max(taps, 1), used % max(taps, 1), np.append(ptr[used], ptr[-1]), target, weight)


@numba.njit(inline="always")
def _along(w: float, x: np.ndarray, s: int, ds: int, y: np.ndarray, t: int, dt: int, n: int) -> None:
    """y[t + j dt] += w x[s + j ds] for j < n. Slices spare the loop the check for negative indices."""
    if ds == 1 and dt == 1:
        a, b = x[s : s + n], y[t : t + n]
        for j in range(n):
            b[j] += w * a[j]
    elif dt == 0 and ds == 1:
        total = np.float32(0)  # becomes float64 beside a float64 x
        a = x[s : s + n]
        for j in range(n):
            total += a[j]
        y[t] += w * total
    elif ds == 0 and dt == 1:
        add = w * x[s]
        b = y[t : t + n]
        for j in range(n):
            b[j] += add
    else:
        for j in range(n):
            y[np.uint64(t + j * dt)] += w * x[np.uint64(s + j * ds)]


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def accumulate(
    groups: Groups,
    first: int,
    last: int,
    run_ptr: np.ndarray,
    runs: np.ndarray,
    target_offset: int,
    source_offset: int,
    target_stride: int,
    source_stride: int,
    position_stride: int,
    x: np.ndarray,
    y: np.ndarray,
    shared: np.ndarray,
    forward: bool,
    backward: bool,
) -> None:
    """Add W x (if ``forward``) and W^T x (if ``backward``) of groups first..last to y.

    ``shared`` is scratch of one value a target position.
    """
    one = np.float32(1)
    positions = len(shared)
    for g in range(first, last):
        s0 = source_offset + groups.source_channel[g] * source_stride
        lo, hi = groups.ptr[g], groups.ptr[g + 1]
        a, b = run_ptr[groups.tap[g]], run_ptr[groups.tap[g] + 1]
        plain = b - a == 1 and runs[a, 3] == 1 and runs[a, 4] == 1
        if plain or hi - lo == 1:
            for k in range(lo, hi):
                w = groups.weight[k]
                t0 = target_offset + np.int64(groups.target_channel[k]) * target_stride
                for r in range(a, b):
                    t, s, n, dt, ds = runs[r, 0] + t0, runs[r, 1] + s0, runs[r, 2], runs[r, 3], runs[r, 4]
                    if forward:
                        _along(w, x, s, ds, y, t, dt, n)
                    if backward:
                        _along(w, x, t, dt, y, s, ds, n)
            continue
        if forward:
            shared[:] = 0
            for r in range(a, b):
                t, dt = runs[r, 0] // position_stride, runs[r, 3] // position_stride
                _along(one, x, runs[r, 1] + s0, runs[r, 4], shared, t, dt, runs[r, 2])
            for k in range(lo, hi):
                t0 = target_offset + np.int64(groups.target_channel[k]) * target_stride
                _along(groups.weight[k], shared, 0, 1, y, t0, position_stride, positions)
        if backward:
            shared[:] = 0
            for k in range(lo, hi):
                t0 = target_offset + np.int64(groups.target_channel[k]) * target_stride
                _along(groups.weight[k], x, t0, position_stride, shared, 0, 1, positions)
            for r in range(a, b):
                t, dt = runs[r, 0] // position_stride, runs[r, 3] // position_stride
                _along(one, shared, t, dt, y, runs[r, 1] + s0, runs[r, 4], runs[r, 2])


def operator(
    forward: Sequence[Block], backward: Sequence[Block], dtype: type[np.floating] = np.float64
) -> Callable[[np.ndarray], np.ndarray]:
    """x -> A^T x (towards targets) over ``forward`` plus A x over ``backward``, in ``dtype``; (N,) float64.

    Each core adds into a vector of its own, so the result does not depend on their timing.
    """
    both = {id(b) for b in forward} & {id(b) for b in backward}
    chosen = [(b, True, id(b) in both) for b in forward] + [
        (b, False, True) for b in backward if id(b) not in both
    ]
    parts = num_threads() if max((len(b.tap) for b, _, _ in chosen), default=0) > 1 << 10 else 1
    work = []
    for block, ahead, back in chosen:
        groups = group(block)
        cost = block.pair_count[groups.tap] * np.diff(groups.ptr)
        work.append((block, groups, balanced(cost, parts), ahead, back))

    def apply(x: np.ndarray) -> np.ndarray:
        x = np.ascontiguousarray(x, dtype)
        out = [np.zeros(len(x), dtype) for _ in range(parts)]

        def task(k: int) -> None:
            for b, groups, cuts, ahead, back in work:
                accumulate(
                    groups,
                    cuts[k],
                    cuts[k + 1],
                    b.run_ptr,
                    b.runs,
                    b.target_offset,
                    b.source_offset,
                    b.target_channel_stride,
                    b.source_channel_stride,
                    b.target_position_stride,
                    x,
                    out[k],
                    np.empty(b.target_positions, dtype),
                    ahead,
                    back,
                )

        run(task, parts)
        for extra in out[1:]:
            out[0] += extra
        return out[0].astype(np.float64, copy=False)

    return apply
