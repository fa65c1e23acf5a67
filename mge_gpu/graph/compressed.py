"""From blocks to the compressed adjacency."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mge_gpu._memory import available_memory, bytes_text
from mge_gpu.backends.adjacency import OWN, Adjacency, Block
from mge_gpu.backends.cpu import compress
from mge_gpu.backends.cpu.threads import run
from mge_gpu.errors import NotEnoughMemoryError
from mge_gpu.graph.positions import Classes, PositionMap
from mge_gpu.graph.views import seen
from mge_gpu.tracing.program import Partition

SHARED = 2
"""Nodes that see the very same neighbours, on average, for their list to be worked on once for all."""

PIECE = 1 << 22
"""Nonzero weights that are counted at a time."""

FEW_TAPS = 64
"""Taps among which those are looked for that others cover."""


class Side(NamedTuple):
    """A partition as a block sees it."""

    partition: int
    channels: int
    channel_stride: int
    position_stride: int
    offset: int


class Arc(NamedTuple):
    """One direction of a block."""

    owner: int
    inward: bool
    other: int
    view: int
    classes: Classes
    rows: np.ndarray  # (rows,) int64: list of each row
    ptr: np.ndarray  # (lists + 1,) int64
    shifts: np.ndarray  # (entries,) int32
    anchor: np.ndarray  # (positions,) int32: first node of the neighbourhood less the shifts
    span: np.ndarray  # int32


def _sides(source: int, target: int, b: Block, partitions: Sequence[Partition]) -> tuple[Side, Side]:
    def side(number: int, p: Partition) -> Side:
        return Side(number, p.channels, p.channel_stride, p.position_stride, p.offset)

    return side(source, seen(partitions[source], b.view)), side(target, partitions[target])


def _arc(
    here: Side,
    there: Side,
    inward: bool,
    mine: np.ndarray,
    other: np.ndarray,
    tap: np.ndarray,
    classes: Classes,
    block: Block,
) -> Arc:
    ptr = np.zeros(here.channels * classes.count + 1, np.int64)
    compress.count_rows(mine, tap, classes.entry_ptr, classes.entry_class, classes.count, ptr[1:])
    np.cumsum(ptr, out=ptr)
    shifts = np.empty(int(ptr[-1]), np.int32)
    compress.fill_rows(
        mine,
        other,
        tap,
        classes.entry_ptr,
        classes.entry_class,
        classes.entry_shift,
        classes.count,
        there.channel_stride,
        there.position_stride,
        ptr[:-1].copy(),
        shifts,
    )
    compress.sort_rows(ptr, shifts)
    if block.overlaps:
        ptr, shifts = compress.unique_rows(ptr, shifts)
    rows, ptr, shifts = _distinct(ptr, shifts)
    return Arc(
        here.partition,
        inward,
        there.partition,
        OWN if inward else block.view,
        classes,
        rows,
        ptr,
        shifts,
        (classes.anchor * there.position_stride + there.offset).astype(np.int32),
        (classes.span * there.position_stride).astype(np.int32),
    )


def _distinct(ptr: np.ndarray, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Equal rows become one list where that leaves at most half: (list of each row, pointers, shifts)."""
    every = np.arange(len(ptr) - 1), ptr, shifts
    _, first, name = np.unique(compress.row_codes(ptr, shifts), return_index=True, return_inverse=True)
    if 2 * len(first) > len(ptr) - 1 or not compress.equal_rows(ptr, shifts, first[name]):
        return every
    counts = np.diff(ptr)[first]
    ends = np.concatenate([[0], np.cumsum(counts)])
    at = np.repeat(ptr[first] - ends[:-1], counts) + np.arange(ends[-1])
    return name.astype(np.int64), ends.astype(np.int64), shifts[at]


def _weights_of_taps(block: Block) -> np.ndarray:
    """Nonzero weights of each tap, (taps,) int64."""
    times = np.zeros(len(block.pair_count), np.int64)
    for at in range(0, len(block.tap), PIECE):  # a whole one would take as much memory again
        times += np.bincount(block.tap[at : at + PIECE], minlength=len(times))
    return times


def _check_room(times: np.ndarray, classes: Classes, available: int | None, layer: str) -> None:
    """Refuse lists that memory cannot hold: where each of many positions sees many in a way of its own."""
    entries = int((np.diff(classes.entry_ptr) * times).sum())
    if available is not None and 4 * entries > available:
        raise NotEnoughMemoryError(
            f"the {entries:,} neighbours that the positions of layer {layer!r} see each in its own way take "
            f"{bytes_text(4 * entries)}, {bytes_text(available)} of memory is available; edges, one_hop, "
            "strength, spectral and path metrics do without them: topometrics(metrics=[...])"
        )


def edges_of_block(block: Block, positions: PositionMap) -> int:
    """Edges of one block, exactly: those that several nonzeros lead to count once."""
    if not block.overlaps:
        return int((block.pair_count * _weights_of_taps(block)).sum())
    if not len(block.tap):
        return 0
    ptr, tap, cells, many = _cells(block)
    classes = _without_covered(positions, ptr, tap, cells).by_target
    times = np.bincount(classes.position_class, minlength=classes.count)
    entries = classes.entry_ptr, classes.entry_class, classes.entry_shift
    found = compress.count_distinct(ptr, tap, cells, many, *entries, times)
    return int(found) * len(classes.span)  # which is one where entries meet


def _cells(block: Block) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Taps of each pair of channels: (pointers, taps, a pair for each set of taps, how many have it)."""
    key, tap = block.target_channel.astype(np.int64) << 32 | block.source_channel, block.tap
    if (key[1:] < key[:-1]).any():
        order = np.argsort(key, kind="stable")
        key, tap = key[order], tap[order]
    start = np.concatenate([[0], np.flatnonzero(key[1:] != key[:-1]) + 1])
    ptr, tap = np.append(start, len(key)), tap.astype(np.int32)
    compress.sort_rows(ptr, tap)
    _, cells, name, many = np.unique(
        compress.row_codes(ptr, tap), return_index=True, return_inverse=True, return_counts=True
    )
    if not compress.equal_rows(ptr, tap, cells[name]):
        cells, many = np.arange(len(start)), np.ones(len(start), np.int64)
    return ptr, tap, cells, many


def _without_covered(
    positions: PositionMap, ptr: np.ndarray, tap: np.ndarray, cells: np.ndarray
) -> PositionMap:
    """Position pairs without those that another tap has wherever they occur: the edges stay the same.

    A pixel that is read by itself and within the mean of its map, say, would make each position a class of
    its own, with all of the map in its list. The taps are those that `_cells` found.
    """
    if not 1 < positions.taps <= FEW_TAPS:
        return positions
    held: np.ndarray = np.zeros((len(ptr) - 1, positions.taps), np.bool_)
    held[np.repeat(np.arange(len(held)), np.diff(ptr)), tap] = True
    held = held[cells]
    gone: set[int] = set()
    for a in np.argsort(np.diff(positions.ptr), kind="stable").tolist():
        beside = held[held[:, a]].all(0)
        beside[[a, *gone]] = False
        if held[:, a].any() and any(positions.covers(b, a) for b in np.flatnonzero(beside).tolist()):
            gone.add(a)
    return positions.without(frozenset(gone)) if gone else positions


def build_adjacency(
    partitions: Sequence[Partition], blocks: Sequence[tuple[int, int, Block, PositionMap]]
) -> Adjacency:
    """The compressed adjacency of all blocks, both directions."""
    available = available_memory()

    def both_ways(k: int) -> list[Arc]:
        source, target, b, positions = blocks[k]
        if b.overlaps and len(b.tap):
            positions = _without_covered(positions, *_cells(b)[:3])
        near, far = _sides(source, target, b, partitions)
        out, back, times = positions.by_source, positions.by_target, _weights_of_taps(b)
        for classes in (out, back):
            _check_room(times, classes, available, partitions[target].name)
        return [
            _arc(near, far, False, b.source_channel, b.target_channel, b.tap, out, b),
            _arc(far, near, True, b.target_channel, b.source_channel, b.tap, back, b),
        ]

    arcs = [arc for pair in run(both_ways, len(blocks)) for arc in pair]
    arcs.sort(key=lambda a: (a.owner, a.inward, a.other))
    owner = np.array([a.owner for a in arcs], np.int64)
    outward = np.array([not a.inward for a in arcs], np.bool_)
    n = len(partitions)
    arc_ptr = np.searchsorted(owner, np.arange(n + 1)).astype(np.int32)
    lists = _ends([len(a.ptr) - 1 for a in arcs])
    entries = _ends([len(a.shifts) for a in arcs])
    hubs = _hubs(arcs, lists)
    return Adjacency(
        offset=np.array([p.offset for p in partitions] + [sum(p.size for p in partitions)], np.int64),
        divisor=np.array([p.positions if p.channel_dim == 0 else p.channels for p in partitions], np.int64),
        channel_first=np.array([p.channel_dim == 0 for p in partitions], np.bool_),
        arc_ptr=arc_ptr,
        arc_mid=arc_ptr[:-1] + np.bincount(owner[outward], minlength=n).astype(np.int32),
        arc_other=np.array([a.other for a in arcs], np.int32),
        arc_view=np.array([a.view for a in arcs], np.int8),
        arc_position=_ends([len(a.anchor) for a in arcs])[:-1],
        arc_classes=np.array([a.classes.count for a in arcs], np.int32),
        arc_row=_ends([len(a.rows) for a in arcs])[:-1],
        span_ptr=_ends([len(a.span) for a in arcs]),
        span=_joined([a.span for a in arcs], np.int32),
        position_class=_joined([a.classes.position_class for a in arcs], np.int32),
        position_group=_joined([a.classes.group for a in arcs], np.int32),
        anchor=_joined([a.anchor for a in arcs], np.int32),
        row_list=_joined([a.rows + k for a, k in zip(arcs, lists, strict=False)], np.int64),
        list_ptr=_joined(
            [a.ptr[:-1] + e for a, e in zip(arcs, entries, strict=False)] + [entries[-1:]], np.int64
        ),
        list_hub=hubs[0],
        shifts=_joined([a.shifts for a in arcs], np.int32),
        hub_arc=hubs[1],
        hub_list=hubs[2],
        hub_anchor=hubs[3],
    )


def _ends(sizes: list[int]) -> np.ndarray:
    return np.cumsum([0, *sizes]).astype(np.int64)


def _joined(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *parts]).astype(dtype, copy=False)


def _hubs(arcs: list[Arc], lists: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(first hub of each list, arc, list and anchor of each hub).

    Numbers run over all lists and groups of an arc. Where they are of different classes of positions there
    is no such hub, and its list is -1.
    """
    first = np.full(int(lists[-1]), -1, np.int64)
    arc_of, list_of, anchor_of = [], [], []
    total = 0
    for k, a in enumerate(arcs):
        groups, count = a.classes.groups, len(a.ptr) - 1
        members = len(a.rows) * len(a.anchor) / max(a.classes.count, 1)
        if not count or members < SHARED * count * groups:
            continue
        first[lists[k] : lists[k + 1]] = total + np.arange(count) * groups
        where = np.zeros(groups, np.int64)
        where[a.classes.group] = np.arange(len(a.anchor))
        arc_of.append(np.full(count * groups, k))
        classes = np.zeros(groups, np.int64)
        classes[a.classes.group] = a.classes.position_class
        of_class = np.zeros((count, max(a.classes.count, 1)), np.bool_)
        of_class[a.rows, np.arange(len(a.rows)) % max(a.classes.count, 1)] = True
        there = np.where(of_class[:, classes], lists[k] + np.arange(count)[:, None], -1)
        list_of.append(there.ravel())
        anchor_of.append(np.tile(a.anchor[where], count))
        total += count * groups
    return first, _joined(arc_of, np.int32), _joined(list_of, np.int64), _joined(anchor_of, np.int32)
