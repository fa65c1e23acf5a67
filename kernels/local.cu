// What lies within two steps of single nodes. One block works on one node at a time, with scratch of its own
// that is zero before and after: its teams share the first steps, the threads of a team the second.
#include "adjacency.cuh"

// Steps that counting takes from each node without hubs, plus one: out[k] = 1 + sum of 1 + the degrees of the neighbours.
// out must be zero before; one team a node.
extern "C" __global__ void path_counts(
    const Adjacency* table, const i64* nodes, i64 n, bool directed, const i64* degree, i64* out) {
    const Adjacency g = *table;
    Direction way = directed ? OUT : BOTH;
    const Team t = team();
    for (i64 k = t.first; k < n; k += t.all) {
        i64 sum = t.lane == 0;
        neighbours(g, nodes[k], way, t.lane, t.lanes, [&](i64 u) { sum += 1 + degree[u]; });
        if (sum) add(out + k, sum);
    }
}

// visit(w) for every walk v - u - w.
template <class Visit>
__device__ inline void walks(const Adjacency& g, i64 v, Direction way, Visit visit) {
    const Team t = team();
    neighbours(g, v, way, t.number, t.count, [&](i64 u) { neighbours(g, u, way, t.lane, t.lanes, visit); });
}

// Nodes within two directed steps of each node, itself included. ``seen`` has one bit a node for each block.
extern "C" __global__ void __launch_bounds__(256, 4) two_hop_sizes(
    const Adjacency* table, const i64* nodes, i64 n, u32* seen, i64 words, i64* out) {
    const Adjacency g = *table;
    u32* mine = seen + blockIdx.x * words;
    for (i64 k = blockIdx.x; k < n; k += gridDim.x) {
        i64 v = nodes[k], found = 0;
        auto mark = [&](i64 u) {
            u32 bit = 1u << (u & 31);
            found += !(atomicOr(mine + (u >> 5), bit) & bit);
        };
        auto clear = [&](i64 u) { mine[u >> 5] = 0; };
        if (threadIdx.x == 0) mark(v);
        neighbours(g, v, OUT, threadIdx.x, blockDim.x, mark);
        walks(g, v, OUT, mark);
        add(out + k, found);
        __syncthreads();
        clear(v);
        neighbours(g, v, OUT, threadIdx.x, blockDim.x, clear);
        walks(g, v, OUT, clear);
        __syncthreads();
    }
}

// For each node u, in the columns of out: the sum of C(codegree(u, v), 2) over all v; the sums of t_uv and of
// C(t_uv, 2) over its neighbours v (t_uv triangles on the edge). ``common`` has ``size`` counters for each block, of the
// nodes from ``first`` of the node's partition on: all that two steps reach lie there.
extern "C" __global__ void __launch_bounds__(1024, 1) wedge_counts(
    const Adjacency* table, const i64* nodes, i64 n, i32* common, const i64* first, i64 size, i64* out) {
    const Adjacency g = *table;
    i32* mine = common + blockIdx.x * size;
    for (i64 k = blockIdx.x; k < n; k += gridDim.x) {
        i64 v = nodes[k], start = first[partition_of(g, v)], triangles = 0, pairs = 0, squares = 0;
        walks(g, v, BOTH, [&](i64 w) { atomicAdd(mine + (w - start), 1); });
        __syncthreads();
        neighbours(g, v, BOTH, threadIdx.x, blockDim.x, [&](i64 w) {
            i64 t = mine[w - start];
            triangles += t;
            pairs += t * (t - 1) / 2;
        });
        __syncthreads();
        walks(g, v, BOTH, [&](i64 w) {  // whoever comes first takes the count away
            i64 t = atomicExch(mine + (w - start), 0);
            if (w != v) squares += t * (t - 1) / 2;
        });
        add(out + 3 * k, squares);
        add(out + 3 * k + 1, triangles);
        add(out + 3 * k + 2, pairs);
        __syncthreads();
    }
}

constexpr u32 SLOTS = 4096;  // of a table of counters by node, in shared memory
constexpr u32 PROBES = 64;   // slots that are looked at before the table counts as full

// The slot of node w in a table in which -1 is free: its own, or else the first free one, which ``take`` makes its
// own; SLOTS where there is none, or the table is too full.
__device__ inline u32 slot_of(i32* key, i32 w, bool take) {
    u32 at = (u32)w * 2654435769u >> 20;
    for (u32 probe = 0; probe < PROBES; ++probe, at = (at + 1) % SLOTS) {
        i32 found = key[at];
        if (found == -1 && !take) return SLOTS;
        if (found == -1) found = atomicCAS(key + at, -1, w);
        if (found == -1 || found == w) return at;
    }
    return SLOTS;
}

// The same for nodes with few walks, in one pass over them. The first column is -1 where the table was too small.
extern "C" __global__ void wedge_counts_few(const Adjacency* table, const i64* nodes, i64 n, i64* out) {
    __shared__ i32 key[SLOTS], common[SLOTS];
    __shared__ bool full;
    const Adjacency g = *table;
    for (u32 s = threadIdx.x; s < SLOTS; s += blockDim.x) {
        key[s] = -1;
        common[s] = 0;
    }
    for (i64 k = blockIdx.x; k < n; k += gridDim.x) {
        i64 v = nodes[k], triangles = 0, pairs = 0, squares = 0;
        if (threadIdx.x == 0) full = false;
        __syncthreads();
        walks(g, v, BOTH, [&](i64 w) {
            u32 s = slot_of(key, (i32)w, true);
            if (s < SLOTS)
                atomicAdd(common + s, 1);
            else
                full = true;  // whoever writes it writes the same
        });
        __syncthreads();
        neighbours(g, v, BOTH, threadIdx.x, blockDim.x, [&](i64 w) {
            u32 s = slot_of(key, (i32)w, false);
            i64 t = s < SLOTS ? common[s] : 0;
            triangles += t;
            pairs += t * (t - 1) / 2;
        });
        __syncthreads();
        for (u32 s = threadIdx.x; s < SLOTS; s += blockDim.x) {
            i64 t = common[s];
            if (key[s] != (i32)v) squares += t * (t - 1) / 2;
            key[s] = -1;
            common[s] = 0;
        }
        if (!full) {
            add(out + 3 * k, squares);
            add(out + 3 * k + 1, triangles);
            add(out + 3 * k + 2, pairs);
        } else if (threadIdx.x == 0) {
            out[3 * k] = -1;
        }
        __syncthreads();
    }
}

// Six times the number of 4-cliques at each node: ordered triples of neighbours that are all linked.
// ``near`` has ``size`` bytes for each block, of the nodes from ``first`` of the node's partition on: those that
// are looked at are within two steps.
extern "C" __global__ void clique_counts(
    const Adjacency* table, const i64* nodes, i64 n, unsigned char* near, const i64* first, i64 size, i64* out) {
    const Adjacency g = *table;
    unsigned char* mine = near + blockIdx.x * size;
    for (i64 k = blockIdx.x; k < n; k += gridDim.x) {
        i64 v = nodes[k], start = first[partition_of(g, v)], found = 0;
        neighbours(g, v, BOTH, threadIdx.x, blockDim.x, [&](i64 u) { mine[u - start] = 1; });
        __syncthreads();
        const Team t = team();
        neighbours(g, v, BOTH, 0, 1, [&](i64 u) {
            neighbours(g, u, BOTH, t.number, t.count, [&](i64 w) {
                if (!mine[w - start]) return;
                neighbours(g, w, BOTH, t.lane, t.lanes,
                           [&](i64 z) { found += mine[z - start] && linked(g, u, z); });
            });
        });
        add(out + k, found);
        __syncthreads();
        neighbours(g, v, BOTH, threadIdx.x, blockDim.x, [&](i64 u) { mine[u - start] = 0; });
        __syncthreads();
    }
}
MGE_EXPORT(path_counts)
MGE_EXPORT(two_hop_sizes)
MGE_EXPORT(wedge_counts)
MGE_EXPORT(wedge_counts_few)
MGE_EXPORT(clique_counts)
