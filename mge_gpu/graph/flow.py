"""The network as path metrics see it: what signals pass on their way from the input to an output.

The graph has one edge where several routes meet, and none for an identity skip. Sums over paths through the
weights need more: which weight a nonzero is, and every route by itself. So a layer that reads sums of nodes
(a gate, attention) gets its input as a node set of its own here, which routes of unit weight lead to; then
every nonzero of every layer is one weight.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from graphlib import TopologicalSorter
from math import prod

import numpy as np
import torch

from mge_gpu.backends.adjacency import Adjacency, Block
from mge_gpu.graph.blocks import Group, Placed, Weight, build_block, group_contributions, weight_matrix
from mge_gpu.graph.compressed import build_adjacency
from mge_gpu.graph.geometry import Contribution, contributions, input_channels
from mge_gpu.graph.positions import PositionMap
from mge_gpu.tracing.program import Layer, Partition, Program, Use
from mge_gpu.tracing.relation import arange
from mge_gpu.tracing.weights import WeightReader


@dataclass(frozen=True)
class Link:
    """A block between two node sets, made when it is asked for.

    ``weighted``: each of its nonzeros is one weight of a layer; otherwise they are the multiplicities of
    routes or identity skips. ``entry`` (nonzeros,) int64 says which weight of the network each is, in the
    order of `Program.weight_shapes`; without it they are weights that no other link has. ``number`` is that
    of the same block in the graph, if it is there.
    """

    source: int
    target: int
    make: Callable[[], tuple[Block, PositionMap]]
    weighted: bool = True
    entry: np.ndarray | None = None
    number: int | None = None


@dataclass(frozen=True)
class Flow:
    """Node sets, and how signals pass between them.

    Attributes:
        sets: the graph's partitions, then the inputs of layers that read sums.
        partitions: how many of the sets are partitions.
        links: every route through the weights, one by one. Identity skips are among them.
        edges: the blocks of the graph with identity skips: one edge where several routes meet.
        inputs, outputs: set -> (nodes,) bool, those that the network's input fills (not its padding), and
            those that the network returns.
        weights: prunable weights of the network.
        networks: of how many networks this is the union (`mge_gpu.graph.union`), each with so many weights.
    """

    sets: tuple[Partition, ...]
    partitions: int
    links: tuple[Link, ...]
    edges: tuple[Link, ...]
    inputs: dict[int, np.ndarray]
    outputs: dict[int, np.ndarray]
    weights: int
    networks: int = 1

    def order(self) -> list[int]:
        """The sets, each after those that lead to it."""
        before: dict[int, set[int]] = {p: set() for p in range(len(self.sets))}
        for link in (*self.links, *self.edges):
            before[link.target].add(link.source)
        return list(TopologicalSorter(before).static_order())


def pair_adjacency(link: Link, sets: Sequence[Partition]) -> Adjacency:
    """The compressed adjacency of one link alone, in which every edge is there once."""
    block, positions = link.make()
    source = replace(sets[link.source], offset=0)
    target = replace(sets[link.target], offset=source.size)
    block = block._replace(source_offset=0, target_offset=source.size)
    return build_adjacency([source, target], [(0, 1, block, positions)])


def sums_up(parts: Sequence[Contribution]) -> bool:
    """Whether an input channel of a layer, of which these are all contributions, stands for several nodes."""
    each = sum(np.diff(p.channels.ptr) for p in parts)
    alike = all(p.channels.injective and len(p.channel_shift) == 1 for p in parts)
    return bool(np.max(each, initial=0) > 1) or not alike


def _by_layer(groups: Sequence[Group]) -> dict[int, list[Contribution]]:
    found: dict[int, list[Contribution]] = {}
    for part in (m for g in groups for m in g.members):
        found.setdefault(part.layer, []).append(part)
    return found


def _skip_pairs(program: Program) -> set[tuple[int, int]]:
    return {(u.source, x.target) for x in program.skips for u in x.uses}


def read_again(program: Program, groups: Sequence[Group]) -> list[int]:
    """Layers whose weights `build_flow` reads beside the blocks of the graph, which are ``groups``."""
    shared = _shared(program)
    pairs = _skip_pairs(program)
    again = {k for k, parts in _by_layer(groups).items() if sums_up(parts)}
    again |= {m.layer for g in groups if len(g.members) > 1 for m in g.members}
    for k, layer in enumerate(program.layers):
        beside_skip = pairs & {(u.source, layer.target) for u in layer.uses}
        if beside_skip or shared & _names(layer):
            again.add(k)
    return sorted(k for k in again if program.layers[k].weight_name)


def _shared(program: Program) -> set[str]:
    """Parameters that several layers use."""
    seen: set[str] = set()
    twice: set[str] = set()
    for layer in program.layers:
        twice |= seen & _names(layer)
        seen |= _names(layer)
    return twice


def _names(layer: Layer) -> set[str]:
    return {name for name, _ in layer.parameters}


def build_flow(
    program: Program,
    groups: Sequence[Group],
    placed: Callable[[int], Placed],
    read: Weight,
    entries: bool = False,
) -> Flow:
    """The flow of a graph.

    Args:
        program: the traced network.
        groups: its contributions by block.
        placed: makes the graph's block of a group, by its number.
        read: reads a layer's weight, by its index; called for those of `read_again` alone, or for all with
            ``entries``.
        entries: say of every nonzero which weight it is, and leave out the flow's ``edges``.
    """
    by_layer = _by_layer(groups)
    summing = {k for k, parts in by_layer.items() if program.layers[k].weight_name and sums_up(parts)}
    shared = _shared(program)
    links: list[Link] = []

    def link(
        part: Contribution, index: int | None, layers: Sequence[Layer], sets: Sequence[Partition]
    ) -> Link:
        """Of a contribution of ``layers[part.layer]``, with the weight of the program's layer ``index``."""
        ids = None
        if index is not None and (entries or shared & _names(program.layers[index])):
            matrix = weight_matrix(part, layers[part.layer], read(index))
            ids = entry_ids(program, program.layers[index], part, matrix)

        def weight(_: int) -> torch.Tensor | None:
            return None if index is None else read(index)

        group = Group(part.source, part.target, [part], part.positions)
        make = partial(_built, group, sets, layers, weight)
        return Link(part.source, part.target, make, index is not None, ids)

    for number, group in enumerate(groups):
        for part in group.members:
            if part.layer in summing or not program.layers[part.layer].weight_name:
                continue
            found = link(part, part.layer, program.layers, program.partitions)
            if len(group.members) == 1:
                found = replace(found, make=partial(_block_of, placed, number), number=number)
            links.append(found)
    sets, made, index_of, parts = _inputs_apart(program, summing)
    links += [link(part, index_of[part.layer], made, sets) for part in parts]
    prunable = {*program.parameter_shapes, *(layer.weight_name for layer in program.layers)}
    return Flow(
        sets,
        len(program.partitions),
        tuple(links),
        () if entries else tuple(_edges(program, groups, placed, read)),
        {p: input_nodes(program, p) for p in program.input_partitions},
        {p: _returned(program, p) for p in program.output_partitions},
        sum(prod(shape) for name, shape in program.weight_shapes().items() if name in prunable),
    )


def _block_of(placed: Callable[[int], Placed], number: int) -> tuple[Block, PositionMap]:
    return placed(number)[2:]


def _built(
    group: Group, sets: Sequence[Partition], layers: Sequence[Layer], weight: Weight
) -> tuple[Block, PositionMap]:
    return build_block(group, sets, layers, weight), group.positions


def _inputs_apart(
    program: Program, summing: Collection[int]
) -> tuple[tuple[Partition, ...], tuple[Layer, ...], list[int | None], list[Contribution]]:
    """What is linked by itself: (sets, layers, index of each in the program or None if unweighted, their
    contributions).

    A layer of ``summing`` becomes two: routes that write its input, and the layer on that. Skips follow.
    Made once for all masks.
    """
    if "apart" in program.cache:
        known: tuple[tuple[Partition, ...], tuple[Layer, ...], list[int | None], list[Contribution]]
        known = program.cache["apart"]
        return known
    sets = list(program.partitions)
    made: list[Layer] = []
    index_of: list[int | None] = []
    for k in sorted(summing):
        layer = program.layers[k]
        channels, first = input_channels(layer), layer.uses[0]
        size = len(first.local) if first.table is None else len(first.table) // channels
        sets.append(Partition(f"{layer.name}:in", (channels, size), sets[-1].offset + sets[-1].size))
        routes = Layer(
            f"{layer.name}:in", "", "identity", (channels, 1, 1), channels, False, len(sets) - 1,
            np.arange(size, dtype=np.int32)[None], layer.uses,
        )  # fmt: skip
        made += [routes, replace(layer, uses=(Use(len(sets) - 1, arange(channels, size), arange(size)),))]
        index_of += [None, k]
    skips = (*(x for x in program.layers if not x.weight_name), *program.skips)
    layers = (*made, *skips)
    parts = contributions(replace(program, partitions=tuple(sets), layers=layers, cache={}))
    program.cache["apart"] = tuple(sets), layers, [*index_of, *([None] * len(skips))], parts
    return _inputs_apart(program, summing)


def _edges(
    program: Program, groups: Sequence[Group], placed: Callable[[int], Placed], read: Weight
) -> Iterator[Link]:
    """The blocks of the graph with identity skips: those that a skip joins are made anew."""
    pairs = _skip_pairs(program)
    for number, group in enumerate(groups):
        if (group.source, group.target) not in pairs:
            yield Link(group.source, group.target, partial(_block_of, placed, number), number=number)
    if not pairs:
        return
    beside = [k for k, x in enumerate(program.layers) if pairs & {(u.source, x.target) for u in x.uses}]
    layers = (*(program.layers[k] for k in beside), *program.skips)

    def weight(k: int) -> torch.Tensor | None:
        return read(beside[k]) if k < len(beside) and layers[k].weight_name else None

    parts = contributions(replace(program, layers=layers, cache={}))
    for group in group_contributions([p for p in parts if (p.source, p.target) in pairs]):
        yield Link(group.source, group.target, partial(_built, group, program.partitions, layers, weight))


def entry_ids(program: Program, layer: Layer, part: Contribution, matrix: np.ndarray) -> np.ndarray:
    """(nonzeros,) int64: which weight of the network each nonzero of a contribution is."""
    found = np.flatnonzero(matrix)
    if is_parameter(layer) and not layer.transposed:  # the next line, without an id for each zero
        ids = found + first_ids(program)[layer.weight_name]
    else:
        ids = layer.matrix(weight_ids(program, layer)).numpy().ravel()[found]
    there = np.diff(part.channels.ptr) > 0
    if there.all() and (part.key >= 0).all():
        return ids
    o, i, t = np.unravel_index(found, matrix.shape)
    channel = o // (matrix.shape[0] // layer.groups) * matrix.shape[1] + i
    return ids[there[channel] & (part.key[t, 0] >= 0)]


def is_parameter(layer: Layer) -> bool:
    """Whether a layer's weight is a parameter as it is."""
    return not isinstance(layer.weight, WeightReader) or not layer.weight.masked


def first_ids(program: Program) -> dict[str, int]:
    """The number of the first weight of each parameter, counted over `Program.weight_shapes`."""
    if "first_ids" not in program.cache:
        sizes = {name: prod(shape) for name, shape in program.weight_shapes().items()}
        ends = np.cumsum([0, *sizes.values()]).tolist()
        program.cache["first_ids"] = dict(zip(sizes, ends, strict=False))
    known: dict[str, int] = program.cache["first_ids"]
    return known


def weight_ids(program: Program, layer: Layer) -> torch.Tensor:
    """Which weight of the network each entry of a layer's weight is, int64, of the weight's shape.

    -1 is a zero that is no weight. Entries that are computed from several weights (a standardised kernel) go
    by the ones at their own places.
    """
    own = parameter_ids(program, layer)
    places = layer.weight.places() if isinstance(layer.weight, WeightReader) else None
    if places is None:
        places = torch.arange(prod(layer.weight_shape)) % len(own)
    return torch.where(places < 0, -1, own[places])


def parameter_ids(program: Program, layer: Layer) -> torch.Tensor:
    """The numbers of all weights that a layer's weight is made of, parameter by parameter; int64."""
    first = first_ids(program)
    return torch.cat([torch.arange(first[n], first[n] + prod(shape)) for n, shape in layer.parameters])


def input_nodes(program: Program, partition: int) -> np.ndarray:
    """(nodes,) bool: those of an input partition that the input fills; the others are zero padding."""
    shape = program.partitions[partition].shape
    inside = np.ones(shape, np.bool_)
    if partition == 0 and program.halo is not None:
        inside[:] = False
        sides = zip(shape, program.halo[::2], program.halo[1::2], strict=True)
        inside[tuple(slice(before, n - after) for n, before, after in sides)] = True
    return inside.ravel()


def _returned(program: Program, partition: int) -> np.ndarray:
    size = program.partitions[partition].size
    if partition not in program.returned:
        return np.ones(size, np.bool_)
    mask = np.zeros(size, np.bool_)
    mask[program.returned[partition]] = True
    return mask
