"""From weights to blocks: which nonzero weights meet which position pairs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch

from mge_gpu.backends.adjacency import FLAT, Block
from mge_gpu.backends.cpu import compress
from mge_gpu.errors import GraphError
from mge_gpu.graph.compressed import edges_of_block
from mge_gpu.graph.geometry import Contribution
from mge_gpu.graph.positions import ChannelMap, PositionMap, join
from mge_gpu.graph.views import seen
from mge_gpu.tracing.program import Layer, Partition

Nonzeros = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
Placed = tuple[int, int, Block, PositionMap]  # source partition, target partition, block, position pairs
Weight = Callable[[int], torch.Tensor | None]  # of a layer, by its index; None for identity skips


@dataclass(frozen=True)
class Group:
    """Contributions to one block: those between two partitions that can meet in one edge."""

    source: int
    target: int
    members: list[Contribution]
    positions: PositionMap


def group_contributions(parts: Sequence[Contribution]) -> list[Group]:
    """Contributions of equal source and target that read common source channels go together.

    Those that read other channels (query, key and value in one partition) stay apart, each with the
    structure of its own position map.
    """
    between: dict[tuple[int, int], list[tuple[set[int], list[Contribution]]]] = {}
    for part in parts:
        read = {int(c) for c in np.unique(part.channels.channel[:, None] + part.channel_shift)}
        groups = between.setdefault((part.source, part.target), [])
        meeting = [g for g in groups if g[0] & read]
        groups[:] = [g for g in groups if not g[0] & read]
        together = [m for g in meeting for m in g[1]]
        groups.append((read.union(*(g[0] for g in meeting)), [*together, part]))
    shared: dict[tuple[int, ...], PositionMap] = {}
    out = []
    for (source, target), groups in between.items():
        for _, members in groups:
            maps = [p.positions for p in members]
            ids = tuple(map(id, maps))
            if ids not in shared:
                shared[ids] = join(maps)
            out.append(Group(source, target, members, shared[ids]))
    return out


def weight_matrix(part: Contribution, layer: Layer, weight: torch.Tensor | None) -> np.ndarray:
    """(target channels, input channels of a group, taps) float32."""
    if weight is None:  # an identity skip: the only tap, or tap o of channel o
        channels, _, taps = layer.weight_shape
        matrix = (
            np.ones((channels, 1, 1), np.float32)
            if taps == 1
            else np.eye(channels, dtype=np.float32)[:, None]
        )
    else:
        matrix = layer.matrix(weight).to("cpu", torch.float32).contiguous().numpy()
    expected = matrix.shape[1] * layer.groups
    if len(part.channels.ptr) - 1 != expected:
        raise GraphError(
            f"layer {layer.name!r}: the weight reads {expected} input channels, the route has "
            f"{len(part.channels.ptr) - 1}"
        )
    return matrix


def _count_taps(part: Contribution, layer: Layer, matrix: np.ndarray) -> np.ndarray:
    """(taps,) int64: nonzeros of each tap, before those of one source channel are added up."""
    channels = part.channels
    count = np.zeros(part.positions.taps, np.int64)
    group_in, group_out = matrix.shape[1], matrix.shape[0] // layer.groups
    compress.count_taps(
        matrix, channels.ptr, channels.position_set, part.key, part.keys, group_in, group_out, count
    )
    return count


def nonzeros(part: Contribution, layer: Layer, weight: torch.Tensor | None) -> Nonzeros:
    """(target channel, source channel, tap, |w|) of a contribution's nonzero weights, by target channel."""
    matrix, channels = weight_matrix(part, layer, weight), part.channels
    group_in, group_out = matrix.shape[1], matrix.shape[0] // layer.groups
    shared = not channels.injective and len(part.channel_shift) == 1
    if shared and layer.groups * _readings(channels) <= len(channels.channel):
        return _mixed(part, matrix, layer.groups)
    total = int(_count_taps(part, layer, matrix).sum())
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


def _readings(channels: ChannelMap) -> int:
    """How many pairs of a source channel and a set of positions there may be."""
    return (int(channels.channel.max(initial=-1)) + 1) * len(channels.sets)


def _mixed(part: Contribution, matrix: np.ndarray, groups: int) -> Nonzeros:
    """The same where input channels share source channels (the heads of attention): |W| times incidence."""
    channels = part.channels
    n_out, n_in, taps = matrix.shape
    width, sets = _readings(channels), len(channels.sets)
    row = np.repeat(np.arange(len(channels.ptr) - 1), np.diff(channels.ptr))
    ones, reading = np.ones(len(row)), channels.channel * sets + channels.position_set
    incidence = sp.csr_array((ones, (row, reading)), shape=(len(channels.ptr) - 1, width))
    dense = np.zeros((n_out, width, taps), np.float64)
    step = n_out // groups
    for g in range(groups):
        rows = slice(g * step, (g + 1) * step)
        mix = incidence[g * n_in : (g + 1) * n_in].T
        for t in range(taps):
            dense[rows, :, t] = (mix @ np.abs(matrix[rows, :, t]).T.astype(np.float64)).T
    dense[:, :, part.key[:, 0] < 0] = 0
    target, reading, tap = np.nonzero(dense)
    value = dense[target, reading, tap].astype(np.float32)
    channel = (reading // sets + part.channel_shift[0]).astype(np.int32)
    tap = (reading % sets * part.keys + part.key[tap, 0]).astype(np.int32)
    return target.astype(np.int32), channel, tap, value


def _coalesce(target: np.ndarray, source: np.ndarray, tap: np.ndarray, value: np.ndarray) -> Nonzeros:
    """Add up the weights of equal (target, source, tap)."""
    order = np.lexsort((tap, source, target))
    target, source, tap, value = target[order], source[order], tap[order], value[order]
    new = np.r_[True, (np.diff(target) != 0) | (np.diff(source) != 0) | (np.diff(tap) != 0)][: len(target)]
    start = np.flatnonzero(new)
    summed = np.add.reduceat(value.astype(np.float64), start) if len(start) else np.zeros(0)
    return target[start], source[start], tap[start], summed.astype(np.float32)


def build_block(
    group: Group, partitions: Sequence[Partition], layers: Sequence[Layer], weight: Weight
) -> Block:
    """The block of a group of contributions."""
    found = [nonzeros(p, layers[p.layer], weight(p.layer)) for p in group.members]
    shift = np.cumsum([0] + [p.positions.taps for p in group.members])
    for k, (_, _, tap, _) in enumerate(found):
        tap += np.int32(shift[k])
    if len(found) == 1:
        columns = found[0]
    else:
        a, b, c, d = (np.concatenate(column) for column in zip(*found, strict=True))
        order = np.argsort(a, kind="stable")
        columns = a[order], b[order], c[order], d[order]
    s, t = partitions[group.source], partitions[group.target]
    return place_block(columns, group.positions, s, t, group.members[0].view)


def place_block(
    columns: Nonzeros, positions: PositionMap, source: Partition, target: Partition, view: int
) -> Block:
    """The block of some nonzeros between two partitions."""
    near = seen(source, view)
    run_ptr, runs = positions.runs
    far, step = target.position_stride, near.position_stride
    return Block(
        source.offset,
        target.offset,
        0 if view == FLAT else near.channel_stride,
        target.channel_stride,
        target.position_stride,
        target.positions,
        *columns,
        run_ptr,
        runs * np.array([far, step, 1, far, step]),
        np.diff(positions.ptr),
        positions.by_target.repeats,
        view,
    )


def count_edges(
    group: Group, partitions: Sequence[Partition], layers: Sequence[Layer], weight: Weight
) -> int:
    """Edges of a group's block; the block is only made where several of its nonzeros may lead to one edge."""
    plain = all(p.channels.injective and len(p.channel_shift) == 1 for p in group.members)
    if group.positions.by_target.repeats or not plain:
        return edges_of_block(build_block(group, partitions, layers, weight), group.positions)
    counts = [
        _count_taps(p, layers[p.layer], weight_matrix(p, layers[p.layer], weight(p.layer)))
        for p in group.members
    ]
    return int((np.concatenate(counts) * np.diff(group.positions.ptr)).sum())


class LazyBlocks:
    """Blocks that are made from the weights, one at a time, whenever they are iterated over."""

    def __init__(
        self,
        groups: Sequence[Group],
        partitions: Sequence[Partition],
        layers: Sequence[Layer],
        weight: Weight,
    ) -> None:
        self.groups, self.partitions, self.layers, self.weight = groups, partitions, layers, weight

    def __iter__(self) -> Iterator[Placed]:
        yield from map(self.placed, range(len(self.groups)))  # holds none: it may be a gigabyte

    def placed(self, number: int) -> Placed:
        """The block of one group."""
        group = self.groups[number]
        block = build_block(group, self.partitions, self.layers, self.weight)
        return group.source, group.target, block, group.positions

    def count_edges(self) -> int:
        """Edges of all blocks, exactly."""
        return sum(count_edges(g, self.partitions, self.layers, self.weight) for g in self.groups)


def block_positions(block: Block, source: Partition) -> PositionMap:
    """The position pairs that a block's runs spell out."""
    target0, source0, length, target_step, source_step = block.runs.T
    at = np.repeat(np.arange(len(length)), length)
    within = np.arange(len(at)) - np.repeat(np.cumsum(length) - length, length)
    ends = np.concatenate([[0], np.cumsum(length)])
    near = seen(source, block.view)
    return PositionMap(
        block.target_positions,
        near.positions,
        ends[block.run_ptr].astype(np.int64),
        (target0[at] + within * target_step[at]) // block.target_position_stride,
        (source0[at] + within * source_step[at]) // near.position_stride,
    )
