// One block of the adjacency matrix on the device, and the walk along its edges.
//
// The fields are those of `Block` in mge_gpu/backends/adjacency.py.
#pragma once

#include "device.cuh"

struct Block {
    const i32* target_channel;
    const i32* source_channel;
    const i32* tap;
    const float* weight;
    const i64* run_ptr;
    const i64* runs;  // (runs, 5): target0, source0, length, target step, source step
    i64 nonzeros;
    i64 source_offset;
    i64 target_offset;
    i64 source_channel_stride;
    i64 target_channel_stride;
    i64 sharers;  // threads that share a nonzero, where a block of threads has as many
};

// Of the threads that share a nonzero.
struct Sharer {
    u32 lane;
    u32 lanes;
};

// each(k, sharer) for every nonzero k.
template <class Each>
__device__ inline void nonzeros_of(const Block& b, Each each) {
    u32 lanes = b.sharers < blockDim.x ? (u32)b.sharers : blockDim.x;
    u32 together = blockDim.x / lanes, mine = threadIdx.x / lanes;
    if (mine == together) return;  // threads that are left over
    Sharer sharer = {threadIdx.x % lanes, lanes};
    for (i64 k = (i64)blockIdx.x * together + mine; k < b.nonzeros; k += (i64)gridDim.x * together) each(k, sharer);
}

// found(source, target) for the position pairs of nonzero k, by those who share it, each until that is true: whether it
// was. As many runs at a time as there are threads for, taking all for as long as the first.
template <class Found>
__device__ inline bool some_pair(const Block& b, i64 k, Sharer sharer, Found found) {
    i64 first = b.run_ptr[b.tap[k]], last = b.run_ptr[b.tap[k] + 1];
    if (first == last) return false;
    i64 source = b.source_offset + b.source_channel[k] * b.source_channel_stride;
    i64 target = b.target_offset + b.target_channel[k] * b.target_channel_stride;
    i64 length = b.runs[5 * first + 2];
    u32 lanes = length < 1 ? 1 : length < sharer.lanes ? (u32)length : sharer.lanes;
    u32 teams = sharer.lanes / lanes, team = sharer.lane / lanes;
    if (team == teams) return false;
    for (i64 r = first + team; r < last; r += teams) {
        const i64* run = b.runs + 5 * r;
        for (i64 j = sharer.lane % lanes; j < run[2]; j += lanes)
            if (found(source + run[1] + j * run[4], target + run[0] + j * run[3])) return true;
    }
    return false;
}

// visit(source, target) for all of them.
template <class Visit>
__device__ inline void pairs_of(const Block& b, i64 k, Sharer sharer, Visit visit) {
    some_pair(b, k, sharer, [&](i64 source, i64 target) {
        visit(source, target);
        return false;
    });
}
