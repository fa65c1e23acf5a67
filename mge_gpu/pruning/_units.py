"""The unit graph: a network as a directed acyclic graph of channels, each weight a place in one flat vector.

A unit is a channel of a partition (an input or output channel of a convolution, an input or output feature
of a linear layer that acts on vectors). It is derived from the traced program, so that sums, concatenation,
residuals, flattening, pooling, groups and attention need no rule of their own: what an input channel of a
layer reads is what the graph's blocks say that it reads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mge_gpu.backends.adjacency import FLAT
from mge_gpu.errors import PruningError
from mge_gpu.graph.geometry import Contribution, contributions
from mge_gpu.pruning._run import run
from mge_gpu.tracing import Layer, Partition, trace


@dataclass(frozen=True)
class UnitLayer:
    """A parametric layer, or the free unit edges of an identity skip, between units.

    ``weights[o, i, t]`` is the place of a weight in the flat vector of all weights: tap t of input channel i
    (within its group) of output channel o, which is unit ``first + o``. Input channel i (of all groups)
    reads the units ``unit[ptr[i]:ptr[i + 1]]``; ``pairs[row, t]`` names the list of the (source, target)
    positions that tap t of this row pairs, -1 where it meets none (a tap that sees only zero padding).
    """

    name: str
    target: int  # partition
    first: int
    groups: int
    weights: np.ndarray  # (C_out, C_in / groups, taps) int32 or int64
    ptr: np.ndarray  # (C_in + 1,) int64
    unit: np.ndarray  # (rows,) int64
    pairs: np.ndarray  # (rows, taps) int64

    @property
    def rows(self) -> np.ndarray:
        """The input channel of each row, shape (rows,), int64."""
        return np.repeat(np.arange(len(self.ptr) - 1), np.diff(self.ptr))

    def by_group(self, weights: np.ndarray) -> np.ndarray:  # (C_out, C_in / groups, taps)
        """The same as (groups, C_out / groups, C_in / groups, taps)."""
        return weights.reshape(self.groups, -1, *weights.shape[1:])


@dataclass(frozen=True)
class UnitGraph:
    """Units, layers in order of execution, and the position pairs of their taps.

    Weights are numbered through: first the ``prunable`` ones in the order of the model's prunable parameters,
    then those that no mask names (identity skips, weights that are no parameter of a layer), whose absolute
    values are in ``fixed``.
    """

    offset: np.ndarray  # (partitions + 1,) int64: first unit of each partition
    positions: np.ndarray  # (partitions,) int64
    layers: tuple[UnitLayer, ...]
    inputs: np.ndarray  # units
    outputs: np.ndarray  # units
    prunable: int
    fixed: np.ndarray  # (weights that no mask names,) float64
    pair_ptr: np.ndarray  # (lists + 1,) int64
    pair_source: np.ndarray  # int32
    pair_target: np.ndarray  # int32

    @property
    def units(self) -> int:
        """Number of units."""
        return int(self.offset[-1])

    def reads(self, layer: UnitLayer, alive: np.ndarray) -> np.ndarray:  # (units,) bool
        """(groups, 1, C_in / groups, taps): whether a weight there meets a unit that is alive."""
        found = np.zeros((len(layer.ptr) - 1, layer.pairs.shape[1]), bool)
        np.logical_or.at(found, layer.rows, (layer.pairs >= 0) & alive[layer.unit][:, None])
        return found.reshape(layer.groups, 1, -1, found.shape[1])

    def writes(self, layer: UnitLayer, alive: np.ndarray) -> np.ndarray:  # (units,) bool
        """(groups, C_out / groups, 1, 1): whether a weight there ends in a unit that is alive."""
        return alive[layer.first : layer.first + len(layer.weights)].reshape(layer.groups, -1, 1, 1)

    def forward(self, layer: UnitLayer, kept: np.ndarray, alive: np.ndarray) -> None:
        """Add to ``alive`` what the layer's kept weights reach from it; (weights,), (units,) bool."""
        found = (layer.by_group(kept[layer.weights]) & self.reads(layer, alive)).any((2, 3)).ravel()
        alive[layer.first : layer.first + len(found)] |= found

    def backward(self, layer: UnitLayer, kept: np.ndarray, alive: np.ndarray) -> None:
        """Add to ``alive`` what reaches it by the layer's kept weights; (weights,), (units,) bool."""
        read = (layer.by_group(kept[layer.weights]) & self.writes(layer, alive)).any(1)
        read = read.reshape(len(layer.ptr) - 1, -1)
        np.logical_or.at(alive, layer.unit, (read[layer.rows] & (layer.pairs >= 0)).any(1))

    def reached(self, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # (weights,) bool
        """Units that an input reaches, and units that reach an output, over kept weights; (units,) bool."""
        forth, back = np.zeros(self.units, bool), np.zeros(self.units, bool)
        forth[self.inputs], back[self.outputs] = True, True
        for layer in self.layers:
            self.forward(layer, kept, forth)
        for layer in reversed(self.layers):
            self.backward(layer, kept, back)
        return forth, back

    def effective(self, kept: np.ndarray) -> np.ndarray:  # (weights,) bool -> (weights,) bool
        """Kept weights that lie on a path of kept weights from an input unit to an output unit."""
        forth, back = self.reached(kept)
        found = np.zeros(len(kept), bool)
        for layer in self.layers:
            on_path = self.reads(layer, forth) & self.writes(layer, back)
            found[layer.by_group(layer.weights)[on_path]] = True
        return found & kept


def unit_graph(
    network: nn.Module, weights: Mapping[str, nn.Parameter], input_shape: Sequence[int]
) -> UnitGraph:
    """The unit graph of a network and its weights from :func:`mge_gpu.pruning._copy.dense_copy`.

    The network is traced with identity skips; they are layers whose weights no mask names. The weights are
    changed and put back while it is found out which of them a layer uses.

    Raises TracingError when the network cannot be traced; PruningError when it fails on ``input_shape`` or
    when a layer computes its weight in a way that leaves open which parameter is which weight.
    """
    parameter = next(iter(weights.values()))
    with torch.no_grad():  # a model that fails says so in its own words
        run(network, torch.zeros((1, *input_shape), dtype=parameter.dtype, device=parameter.device))
    program = trace(network, input_shape, pad_input=False, identity_skips=True)
    offset = np.cumsum([0, *(p.channels for p in program.partitions)])
    by_layer: list[list[Contribution]] = [[] for _ in program.layers]
    for part in contributions(program, crossed=False):  # a unit is a channel of its partition
        by_layer[part.layer].append(part)
    pool, places, layers = _Pairs(), _Places(weights), []
    for layer, parts in zip(program.layers, by_layer, strict=True):
        rows = [_rows(p, program.partitions[p.source], pool) for p in parts]
        taps = len(layer.taps)
        channel = np.concatenate([np.zeros(0, np.int64), *(r[0] for r in rows)])
        unit = np.concatenate(
            [np.zeros(0, np.int64), *(r[1] + offset[p.source] for r, p in zip(rows, parts, strict=True))]
        )
        lists = np.concatenate([np.zeros((0, taps), np.int64), *(r[2] for r in rows)])
        groups = layer.groups
        if layer.weight is None and groups == 1:
            # Tap o of the one input channel is all that output o reads: o is its own group.
            row, channel = np.nonzero(lists >= 0)
            unit, lists, groups = unit[row], lists[row, channel][:, None], layer.weight_shape[0]
        index = places.fixed(np.ones((groups, 1, 1))) if layer.weight is None else places.of(layer)
        ptr, unit, lists = _merged(channel, unit, lists, index.shape[1] * groups, pool)
        layers.append(
            UnitLayer(layer.name, layer.target, int(offset[layer.target]), groups, index, ptr, unit, lists)
        )
    return UnitGraph(
        offset,
        np.array([p.positions for p in program.partitions]),
        tuple(layers),
        _units(offset, program.input_partitions),
        _units(offset, program.output_partitions),
        places.prunable,
        np.concatenate([np.zeros(0), *places.values]),
        *pool.arrays(),
    )


def _units(offset: np.ndarray, partitions: Sequence[int]) -> np.ndarray:
    return np.concatenate([np.arange(offset[p], offset[p + 1]) for p in partitions])


class _Pairs:
    """All lists of position pairs, each kept once."""

    def __init__(self) -> None:
        self.sources: list[np.ndarray] = []
        self.targets: list[np.ndarray] = []
        self.known: dict[Any, Any] = {}

    def add(self, ptr: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Names of the lists ``ptr[k]:ptr[k + 1]``; -1 of an empty one."""
        names = np.full(len(ptr) - 1, -1, np.int64)
        for k in np.flatnonzero(np.diff(ptr)):
            names[k] = len(self.sources)
            self.sources.append(source[ptr[k] : ptr[k + 1]])
            self.targets.append(target[ptr[k] : ptr[k + 1]])
        return names

    def union(self, names: tuple[int, ...]) -> int:
        """The list of all pairs of several lists."""
        if names not in self.known:
            self.known[names] = len(self.sources)
            self.sources.append(np.concatenate([self.sources[k] for k in names]))
            self.targets.append(np.concatenate([self.targets[k] for k in names]))
        return int(self.known[names])

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pointers, source positions, target positions."""
        ptr = np.cumsum([0, *(len(s) for s in self.sources)])
        none = [np.zeros(0, np.int32)]
        source, target = (
            np.concatenate(none + [x.astype(np.int32) for x in side]) for side in (self.sources, self.targets)
        )
        return ptr, source, target


def _rows(part: Contribution, source: Partition, pool: _Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(input channel, source channel, list of each tap) of what a contribution reads."""
    key = (id(part.positions), part.view, source.shape, source.channel_dim)
    channel = np.repeat(np.arange(len(part.channels.ptr) - 1), np.diff(part.channels.ptr))
    p = part.positions
    if part.view == FLAT:
        if key not in pool.known:  # the contribution is kept so that its id stays taken
            pool.known[key] = part, _split(part, source, pool)
        i, c, lists = pool.known[key][1]
        return i, c, lists
    if key not in pool.known:
        pool.known[key] = part, pool.add(p.ptr, p.source, p.target)
    names = np.append(pool.known[key][1], -1)
    at = part.channels.position_set[:, None, None] * part.keys + part.key.T[None]  # (segments, shifts, taps)
    lists = names[np.where(part.key.T[None] < 0, -1, at)]
    units = part.channels.channel[:, None] + part.channel_shift
    shifts = len(part.channel_shift)
    return np.repeat(channel, shifts), units.ravel(), lists.reshape(-1, lists.shape[2])


def _split(part: Contribution, source: Partition, pool: _Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same where every source node is a position: pairs are sorted by the node's channel."""
    taps = len(part.key)
    p = part.positions
    block = max(int(np.prod(source.shape[source.channel_dim + 1 :])), 1)
    node = p.source
    channel = node // block % max(source.channels, 1)
    position = node // (block * max(source.channels, 1)) * block + node % block
    listed = np.repeat(np.arange(len(p.ptr) - 1), np.diff(p.ptr))
    order = np.lexsort((channel, listed))
    code = (listed * source.channels + channel)[order]
    found, start = np.unique(code, return_index=True)
    names = pool.add(np.append(start, len(code)), position[order], p.target[order])
    input_channel, tap, unit = (
        found // source.channels // taps,
        found // source.channels % taps,
        found % source.channels,
    )
    row_code, row = np.unique(input_channel * source.channels + unit, return_inverse=True)
    lists = np.full((len(row_code), taps), -1, np.int64)
    lists[row, tap] = names
    return row_code // source.channels, row_code % source.channels, lists


def _merged(
    channel: np.ndarray, unit: np.ndarray, lists: np.ndarray, channels: int, pool: _Pairs
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows by (input channel, unit), each once, those that meet nothing left out."""
    alive = (lists >= 0).any(1)
    channel, unit, lists = channel[alive], unit[alive], lists[alive]
    order = np.lexsort((unit, channel))
    channel, unit, lists = channel[order], unit[order], lists[order]
    new = np.r_[True, (np.diff(channel) != 0) | (np.diff(unit) != 0)][: len(unit)]
    start = np.flatnonzero(new)
    merged = lists[start]
    for k in np.flatnonzero(np.diff(np.append(start, len(unit))) > 1):
        several = lists[start[k] : np.append(start, len(unit))[k + 1]]
        for t in range(lists.shape[1]):
            names = tuple(int(n) for n in np.sort(several[:, t]) if n >= 0)
            merged[k, t] = -1 if not names else names[0] if len(names) == 1 else pool.union(names)
    ptr = np.searchsorted(channel[start], np.arange(channels + 1)).astype(np.int64)
    return ptr, unit[start], merged


class _Places:
    """Where each layer's weights are in the flat vector: found by letting the parameters count through."""

    def __init__(self, weights: Mapping[str, nn.Parameter]) -> None:
        self.weights = weights
        ends = np.cumsum([0, *(w.numel() for w in weights.values())])
        self.first = {name: int(n) for name, n in zip(weights, ends, strict=False)}
        self.prunable = int(ends[-1])
        self.total = self.prunable
        self.values: list[np.ndarray] = []
        self.flat = torch.cat([w.detach().flatten().cpu() for w in weights.values()])

    def fixed(self, values: np.ndarray) -> np.ndarray:
        """Places for weights that no mask names."""
        index = np.arange(self.total, self.total + values.size).reshape(values.shape)
        self.values.append(np.abs(values, dtype=np.float64).ravel())
        self.total += values.size
        return index

    def of(self, layer: Layer) -> np.ndarray:
        """(C_out, C_in / groups, taps) places of a layer's weights."""
        assert layer.weight is not None
        value = layer.weight({})
        names = [name for name, _ in layer.parameters if name in self.weights]
        if not names:
            return self.fixed(layer.matrix(value).double().cpu().numpy())
        counted = self._counted(layer, names)
        index = counted.round().long() - 1
        if self._is_copy(index, counted, value):
            return layer.matrix(index).numpy()
        if len(names) == 1 and self.weights[names[0]].shape == value.shape:  # computed element by element
            start = self.first[names[0]]
            return layer.matrix(torch.arange(start, start + value.numel()).reshape(value.shape)).numpy()
        raise PruningError(
            f"layer {layer.name!r} computes its weight of shape {tuple(value.shape)} from "
            f"{', '.join(names)}, and which of these is which weight cannot be told; use a method that "
            "scores weights one by one (magnitude, snip, synflow)"
        )

    def _counted(self, layer: Layer, names: Sequence[str]) -> Tensor:
        """What the layer's weight would be if the parameters were their own places, from 1 on."""
        assert layer.weight is not None
        before = {name: self.weights[name].data for name in names}
        try:
            for name in names:
                start, w = self.first[name] + 1, before[name]
                places = torch.arange(start, start + w.numel(), dtype=torch.float64, device=w.device)
                self.weights[name].data = places.reshape(w.shape)
            return layer.weight({}).double().cpu()
        finally:
            for name, data in before.items():
                self.weights[name].data = data

    def _is_copy(self, index: Tensor, counted: Tensor, value: Tensor) -> bool:
        whole = bool(((index >= 0) & (index < self.prunable) & (index + 1 == counted)).all())
        return whole and torch.equal(self.flat[index], value.detach().cpu())
