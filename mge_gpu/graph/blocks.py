"""From weights to blocks and to the compressed adjacency."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from mge_gpu.backends.adjacency import Adjacency, Block
from mge_gpu.backends.cpu import compress
from mge_gpu.backends.cpu.threads import run
from mge_gpu.errors import GraphError
from mge_gpu.graph.geometry import Contribution
from mge_gpu.graph.positions import Classes, PositionMap, join
from mge_gpu.tracing.program import Layer, Partition

Nonzeros = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def nonzeros(part: Contribution, layer: Layer, weight: torch.Tensor | None) -> Nonzeros:
    """(target channel, source channel, tap, |w|) of a contribution's nonzero weights, by target channel."""
    if weight is None:  # an identity skip: tap o of channel o
        matrix = np.eye(layer.weight_shape[0], dtype=np.float32)[:, None, :]
    else:
        matrix = layer.matrix(weight).to("cpu", torch.float32).contiguous().numpy()
    channels = part.channels
    group_in, group_out = matrix.shape[1], matrix.shape[0] // layer.groups
    if len(channels.ptr) - 1 != group_in * layer.groups:
        raise GraphError(
            f"layer {layer.name!r}: the weight reads {group_in * layer.groups} input channels, the route has "
            f"{len(channels.ptr) - 1}"
        )
    total = compress.count_nonzeros(matrix, np.diff(channels.ptr), part.key, group_in, group_out)
    target, source, tap = (np.empty(total, np.int32) for _ in range(3))
    value = np.empty(total, np.float32)
    compress.expand_nonzeros(
        matrix,
        channels.ptr,
        channels.channel,
        channels.position_set,
        part.key,
        part.channel_shift,
        part.keys,
        group_in,
        group_out,
        target,
        source,
        tap,
        value,
    )
    if not channels.injective or len(part.channel_shift) > 1:
        return _coalesce(target, source, tap, value)
    return target, source, tap, value


def _coalesce(target: np.ndarray, source: np.ndarray, tap: np.ndarray, value: np.ndarray) -> Nonzeros:
    """Add up the weights of equal (target, source, tap)."""
    order = np.lexsort((tap, source, target))
    target, source, tap, value = target[order], source[order], tap[order], value[order]
    new = np.r_[True, (np.diff(target) != 0) | (np.diff(source) != 0) | (np.diff(tap) != 0)][: len(target)]
    start = np.flatnonzero(new)
    summed = np.add.reduceat(value.astype(np.float64), start) if len(start) else np.zeros(0)
    return target[start], source[start], tap[start], summed.astype(np.float32)


def build_blocks(
    partitions: Sequence[Partition],
    layers: Sequence[Layer],
    parts: Sequence[Contribution],
    weights: Mapping[int, torch.Tensor | None],
) -> list[tuple[int, int, Block, PositionMap]]:
    """One block for each pair of partitions that a layer links: (source, target, block, positions)."""
    grouped: dict[tuple[int, int], list[Contribution]] = {}
    for part in parts:
        grouped.setdefault((part.source, part.target), []).append(part)
    shared: dict[tuple[int, ...], PositionMap] = {}
    lists = run(lambda k: nonzeros(parts[k], layers[parts[k].layer], weights[parts[k].layer]), len(parts))
    entries = {id(part): found for part, found in zip(parts, lists, strict=True)}
    out = []
    for (source, target), members in grouped.items():
        ids = tuple(id(p.positions) for p in members)
        if ids not in shared:
            shared[ids] = join([p.positions for p in members])
        positions = shared[ids]
        found = [entries.pop(id(p)) for p in members]
        shift = np.cumsum([0] + [p.positions.taps for p in members])
        for k, (_, _, tap, _) in enumerate(found):
            tap += np.int32(shift[k])
        if len(found) == 1:
            columns = found[0]
        else:
            a, b, c, d = (np.concatenate(column) for column in zip(*found, strict=True))
            order = np.argsort(a, kind="stable")
            columns = a[order], b[order], c[order], d[order]
        s, t = partitions[source], partitions[target]
        run_ptr, runs = positions.runs
        steps = np.array([t.position_stride, s.position_stride, 1, t.position_stride, s.position_stride])
        block = Block(
            s.offset,
            t.offset,
            s.channel_stride,
            t.channel_stride,
            t.position_stride,
            t.positions,
            columns[0],
            columns[1],
            columns[2],
            columns[3],
            run_ptr,
            runs * steps,
            np.diff(positions.ptr),
            positions.by_target.repeats,
        )
        out.append((source, target, block, positions))
    return out


def build_adjacency(
    partitions: Sequence[Partition], blocks: Sequence[tuple[int, int, Block, PositionMap]]
) -> Adjacency:
    """The compressed adjacency of all blocks, both directions."""

    def both_ways(k: int) -> list[tuple[int, int, int, np.ndarray, np.ndarray, Classes, Partition]]:
        source, target, b, positions = blocks[k]
        s, t = partitions[source], partitions[target]
        out = _rows(b.source_channel, b.target_channel, b.tap, positions.by_source, s, t, b.overlaps)
        back = _rows(b.target_channel, b.source_channel, b.tap, positions.by_target, t, s, b.overlaps)
        return [
            (source, 0, target, *out, positions.by_source, t),
            (target, 1, source, *back, positions.by_target, s),
        ]

    arcs = [arc for pair in run(both_ways, len(blocks)) for arc in pair]
    arcs.sort(key=lambda a: (a[0], a[1], a[2]))
    owner = np.array([a[0] for a in arcs], np.int64)
    inward = np.array([a[1] for a in arcs], np.int64)
    n = len(partitions)
    arc_ptr = np.searchsorted(owner, np.arange(n + 1)).astype(np.int32)
    arc_mid = arc_ptr[:-1] + np.bincount(owner[inward == 0], minlength=n).astype(np.int32)
    sizes = [len(a[3]) - 1 for a in arcs]
    entries = np.cumsum([0] + [len(a[4]) for a in arcs])
    row_ptr = [a[3][:-1] + e for a, e in zip(arcs, entries, strict=False)] + [entries[-1:]]
    empty = [np.zeros(0, np.int32)]
    anchors = [a[5].anchor * a[6].position_stride + a[6].offset for a in arcs]
    return Adjacency(
        offset=np.array([p.offset for p in partitions] + [sum(p.size for p in partitions)], np.int64),
        divisor=np.array([p.positions if p.channel_dim == 0 else p.channels for p in partitions], np.int64),
        channel_first=np.array([p.channel_dim == 0 for p in partitions], np.bool_),
        arc_ptr=arc_ptr,
        arc_mid=arc_mid.astype(np.int32),
        arc_other=np.array([a[2] for a in arcs], np.int32),
        arc_position=np.cumsum([0] + [len(a[5].position_class) for a in arcs])[:-1].astype(np.int64),
        arc_classes=np.array([a[5].count for a in arcs], np.int32),
        arc_row=np.cumsum([0, *sizes])[:-1].astype(np.int64),
        position_class=np.concatenate([a[5].position_class for a in arcs] or empty),
        anchor=np.concatenate([a.astype(np.int32) for a in anchors] or empty),
        row_ptr=np.concatenate(row_ptr).astype(np.int64),
        shifts=np.concatenate([a[4] for a in arcs] or empty),
    )


def _rows(
    mine: np.ndarray,
    other: np.ndarray,
    tap: np.ndarray,
    classes: Classes,
    here: Partition,
    there: Partition,
    overlaps: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Row pointers and shifts of one direction of a block."""
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
    return compress.unique_rows(ptr, shifts) if overlaps else (ptr, shifts)
