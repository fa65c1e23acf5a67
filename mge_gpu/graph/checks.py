"""Whether arrays that were read from a file fit together: kernels index by them without looking."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mge_gpu.backends.adjacency import CROSSED, FLAT, OWN, Block
from mge_gpu.graph.views import seen
from mge_gpu.tracing.program import MAX_NODES, Partition

_BLOCK = {
    "target_channel": np.int32, "source_channel": np.int32, "tap": np.int32, "weight": np.float32,
    "run_ptr": np.int64, "runs": np.int64, "pair_count": np.int64,
}  # fmt: skip


def sound_partitions(partitions: Sequence[Partition], named: Sequence[int]) -> bool:
    """Whether partitions follow one another without gaps, and ``named`` are indices of some."""
    offset = 0
    for p in partitions:
        whole = all(isinstance(n, int) and n >= 0 for n in (p.offset, p.channel_dim, *p.shape))
        if not whole or p.channel_dim >= len(p.shape) or p.offset != offset:
            return False
        offset += p.size
    return all(isinstance(k, int) and 0 <= k < len(partitions) for k in named)


def _is_array(x: Any, dtype: type, dims: int) -> bool:
    return isinstance(x, np.ndarray) and x.dtype == dtype and x.ndim == dims


def _is_pointer(ptr: np.ndarray, rows: int, members: int) -> bool:
    sized = len(ptr) == rows + 1 and len(ptr) > 0 and ptr[0] == 0 and ptr[-1] == members
    return sized and bool((np.diff(ptr) >= 0).all())


def sound_block(source: int, target: int, b: Block, partitions: Sequence[Partition]) -> bool:
    """Whether every index of a block stays within its two partitions."""
    if not all(isinstance(k, int) and 0 <= k < len(partitions) for k in (source, target)):
        return False
    s, t = partitions[source], partitions[target]
    if type(b.view) is not int or b.view not in (OWN, FLAT, CROSSED) or not isinstance(b.overlaps, bool):
        return False
    placed: dict[str, int] = {}
    near = seen(s, b.view)
    for side, p in (("source", near), ("target", t)):
        for what in ("offset", "channel_stride", "position_stride", "positions"):
            placed[f"{side}_{what}"] = getattr(p, what)
    channels, positions, step = near.channels, near.positions, near.position_stride
    if b.view == FLAT:
        placed["source_channel_stride"] = 0
    for name, field in b._asdict().items():
        if name in _BLOCK:
            if not _is_array(field, _BLOCK[name], 2 if name == "runs" else 1):
                return False
        elif name not in ("overlaps", "view") and field != placed[name]:
            return False
    size, taps = len(b.weight), len(b.pair_count)
    fits = (
        len(b.target_channel) == len(b.source_channel) == len(b.tap) == size
        and b.runs.shape[1] == 5
        and _is_pointer(b.run_ptr, taps, len(b.runs))
        and bool((np.isfinite(b.weight) & (b.weight >= 0)).all())
        and bool((np.diff(b.target_channel) >= 0).all())
    )
    for index, bound in ((b.target_channel, t.channels), (b.source_channel, channels), (b.tap, taps)):
        fits = fits and bool(((index >= 0) & (index < bound)).all())
    if not fits:
        return False
    target0, source0, length, target_step, source_step = b.runs.T
    repeated = (target_step == 0) & (source_step == 0)  # one pair, as many times as routes lead along it
    longest = np.where(repeated & b.overlaps, MAX_NODES, max(positions, t.positions))
    if ((length < 1) | (length > longest)).any():
        return False
    ends = (target0, target_step, t.positions, t.position_stride), (source0, source_step, positions, step)
    for first, along, count, stride in ends:
        top = (count - 1) * stride
        if ((first < 0) | (first > top) | (np.abs(along) > top)).any():
            return False
        if ((first % stride) | (along % stride)).any():
            return False
        last = first + (length - 1) * along
        if ((last < 0) | (last > top)).any():
            return False
    pairs = np.diff(np.concatenate([[0], np.cumsum(length)])[b.run_ptr])
    return bool((pairs == b.pair_count).all())
