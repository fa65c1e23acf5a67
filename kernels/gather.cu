// y += A^T x and y += A x over all blocks, each output node by one team of threads: no atomic additions, the same
// sum each time.
//
// An output row is a channel of a partition; a leg is a block in one direction that leads there. The weights that lead
// to a row are entries next to each other. Where entry e reads x for position p is in the leg's table:
// x[e.base + table[row][p]] for the e.count rows from e.row on, nothing where that is negative.
#include "device.cuh"

struct alignas(16) Entry {
    i32 base;
    i32 row;
    float weight;
    i32 count;
};

struct Leg {
    const i64* row_ptr;  // (rows + 1,): entries of each output row
    const Entry* entry;
    const i32* table;
    i64 rows;
    i64 single;  // whether every entry has one row of the table
    i64 same;    // and that row says the position itself
    i64 begin;   // where in x what it reads begins
};

struct Group {  // output rows of one geometry: node = offset + row * stride + position * step
    i64 item;   // items before it; an item is a row's positions as far as a block of threads reaches
    i64 leg;
    i64 legs;
    i64 offset;
    i64 stride;
    i64 step;
    i64 positions;
};

// What a thread adds up: the entries of its team for its position. Of a leg whose entries have one row of the table; where
// that says the position itself it is not read.
template <bool SAME, class T>
__device__ inline T single_sum(const Leg& leg, i64 begin, i64 end, u32 teams, i32 position, i32 positions, const T* x) {
    const i32* table = leg.table + position;
    const Entry* entry = leg.entry;
    T sum = 0;
    i64 k = begin;
    for (; k + 3 * (i64)teams < end; k += 4 * (i64)teams) {  // four at a time: reads do not wait for each other
        Entry e[4];
        i32 at[4];
        T value[4];
        MGE_UNROLL for (int j = 0; j < 4; ++j) e[j] = entry[k + j * (i64)teams];
        MGE_UNROLL for (int j = 0; j < 4; ++j) at[j] = SAME ? position : table[e[j].row * positions];
        MGE_UNROLL for (int j = 0; j < 4; ++j) value[j] = SAME || at[j] >= 0 ? x[e[j].base + at[j]] : (T)0;
        MGE_UNROLL for (int j = 0; j < 4; ++j) sum += weight_as<T>(e[j].weight) * value[j];
    }
    for (; k < end; k += teams) {
        Entry e = entry[k];
        i32 at = SAME ? position : table[e.row * positions];
        if (SAME || at >= 0) sum += weight_as<T>(e.weight) * x[e.base + at];
    }
    return sum;
}

// The same of any leg.
template <class T>
__device__ inline T sum_of(const Leg& leg, i64 begin, i64 end, u32 teams, i32 position, i32 positions, const T* x) {
    if (leg.same) return single_sum<true>(leg, begin, end, teams, position, positions, x);
    if (leg.single) return single_sum<false>(leg, begin, end, teams, position, positions, x);
    const i32* table = leg.table + position;
    const Entry* entry = leg.entry;
    T sum = 0;
    for (i64 k = begin; k < end; k += teams) {
        Entry e = entry[k];
        const i32* row = table + e.row * positions;
        T here = 0;
        for (i32 r = 0; r < e.count; ++r) {
            i32 at = row[r * positions];
            if (at >= 0) here += x[e.base + at];
        }
        sum += weight_as<T>(e.weight) * here;
    }
    return sum;
}

// The items from ``first`` on. A block of threads is as many teams as there are times its item's positions in it.
template <class T>
__device__ void gather(const Group* group, i64 groups, const Leg* legs, i64 first, i64 items, const T* x, T* y) {
    __shared__ T part[256];  // blocks are no larger
    for (i64 item = first + blockIdx.x; item < first + items; item += gridDim.x) {
        const Group g = group[last_start(0, groups, item, [&](u32 k) { return group[k].item; })];
        u32 number = item - g.item, tiles = (g.positions + blockDim.x - 1) / blockDim.x;
        u32 channel = number / tiles, begin = number % tiles * blockDim.x;
        u32 lanes = g.positions - begin < blockDim.x ? g.positions - begin : blockDim.x;
        u32 teams = blockDim.x / lanes, team = threadIdx.x / lanes, position = begin + threadIdx.x % lanes;
        T sum = 0;
        for (i64 l = g.leg; l < g.leg + g.legs && team < teams; ++l) {
            const Leg& leg = legs[l];
            if (channel >= leg.rows) continue;
            i64 start = leg.row_ptr[channel], stop = leg.row_ptr[channel + 1];
            sum += sum_of(leg, start + team, stop, teams, position, (i32)g.positions, x + leg.begin);
        }
        if (teams > 1) {
            part[threadIdx.x] = sum;
            for (u32 left = teams; left > 1;) {
                u32 half = (left + 1) / 2;
                __syncthreads();
                if (team + half < left) part[threadIdx.x] += part[threadIdx.x + half * lanes];
                left = half;
            }
            sum = part[threadIdx.x];
            __syncthreads();
        }
        if (team == 0) y[g.offset + channel * g.stride + position * g.step] += sum;
    }
}

extern "C" __global__ void __launch_bounds__(256, 4) gather_f32(
    const Group* group, i64 groups, const Leg* legs, i64 first, i64 items, const float* x, float* y) {
    gather(group, groups, legs, first, items, x, y);
}
extern "C" __global__ void __launch_bounds__(256, 3) gather_f64(
    const Group* group, i64 groups, const Leg* legs, i64 first, i64 items, const double* x, double* y) {
    gather(group, groups, legs, first, items, x, y);
}

struct Layout {  // a partition in which channels run fastest by the graph's numbers
    i64 offset;
    i64 channels;
    i64 positions;
};

// out: x with positions running fastest there as everywhere, so that neighbouring threads read what is next to each
// other; or the way back.
template <class T>
__device__ void turn(const Layout* layouts, i64 count, i64 nodes, bool back, const T* x, T* out) {
    for (i64 v = thread_number(); v < nodes; v += thread_count()) {
        const Layout p = layouts[last_start(0, count, v, [&](u32 k) { return layouts[k].offset; })];
        i64 local = v - p.offset, u = v;
        if (local >= 0 && local < p.channels * p.positions) {
            u32 channel = (u32)local / (u32)p.positions, position = (u32)local - channel * (u32)p.positions;
            u = p.offset + position * p.channels + channel;
        }
        if (back)
            out[u] = x[v];
        else
            out[v] = x[u];
    }
}

extern "C" __global__ void turn_f32(
    const Layout* layouts, i64 count, i64 nodes, bool back, const float* x, float* out) {
    turn(layouts, count, nodes, back, x, out);
}
extern "C" __global__ void turn_f64(
    const Layout* layouts, i64 count, i64 nodes, bool back, const double* x, double* out) {
    turn(layouts, count, nodes, back, x, out);
}

struct Collected {  // sums of a block in one direction: of each channel read and tap, for each position written
    i64 item;  // sums before it
    const i32* table;
    const i64* tap_rows;  // (taps, 2): first row of the table, rows
    i64 taps;
    i64 positions;
    i64 offset;
    i64 stride;
};

// The ``items`` sums from ``first`` on, of the x that begins at ``begin`` in the same vector. So many lanes share one.
template <class T>
__device__ void collect(const Collected* legs, i64 count, i64 first, i64 items, i64 begin, int lanes, T* values) {
    __shared__ T part[256];  // blocks are no larger
    if (lanes > (int)blockDim.x) lanes = blockDim.x;
    int teams = blockDim.x / lanes, team = threadIdx.x / lanes, lane = threadIdx.x % lanes;
    for (i64 at = (i64)blockIdx.x * teams; at < items; at += (i64)gridDim.x * teams) {
        i64 item = first + at + team;
        bool mine = team < teams && at + team < items;
        T sum = 0;
        if (mine) {
            const Collected leg = legs[last_start(0, (u32)count, item, [&](u32 k) { return legs[k].item; })];
            i64 rest = item - leg.item, position = rest % leg.positions, row = rest / leg.positions;
            i64 tap = row % leg.taps, channel = row / leg.taps;
            const T* x = values + begin + leg.offset + channel * leg.stride;
            const i32* table = leg.table + leg.tap_rows[2 * tap] * leg.positions + position;
            for (i64 r = lane; r < leg.tap_rows[2 * tap + 1]; r += lanes) {
                i32 near = table[r * leg.positions];
                if (near >= 0) sum += x[near];
            }
        }
        if (lanes > 1) {
            part[threadIdx.x] = sum;
            __syncthreads();
            if (mine && lane == 0)
                for (int k = 1; k < lanes; ++k) sum += part[threadIdx.x + k];
            __syncthreads();
        }
        if (mine && lane == 0) values[item] = sum;
    }
}

extern "C" __global__ void collect_f32(
    const Collected* legs, i64 count, i64 first, i64 items, i64 begin, i32 lanes, float* values) {
    collect(legs, count, first, items, begin, lanes, values);
}
extern "C" __global__ void collect_f64(
    const Collected* legs, i64 count, i64 first, i64 items, i64 begin, i32 lanes, double* values) {
    collect(legs, count, first, items, begin, lanes, values);
}

struct Part {  // a block in one direction: where its nonzeros, its taps and its output rows begin; the nodes it reads
    i64 nonzero;
    i64 tap;
    i64 row;
    i64 offset;
    i64 stride;
};

__device__ inline Part part_of(const Part* parts, i64 count, i64 k) {
    return parts[last_start(0, count, k, [&](u32 m) { return parts[m].nonzero; })];
}

// The output row that each nonzero leads to, among those of all blocks.
extern "C" __global__ void output_rows(
    const Part* parts, i64 count, i64 nonzeros, const i32* far_channel, i32* row) {
    for (i64 k = thread_number(); k < nonzeros; k += thread_count())
        row[k] = part_of(parts, count, k).row + far_channel[k];
}

// Entry j of nonzero order[j] (j where there is no order). taps: first row in the table and rows of each tap of all.
extern "C" __global__ void entries(
    const Part* parts, i64 count, i64 nonzeros, const i32* near_channel, const i32* tap, const float* weight,
    const i64* order, const i64* taps, Entry* out) {
    for (i64 j = thread_number(); j < nonzeros; j += thread_count()) {
        i64 k = order ? order[j] : j;
        const Part part = part_of(parts, count, k);
        const i64* of_tap = taps + 2 * (part.tap + tap[k]);
        out[j] = {(i32)(part.offset + near_channel[k] * part.stride), (i32)of_tap[0], weight[k], (i32)of_tap[1]};
    }
}
MGE_EXPORT(gather_f32)
MGE_EXPORT(gather_f64)
MGE_EXPORT(turn_f32)
MGE_EXPORT(turn_f64)
MGE_EXPORT(collect_f32)
MGE_EXPORT(collect_f64)
MGE_EXPORT(output_rows)
MGE_EXPORT(entries)
