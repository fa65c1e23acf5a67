"""Geometry of a program: how each layer's weights become blocks. Independent of the weights."""

import hashlib
from dataclasses import dataclass
from math import prod

import numpy as np

from mge_gpu.errors import GraphError
from mge_gpu.graph.positions import ChannelMap, PositionMap, channel_map
from mge_gpu.tracing.program import Layer, Partition, Program, Use
from mge_gpu.tracing.relation import Relation, compose, function


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


def contributions(program: Program) -> list[Contribution]:
    """One contribution for each layer and each partition that it reads; equal geometry is shared."""
    cache: dict[bytes, tuple[ChannelMap, PositionMap, np.ndarray, int, np.ndarray]] = {}
    out = []
    for index, layer in enumerate(program.layers):
        for use in layer.uses:
            source = program.partitions[use.source]
            digest = _digest(layer, use, source)
            if digest not in cache:
                cache[digest] = _build(layer, use, source)
            out.append(Contribution(index, use.source, layer.target, *cache[digest]))
    return out


def _digest(layer: Layer, use: Use, source: Partition) -> bytes:
    h = hashlib.blake2b(repr((source.shape, source.channel_dim, layer.taps.shape)).encode())
    for a in (layer.taps, use.channels.ptr, use.channels.idx, use.positions.ptr, use.positions.idx):
        h.update(np.ascontiguousarray(a).data)
    return h.digest()


def _decode(offsets: np.ndarray, partition: Partition) -> tuple[np.ndarray, np.ndarray]:
    """Offsets within a partition as (channel, position)."""
    if partition.channel_dim == 0:
        return offsets // partition.positions, offsets % partition.positions
    if prod(partition.shape[partition.channel_dim + 1 :]) != 1:
        raise GraphError(
            f"partition {partition.name!r} of shape {partition.shape} has its channels in the middle (dim "
            f"{partition.channel_dim}); they must come first or last"
        )
    return offsets % partition.channels, offsets // partition.channels


def _build(
    layer: Layer, use: Use, source: Partition
) -> tuple[ChannelMap, PositionMap, np.ndarray, int, np.ndarray]:
    channels = channel_map(use.channels, _decode(use.channels.idx, source), source.channels)
    shift, position = _decode(use.positions.idx, source)
    taps, outputs = layer.taps.shape
    shifts, shift_id = np.unique(shift, return_inverse=True)
    if not len(shifts):
        shifts, shift_id = np.zeros(1, np.int64), np.zeros(0, np.int64)
    wide = int(channels.channel.max(initial=0) + shifts.max()) >= source.channels
    if wide or int(channels.sets.idx.max(initial=0) + position.max(initial=0)) >= source.positions:
        raise GraphError(
            f"layer {layer.name!r} reads {source.name!r} in a layout that mixes channels and positions; "
            "it has no closed form"
        )
    # one member list for all taps: rows are (tap, output position), members index the positions relation
    read = function(layer.taps.ravel().astype(np.int64))
    member = compose(read, Relation(use.positions.ptr, np.arange(len(position))))
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
    return channels, positions, key, len(full), shifts
