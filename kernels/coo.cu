// Edges written down. The nonzeros of several blocks lie side by side; edge e of all of them is position pair
// e - start[k] of the last nonzero k that starts at most at e. Threads share out edges, not nonzeros, so that stores
// are whole sectors whatever the size of the maps.
#include "device.cuh"

struct Part {  // a block: where its nonzeros and taps begin, and the nodes of its channels
    i64 nonzero;
    i64 tap;
    i64 source_offset;
    i64 target_offset;
    i64 source_stride;
    i64 target_stride;
};

struct alignas(16) Run {  // the length is the difference of two run_start
    i32 target;
    i32 source;
    i32 target_step;
    i32 source_step;
};

// In place: channels become their first nodes, taps of a block become taps of all. start[k + 1] gets the number of
// pairs of nonzero k, of which the others want the cumulative sum.
extern "C" __global__ void place(
    const Part* parts, i64 count, i64 nonzeros, i32* target, i32* source, i32* tap, const i64* tap_pairs, i64* start) {
    for (i64 k = thread_number(); k < nonzeros; k += thread_count()) {
        const Part part = parts[last_start(0, count, k, [&](u32 m) { return parts[m].nonzero; })];
        target[k] = part.target_offset + target[k] * part.target_stride;
        source[k] = part.source_offset + source[k] * part.source_stride;
        tap[k] += part.tap;
        start[k + 1] = tap_pairs[tap[k]];
        if (k == 0) start[0] = 0;
    }
}

template <class Weight>
struct Pairs {  // nonzeros and the runs of their taps
    const i32* target;
    const i32* source;
    const i32* tap;
    const Weight* weight;
    const i64* start;  // (nonzeros + 1,)
    const i64* run_ptr;
    const i64* run_start;  // pairs before each run
    const Run* run;
};

// The last index in [low, high) at which an ascending array is at most x, as it is at low.
__device__ inline u32 last_at_most(const i64* array, u32 low, u32 high, i64 x) {
    return last_start(low, high, x, [&](u32 k) { return array[k]; });
}

// The same, fast where it is near low.
__device__ inline u32 last_near(const i64* array, u32 low, u32 high, i64 x) {
    u32 step = 1;
    while (low + step < high && array[low + step] <= x) low += step, step *= 2;
    return last_at_most(array, low, low + step < high ? low + step : high, x);
}

template <class Weight>
struct Edge {
    i32 source;
    i32 target;
    Weight weight;
    i32 left;  // edges of the same run behind it
    i32 source_step;
    i32 target_step;
};

template <class Weight>
__device__ inline Edge<Weight> edge_at(const Pairs<Weight>& p, u32 k, i64 e) {
    i32 tap = p.tap[k];
    u32 first = p.run_ptr[tap];
    i64 pair = p.run_start[first] + e - p.start[k];
    u32 r = last_at_most(p.run_start, first, p.run_ptr[tap + 1], pair);
    Run run = p.run[r];
    i32 j = pair - p.run_start[r], length = p.run_start[r + 1] - p.run_start[r];
    return {p.source[k] + run.source + j * run.source_step, p.target[k] + run.target + j * run.target_step,
            p.weight[k], length - j - 1, run.source_step, run.target_step};
}

template <class Weight>
__device__ inline void go_on(Edge<Weight>& edge, i32 steps) {
    edge.source += steps * edge.source_step;
    edge.target += steps * edge.target_step;
    edge.left -= steps;
}

template <class T>
struct alignas(2 * sizeof(T)) Two {
    T first, second;
};

const int ITEMS = 8;  // neighbouring edges are written by two, and a thread writes so many twos

// Writes edges first ... first + count. The threads of a warp write what is next to each other, and go on from there.
template <class Id, class Weight>
__device__ void write(
    const Pairs<Weight>& p, u32 nonzeros, i64 first, i64 count, Id* source, Id* target, Weight* weight) {
    bool aligned = ((u64)source | (u64)target) % sizeof(Two<Id>) == 0 && (u64)weight % sizeof(Two<Weight>) == 0;
    u32 lanes = blockDim.x % 32 ? blockDim.x : 32;
    u32 offset = 2 * (threadIdx.x / lanes * ITEMS * lanes + threadIdx.x % lanes), tile = 2 * ITEMS * blockDim.x;
    i32 stride = 2 * lanes;
    for (i64 at = (i64)blockIdx.x * tile + offset; at < count; at += (i64)gridDim.x * tile) {
        u32 k = last_at_most(p.start, 0, nonzeros, first + at);
        Edge<Weight> one = edge_at(p, k, first + at);
        for (i64 i = at;;) {
            bool both = i + 1 < count;
            Edge<Weight> two = one;
            if (one.left)
                go_on(two, 1);
            else if (both)
                two = edge_at(p, last_near(p.start, k, nonzeros, first + i + 1), first + i + 1);
            if (both && aligned) {
                *(Two<Id>*)(source + i) = {(Id)one.source, (Id)two.source};
                *(Two<Id>*)(target + i) = {(Id)one.target, (Id)two.target};
                *(Two<Weight>*)(weight + i) = {one.weight, two.weight};
            } else {
                source[i] = one.source, target[i] = one.target, weight[i] = one.weight;
                if (both) source[i + 1] = two.source, target[i + 1] = two.target, weight[i + 1] = two.weight;
            }
            i += stride;
            if (i >= count || i >= at + ITEMS * stride) break;
            if (one.left >= stride) {
                go_on(one, stride);
            } else {
                k = last_near(p.start, k, nonzeros, first + i);
                one = edge_at(p, k, first + i);
            }
        }
    }
}

typedef unsigned short f16;  // the bits of a number: weights are copied, not computed with

extern "C" __global__ void __launch_bounds__(256, 8) fill_i64_f32(
    const i32* target_node, const i32* source_node, const i32* tap, const float* value, const i64* start,
    const i64* run_ptr, const i64* run_start, const Run* run, u32 nonzeros, i64 first, i64 count, i64* source,
    i64* target, float* weight) {
    Pairs<float> p = {target_node, source_node, tap, value, start, run_ptr, run_start, run};
    write(p, nonzeros, first, count, source, target, weight);
}

extern "C" __global__ void __launch_bounds__(256, 8) fill_i64_f16(
    const i32* target_node, const i32* source_node, const i32* tap, const f16* value, const i64* start,
    const i64* run_ptr, const i64* run_start, const Run* run, u32 nonzeros, i64 first, i64 count, i64* source,
    i64* target, f16* weight) {
    Pairs<f16> p = {target_node, source_node, tap, value, start, run_ptr, run_start, run};
    write(p, nonzeros, first, count, source, target, weight);
}

extern "C" __global__ void __launch_bounds__(256, 8) fill_i32_f32(
    const i32* target_node, const i32* source_node, const i32* tap, const float* value, const i64* start,
    const i64* run_ptr, const i64* run_start, const Run* run, u32 nonzeros, i64 first, i64 count, i32* source,
    i32* target, float* weight) {
    Pairs<float> p = {target_node, source_node, tap, value, start, run_ptr, run_start, run};
    write(p, nonzeros, first, count, source, target, weight);
}

extern "C" __global__ void __launch_bounds__(256, 8) fill_i32_f16(
    const i32* target_node, const i32* source_node, const i32* tap, const f16* value, const i64* start,
    const i64* run_ptr, const i64* run_start, const Run* run, u32 nonzeros, i64 first, i64 count, i32* source,
    i32* target, f16* weight) {
    Pairs<f16> p = {target_node, source_node, tap, value, start, run_ptr, run_start, run};
    write(p, nonzeros, first, count, source, target, weight);
}

MGE_EXPORT(place)
MGE_EXPORT(fill_i64_f32)
MGE_EXPORT(fill_i64_f16)
MGE_EXPORT(fill_i32_f32)
MGE_EXPORT(fill_i32_f16)
