// Sums over out-neighbours: once for each hub, by a block, then for each node, by a team.
#include "adjacency.cuh"

template <class T>
__device__ void sum_of_hubs(const Adjacency& g, const T* x, T* out) {
    for (i64 h = blockIdx.x; h < g.hubs; h += gridDim.x) {
        if (g.hub_list[h] < 0) continue;  // a number that no node has
        T sum = 0;
        along(g, g.hub_arc[h], g.hub_anchor[h], g.hub_list[h], threadIdx.x, blockDim.x,
              [&](i64 u) { sum += x[u]; });
        if (sum != 0) add(out + h, sum);
    }
}

template <class T>
__device__ void sum_of_nodes(const Adjacency& g, const T* x, const T* shared, T* out) {
    const Team t = team();
    for (i64 v = t.first; v < g.nodes; v += t.all) {
        Place here = place_of(g, v);
        T sum = 0;
        for (int arc = first_arc(g, here.partition, OUT); arc < last_arc(g, here.partition, OUT); ++arc) {
            List list = list_of(g, arc, here);
            i64 hub = g.list_hub[list.row];
            if (hub < 0)
                along(g, arc, g.anchor[list.at], list.row, t.lane, t.lanes, [&](i64 u) { sum += x[u]; });
            else if (t.lane == 0)
                sum += shared[hub + g.position_group[list.at]];
        }
        if (sum != 0) add(out + v, sum);
    }
}

// out must be zero before
extern "C" __global__ void hub_sums_i64(const Adjacency* g, const i64* x, i64* out) { sum_of_hubs(*g, x, out); }
extern "C" __global__ void hub_sums_f64(const Adjacency* g, const double* x, double* out) {
    sum_of_hubs(*g, x, out);
}
extern "C" __global__ void neighbour_sums_i64(const Adjacency* g, const i64* x, const i64* shared, i64* out) {
    sum_of_nodes(*g, x, shared, out);
}
extern "C" __global__ void neighbour_sums_f64(
    const Adjacency* g, const double* x, const double* shared, double* out) {
    sum_of_nodes(*g, x, shared, out);
}
MGE_EXPORT(hub_sums_i64)
MGE_EXPORT(hub_sums_f64)
MGE_EXPORT(neighbour_sums_i64)
MGE_EXPORT(neighbour_sums_f64)
