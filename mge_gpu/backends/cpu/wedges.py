"""Squares and triangles at a node, from the number of neighbours that it has in common with others.

Where position does not matter (see `kinds`) all nodes of a channel have the same number in common: it is kept
once a channel, and what single nodes have beyond it with the nodes.
"""

import numpy as np

from mge_gpu.backends.adjacency import Adjacency
from mge_gpu.backends.cpu.jit import jit_in_place
from mge_gpu.backends.cpu.kinds import Kinds, arc_kinds
from mge_gpu.backends.cpu.local import owners
from mge_gpu.backends.cpu.neighbours import partition_of, place_of, spot
from mge_gpu.backends.cpu.threads import balanced, num_threads, run


@jit_in_place
def _add_channels(
    g: Adjacency, kinds: Kinds, arc: int, row: int, times: int, common: np.ndarray, used: np.ndarray, n: int
) -> int:
    """common[channel] += times along a list; channels that were 0 are listed in ``used`` from n on."""
    q = g.arc_other[arc]
    stride = kinds.positions[q] if g.channel_first[q] else 1
    for j in range(g.list_ptr[row], g.list_ptr[row + 1]):
        c = kinds.channel[q] + g.shifts[j] // stride
        if common[c] == 0:
            used[n] = c
            n += 1
        common[c] += times
    return n


@jit_in_place
def _add_nodes(
    g: Adjacency, arc: int, anchor: int, row: int, times: int, count: np.ndarray, used: np.ndarray, n: int
) -> int:
    """count[node] += times along an arc; nodes that were 0 are listed in ``used`` from n on."""
    for m in range(g.span_ptr[arc], g.span_ptr[arc + 1]):
        a = np.int64(anchor) + g.span[m]
        for j in range(g.list_ptr[row], g.list_ptr[row + 1]):
            w = a + g.shifts[j]
            if count[w] == 0:
                used[n] = w
                n += 1
            count[w] += times
    return n


@jit_in_place
def _wedges(
    g: Adjacency,
    kinds: Kinds,
    owner: np.ndarray,
    node: np.ndarray,
    first: int,
    last: int,
    count: np.ndarray,
    common: np.ndarray,
    alone: np.ndarray,
    visits: np.ndarray,
    nodes: np.ndarray,
    hubs: np.ndarray,
    channels: np.ndarray,
    out: np.ndarray,
) -> None:
    """For each node u, in the columns of out: the sum of C(codegree(u, v), 2) over all v; the sums of
    t_uv and of C(t_uv, 2) over its neighbours v (t_uv triangles on the edge).

    ``count`` (N,), ``common`` and ``alone`` (C,) and ``visits`` (H,) are of 0: v has count[v] neighbours in
    common with u, and common[channel of v] more. A hub's list is walked once for all who share it. Which are
    not 0 any more, ``nodes``, ``channels`` and ``hubs`` of the same lengths list.
    """
    for k in range(first, last):
        v, p = node[k], owner[k]
        c, x = place_of(g, p, v)
        n, visited, used = 0, 0, 0
        for arc in range(g.arc_ptr[p], g.arc_ptr[p + 1]):
            at, row = spot(g, arc, c, x, v - g.offset[p])
            q = g.arc_other[arc]
            every = kinds.whole[arc]
            width = kinds.positions[q] if every else 1
            spans = 1 if every else g.span_ptr[arc + 1] - g.span_ptr[arc]
            for m in range(spans):
                a = np.int64(g.anchor[at]) + g.span[g.span_ptr[arc] + m]
                for j in range(g.list_ptr[row], g.list_ptr[row + 1]):
                    u = a + g.shifts[j]
                    d, y = place_of(g, q, u)
                    for further in range(g.arc_ptr[q], g.arc_ptr[q + 1]):
                        to, near = spot(g, further, d, y, u - g.offset[q])
                        if g.list_hub[near] >= 0 and (not every or kinds.whole[further]):
                            h = g.list_hub[near] + g.position_group[to]
                            if visits[h] == 0:
                                hubs[visited] = h
                                visited += 1
                            visits[h] += width
                            continue
                        if kinds.whole[further]:
                            used = _add_channels(g, kinds, further, near, width, common, channels, used)
                            continue
                        if every and kinds.same[further]:
                            used = _add_channels(g, kinds, further, near, 1, common, channels, used)
                            continue
                        for z in range(width):  # from u, or from all nodes of its channel
                            w = u
                            if every:
                                w = u + z if g.channel_first[q] else u + z * g.divisor[q]
                                to, near = spot(g, further, d, z, w - g.offset[q])
                            n = _add_nodes(g, further, g.anchor[to], near, 1, count, nodes, n)
        for e in range(visited):
            h = hubs[e]
            arc, row, times = g.hub_arc[h], g.hub_list[h], visits[h]
            visits[h] = 0
            if kinds.whole[arc]:
                used = _add_channels(g, kinds, arc, row, times, common, channels, used)
                continue
            n = _add_nodes(g, arc, g.hub_anchor[h], row, times, count, nodes, n)
        squares, tri, pairs = 0, 0, 0
        for arc in range(g.arc_ptr[p], g.arc_ptr[p + 1]):
            q = g.arc_other[arc]
            if not kinds.triangle[p, q]:
                continue
            at, row = spot(g, arc, c, x, v - g.offset[p])
            for m in range(g.span_ptr[arc], g.span_ptr[arc + 1]):
                a = np.int64(g.anchor[at]) + g.span[m]
                for j in range(g.list_ptr[row], g.list_ptr[row + 1]):
                    w = a + g.shifts[j]
                    d, _ = place_of(g, q, w)
                    t = np.int64(count[w]) + common[kinds.channel[q] + d]
                    tri += t
                    pairs += t * (t - 1) // 2
        own = common[kinds.channel[p] + c]
        if count[v] == 0:  # v is not a pair with itself
            squares -= own * (own - 1) // 2
        for i in range(n):
            w = np.int64(nodes[i])
            t = np.int64(count[w])
            count[w] = 0
            if used:
                q = partition_of(g, w)
                d, _ = place_of(g, q, w)
                t += common[kinds.channel[q] + d]
                alone[kinds.channel[q] + d] += 1
            if w != v:
                squares += t * (t - 1) // 2
        for i in range(used):
            d = channels[i]
            q = 0
            while kinds.channel[q + 1] <= d:
                q += 1
            squares += common[d] * (common[d] - 1) // 2 * (kinds.positions[q] - alone[d])
            common[d] = 0
        if used:
            for i in range(n):
                w = np.int64(nodes[i])
                q = partition_of(g, w)
                d, _ = place_of(g, q, w)
                alone[kinds.channel[q] + d] = 0
        out[k, 0], out[k, 1], out[k, 2] = squares, tri, pairs


def wedge_counts(g: Adjacency, nodes: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Squares and triangles at each node, (R, 3) int64.

    Columns: sum of C(codegree(u, v), 2) over all v; sum of t_uv over neighbours v; sum of C(t_uv, 2).
    """
    owner, out = owners(g, nodes), np.empty((len(nodes), 3), np.int64)
    cuts = balanced(cost, num_threads())
    kinds = arc_kinds(g)

    def task(k: int) -> None:
        common, alone = (np.zeros(kinds.channel[-1], np.int64) for _ in range(2))
        count, visits = np.zeros(g.num_nodes, np.int32), np.zeros(g.num_hubs, np.int32)
        # As long as there may be entries: memory that is not written to is not taken.
        seen = (
            np.empty(len(count), np.int32),
            np.empty(len(visits), np.int64),
            np.empty(len(common), np.int64),
        )
        _wedges(g, kinds, owner, nodes, cuts[k], cuts[k + 1], count, common, alone, visits, *seen, out)

    run(task, len(cuts) - 1)
    return out
