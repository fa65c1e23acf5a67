"""The compressed adjacency and blocks in the device's memory, as the tables that kernels read."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mge_gpu.backends.adjacency import Adjacency, Block
from mge_gpu.backends.cuda.cupy_runtime import BLOCK
from mge_gpu.backends.cuda.runtime import Runtime

BLOCK_ARRAYS = ("target_channel", "source_channel", "tap", "weight", "run_ptr", "runs")
"""Fields of `Block` that kernels read, in the order of ``struct Block`` in ``kernels/block.cuh``."""

BLOCK_NUMBERS = ("source_offset", "target_offset", "source_channel_stride", "target_channel_stride")


DIRECT = 1 << 18
"""Bytes from which on an array goes to the device straight from where it lies: CuPy would copy it to locked
memory first, which takes longer (2 MiB in 0.30 ms for 0.16 on an H200's host), and keep that."""


def uploaded(runtime: Runtime, array: np.ndarray) -> Any:
    """A copy of an array on the device."""
    array = np.ascontiguousarray(array)
    if array.nbytes < DIRECT:
        return runtime.xp.asarray(array)
    out = runtime.xp.empty(array.shape, array.dtype)
    out.set(array)
    return out


PACKED = 1 << 18
"""Bytes up to which arrays go to the device side by side: each copy takes longer than what it brings."""

ALIGNED = 16
"""Bytes of which packed arrays begin at multiples."""


class Resident:
    """Arrays on the device and the table of their addresses, followed by some numbers."""

    def __init__(self, runtime: Runtime, arrays: Sequence[np.ndarray], numbers: Sequence[int]) -> None:
        self.alone = {k: uploaded(runtime, a) for k, a in enumerate(arrays) if a.nbytes > PACKED}
        packed = {k: a for k, a in enumerate(arrays) if k not in self.alone}
        sizes = [8 * (len(arrays) + len(numbers)), *(a.nbytes for a in packed.values())]
        *starts, end = np.cumsum([0, *(-(-size // ALIGNED) * ALIGNED for size in sizes)]).tolist()
        self.together = runtime.xp.empty(end, np.uint8)
        base = runtime.address(self.together)
        at = dict(zip(packed, starts[1:], strict=True))
        address = [base + at[k] if k in at else runtime.address(self.alone[k]) for k in range(len(arrays))]
        table = np.array([*address, *numbers], np.int64)
        filled = np.zeros(end, np.uint8)
        for start, array in zip(starts, (table, *packed.values()), strict=True):
            filled[start : start + array.nbytes] = np.ascontiguousarray(array).ravel().view(np.uint8)
        self.together.set(filled)
        self.table: Any = self.together[: table.nbytes]


def resident_adjacency(runtime: Runtime, adjacency: Adjacency) -> Resident:
    """``struct Adjacency`` of ``kernels/adjacency.cuh``."""
    sizes = [len(adjacency.divisor), adjacency.num_nodes, adjacency.num_hubs]
    return Resident(runtime, adjacency, sizes)


def resident_block(runtime: Runtime, block: Block) -> Resident:
    """``struct Block`` of ``kernels/block.cuh``."""
    numbers = [len(block.tap), *(getattr(block, name) for name in BLOCK_NUMBERS), sharers(block)]
    return Resident(runtime, [getattr(block, name) for name in BLOCK_ARRAYS], numbers)


def sharers(block: Block) -> int:
    """Threads that share a nonzero: a power of two, about its pairs of positions, at most a block.

    >>> from types import SimpleNamespace
    >>> [sharers(SimpleNamespace(pair_count=np.array(n))) for n in ([1, 1], [49, 36], [3136], [])]
    [1, 64, 256, 1]
    """
    most = int(block.pair_count.max(initial=1))
    return min(1 << (most - 1).bit_length(), BLOCK)


def sharing(runtime: Runtime, block: Block) -> int:
    """Blocks of threads of a launch in which each nonzero has its `sharers`."""
    return runtime.threads(len(block.tap) * sharers(block))


JOINED = 1 << 18
"""Values up to which arrays are copied together on the host, to go to the device at once."""


def side_by_side(runtime: Runtime, arrays: Sequence[np.ndarray], dtype: Any) -> Any:
    """Arrays of the host one after another in one array of the device.

    Large ones go there directly: copies on the host cost more than the way.
    """
    size = sum(len(a) for a in arrays)
    if size <= JOINED or len(arrays) == 1:
        return uploaded(runtime, np.concatenate(arrays).astype(dtype, copy=False))
    whole, at = runtime.xp.empty(size, dtype), 0
    waiting: list[np.ndarray] = []
    for k, array in enumerate(arrays):
        waiting.append(array)
        if k + 1 < len(arrays) and sum(map(len, waiting)) + len(arrays[k + 1]) <= JOINED:
            continue
        together = waiting[0] if len(waiting) == 1 else np.concatenate(waiting)
        whole[at : at + len(together)].set(np.ascontiguousarray(together, dtype))
        at, waiting = at + len(together), []
    return whole
