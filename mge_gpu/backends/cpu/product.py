"""Matrix-vector products with the adjacency, straight from the blocks.

A block is sum_k W_k (x) R_k. Nonzeros that share source channel and tap share R_k x: it is gathered
once, and each of them adds a multiple of that map to its target channel, a loop over contiguous memory.
Blocks in which most weights are there go through dense matrix products instead (`product_dense`).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numba
import numpy as np

from mge_gpu.backends.adjacency import Block
from mge_gpu.backends.cpu.jit import SUM, jit_in_place
from mge_gpu.backends.cpu.product_dense import DenseBlock, add_rows, load_rows, used_pairs
from mge_gpu.backends.cpu.product_runs import collect, spread
from mge_gpu.backends.cpu.reach import furthest, sides
from mge_gpu.backends.cpu.serial import run_serial
from mge_gpu.backends.cpu.threads import balanced, evenly, num_threads, run


class Groups(NamedTuple):
    """The nonzeros of a block grouped by (source channel, tap)."""

    source_channel: np.ndarray  # (groups,) int64
    tap: np.ndarray  # (groups,) int64
    ptr: np.ndarray  # (groups + 1,) int64
    target_channel: np.ndarray  # (nonzeros,) int32
    weight: np.ndarray  # (nonzeros,) float32


@jit_in_place
def _count(source_channel: np.ndarray, tap: np.ndarray, taps: int, start: np.ndarray) -> None:
    for k in range(len(tap)):
        start[np.int64(source_channel[k]) * taps + tap[k] + 1] += 1


@jit_in_place
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


@numba.njit(**SUM)
def accumulate(
    groups: Groups,
    first: int,
    last: int,
    run_ptr: np.ndarray,
    runs: np.ndarray,
    pair_count: np.ndarray,
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

    ``runs`` counts positions of the target, nodes of the source. ``shared`` is scratch of one value a
    target position.
    """
    positions = len(shared)
    for g in range(first, last):
        s0 = source_offset + groups.source_channel[g] * source_stride
        lo, hi = groups.ptr[g], groups.ptr[g + 1]
        tap = groups.tap[g]
        a, b = run_ptr[tap], run_ptr[tap + 1]
        plain = b - a == 1 and runs[a, 3] == 1 and runs[a, 4] == 1
        if plain or (hi - lo == 1 and pair_count[tap] <= 2 * positions):
            for k in range(lo, hi):
                w = groups.weight[k]
                t0 = target_offset + np.int64(groups.target_channel[k]) * target_stride
                for r in range(a, b):
                    t, s, n = runs[r, 0] * position_stride + t0, runs[r, 1] + s0, runs[r, 2]
                    dt, ds = runs[r, 3] * position_stride, runs[r, 4]
                    if forward:
                        _along(w, x, s, ds, y, t, dt, n)
                    if backward:
                        _along(w, x, t, dt, y, s, ds, n)
            continue
        if forward:
            shared[:] = 0
            collect(runs, a, b, s0, x, shared)
            for k in range(lo, hi):
                t0 = target_offset + np.int64(groups.target_channel[k]) * target_stride
                _along(groups.weight[k], shared, 0, 1, y, t0, position_stride, positions)
        if backward:
            shared[:] = 0
            for k in range(lo, hi):
                t0 = target_offset + np.int64(groups.target_channel[k]) * target_stride
                _along(groups.weight[k], x, t0, position_stride, shared, 0, 1, positions)
            spread(runs, a, b, s0, shared, y)


class Side(NamedTuple):
    """Source or target of a block, copied channel by channel to ``first`` on."""

    first: int
    channels: int
    positions: int
    offset: int
    stride: int  # between channels
    step: int  # between positions

    @property
    def size(self) -> int:
        """Values that it takes."""
        return self.channels * self.positions

    def of(self, vector: np.ndarray) -> np.ndarray:
        """Its rows in a vector of both sides, (channels, positions)."""
        return vector[self.first : self.first + self.size].reshape(self.channels, self.positions)


def staged(b: Block) -> tuple[Block, Side, Side] | None:
    """The block on vectors of its own, channel by channel, and where its two sides come from.

    None where positions lie next to one another already.
    """
    source0, length, step = b.runs[:, 1], b.runs[:, 2], b.runs[:, 4]
    apart = int(np.gcd.reduce(np.concatenate([source0, step]))) if len(b.runs) else 0
    if b.target_position_stride == 1 and apart <= 1:
        return None
    apart = apart or 1  # a single position
    last = int((np.maximum(step, 0) * (length - 1) + source0).max(initial=0)) // apart
    channels = int(b.source_channel.max(initial=-1)) + 1
    source = Side(0, channels, last + 1, b.source_offset, b.source_channel_stride, apart)
    targets = int(b.target_channel.max(initial=-1)) + 1
    target = Side(
        source.size,
        targets,
        b.target_positions,
        b.target_offset,
        b.target_channel_stride,
        b.target_position_stride,
    )
    runs = b.runs // np.array([b.target_position_stride, apart, 1, b.target_position_stride, apart])
    near = b._replace(
        source_offset=0,
        target_offset=target.first,
        source_channel_stride=source.positions,
        target_channel_stride=target.positions,
        target_position_stride=1,
        runs=runs,
    )
    return near, source, target


class SparseBlock:
    """A block with its nonzeros grouped by (source channel, tap).

    Where channels run fastest on either side (tokens), its part of the vectors is first copied channel by
    channel, and back at the end: steps from one position to the next would miss the cache.
    """

    def __init__(self, b: Block, parts: int) -> None:
        self.groups = group(b)
        self.staged = staged(b)
        self.block = b = self.staged[0] if self.staged else b
        self.runs = b.runs // np.array([b.target_position_stride, 1, 1, b.target_position_stride, 1])
        cost = np.maximum(b.pair_count[self.groups.tap], 16) * (np.diff(self.groups.ptr) + 1)
        self.cuts = balanced(cost, parts)

    def add(self, part: int, x: np.ndarray, y: np.ndarray, forward: bool, backward: bool) -> None:
        """Add part ``part`` of W x (``forward``) and of W^T x (``backward``) to y."""
        if self.staged is None:
            return self._add(part, x, y, forward, backward)
        sides = self.staged[1:]
        near = np.empty(sum(s.size for s in sides), x.dtype)
        far = np.zeros(len(near), y.dtype)
        for side in sides:
            load_rows(x, side.offset, side.stride, side.step, side.of(near))
        self._add(part, near, far, forward, backward)
        for side, wanted in zip(sides, (backward, forward), strict=True):
            if wanted:
                add_rows(side.of(far), y, side.offset, side.stride, side.step)
        return None

    def _add(self, part: int, x: np.ndarray, y: np.ndarray, forward: bool, backward: bool) -> None:
        b = self.block
        accumulate(
            self.groups,
            self.cuts[part],
            self.cuts[part + 1],
            b.run_ptr,
            self.runs,
            b.pair_count,
            b.target_offset,
            b.source_offset,
            b.target_channel_stride,
            b.source_channel_stride,
            b.target_position_stride,
            x,
            y,
            np.empty(b.target_positions, x.dtype),
            forward,
            backward,
        )


DENSE_BYTES = 1 << 27  # a dense weight matrix larger than this must save memory, too


def costs(b: Block, pairs: np.ndarray) -> tuple[float, float]:
    """Estimated nanoseconds of both directions on one core: (sparse, dense).

    Fitted to the layers of `benchmarks/crossover.py` on an AMD EPYC: the engine chosen takes 1 % longer there
    than the faster one, 64 % at worst (0.3 ms, a linear layer).
    """
    nonzeros, positions, taps = len(b.tap), b.target_positions, len(b.pair_count)
    targets = int(b.target_channel.max(initial=-1)) + 1
    moved = float(b.pair_count[pairs % max(taps, 1)].sum())
    sparse = nonzeros * (6 + 0.13 * positions) + 2.0 * moved
    if b.target_position_stride > 1:  # both sides are copied there and back
        sparse += 6.0 * (targets + len(pairs) / max(taps, 1)) * positions
    dense = targets * len(pairs) * (0.3 + 0.05 * positions) + 1.5 * moved
    dense += 2.0 * (targets + len(pairs)) * positions
    return sparse, dense


def choose(
    b: Block, parts: int, dtype: type[np.floating], engine: str | None = None
) -> SparseBlock | DenseBlock:
    """A block ready for its products, by the engine that is estimated to be faster (or the given one)."""
    pairs = used_pairs(b)
    if engine is None:
        sparse, dense = costs(b, pairs)
        size = (int(b.target_channel.max(initial=-1)) + 1) * len(pairs) * np.dtype(dtype).itemsize
        fits = size <= max(DENSE_BYTES, 8 * len(b.tap))
        engine = "dense" if len(b.tap) and dense < sparse and fits else "sparse"
    return DenseBlock(b, pairs, parts, dtype) if engine == "dense" else SparseBlock(b, parts)


def written(blocks: Sequence[tuple[Block, bool, bool]]) -> slice:
    """From the first to the last node that blocks add to, as targets (ahead) and as sources (back)."""
    found = []
    for b, ahead, back in blocks:
        source, target = sides(b)
        for side, wanted in ((target, ahead), (source, back)):
            if wanted and len(b.tap):
                last = side.offset + int(side.channel.max()) * side.stride + furthest(side, b.runs)
                found.append((side.offset, last + 1))
    return slice(min((a for a, _ in found), default=0), max((b for _, b in found), default=0))


class Operator:
    """x -> A^T x (towards targets) over some blocks plus A x over some; made by `operator`.

    ``written``: the nodes outside which products are zero. ``spare``: vectors for the cores to add into, used
    again, since to ask the system for new ones and for their pages takes as long as a product may.
    """

    def __init__(
        self,
        work: list[tuple[SparseBlock | DenseBlock, bool, bool]],
        parts: int,
        dtype: type[np.floating],
        written: slice,
        spare: list[np.ndarray],
    ) -> None:
        self.work, self.parts, self.dtype, self.written, self.spare = work, parts, dtype, written, spare
        self.dense = sum(isinstance(block, DenseBlock) for block, _, _ in work)
        self.sparse = len(work) - self.dense

    @property
    def how(self) -> str:
        """Which engines were chosen."""
        return f"{self.dense} blocks dense, {self.sparse} sparse"

    def __call__(self, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The product, (N,) float64, or float32 for a float32 ``x`` and operator; see `Backend.operator`."""
        wide, here = np.asarray(x).dtype == np.float64, self.written
        x = np.ascontiguousarray(x, self.dtype)
        y = np.empty(len(x), self.dtype) if out is None or out.dtype != self.dtype else out
        parts = [y, *(self._spare(len(x)) for _ in range(self.parts - 1))]

        def task(k: int) -> None:
            parts[k][here if k else slice(None)] = 0
            for block, ahead, back in self.work:
                block.add(k, x, parts[k], ahead, back)

        (run_serial if self.dense else run)(task, self.parts)
        cuts = here.start + evenly(here.stop - here.start, self.parts)

        def join(k: int) -> None:
            for extra in parts[1:]:
                y[cuts[k] : cuts[k + 1]] += extra[cuts[k] : cuts[k + 1]]

        run(join, self.parts, short=True)
        self.spare += parts[1:]  # not after an interruption: tasks under way still write to them
        return y.astype(np.float64, copy=False) if wide else y

    def _spare(self, n: int) -> np.ndarray:
        found = self.spare.pop() if self.spare else None
        return found if found is not None and len(found) == n else np.empty(n, self.dtype)


def operator(
    forward: Sequence[Block],
    backward: Sequence[Block],
    dtype: type[np.floating] = np.float64,
    engine: str | None = None,
    prepared: dict[Any, Any] | None = None,
) -> Operator:
    """x -> A^T x (towards targets) over ``forward`` plus A x over ``backward``, in ``dtype``.

    Each core adds into a vector of its own, so the result does not depend on their timing.
    ``engine``: "sparse" or "dense" for all blocks; by default the one that is estimated to be faster.
    ``prepared`` keeps blocks as they were made ready for products; operators that share it share them.
    """
    ready: dict[Any, Any] = {} if prepared is None else prepared
    both = {id(b) for b in forward} & {id(b) for b in backward}
    chosen = [(b, True, id(b) in both) for b in forward] + [
        (b, False, True) for b in backward if id(b) not in both
    ]
    work = sum(len(b.tap) * max(b.target_positions, 1) for b, _, _ in chosen)
    parts = num_threads() if work > 1 << 18 else 1
    for b, _, _ in chosen:
        if (key := (id(b), parts, dtype, engine)) not in ready:
            ready[key] = choose(b, parts, dtype, engine)
    work_of = [(ready[id(b), parts, dtype, engine], ahead, back) for b, ahead, back in chosen]
    return Operator(work_of, parts, dtype, written(chosen), ready.setdefault(("spare", dtype), []))
