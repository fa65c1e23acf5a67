// Spanning forests of the undirected graph: connected components, a breadth-first forest, a forest of the rest.
//
// ``without`` are the parents of another forest whose edges are left out of the graph, or null.
#include "adjacency.cuh"
#include "labels.cuh"

__device__ inline bool left_out(const i32* without, i64 u, i64 v) {
    return without && (without[u] == v || without[v] == u);
}

// Unite the ends of an edge. A root is hooked under a smaller one, once: the edge that hooked it is kept with it in
// edge_from and edge_to (which hold -1 before). Once all edges have been here, those that are kept are a maximal forest.
__device__ inline void unite_ends(
    const i32* without, i64 v, i64 u, i32* label, i32* edge_from, i32* edge_to) {
    if (left_out(without, u, v)) return;
    i32 hooked = unite(label, (i32)v, (i32)u);
    if (hooked < 0) return;
    edge_from[hooked] = (i32)v;
    edge_to[hooked] = (i32)u;
}

// A few edges of each node, so that most nodes of a large component come together; one thread a node.
extern "C" __global__ void hook_some(
    const Adjacency* table, const i32* without, i32* label, i32* edge_from, i32* edge_to) {
    const Adjacency g = *table;
    for (i64 v = thread_number(); v < g.nodes; v += thread_count()) {
        Place here = place_of(g, v);
        for (int arc = g.arc_ptr[here.partition]; arc < g.arc_ptr[here.partition + 1]; ++arc) {
            if (g.span_ptr[arc] == g.span_ptr[arc + 1]) continue;
            List list = list_of(g, arc, here);
            i64 start = g.list_ptr[list.row], stop = g.list_ptr[list.row + 1], few = start + 2;
            i64 anchor = (i64)g.anchor[list.at] + g.span[g.span_ptr[arc]];
            for (i64 j = start; j < stop && j < few; ++j)
                unite_ends(without, v, anchor + g.shifts[j], label, edge_from, edge_to);
        }
    }
}

// All edges; or, given the labels that nodes had before, those of nodes that were not labelled ``giant``: other edges
// lie within that component. (Afforest: Sutton, Ben-Nun and Barak, IPDPS 2018.)
extern "C" __global__ void hook(
    const Adjacency* table, const i32* without, const i32* before, i32 giant, i32* label, i32* edge_from,
    i32* edge_to) {
    const Adjacency g = *table;
    const Team t = team();
    for (i64 v = t.first; v < g.nodes; v += t.all) {
        if (before && before[v] == giant) continue;
        neighbours(g, v, before ? BOTH : OUT, t.lane, t.lanes,
                   [&](i64 u) { unite_ends(without, v, u, label, edge_from, edge_to); });
    }
}

extern "C" __global__ void flatten(i32* label, i64 n) {
    for (i64 v = thread_number(); v < n; v += thread_count()) label[v] = root_of(label, (i32)v);
}

// Breadth-first search, from nodes of the last level to unseen neighbours: one team a node of the frontier.
// Threads that reach a node together write parents of the same level: whoever comes last is right, too.
extern "C" __global__ void push(
    const Adjacency* table, const i32* frontier, i64 n, i32 depth, i32* level, i32* parent) {
    const Adjacency g = *table;
    const Team t = team();
    for (i64 f = t.first; f < n; f += t.all) {
        i32 v = frontier[f];
        neighbours(g, v, BOTH, t.lane, t.lanes, [&](i64 u) {
            if (level[u] == -1) level[u] = depth;
            if (level[u] == depth) parent[u] = v;
        });
    }
}

// The other way round: one thread an unseen node, which looks for a neighbour in the last level.
extern "C" __global__ void pull(
    const Adjacency* table, const i32* unseen, i64 n, i32 depth, i32* level, i32* parent) {
    const Adjacency g = *table;
    for (i64 f = thread_number(); f < n; f += thread_count()) {
        i32 v = unseen[f];
        Place here = place_of(g, v);
        i64 found = -1;
        for (int arc = g.arc_ptr[here.partition]; found < 0 && arc < g.arc_ptr[here.partition + 1]; ++arc) {
            List list = list_of(g, arc, here);
            i64 start = g.list_ptr[list.row], stop = g.list_ptr[list.row + 1];
            for (i64 m = g.span_ptr[arc]; found < 0 && m < g.span_ptr[arc + 1]; ++m) {
                i64 a = (i64)g.anchor[list.at] + g.span[m];
                for (i64 j = start; j < stop; ++j) {
                    i64 u = a + g.shifts[j];
                    if (level[u] == depth - 1) {
                        found = u;
                        break;
                    }
                }
            }
        }
        if (found >= 0) {
            level[v] = depth;
            parent[v] = (i32)found;
        }
    }
}
MGE_EXPORT(hook_some)
MGE_EXPORT(hook)
MGE_EXPORT(flatten)
MGE_EXPORT(push)
MGE_EXPORT(pull)
