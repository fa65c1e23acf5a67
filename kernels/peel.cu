// Core numbers by peeling level by level: see mge_gpu/backends/cuda/peel.py for the rounds.
//
// After Kabir and Madduri, "Parallel k-core decomposition on multicore platforms" (IPDPS workshops 2017).
#include "adjacency.cuh"

// How far peeling has come. It stays on the device: rounds are launched without knowing what they will find.
struct Peeling {
    i64 k;         // the level
    i64 size;      // nodes of the frontier
    i64 next;      // nodes of the one after it, so far
    i64 hubs;      // hubs that lost members in this round, so far
    i64 left;      // nodes that have not gone, the frontier among them
    i64 new_level; // whether the frontier is still to be found: nodes of the lowest degree
};

// Take ``less`` from the degree of u. The one thread that takes it from above k to k or below appends u to the
// next frontier. Degrees that several threads took below k are set to k when u's own round begins.
__device__ inline void take(i64 u, i32 less, i32 k, i32* degree, i32* next, Peeling* s) {
    if (degree[u] <= k) return;
    i32 before = atomicSub(degree + u, less);
    if (before > k && before - less <= k) next[add(&s->next, 1)] = (i32)u;
}

// Ends a round. One thread does it.
extern "C" __global__ void next_round(Peeling* s) {
    if (thread_number()) return;
    s->left -= s->size;
    s->size = s->next;
    s->next = s->hubs = 0;
    s->new_level = s->left > 0 && s->size == 0;
    s->k += s->new_level;
}

// The nodes of a new level. What has gone has a degree below it.
extern "C" __global__ void level_nodes(const i32* degree, i64 n, i32* frontier, Peeling* s) {
    if (!s->new_level) return;
    i32 k = (i32)s->k;
    for (i64 v = thread_number(); v < n; v += thread_count())
        if (degree[v] == k) frontier[add(&s->size, 1)] = (i32)v;
}

// One team a node of the frontier. Hubs are counted, and appended to ``touched`` the first time.
extern "C" __global__ void peel_nodes(
    const Adjacency* table, const i32* frontier, Peeling* s, i32* degree, i32* next, i32* gone, i32* touched) {
    const Adjacency g = *table;
    const Team t = team();
    i32 k = (i32)s->k;
    for (i64 f = t.first; f < s->size; f += t.all) {
        i32 v = frontier[f];
        if (t.lane == 0) degree[v] = k;  // others leave it alone: it was not above k when this round began
        Place here = place_of(g, v);
        for (int arc = g.arc_ptr[here.partition]; arc < g.arc_ptr[here.partition + 1]; ++arc) {
            List list = list_of(g, arc, here);
            if (g.list_hub[list.row] < 0) {
                along(g, arc, g.anchor[list.at], list.row, t.lane, t.lanes,
                      [&](i64 u) { take(u, 1, k, degree, next, s); });
            } else if (t.lane == 0) {
                i64 h = g.list_hub[list.row] + g.position_group[list.at];
                if (atomicAdd(gone + h, 1) == 0) touched[add(&s->hubs, 1)] = (i32)h;
            }
        }
    }
}

// One block a hub that lost members in this round: its list is passed once for all of them.
extern "C" __global__ void peel_hubs(
    const Adjacency* table, const i32* touched, Peeling* s, i32* gone, i32* degree, i32* next) {
    const Adjacency g = *table;
    i32 k = (i32)s->k;
    for (i64 t = blockIdx.x; t < s->hubs; t += gridDim.x) {
        i32 h = touched[t], less = gone[h];
        __syncthreads();
        if (threadIdx.x == 0) gone[h] = 0;  // all threads of the block have read it
        along(g, g.hub_arc[h], g.hub_anchor[h], g.hub_list[h], threadIdx.x, blockDim.x,
              [&](i64 u) { take(u, less, k, degree, next, s); });
    }
}
MGE_EXPORT(next_round)
MGE_EXPORT(level_nodes)
MGE_EXPORT(peel_nodes)
MGE_EXPORT(peel_hubs)
