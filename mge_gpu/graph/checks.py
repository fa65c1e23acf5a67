"""Whether arrays that were read from a file fit together: kernels index by them without looking."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mge_gpu.backends.adjacency import Adjacency, Block
from mge_gpu.tracing.program import Partition

_ADJACENCY = {
    "offset": np.int64, "divisor": np.int64, "channel_first": np.bool_, "arc_ptr": np.int32,
    "arc_mid": np.int32, "arc_other": np.int32, "arc_position": np.int64, "arc_classes": np.int32,
    "arc_row": np.int64, "position_class": np.int32, "anchor": np.int32, "row_ptr": np.int64,
    "shifts": np.int32,
}  # fmt: skip
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


def sound_adjacency(g: Adjacency, partitions: Sequence[Partition]) -> bool:
    """Whether every index of a compressed adjacency stays within bounds."""
    if not all(_is_array(a, _ADJACENCY[name], 1) for name, a in g._asdict().items()):
        return False
    n, arcs = len(partitions), len(g.arc_other)
    lengths = [len(a) for a in (g.arc_position, g.arc_classes, g.arc_row)]
    fits = (
        g.offset.tolist() == [p.offset for p in partitions] + [sum(p.size for p in partitions)]
        and g.divisor.tolist() == [p.positions if p.channel_dim == 0 else p.channels for p in partitions]
        and g.channel_first.tolist() == [p.channel_dim == 0 for p in partitions]
        and lengths == [arcs] * 3
        and _is_pointer(g.arc_ptr, n, arcs)
        and len(g.arc_mid) == n
        and bool(((g.arc_ptr[:-1] <= g.arc_mid) & (g.arc_mid <= g.arc_ptr[1:])).all())
        and bool(((g.arc_other >= 0) & (g.arc_other < n)).all())
        and _is_pointer(g.row_ptr, len(g.row_ptr) - 1, len(g.shifts))
        and len(g.anchor) == len(g.position_class)
    )
    return fits and all(
        _sound_arc(g, arc, p, partitions[int(g.arc_other[arc])])
        for k, p in enumerate(partitions)
        for arc in range(g.arc_ptr[k], g.arc_ptr[k + 1])
    )


def _is_array(x: Any, dtype: type, dims: int) -> bool:
    return isinstance(x, np.ndarray) and x.dtype == dtype and x.ndim == dims


def _is_pointer(ptr: np.ndarray, rows: int, members: int) -> bool:
    sized = len(ptr) == rows + 1 and len(ptr) > 0 and ptr[0] == 0 and ptr[-1] == members
    return sized and bool((np.diff(ptr) >= 0).all())


def _sound_arc(g: Adjacency, arc: int, here: Partition, there: Partition) -> bool:
    """Whether all neighbours along an arc are nodes of ``there``."""
    at, classes, row = int(g.arc_position[arc]), int(g.arc_classes[arc]), int(g.arc_row[arc])
    rows = here.channels * classes
    if at < 0 or at + here.positions > len(g.position_class) or row < 0 or row + rows >= len(g.row_ptr):
        return False
    kind = g.position_class[at : at + here.positions]
    anchor = g.anchor[at : at + here.positions].astype(np.int64) - there.offset
    if ((kind < 0) | (kind >= classes)).any() or (anchor % max(there.position_stride, 1)).any():
        return False
    ptr = g.row_ptr[row : row + rows + 1]
    shifts = g.shifts[ptr[0] : ptr[-1]]
    if len(shifts) and (shifts.min() < 0 or shifts.max() >= there.size):
        return False
    steps = shifts % max(there.positions, 1) if there.channel_dim == 0 else shifts // max(there.channels, 1)
    furthest = np.zeros(rows, np.int64)  # in positions, of each row
    full = np.flatnonzero(np.diff(ptr))
    if len(full):
        furthest[full] = np.maximum.reduceat(steps, ptr[full] - ptr[0])
    reach = furthest.reshape(here.channels, classes).max(0, initial=0)
    first = anchor // max(there.position_stride, 1)
    inside = (first >= 0) & (first + reach[kind] < max(there.positions, 1))
    return bool(inside.all())


def sound_block(source: int, target: int, b: Block, partitions: Sequence[Partition]) -> bool:
    """Whether every index of a block stays within its two partitions."""
    if not all(isinstance(k, int) and 0 <= k < len(partitions) for k in (source, target)):
        return False
    s, t = partitions[source], partitions[target]
    placed: dict[str, int] = {}
    for side, p in (("source", s), ("target", t)):
        for what in ("offset", "channel_stride", "position_stride", "positions"):
            placed[f"{side}_{what}"] = getattr(p, what)
    for name, field in b._asdict().items():
        if name in _BLOCK:
            if not _is_array(field, _BLOCK[name], 2 if name == "runs" else 1):
                return False
        elif name != "overlaps" and field != placed[name]:
            return False
    size, taps = len(b.weight), len(b.pair_count)
    fits = (
        isinstance(b.overlaps, bool)
        and len(b.target_channel) == len(b.source_channel) == len(b.tap) == size
        and b.runs.shape[1] == 5
        and _is_pointer(b.run_ptr, taps, len(b.runs))
        and bool((np.isfinite(b.weight) & (b.weight >= 0)).all())
        and bool((np.diff(b.target_channel) >= 0).all())
    )
    for index, bound in ((b.target_channel, t.channels), (b.source_channel, s.channels), (b.tap, taps)):
        fits = fits and bool(((index >= 0) & (index < bound)).all())
    if not fits:
        return False
    target0, source0, length, target_step, source_step = b.runs.T
    if ((length < 1) | (length > max(s.positions, t.positions))).any():
        return False
    for first, step, p in ((target0, target_step, t), (source0, source_step, s)):
        top = (p.positions - 1) * p.position_stride
        if ((first < 0) | (first > top) | (np.abs(step) > top)).any():
            return False
        last = first + (length - 1) * step
        if ((last < 0) | (last > top)).any():
            return False
    pairs = np.diff(np.concatenate([[0], np.cumsum(length)])[b.run_ptr])
    return bool((pairs == b.pair_count).all())
