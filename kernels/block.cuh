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

// visit(number of the pair within the nonzero, source, target) for the position pairs of nonzero k, shared among
// the threads of a block.
template <class Visit>
__device__ inline void pairs_of(const Block& b, i64 k, Visit visit) {
    i64 source = b.source_offset + b.source_channel[k] * b.source_channel_stride;
    i64 target = b.target_offset + b.target_channel[k] * b.target_channel_stride;
    i64 before = 0;
    for (i64 r = b.run_ptr[b.tap[k]]; r < b.run_ptr[b.tap[k] + 1]; ++r) {
        const i64* run = b.runs + 5 * r;
        for (i64 j = threadIdx.x; j < run[2]; j += blockDim.x)
            visit(before + j, source + run[1] + j * run[4], target + run[0] + j * run[3]);
        before += run[2];
    }
}
