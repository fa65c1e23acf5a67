"""The tables that random walks over a unit graph draw from."""

from typing import NamedTuple

import numpy as np

from mge_gpu.pruning._units import UnitGraph, UnitLayer


class WalkTables(NamedTuple):
    """A unit graph as flat arrays, cut down to what lies between an input and an output.

    A group is a group of a layer. Its input channels that read the same units (the features that a flattened
    channel becomes, say) form a bundle; a bundle and an output make a kernel, whose norm is the sum of its
    |weights|. A kernel's elements are (member, tap); member m and producer q of a bundle pair positions
    by ``lists[bundle_list[b] + (m * producers + q) * taps + t]``, -1 where they meet nowhere.
    """

    unit_forth: np.ndarray  # (units + 1,) branches of a unit, one a layer that reads it
    branch: np.ndarray  # (branches + 1,) entries of a branch
    entry_bundle: np.ndarray  # (entries,)
    entry_producer: np.ndarray  # (entries,) which of the bundle's producers the unit is
    entry_sum: np.ndarray  # (entries,) float64, running sums of the norms within a branch
    unit_back: np.ndarray  # (units + 1,) branches of a unit backwards, one a layer that writes it
    back_group: np.ndarray  # (branches back,)
    back_output: np.ndarray  # (branches back,) which of the group's outputs the unit is
    group_layer: np.ndarray  # (groups,)
    group_bundle: np.ndarray  # (groups + 1,)
    group_output: np.ndarray  # (groups + 1,) outputs of a group
    output_unit: np.ndarray  # (outputs,)
    output_weight: np.ndarray  # (outputs,) place of the output's first weight in ``weights``
    group_norm: np.ndarray  # (groups + 1,) the group's kernels in the two arrays below
    norm_forth: np.ndarray  # float64, (bundle, output) of each group, running sums over outputs
    norm_back: np.ndarray  # float64, (output, bundle) of each group, running sums over bundles
    bundle_group: np.ndarray  # (bundles,)
    bundle_member: np.ndarray  # (bundles + 1,)
    member: np.ndarray  # (members,) input channel within the group
    bundle_producer: np.ndarray  # (bundles + 1,)
    producer: np.ndarray  # (producers,) units
    bundle_list: np.ndarray  # (bundles,)
    lists: np.ndarray
    taps: np.ndarray  # (layers,)
    weights: np.ndarray  # (slots,) places in the flat vector, of all layers one after the other
    layer_slot: np.ndarray  # (layers + 1,) the layer's weights in ``weights``
    layer_groups: np.ndarray  # (layers,)
    layer_inside: np.ndarray  # (layers,) input channels of a group
    layer_output: np.ndarray  # (layers + 1,) the layer's output channels in the next array
    output_at: np.ndarray  # which of all groups' outputs, -1: on no path
    layer_channel: np.ndarray  # (layers + 1,) the layer's input channels in the next two arrays
    channel_bundle: np.ndarray  # -1: on no path
    channel_member: np.ndarray
    pair_ptr: np.ndarray
    pair_source: np.ndarray
    pair_target: np.ndarray
    unit_positions: np.ndarray  # (units,)
    is_input: np.ndarray  # (units,) bool
    is_output: np.ndarray  # (units,) bool


def walk_tables(graph: UnitGraph, size: np.ndarray) -> WalkTables:  # (weights,) float64: |w|
    """Tables of a unit graph whose weights have these absolute values.

    A unit all of whose kernels on the way are zero treats them as equal: nothing is divided by zero.
    """
    everything = np.ones(len(size), bool)
    forth, back = graph.reached(everything)
    alive = forth & back
    made = _Builder(graph, size, alive)
    for k, layer in enumerate(graph.layers):
        made.add(k, layer)
    return made.finish()


class _Builder:
    def __init__(self, graph: UnitGraph, size: np.ndarray, alive: np.ndarray) -> None:
        self.graph, self.size, self.alive = graph, size, alive
        self.entries: list[tuple[int, int, int, int, float]] = []  # unit, layer, bundle, producer, norm
        self.ends: list[tuple[int, int, int]] = []  # unit, group, output of the group
        self.group_layer: list[int] = []
        self.outputs: list[np.ndarray] = []
        self.output_weight: list[np.ndarray] = []
        self.group_bundles: list[int] = []
        self.norms: list[tuple[np.ndarray, np.ndarray]] = []
        self.bundle_group: list[int] = []
        self.members: list[np.ndarray] = []
        self.producers: list[np.ndarray] = []
        self.lists: list[np.ndarray] = []
        self.start = 0
        self.num_outputs = 0
        self.output_at = [np.full(len(x.weights), -1) for x in graph.layers]
        self.channel_bundle = [np.full(len(x.ptr) - 1, -1) for x in graph.layers]
        self.channel_member = [np.zeros(len(x.ptr) - 1, np.int64) for x in graph.layers]

    def add(self, k: int, layer: UnitLayer) -> None:
        """Enter a layer, group by group."""
        per_group, inside = len(layer.weights) // layer.groups, layer.weights.shape[1]
        units = layer.first + np.arange(len(layer.weights)).reshape(layer.groups, per_group)
        for g in range(layer.groups):
            outputs = np.flatnonzero(self.alive[units[g]])
            bundles = self._bundles(layer, range(g * inside, (g + 1) * inside))
            if not len(outputs) or not bundles:
                continue
            group = len(self.group_layer)
            index = layer.weights[units[g][outputs] - layer.first]  # (outputs, C_in / groups, taps)
            norm = np.empty((len(bundles), len(outputs)))
            for b, (producers, rows) in enumerate(bundles.items()):
                local = np.array([i for i, _ in rows]) - g * inside
                lists = np.stack([r for _, r in rows])  # (members, producers, taps)
                live = (lists >= 0).any(1)
                norm[b] = (self.size[index[:, local]] * live).sum((1, 2))
                for q, unit in enumerate(producers):
                    self.entries.append((unit, k, len(self.bundle_group), q, float(norm[b].sum())))
                self.channel_bundle[k][[i for i, _ in rows]] = len(self.bundle_group)
                self.channel_member[k][[i for i, _ in rows]] = np.arange(len(rows))
                self.bundle_group.append(group)
                self.members.append(local)
                self.producers.append(np.array(producers))
                self.lists.append(lists.ravel())
            self.ends += [(int(units[g][o]), group, at) for at, o in enumerate(outputs)]
            self.output_at[k][units[g][outputs] - layer.first] = self.num_outputs + np.arange(len(outputs))
            self.num_outputs += len(outputs)
            self.group_layer.append(k)
            self.outputs.append(units[g][outputs])
            each = layer.weights[0].size
            self.output_weight.append(self.start + (units[g][outputs] - layer.first) * each)
            self.group_bundles.append(len(bundles))
            self.norms.append((_running(norm), _running(norm.T)))
        self.start += layer.weights.size

    def _bundles(
        self, layer: UnitLayer, channels: range
    ) -> dict[tuple[int, ...], list[tuple[int, np.ndarray]]]:
        """Producers -> (input channel, its lists (producers, taps)) of those that read just these."""
        found: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}
        for i in channels:
            rows = np.arange(layer.ptr[i], layer.ptr[i + 1])
            rows = rows[self.alive[layer.unit[rows]]]
            if len(rows):
                found.setdefault(tuple(layer.unit[rows].tolist()), []).append((i, layer.pairs[rows]))
        return found

    def finish(self) -> WalkTables:
        """All as arrays."""
        graph = self.graph
        self.entries.sort(key=lambda e: e[:2])
        unit, layer, bundle, producer = (np.array([e[k] for e in self.entries], np.int64) for k in range(4))
        norm = np.array([e[4] for e in self.entries])
        new = np.r_[True, (np.diff(unit) != 0) | (np.diff(layer) != 0)][: len(unit)]
        start = np.append(np.flatnonzero(new), len(unit))
        sums = np.concatenate(
            [np.zeros(0), *(_running(norm[a:b][None])[0] for a, b in zip(start, start[1:], strict=False))]
        )
        ends = np.array(sorted(self.ends), np.int64).reshape(-1, 3)
        numbers = np.arange(graph.units + 1)
        is_input, is_output = np.zeros(graph.units, bool), np.zeros(graph.units, bool)
        is_input[graph.inputs], is_output[graph.outputs] = True, True
        return WalkTables(
            np.searchsorted(unit[start[:-1]], numbers).astype(np.int64),
            start.astype(np.int64),
            bundle,
            producer,
            sums,
            np.searchsorted(ends[:, 0], numbers).astype(np.int64),
            np.ascontiguousarray(ends[:, 1]),
            np.ascontiguousarray(ends[:, 2]),
            np.array(self.group_layer, np.int64),
            np.cumsum([0, *self.group_bundles]),
            _ptr(self.outputs),
            _joined(self.outputs),
            _joined(self.output_weight),
            _ptr([n.ravel() for n, _ in self.norms]),
            np.concatenate([np.zeros(0), *(n.ravel() for n, _ in self.norms)]),
            np.concatenate([np.zeros(0), *(n.ravel() for _, n in self.norms)]),
            np.array(self.bundle_group, np.int64),
            _ptr(self.members),
            _joined(self.members),
            _ptr(self.producers),
            _joined(self.producers),
            _ptr(self.lists)[:-1],
            _joined(self.lists),
            np.array([layer.weights.shape[2] for layer in graph.layers], np.int64),
            _joined([x.weights.ravel() for x in graph.layers]),
            _ptr([x.weights.ravel() for x in graph.layers]),
            np.array([x.groups for x in graph.layers], np.int64),
            np.array([x.weights.shape[1] for x in graph.layers], np.int64),
            _ptr(self.output_at),
            _joined(self.output_at),
            _ptr(self.channel_bundle),
            _joined(self.channel_bundle),
            _joined(self.channel_member),
            graph.pair_ptr.astype(np.int64),
            graph.pair_source,
            graph.pair_target,
            np.repeat(graph.positions, np.diff(graph.offset)).astype(np.int64),
            is_input,
            is_output,
        )


def _running(norm: np.ndarray) -> np.ndarray:
    """Running sums along the rows; a row of zeros counts as ones."""
    norm = np.where(norm.sum(1, keepdims=True) > 0, norm, 1.0)
    return np.ascontiguousarray(np.cumsum(norm, axis=1))


def _ptr(parts: list[np.ndarray]) -> np.ndarray:
    return np.cumsum([0, *(len(p) for p in parts)]).astype(np.int64)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64)
