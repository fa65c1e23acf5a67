// Core numbers by peeling level by level: see mge_gpu/backends/cuda/peel.py for the rounds.
//
// After Kabir and Madduri, "Parallel k-core decomposition on multicore platforms" (IPDPS workshops 2017).
#include "adjacency.cuh"

// Take ``less`` from the degree of u. The one thread that takes it from above k to k or below appends u to the
// next frontier. Degrees that several threads took below k are set to k when u's own round begins.
__device__ inline void take(i64 u, i32 less, i32 k, i32* degree, i32* next, i64* size) {
    if (degree[u] <= k) return;
    i32 before = atomicSub(degree + u, less);
    if (before > k && before - less <= k) next[add(size, 1)] = (i32)u;
}

// One block a node of the frontier. Hubs are counted, and appended to ``touched`` the first time.
extern "C" __global__ void peel_nodes(
    const Adjacency* table, const i32* frontier, i64 n, i32 k, i32* degree, i32* next, i64* size, i32* gone,
    i32* touched, i64* hubs) {
    const Adjacency g = *table;
    for (i64 f = blockIdx.x; f < n; f += gridDim.x) {
        Place here = place_of(g, frontier[f]);
        for (int arc = g.arc_ptr[here.partition]; arc < g.arc_ptr[here.partition + 1]; ++arc) {
            List list = list_of(g, arc, here);
            if (g.list_hub[list.row] < 0) {
                along(g, arc, g.anchor[list.at], list.row, threadIdx.x, blockDim.x,
                      [&](i64 u) { take(u, 1, k, degree, next, size); });
            } else if (threadIdx.x == 0) {
                i64 h = g.list_hub[list.row] + g.position_group[list.at];
                if (atomicAdd(gone + h, 1) == 0) touched[add(hubs, 1)] = (i32)h;
            }
        }
    }
}

// One block a hub that lost members in this round: its list is passed once for all of them.
extern "C" __global__ void peel_hubs(
    const Adjacency* table, const i32* touched, i64 n, i32 k, const i32* gone, i32* degree, i32* next, i64* size) {
    const Adjacency g = *table;
    for (i64 t = blockIdx.x; t < n; t += gridDim.x) {
        i32 h = touched[t];
        along(g, g.hub_arc[h], g.hub_anchor[h], g.hub_list[h], threadIdx.x, blockDim.x,
              [&](i64 u) { take(u, gone[h], k, degree, next, size); });
    }
}
MGE_EXPORT(peel_nodes)
MGE_EXPORT(peel_hubs)
