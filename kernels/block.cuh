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
};

// visit(source, target) for the position pairs of nonzero k, shared among the threads of a block: as many runs at a
// time as it holds, taking all for as long as the first.
template <class Visit>
__device__ inline void pairs_of(const Block& b, i64 k, Visit visit) {
    i64 first = b.run_ptr[b.tap[k]], last = b.run_ptr[b.tap[k] + 1];
    if (first == last) return;
    i64 source = b.source_offset + b.source_channel[k] * b.source_channel_stride;
    i64 target = b.target_offset + b.target_channel[k] * b.target_channel_stride;
    i64 length = b.runs[5 * first + 2];
    u32 lanes = length < 1 ? 1 : length < blockDim.x ? length : blockDim.x;
    u32 teams = blockDim.x / lanes, team = threadIdx.x / lanes;
    if (team == teams) return;
    for (i64 r = first + team; r < last; r += teams) {
        const i64* run = b.runs + 5 * r;
        for (i64 j = threadIdx.x % lanes; j < run[2]; j += lanes)
            visit(source + run[1] + j * run[4], target + run[0] + j * run[3]);
    }
}
