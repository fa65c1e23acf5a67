"""Products with one block as dense matrix products, a tile of target positions at a time.

For a tile, Z holds R_k x for each pair (source channel, tap). With W (target channels, pairs) dense, the
target rows are W Z, and W^T times the target rows of x is spread over the source channels. This works
for every block, convolution or not, and is the faster way where most weights are there.
"""

from typing import NamedTuple

import numpy as np
import torch

from mge_gpu.backends.adjacency import Block
from mge_gpu.backends.cpu.jit import jit, jit_in_place
from mge_gpu.backends.cpu.product_runs import collect, spread

SCRATCH = 1 << 19  # values that the scratch of a tile may hold: it stays in the cache
NARROWEST, WIDEST = 64, 1024  # positions of a tile


class Tiles(NamedTuple):
    """A block cut into tiles of target positions. Runs are clipped to tiles."""

    start: np.ndarray  # (tiles + 1,) int64: first target position
    run_ptr: np.ndarray  # (tiles * taps + 1,) int64
    runs: np.ndarray  # (runs, 5) int32: target - start, source, length, target step, source step; the source
    # counts nodes, the target positions
    pair_channel: np.ndarray  # (pairs,) int32: source channel
    pair_tap: np.ndarray  # (pairs,) int32


@jit_in_place
def _clip(
    run_ptr: np.ndarray, runs: np.ndarray, start: np.ndarray, ptr: np.ndarray, out: np.ndarray, fill: bool
) -> int:
    """Runs cut at tile borders, sorted by (tile, tap): counted first, then written."""
    taps, width = len(run_ptr) - 1, start[1] - start[0]
    total = 0
    for tap in range(taps):
        for r in range(run_ptr[tap], run_ptr[tap + 1]):
            t, s, n, dt, ds = runs[r, 0], runs[r, 1], runs[r, 2], runs[r, 3], runs[r, 4]
            j = 0
            while j < n:
                tile = (t + j * dt) // width
                if dt > 0:
                    end = min(n, (start[tile + 1] - 1 - t) // dt + 1)
                elif dt < 0:
                    end = min(n, (t - start[tile]) // -dt + 1)
                else:
                    end = n
                key = tile * taps + tap
                if fill:
                    k = ptr[key]
                    ptr[key] = k + 1
                    out[k, 0] = t + j * dt - start[tile]
                    out[k, 1] = s + j * ds
                    out[k, 2] = end - j
                    out[k, 3] = dt
                    out[k, 4] = ds
                else:
                    ptr[key + 1] += 1
                total += 1
                j = end
    return total


def _tiles(b: Block, pairs: np.ndarray, targets: int, parts: int) -> Tiles:
    """Tiles of a block, where there are several a multiple of ``parts``, of about equal width."""
    taps, positions = len(b.pair_count), max(b.target_positions, 1)
    widest = int(np.clip(SCRATCH // max(len(pairs) + targets, 1), NARROWEST, WIDEST))
    tiles = -(-positions // widest)
    if tiles > 1:
        tiles = -(-tiles // parts) * parts
    start = np.append(np.arange(0, positions, -(-positions // tiles)), positions).astype(np.int64)
    runs = b.runs // np.array([b.target_position_stride, 1, 1, b.target_position_stride, 1])
    ptr = np.zeros((len(start) - 1) * taps + 1, np.int64)
    total = _clip(b.run_ptr, runs, start, ptr, np.zeros((0, 5), np.int32), False)
    np.cumsum(ptr, out=ptr)
    out = np.empty((total, 5), np.int32)
    _clip(b.run_ptr, runs, start, ptr[:-1].copy(), out, True)
    return Tiles(start, ptr, out, (pairs // taps).astype(np.int32), (pairs % taps).astype(np.int32))


@jit_in_place
def gather(t: Tiles, tile: int, taps: int, offset: int, stride: int, x: np.ndarray, z: np.ndarray) -> None:
    """z[pair, j] = (R_tap x_channel)[start + j]; x is read from ``offset``, one channel each ``stride``."""
    for pair in range(len(t.pair_tap)):
        key = tile * taps + t.pair_tap[pair]
        z[pair] = 0
        base = offset + np.int64(t.pair_channel[pair]) * stride
        collect(t.runs, t.run_ptr[key], t.run_ptr[key + 1], base, x, z[pair])


@jit_in_place
def scatter(t: Tiles, tile: int, taps: int, offset: int, stride: int, v: np.ndarray, y: np.ndarray) -> None:
    """The transpose of `gather`: adds R_tap^T v[pair] to the source channels of y."""
    for pair in range(len(t.pair_tap)):
        key = tile * taps + t.pair_tap[pair]
        base = offset + np.int64(t.pair_channel[pair]) * stride
        spread(t.runs, t.run_ptr[key], t.run_ptr[key + 1], base, v[pair], y)


@jit
def load_rows(x: np.ndarray, offset: int, stride: int, step: int, rows: np.ndarray) -> None:
    """rows[c, j] = x[offset + c stride + j step]."""
    n = rows.shape[1]
    if step == 1:
        for c in range(len(rows)):
            rows[c] = x[offset + c * stride : offset + c * stride + n]
    else:
        for j in range(n):
            for c in range(len(rows)):
                rows[c, j] = x[np.uint64(offset + c * stride + j * step)]


@jit_in_place
def add_rows(rows: np.ndarray, y: np.ndarray, offset: int, stride: int, step: int) -> None:
    """y[offset + c stride + j step] += rows[c, j]."""
    n = rows.shape[1]
    if step == 1:
        for c in range(len(rows)):
            out, row = y[offset + c * stride : offset + c * stride + n], rows[c]
            for j in range(n):
                out[j] += row[j]
    else:
        for j in range(n):
            for c in range(len(rows)):
                y[np.uint64(offset + c * stride + j * step)] += rows[c, j]


@jit_in_place
def _mark(source: np.ndarray, tap: np.ndarray, taps: int, used: np.ndarray) -> None:
    for k in range(len(source)):
        used[np.int64(source[k]) * taps + tap[k]] = True


@jit_in_place
def _fill(
    target: np.ndarray,
    source: np.ndarray,
    tap: np.ndarray,
    weight: np.ndarray,
    taps: int,
    column: np.ndarray,
    out: np.ndarray,
) -> None:
    for k in range(len(weight)):
        out[target[k], column[np.int64(source[k]) * taps + tap[k]]] += weight[k]


def used_pairs(b: Block) -> np.ndarray:
    """The pairs source channel * taps + tap that have a nonzero, ascending."""
    taps = len(b.pair_count)
    used = np.zeros((int(b.source_channel.max(initial=-1)) + 1) * taps, np.bool_)
    _mark(b.source_channel, b.tap, taps, used)
    return np.flatnonzero(used)


def _product(weight: torch.Tensor, z: torch.Tensor) -> np.ndarray:
    """weight (m, n) @ z (n, width), (m, width): where narrow as z^T weight^T, up to 19 times as fast."""
    if z.shape[1] >= NARROWEST:
        return torch.mm(weight, z).numpy()
    return torch.mm(z.t().contiguous(), weight.t()).t().contiguous().numpy()


class DenseBlock:
    """A block with its weights as one dense matrix, (target channels, pairs)."""

    def __init__(self, b: Block, pairs: np.ndarray, parts: int, dtype: type[np.floating]) -> None:
        self.block, self.parts = b, parts
        self.targets = int(b.target_channel.max(initial=-1)) + 1
        self.tiles = _tiles(b, pairs, self.targets, parts)
        column = np.zeros(int(pairs.max(initial=-1)) + 1, np.int64)
        column[pairs] = np.arange(len(pairs))
        weight = np.zeros((self.targets, len(pairs)), dtype)
        _fill(b.target_channel, b.source_channel, b.tap, b.weight, len(b.pair_count), column, weight)
        self.weight = torch.from_numpy(weight)

    def add(self, part: int, x: np.ndarray, y: np.ndarray, forward: bool, backward: bool) -> None:
        """Add part ``part`` of W x (``forward``) and of W^T x (``backward``) to y."""
        t, b, taps = self.tiles, self.block, len(self.block.pair_count)
        count, rows = len(t.start) - 1, self.targets
        low, high = 0, rows
        tiles = range(part * count // self.parts, (part + 1) * count // self.parts)
        if count < self.parts:  # too few to share out: share the target channels
            low, high, tiles = part * rows // self.parts, (part + 1) * rows // self.parts, range(count)
        weight = self.weight[low:high]
        first = b.target_offset + low * b.target_channel_stride
        step = b.target_position_stride
        for tile in tiles:
            width = int(t.start[tile + 1] - t.start[tile])
            at = first + int(t.start[tile]) * step
            if forward:
                z = np.empty((len(t.pair_tap), width), x.dtype)
                gather(t, tile, taps, b.source_offset, b.source_channel_stride, x, z)
                out = _product(weight, torch.from_numpy(z))
                add_rows(out, y, at, b.target_channel_stride, step)
            if backward:
                mine = np.empty((high - low, width), x.dtype)
                load_rows(x, at, b.target_channel_stride, step, mine)
                out = _product(weight.t(), torch.from_numpy(mine))
                scatter(t, tile, taps, b.source_offset, b.source_channel_stride, out, y)
