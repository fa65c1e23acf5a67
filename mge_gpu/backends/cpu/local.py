"""Nodes within two steps, and what counting them costs.

Where position does not matter (see `kinds`) whole channels are counted: one mark a channel instead of one a
node. The other nodes are marked one by one, unless their channel is.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from mge_gpu.backends.adjacency import Adjacency, arc_partitions, arcs_taken
from mge_gpu.backends.cpu.jit import jit_in_place
from mge_gpu.backends.cpu.kinds import Kinds, arc_kinds
from mge_gpu.backends.cpu.neighbours import partition_of, place_of, spot
from mge_gpu.backends.cpu.threads import balanced, evenly, num_threads, run

PIECE = 1 << 14
"""Nodes that a thread looks at in one go, at least."""


@jit_in_place
def _mark_channels(g: Adjacency, kinds: Kinds, arc: int, row: int, k: int, channels: np.ndarray) -> int:
    """Mark the channels of a list with k; returns the nodes of those that are new."""
    q = g.arc_other[arc]
    stride = kinds.positions[q] if g.channel_first[q] else 1
    size = 0
    for j in range(g.list_ptr[row], g.list_ptr[row + 1]):
        c = kinds.channel[q] + g.shifts[j] // stride
        if channels[c] != k:
            channels[c] = k
            size += kinds.positions[q]
    return size


@jit_in_place
def _mark_nodes(
    g: Adjacency,
    kinds: Kinds,
    arc: int,
    at: int,
    row: int,
    k: int,
    channels: np.ndarray,
    stamp: np.ndarray,
) -> int:
    """Mark with k the nodes along an arc whose channel is not; returns how many are new."""
    q = g.arc_other[arc]
    size = 0
    for m in range(g.span_ptr[arc], g.span_ptr[arc + 1]):
        a = np.int64(g.anchor[at]) + g.span[m]
        for j in range(g.list_ptr[row], g.list_ptr[row + 1]):
            u = a + g.shifts[j]
            if stamp[u] != k:
                stamp[u] = k
                c, _ = place_of(g, q, u)
                if channels[kinds.channel[q] + c] != k:
                    size += 1
    return size


@jit_in_place
def _two_hop(
    g: Adjacency,
    kinds: Kinds,
    owner: np.ndarray,
    node: np.ndarray,
    first: int,
    last: int,
    channels: np.ndarray,
    stamp: np.ndarray,
    fired: np.ndarray,
    out: np.ndarray,
) -> None:
    """Nodes within two directed steps of each node, itself included.

    ``channels`` (C,), ``stamp`` (N,) and ``fired`` (H,) are of -1: of a hub, one member's neighbours are
    all there is to see. Channels come first, then the nodes of other channels.
    """
    for k in range(first, last):
        v, p = node[k], owner[k]
        c, x = place_of(g, p, v)
        size = 1
        for channel_wise in (True, False):
            for arc in range(g.arc_ptr[p], g.arc_mid[p]):
                at, row = spot(g, arc, c, x, v - g.offset[p])
                q = g.arc_other[arc]
                if kinds.whole[arc]:
                    if channel_wise:
                        size += _mark_channels(g, kinds, arc, row, k, channels)
                    stride = kinds.positions[q] if g.channel_first[q] else 1
                    for j in range(g.list_ptr[row], g.list_ptr[row + 1]):
                        d = g.shifts[j] // stride
                        for further in range(g.arc_ptr[q], g.arc_mid[q]):
                            if kinds.whole[further] or kinds.same[further]:
                                if channel_wise:
                                    _, near = spot(g, further, d, 0, 0)
                                    size += _mark_channels(g, kinds, further, near, k, channels)
                            elif not channel_wise:
                                for y in range(kinds.positions[q]):
                                    local = (
                                        d * kinds.positions[q] + y
                                        if g.channel_first[q]
                                        else (y * (kinds.channel[q + 1] - kinds.channel[q]) + d)
                                    )
                                    to, near = spot(g, further, d, y, local)
                                    size += _mark_nodes(g, kinds, further, to, near, k, channels, stamp)
                    continue
                if not channel_wise:
                    size += _mark_nodes(g, kinds, arc, at, row, k, channels, stamp)
                for m in range(g.span_ptr[arc], g.span_ptr[arc + 1]):
                    a = np.int64(g.anchor[at]) + g.span[m]
                    for j in range(g.list_ptr[row], g.list_ptr[row + 1]):
                        u = a + g.shifts[j]
                        d, y = place_of(g, q, u)
                        for further in range(g.arc_ptr[q], g.arc_mid[q]):
                            if kinds.whole[further] != channel_wise:
                                continue
                            to, near = spot(g, further, d, y, u - g.offset[q])
                            h = g.list_hub[near]
                            if h >= 0:
                                h += g.position_group[to]
                                if fired[h] == k:
                                    continue
                                fired[h] = k
                            if channel_wise:
                                size += _mark_channels(g, kinds, further, near, k, channels)
                            else:
                                size += _mark_nodes(g, kinds, further, to, near, k, channels, stamp)
        out[k] = size


@jit_in_place
def _walk_cost(
    g: Adjacency, kinds: Kinds, q: int, u: int, times: int, directed: bool, fired: np.ndarray, k: int
) -> int:
    """Steps on from node u of partition q, or from all ``times`` positions of its channel; hubs once."""
    d, y = place_of(g, q, u)
    end = g.arc_mid[q] if directed else g.arc_ptr[q + 1]
    n = 0
    for further in range(g.arc_ptr[q], end):
        to, near = spot(g, further, d, y, u - g.offset[q])
        flat = kinds.whole[further] or (kinds.same[further] and times > 1)
        h = g.list_hub[near]
        if h >= 0 and (times == 1 or kinds.whole[further]):
            h += g.position_group[to]
            if fired[h] == k:
                continue
            fired[h] = k
        length = g.list_ptr[near + 1] - g.list_ptr[near]
        n += length if flat else length * times * (g.span_ptr[further + 1] - g.span_ptr[further])
    return n


@jit_in_place
def _lone_steps(g: Adjacency, directed: bool, start: int, stop: int, out: np.ndarray) -> None:
    """Neighbours of nodes start..stop along arcs whose lists are not shared, (N,) int64."""
    p = partition_of(g, start)
    for v in range(start, stop):
        while v >= g.offset[p + 1]:
            p += 1
        c, x = place_of(g, p, v)
        total = np.int64(0)
        for arc in range(g.arc_ptr[p], g.arc_mid[p] if directed else g.arc_ptr[p + 1]):
            _, row = spot(g, arc, c, x, v - g.offset[p])
            if g.list_hub[row] < 0:
                total += (g.list_ptr[row + 1] - g.list_ptr[row]) * (g.span_ptr[arc + 1] - g.span_ptr[arc])
        out[v] = total


class Sharing(NamedTuple):
    """The arcs of each partition along which there are shared lists."""

    ptr: np.ndarray  # (P + 1,) int64
    arc: np.ndarray  # (arcs with shared lists,) int32


@jit_in_place
def _steps_along(
    g: Adjacency,
    kinds: Kinds,
    arc: int,
    anchor: int,
    row: int,
    directed: bool,
    lone: np.ndarray,
    sharing: Sharing,
    fired: np.ndarray,
    k: int,
) -> int:
    """Steps to the neighbours of one list, and on from them; of hubs those that ``fired`` has not at k."""
    q = g.arc_other[arc]
    n = 0
    if kinds.whole[arc]:
        for j in range(g.list_ptr[row], g.list_ptr[row + 1]):
            u = np.int64(anchor) + g.shifts[j]
            n += 1 + _walk_cost(g, kinds, q, u, kinds.positions[q], directed, fired, k)
        return n
    for m in range(g.span_ptr[arc], g.span_ptr[arc + 1]):
        a = np.int64(anchor) + g.span[m]
        for j in range(g.list_ptr[row], g.list_ptr[row + 1]):
            u = a + g.shifts[j]
            n += 1 + lone[u]
            if sharing.ptr[q] == sharing.ptr[q + 1]:
                continue
            d, y = place_of(g, q, u)
            for i in range(sharing.ptr[q], sharing.ptr[q + 1]):
                further = sharing.arc[i]
                to, near = spot(g, further, d, y, u - g.offset[q])
                h = g.list_hub[near] + g.position_group[to]
                if fired[h] != k:
                    fired[h] = k
                    length = g.list_ptr[near + 1] - g.list_ptr[near]
                    if not kinds.whole[further]:
                        length *= g.span_ptr[further + 1] - g.span_ptr[further]
                    n += length
    return n


@jit_in_place
def _hub_steps(
    g: Adjacency,
    kinds: Kinds,
    directed: bool,
    lone: np.ndarray,
    sharing: Sharing,
    fired: np.ndarray,
    hubs: np.ndarray,
    out: np.ndarray,
) -> None:
    """`_steps_along` of some hubs, (H,) int64."""
    for h in hubs:
        arc, row = g.hub_arc[h], g.hub_list[h]
        if row >= 0:
            out[h] = _steps_along(
                g, kinds, arc, g.hub_anchor[h], row, directed, lone, sharing, fired, np.int64(h)
            )


@jit_in_place
def _path_counts(
    g: Adjacency,
    kinds: Kinds,
    owner: np.ndarray,
    node: np.ndarray,
    directed: bool,
    lone: np.ndarray,
    sharing: Sharing,
    shared: np.ndarray,
    fired: np.ndarray,
    cost: np.ndarray,
    first: int,
    last: int,
) -> None:
    """Steps that counting takes from each node, plus one.

    ``lone`` is what `_lone_steps` found, ``shared`` what `_hub_steps` did; ``fired`` (H,) is of -1.
    """
    for k in range(first, last):
        v, p = node[k], owner[k]
        c, x = place_of(g, p, v)
        n = np.int64(1)
        for arc in range(g.arc_ptr[p], g.arc_mid[p] if directed else g.arc_ptr[p + 1]):
            at, row = spot(g, arc, c, x, v - g.offset[p])
            if g.list_hub[row] >= 0:
                n += shared[g.list_hub[row] + g.position_group[at]]
            else:
                n += _steps_along(g, kinds, arc, g.anchor[at], row, directed, lone, sharing, fired, k)
        cost[k] = n


@jit_in_place
def _plain_path_counts(
    g: Adjacency,
    owner: np.ndarray,
    node: np.ndarray,
    degree: np.ndarray,
    directed: bool,
    cost: np.ndarray,
    first: int,
    last: int,
) -> None:
    """The same without hubs, from the degrees that count (out-degrees where ``directed``)."""
    for k in range(first, last):
        v, p = node[k], owner[k]
        c, x = place_of(g, p, v)
        stop = g.arc_mid[p] if directed else g.arc_ptr[p + 1]
        n = 1
        for arc in range(g.arc_ptr[p], stop):
            at, row = spot(g, arc, c, x, v - g.offset[p])
            for m in range(g.span_ptr[arc], g.span_ptr[arc + 1]):
                a = np.int64(g.anchor[at]) + g.span[m]
                for j in range(g.list_ptr[row], g.list_ptr[row + 1]):
                    n += 1 + degree[a + g.shifts[j]]
        cost[k] = n


def _pieces(start: int, stop: int, most: int) -> list[tuple[int, int]]:
    """A range in at most so many pieces, of `PIECE` or more."""
    cuts = start + evenly(stop - start, min(most, max(1, (stop - start) // PIECE)))
    return list(pairwise(cuts.tolist()))


def _sharing(g: Adjacency, directed: bool) -> Sharing:
    some = np.unique(g.hub_arc)
    some = some[arcs_taken(g, directed)[some]]
    return Sharing(np.searchsorted(some, g.arc_ptr), some)


def owners(g: Adjacency, nodes: np.ndarray) -> np.ndarray:
    return np.searchsorted(g.offset, nodes, side="right") - 1


def path_counts(
    g: Adjacency, nodes: np.ndarray, directed: bool, degree: Callable[[], np.ndarray]
) -> np.ndarray:
    """About the steps that the counts below take from each node, (R,) int64, at least 1.

    ``degree`` computes the degrees that count (out-degrees where ``directed``), for a graph without hubs.
    A hub that a node reaches along several arcs may count for each of them.
    """
    owner = owners(g, nodes)
    cost = np.empty(len(nodes), np.int64)
    parts = 4 * num_threads()
    cuts = evenly(len(cost), parts)
    kinds = arc_kinds(g)
    if not g.num_hubs and not kinds.whole.any():
        steps = degree()
        run(lambda k: _plain_path_counts(g, owner, nodes, steps, directed, cost, cuts[k], cuts[k + 1]), parts)
        return cost

    first = arcs_taken(g, directed) & np.isin(
        arc_partitions(g), owner
    )  # what is found of others nobody reads
    lone, near = np.empty(g.num_nodes, np.int64), np.unique(g.arc_other[first]).tolist()
    pieces = [cut for q in near for cut in _pieces(int(g.offset[q]), int(g.offset[q + 1]), parts)]
    run(lambda k: _lone_steps(g, directed, *pieces[k], lone), len(pieces))
    sharing, shared = _sharing(g, directed), np.zeros(g.num_hubs, np.int64)
    hubs = np.array_split(np.flatnonzero(first[g.hub_arc]), parts)

    def of_hubs(k: int) -> None:
        fired = np.full(g.num_hubs, -1, np.int64)
        _hub_steps(g, kinds, directed, lone, sharing, fired, hubs[k], shared)

    run(of_hubs, parts)

    def task(k: int) -> None:
        fired = np.full(g.num_hubs, -1, np.int64)
        _path_counts(
            g, kinds, owner, nodes, directed, lone, sharing, shared, fired, cost, cuts[k], cuts[k + 1]
        )

    run(task, parts)
    return cost


def two_hop_sizes(g: Adjacency, nodes: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Nodes within two directed steps of each node, itself included, (R,) int64."""
    owner, out = owners(g, nodes), np.empty(len(nodes), np.int64)
    cuts = balanced(cost, num_threads())
    kinds = arc_kinds(g)

    def task(k: int) -> None:
        channels, fired = (np.full(n, -1, np.int64) for n in (kinds.channel[-1], g.num_hubs))
        stamp = np.full(g.num_nodes, -1, np.int32)
        _two_hop(g, kinds, owner, nodes, cuts[k], cuts[k + 1], channels, stamp, fired, out)

    run(task, len(cuts) - 1)
    return out
