"""Geometry of a program: how each layer's weights become blocks. Independent of the weights."""

import hashlib
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

from mge_gpu.backends.adjacency import CROSSED, FLAT, OWN
from mge_gpu.graph.positions import ChannelMap, PositionMap, channel_map
from mge_gpu.graph.views import seen
from mge_gpu.tracing.program import Layer, Partition, Program, Use
from mge_gpu.tracing.relation import Relation, compose, function, outer_sum


@dataclass(frozen=True)
class Contribution:
    """What one layer adds to the block between one source partition and its target."""

    layer: int
    source: int
    target: int
    channels: ChannelMap
    positions: PositionMap
    key: np.ndarray  # (taps, channel shifts) int64: index of the (tap, shift) pair, -1 where it is empty
    keys: int
    channel_shift: np.ndarray  # (channel shifts,) int64
    view: int  # how the layer sees the nodes of its source: OWN, FLAT or CROSSED


class Pieces(NamedTuple):
    """What of a contribution its geometry says, by the channels and positions of a view."""

    channels: ChannelMap
    positions: PositionMap
    key: np.ndarray
    keys: int
    channel_shift: np.ndarray

    @property
    def mixed(self) -> bool:
        """Whether input channels differ in position while positions of the input differ in channel."""
        return len(self.channels.sets) > 1 and len(self.channel_shift) > 1

    @property
    def nonzeros(self) -> int:
        """Of a block, for each weight of an output channel and tap."""
        return len(self.channels.channel) * len(self.channel_shift)


def contributions(program: Program, crossed: bool = True) -> list[Contribution]:
    """One contribution for each layer and each partition that it reads; equal geometry is shared.

    All contributions between the same two partitions have one view, so that edges that several of them lead
    to can be recognised: FLAT where a layout has no closed form, and CROSSED (if ``crossed``) where a layer
    mixes the positions of its source channel by channel, which the other way takes a nonzero an edge.
    """
    cache: dict[bytes, Pieces | None] = {}

    def pieces(layer: Layer, use: Use, view: int) -> Pieces | None:
        source = program.partitions[use.source]
        digest = _digest(layer, use, source, view)
        if digest not in cache:
            make = _table if view == FLAT else _closed_form
            cache[digest] = make(layer, use, seen(source, view))
        return cache[digest]

    def best(those: list[tuple[Layer, Use]]) -> tuple[int, list[Pieces]]:
        own = [p for x in those if (p := pieces(*x, OWN))]
        if len(own) < len(those):
            return FLAT, [p for x in those if (p := pieces(*x, FLAT))]
        if crossed and any(p.mixed for p in own):
            other = [p for x in those if (p := pieces(*x, CROSSED))]
            if len(other) == len(those) and sum(p.nonzeros for p in other) < sum(p.nonzeros for p in own):
                return CROSSED, other
        return OWN, own

    uses = [(k, layer, use) for k, layer in enumerate(program.layers) for use in layer.uses]
    between: dict[tuple[int, int], list[tuple[Layer, Use]]] = {}
    for _, layer, use in uses:
        between.setdefault((use.source, layer.target), []).append((layer, use))
    found = {pair: best(those) for pair, those in between.items()}
    left = {pair: iter(those) for pair, (_, those) in found.items()}
    pairs = [(k, u.source, x.target) for k, x, u in uses]
    return [Contribution(k, s, t, *next(left[s, t]), found[s, t][0]) for k, s, t in pairs]


def _digest(layer: Layer, use: Use, source: Partition, view: int) -> bytes:
    shapes = (source.shape, source.channel_dim, layer.taps.shape, input_channels(layer), view)
    h = hashlib.blake2b(repr(shapes).encode())
    for a in (layer.taps, *_arrays(use)):
        h.update(np.ascontiguousarray(a).data)
    return h.digest()


def _arrays(use: Use) -> list[np.ndarray]:
    relations = [use.channels, use.local, use.span] if use.table is None else [use.table]
    return [a for r in relations for a in (r.ptr, r.idx)]


def input_channels(layer: Layer) -> int:
    """Channels that the layer's weight reads, of all groups."""
    return layer.weight_shape[0] if layer.transposed else layer.weight_shape[1] * layer.groups


def _decode(offsets: np.ndarray, partition: Partition) -> tuple[np.ndarray, np.ndarray]:
    """Offsets within a partition as (channel, position)."""
    if partition.channel_dim == 0:
        return offsets // partition.positions, offsets % partition.positions
    return offsets % partition.channels, offsets // partition.channels


def _table(layer: Layer, use: Use, source: Partition) -> Pieces:
    """The source partition as one channel whose positions are its nodes: each input channel has own taps."""
    table = outer_sum([use.channels, use.positions]) if use.table is None else use.table
    channels = input_channels(layer)
    taps, outputs = layer.taps.shape
    read = layer.taps.ravel().astype(np.int64)
    inputs = np.arange(channels)[:, None] * (len(table) // max(channels, 1))
    member = compose(function(np.where(read >= 0, inputs + read, -1).ravel()), table)
    row = member.rows()
    ptr = np.searchsorted(row, np.arange(channels * taps + 1) * outputs).astype(np.int64)
    positions = PositionMap(outputs, source.size, ptr, row % outputs, member.idx)
    numbers = np.arange(channels + 1)
    nowhere = Relation(numbers, np.zeros(channels, np.int64))
    segments = ChannelMap(numbers, np.zeros(channels, np.int64), numbers[:-1], nowhere, True)
    return Pieces(segments, positions, np.arange(taps)[:, None], taps, np.zeros(1, np.int64))


def _unspanned(use: Use, source: Partition) -> tuple[Relation, Relation]:
    """Channels and positions of a use, each with its share of the span.

    Where the span is some channels times some positions (a head of all tokens) the channels are read
    side by side; otherwise (offsets listed twice, say) it goes to the positions as it is.
    """
    channel, position = _decode(use.span.idx, source)
    shifts, places = np.unique(channel), np.unique(position)
    whole = len(np.unique(use.span.idx)) == len(use.span.idx) == len(shifts) * len(places)
    if len(shifts) == 1 or not whole:
        return use.channels, use.positions
    step = source.channel_stride, source.position_stride
    some = [Relation(np.array([0, len(x)]), x * s) for x, s in zip((shifts, places), step, strict=True)]
    return outer_sum([use.channels, some[0]]), outer_sum([use.local, some[1]])


def _closed_form(layer: Layer, use: Use, source: Partition) -> Pieces | None:
    """Channels and positions apart; None where the layout mixes them."""
    middle = source.channel_dim and prod(source.shape[source.channel_dim + 1 :]) != 1
    if use.table is not None or middle:
        return None
    read, where = _unspanned(use, source)
    channels = channel_map(read, _decode(read.idx, source), source.channels)
    shift, position = _decode(where.idx, source)
    taps, outputs = layer.taps.shape
    shifts, shift_id = np.unique(shift, return_inverse=True)
    if not len(shifts):
        shifts, shift_id = np.zeros(1, np.int64), np.zeros(0, np.int64)
    wide = int(channels.channel.max(initial=0) + shifts.max()) >= source.channels
    if wide or int(channels.sets.idx.max(initial=0) + position.max(initial=0)) >= source.positions:
        return None
    # one member list for all taps: rows are (tap, output position), members index the positions relation
    taken = function(layer.taps.ravel().astype(np.int64))
    member = compose(taken, Relation(where.ptr, np.arange(len(position))))
    row = member.rows()
    tap, target = row // outputs, row % outputs
    full, pair_key = np.unique(tap * len(shifts) + shift_id[member.idx], return_inverse=True)
    key = np.full((taps, len(shifts)), -1, np.int64)
    key.ravel()[full] = np.arange(len(full))
    order = np.argsort(pair_key, kind="stable")
    base = np.searchsorted(pair_key[order], np.arange(len(full) + 1))
    target, where = target[order], position[member.idx[order]]
    ptr, targets, sources = [np.zeros(1, np.int64)], [], []
    done = 0
    for s in range(len(channels.sets)):
        members = channels.sets.idx[channels.sets.ptr[s] : channels.sets.ptr[s + 1]]
        ptr.append(done + base[1:] * len(members))
        done += int(base[-1]) * len(members)
        targets.append(np.repeat(target, len(members)))
        sources.append((where[:, None] + members[None]).ravel())
    none = [np.zeros(0, np.int64)]
    positions = PositionMap(
        outputs,
        source.positions,
        np.concatenate(ptr).astype(np.int64),
        np.concatenate(targets or none),
        np.concatenate(sources or none),
    )
    return Pieces(channels, positions, key, len(full), shifts)
