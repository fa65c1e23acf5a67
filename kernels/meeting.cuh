// Where all blocks of a launch wait for each other: only for kernels of `Runtime.launch_together`, whose blocks all
// run at the same time.
#pragma once

#include "device.cuh"

// Every thread of every block comes here before any goes on, and then sees what all of them wrote before. ``arrived``
// counts the blocks that came, all times together; 0 at first.
__device__ inline void meet(u64* arrived) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();  // for the whole block, which the barrier has put in order
        u64 mine = atomicAdd(arrived, (u64)1), all = (mine / gridDim.x + 1) * gridDim.x;
        while (load_now(arrived) < all) __nanosleep(32);
        __threadfence();
    }
    __syncthreads();
}

// visit(item, lane, lanes) for each item, by one team; or by up to 2^most teams together where there are enough.
template <class Visit>
__device__ inline void share_out(i64 items, int most, Visit visit) {
    const Team t = team();
    int shift = 0;
    while (shift < most && items << (shift + 1) <= t.all) ++shift;
    for (i64 k = t.first; k < items << shift; k += t.all) {
        int part = (int)(k & ((1 << shift) - 1));
        visit(k >> shift, part * t.lanes + t.lane, t.lanes << shift);
    }
}
