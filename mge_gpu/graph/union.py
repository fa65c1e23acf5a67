"""Many masks of one network as one graph: a network of as many groups, each with weights of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import numpy as np

from mge_gpu.backends.adjacency import FLAT, OWN, Block
from mge_gpu.errors import GraphError
from mge_gpu.graph.blocks import Placed, place_block
from mge_gpu.graph.flow import Flow, Link
from mge_gpu.graph.multipartite import MultipartiteGraph
from mge_gpu.graph.positions import PositionMap
from mge_gpu.graph.views import seen
from mge_gpu.tracing.program import Partition


@dataclass(frozen=True)
class Union:
    """The disjoint union of graphs with the same partitions.

    Side by side, networks of one architecture are a single one with as many times the channels, whose layers
    link channel k * C + c of network k with channels of network k only. It has the same partitions, positions
    and arcs as one network, so that whatever works on a graph works on all of them, in the same number of
    launches.

    Attributes:
        graph: all networks, with ``networks`` times the channels.
        networks: how many.
    """

    graph: MultipartiteGraph
    networks: int

    def rows(self, x: Any) -> Any:
        """(networks, N) of values of all nodes: row k in the order of the nodes of network k alone."""
        parts = [by_network(x[p.offset : p.offset + p.size], p, self.networks) for p in self.graph.partitions]
        return np.concatenate(parts, 1)

    def network_of(self, nodes: np.ndarray) -> np.ndarray:
        """The network of each node, (R,) int64 of (R,)."""
        parts = self.graph.partitions
        owner = np.searchsorted([p.offset for p in parts], nodes, side="right") - 1
        offset, inner, channels = (
            np.array([f(p) for p in parts], np.int64)[owner]
            for f in (lambda p: p.offset, _inner, lambda p: max(p.channels // self.networks, 1))
        )
        found: np.ndarray = (nodes - offset) // inner // channels % self.networks
        return found


def _inner(p: Partition) -> int:
    """Nodes of one channel that follow each other."""
    return max(int(np.prod(p.shape[p.channel_dim + 1 :])), 1)


def by_network(x: Any, p: Partition, networks: int) -> Any:
    """(networks, nodes of one network) of values of the nodes of a partition of a union."""
    shape, d = p.shape, p.channel_dim
    split = x.reshape(*shape[:d], networks, shape[d] // networks, *shape[d + 1 :])
    return np.moveaxis(split, d, 0).reshape(networks, -1)


def union(graphs: Sequence[MultipartiteGraph]) -> Union:
    """The union of the graphs of some masks of one network.

    Raises:
        GraphError: they are not of one network, or too many nodes together.

    >>> import torch, mge_gpu
    >>> layer = torch.nn.Linear(2, 1, bias=False)
    >>> masks = [{"weight": torch.tensor([row])} for row in ([1, 0], [1, 1])]
    >>> together = union([mge_gpu.encode(layer, (2,), m) for m in masks])
    >>> [x.tolist() for x in together.graph.coo()[:2]]  # inputs 0 to 3, outputs 4 and 5
    [[0, 2, 3], [4, 5, 5]]
    >>> together.rows(np.arange(6)).tolist()
    [[0, 1, 4], [2, 3, 5]]
    """
    n = len(graphs)
    alone = graphs[0].partitions
    whole = tuple(_grown(p, n) for p in alone)
    placed = list(zip(*(graph.iterate_blocks() for graph in graphs), strict=True))
    if any(g.partitions != alone for g in graphs) or any(_differ(same) for same in placed):
        raise GraphError("got graphs of different networks, expected masks of one; encode one program")
    first = graphs[0]
    blocks = [_joined(same, alone, whole) for same in placed]
    flows = partial(_flow_of_graphs, tuple(graphs), blocks) if all(g.knows_flow for g in graphs) else None
    whole_graph = MultipartiteGraph(
        whole, blocks, first.input_partitions, first.output_partitions, first.info, first.device, flows
    )
    return Union(whole_graph, n)


def _flow_of_graphs(graphs: Sequence[MultipartiteGraph], blocks: Sequence[Placed]) -> Flow:
    return union_of_flows([g.flow for g in graphs], blocks)


def union_of_flows(flows: Sequence[Flow], blocks: Sequence[Placed]) -> Flow:
    """The flow of a union, from those of its networks and its blocks.

    The nonzeros of its links come network by network; ``entry`` says which weight of its network each is.

    Raises:
        GraphError: they are not of one network.
    """
    first, n = flows[0], len(flows)
    sets = tuple(_grown(p, n) for p in first.sets)
    if any(f.sets != first.sets or _wiring(f) != _wiring(first) for f in flows):
        raise GraphError("got flows of different networks, expected masks of one; encode one program")

    def joined(*same: Link) -> Link:
        link = same[0]
        make = partial(_block_of_links, same, first.sets, sets)
        entry = None if link.entry is None else np.concatenate([x.entry for x in same if x.entry is not None])
        if link.number is not None:
            make = partial(_block_of_graph, blocks[link.number])
        return replace(link, make=make, entry=entry)

    return replace(
        first,
        sets=sets,
        links=tuple(map(joined, *(f.links for f in flows))),
        edges=tuple(map(joined, *(f.edges for f in flows))),
        inputs={p: _of_each(mask, first.sets[p], n) for p, mask in first.inputs.items()},
        outputs={p: _of_each(mask, first.sets[p], n) for p, mask in first.outputs.items()},
        networks=n,
    )


def _wiring(flow: Flow) -> list[tuple[object, ...]]:
    return [(x.source, x.target, x.weighted, x.number, x.entry is None) for x in (*flow.links, *flow.edges)]


def _block_of_graph(placed: Placed) -> tuple[Block, PositionMap]:
    return placed[2:]


def _block_of_links(
    same: Sequence[Link], alone: Sequence[Partition], whole: Sequence[Partition]
) -> tuple[Block, PositionMap]:
    return _joined([(x.source, x.target, *x.make()) for x in same], alone, whole)[2:]


def _of_each(mask: np.ndarray, alone: Partition, n: int) -> np.ndarray:
    """Values of the nodes of a partition for each of n networks."""
    before = prod(alone.shape[: alone.channel_dim])
    return np.repeat(mask.reshape(before, 1, alone.size // max(before, 1)), n, axis=1).ravel()


def _grown(p: Partition, n: int) -> Partition:
    shape = tuple(n * size if k == p.channel_dim else size for k, size in enumerate(p.shape))
    return replace(p, shape=shape, offset=n * p.offset)


def _differ(same: Sequence[Placed]) -> bool:
    """Whether the blocks that several graphs have in one place are of different geometry."""
    source, target, block, positions = same[0]
    return any(
        (s, t, b.view) != (source, target, block.view) or (m is not positions and not _equal(m, positions))
        for s, t, b, m in same
    )


def _equal(a: PositionMap, b: PositionMap) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("ptr", "target", "source"))


def _joined(same: Sequence[Placed], alone: Sequence[Partition], whole: Sequence[Partition]) -> Placed:
    """The blocks of all networks in one place, as one."""
    s, t, first, positions = same[0]
    blocks = [block for _, _, block, _ in same]
    taps = positions.taps
    if first.view != OWN:
        positions = _apart(positions, whole[s], first.view, len(blocks))

    def column(name: str, step: int) -> np.ndarray:
        return np.concatenate([getattr(b, name) + np.int32(step * k) for k, b in enumerate(blocks)])

    columns = (
        column("target_channel", alone[t].channels),
        column("source_channel", alone[s].channels if first.view == OWN else 0),
        column("tap", 0 if first.view == OWN else taps),
        np.concatenate([b.weight for b in blocks]),
    )
    return s, t, place_block(columns, positions, whole[s], whole[t], first.view), positions


def _apart(positions: PositionMap, source: Partition, view: int, n: int) -> PositionMap:
    """Positions of a block to which the channels of its sources are positions: each network has own taps."""
    sources = seen(source, view).positions
    where = np.arange(sources).reshape(n, -1)
    if view == FLAT:
        where = by_network(where.ravel(), source, n)
    ends = np.arange(n)[:, None] * positions.ptr[-1]
    return PositionMap(
        positions.targets,
        sources,
        np.concatenate([[0], (positions.ptr[1:] + ends).ravel()]),
        np.tile(positions.target, n),
        where[:, positions.source].ravel(),
    )
