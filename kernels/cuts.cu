// Bridges and articulation points of a spanning forest and other edges: see mge_gpu/backends/cuda/cuts.py.
//
// After Tarjan and Vishkin, "An efficient parallel biconnectivity algorithm", SIAM J. Comput. 14 (1985). Nodes have
// preorder numbers, so that the subtree of v is the range first[v] ... first[v] + size[v] - 1. ``nodes`` are those of
// one level of the forest.
#include "labels.cuh"

// One level's part of the sizes of subtrees, which are 1 before: from the last level up.
extern "C" __global__ void count_below(const i32* nodes, i64 n, const i32* parent, i32* size) {
    for (i64 k = thread_number(); k < n; k += thread_count()) atomicAdd(size + parent[nodes[k]], size[nodes[k]]);
}

// Preorder numbers of one level, from the roots down: each takes as many numbers from its parent as it has nodes.
extern "C" __global__ void number(
    const i32* nodes, i64 n, const i32* parent, const i32* size, i32* first, i32* next) {
    for (i64 k = thread_number(); k < n; k += thread_count()) {
        i32 v = nodes[k];
        first[v] = atomicAdd(next + parent[v], size[v]);
        next[v] = first[v] + 1;
    }
}

// The lowest and the highest number that edges outside the forest lead to from a node.
extern "C" __global__ void see_across(
    const i32* source, const i32* target, i64 n, const i32* first, i32* low, i32* high) {
    for (i64 k = thread_number(); k < n; k += thread_count()) {
        i32 u = source[k], v = target[k];
        atomicMin(low + u, first[v]);
        atomicMax(high + u, first[v]);
        atomicMin(low + v, first[u]);
        atomicMax(high + v, first[u]);
    }
}

// The same from any node of a subtree: one level, from the last up.
extern "C" __global__ void see_below(const i32* nodes, i64 n, const i32* parent, i32* low, i32* high) {
    for (i64 k = thread_number(); k < n; k += thread_count()) {
        i32 v = nodes[k];
        atomicMin(low + parent[v], low[v]);
        atomicMax(high + parent[v], high[v]);
    }
}

__device__ inline bool within(i32 number, i32 v, const i32* first, const i32* size) {
    return number >= first[v] && number < first[v] + size[v];
}

// label[v] stands for the edge from v to its parent: edges of one block (biconnected component) are united. Here
// those above the ends of an edge between two branches ...
extern "C" __global__ void unite_branches(
    const i32* source, const i32* target, i64 n, const i32* first, const i32* size, i32* label) {
    for (i64 k = thread_number(); k < n; k += thread_count()) {
        i32 u = source[k], v = target[k];
        if (!within(first[u], v, first, size) && !within(first[v], u, first, size)) unite(label, u, v);
    }
}

// ... and here an edge and the one above it, where something leads from below around the node between them.
extern "C" __global__ void unite_upwards(
    i64 n, const i32* parent, const i32* first, const i32* size, const i32* low, const i32* high, i32* label) {
    for (i64 v = thread_number(); v < n; v += thread_count()) {
        i32 u = parent[v];
        if (u < 0 || parent[u] < 0) continue;
        if (!within(low[v], u, first, size) || !within(high[v], u, first, size)) unite(label, (i32)v, u);
    }
}

// A bridge is marked at its lower end: nothing leads out of the subtree. A node between edges of two blocks is an
// articulation point; ``block`` holds one of a root's blocks, -1 before.
extern "C" __global__ void mark_cuts(
    i64 n, const i32* parent, const i32* first, const i32* size, const i32* low, const i32* high,
    const i32* label, i32* block, bool* bridge, bool* cut) {
    for (i64 v = thread_number(); v < n; v += thread_count()) {
        i32 u = parent[v];
        if (u < 0) continue;
        bridge[v] = within(low[v], (i32)v, first, size) && within(high[v], (i32)v, first, size);
        i32 above = parent[u] < 0 ? atomicCAS(block + u, -1, label[v]) : label[u];
        if (above >= 0 && above != label[v]) cut[u] = true;
    }
}
MGE_EXPORT(count_below)
MGE_EXPORT(number)
MGE_EXPORT(see_across)
MGE_EXPORT(see_below)
MGE_EXPORT(unite_branches)
MGE_EXPORT(unite_upwards)
MGE_EXPORT(mark_cuts)
