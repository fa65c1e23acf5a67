// Core numbers by peeling level by level, in one launch: every node of the lowest degree left goes, with those that
// follow.
//
// After Kabir and Madduri, "Parallel k-core decomposition on multicore platforms" (IPDPS workshops 2017).
#include "adjacency.cuh"
#include "meeting.cuh"

constexpr i64 NONE = 0x7fffffff;  // above all degrees
constexpr int TEAMS = 7;          // 2^7 teams together pass the list of one node, or of one hub

struct Found {  // in one phase, at whose end all blocks meet
    i64 nodes;   // appended to a frontier
    i64 hubs;    // appended to those that lost members
    i64 lowest;  // degree above the level, NONE at first
};

struct Peeling {
    u64 arrived;
    i64 left;        // nodes that no level took
    Found found[3];  // of this phase, the last one, whose place is read, and the next one, whose place is made ready
};

// What all threads know alike.
struct Phases {
    Peeling* s;
    int now;
    Found last;

    __device__ Found* found() { return s->found + now; }

    __device__ void end() {
        meet(&s->arrived);
        last = s->found[now];
        now = (now + 1) % 3;
        if (thread_number() == 0) s->found[(now + 1) % 3] = {0, 0, NONE};
    }
};

// The nodes whose degree is k. What has gone has a degree below it. ``look``: the lowest degree above k, too.
__device__ inline void find_level(const i32* degree, i64 n, i64 k, bool look, i32* frontier, Found* found) {
    const int ITEMS = 4;  // reads do not wait for each other
    i64 all = thread_count(), lowest = NONE;
    for (i64 first = thread_number(); first < n; first += ITEMS * all) {
        i32 d[ITEMS];
        MGE_UNROLL for (int j = 0; j < ITEMS; ++j) d[j] = first + j * all < n ? degree[first + j * all] : -1;
        MGE_UNROLL for (int j = 0; j < ITEMS; ++j) {
            if (d[j] == k)
                frontier[add(&found->nodes, 1)] = (i32)(first + j * all);
            else if (d[j] > k && d[j] < lowest)
                lowest = d[j];
        }
    }
    if (!look) return;
    i64 sunk = -lowest;
    if (says_largest(sunk, threadIdx.x) && -sunk < load_now(&found->lowest)) atomicMin(&found->lowest, -sunk);
}

// Take ``less`` from the degree of u. The one thread that takes it from above k to k or below appends u to the
// next frontier. Degrees that several threads took below k are set to k when u's own round begins.
__device__ inline void take(i64 u, i32 less, i32 k, i32* degree, i32* next, Found* found) {
    if (degree[u] <= k) return;
    i32 before = atomicSub(degree + u, less);
    if (before > k && before - less <= k) next[add(&found->nodes, 1)] = (i32)u;
}

struct Lost {  // members of hubs, in a round
    i32* gone;     // (hubs,), 0 where none has gone
    i32* touched;  // those hubs
    i64 count;     // of them
};

template <class T>
__device__ inline void exchange(T& a, T& b) {
    T before = a;
    a = b;
    b = before;
}

// The nodes of the frontier go. Hubs count their members that go, and are appended to ``touched`` the first time.
__device__ inline void peel_nodes(
    const Adjacency& g, const i32* frontier, i64 size, i32 k, i32* degree, i32* next, const Lost& lost, Found* found) {
    share_out(size, TEAMS, [&](i64 f, int lane, int lanes) {
        i32 v = frontier[f];
        if (lane == 0) degree[v] = k;  // others leave it alone: it was not above k when this round began
        Place here = place_of(g, v);
        for (int arc = g.arc_ptr[here.partition]; arc < g.arc_ptr[here.partition + 1]; ++arc) {
            List list = list_of(g, arc, here);
            if (g.list_hub[list.row] < 0) {
                along(g, arc, g.anchor[list.at], list.row, lane, lanes,
                      [&](i64 u) { take(u, 1, k, degree, next, found); });
            } else if (lane == 0) {
                i64 h = g.list_hub[list.row] + g.position_group[list.at];
                if (atomicAdd(lost.gone + h, 1) == 0) lost.touched[add(&found->hubs, 1)] = (i32)h;
            }
        }
    });
}

// The lists of hubs that lost members in this round are passed once for all of them.
__device__ inline void peel_hubs(
    const Adjacency& g, const Lost& lost, i32 k, i32* degree, i32* next, Found* found) {
    share_out(lost.count, TEAMS, [&](i64 t, int lane, int lanes) {
        i32 h = lost.touched[t], less = lost.gone[h];
        along(g, g.hub_arc[h], g.hub_anchor[h], g.hub_list[h], lane, lanes,
              [&](i64 u) { take(u, less, k, degree, next, found); });
    });
}

// Turns degrees into core numbers. frontier and next have room for all nodes; gone and touched for all hubs twice, for
// this round and for the last one, after which gone, zero at first, is cleared.
extern "C" __global__ void __launch_bounds__(256, 3) peel(
    const Adjacency* table, i32* degree, i32* frontier, i32* next, i32* gone, i32* touched, Peeling* s) {
    const Adjacency g = *table;
    Phases phase = {s, 0, {}};
    Lost lost = {gone, touched, 0}, before = {gone + g.hubs, touched + g.hubs, 0};
    i64 left = g.nodes, k = 0;
    bool look = true;  // where the last level had no nodes
    while (left > 0 && k <= g.nodes) {
        find_level(degree, g.nodes, k, look, frontier, phase.found());
        phase.end();
        i64 size = phase.last.nodes;
        if (size == 0) {
            k = look ? phase.last.lowest : k + 1;
            look = true;
            continue;
        }
        for (; size > 0; exchange(frontier, next), exchange(lost, before)) {
            left -= size;
            for (i64 t = thread_number(); t < before.count; t += thread_count()) before.gone[before.touched[t]] = 0;
            peel_nodes(g, frontier, size, (i32)k, degree, next, lost, phase.found());
            phase.end();
            size = phase.last.nodes;
            lost.count = phase.last.hubs;
            if (lost.count > 0) {
                peel_hubs(g, lost, (i32)k, degree, next + size, phase.found());
                phase.end();
                size += phase.last.nodes;
            }
        }
        ++k;
        look = false;
    }
    if (thread_number() == 0) s->left = left;
}
MGE_EXPORT_TOGETHER(peel)
