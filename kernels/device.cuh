// What every kernel needs of its surroundings: CUDA's own words, or their stand-ins on a host compiler.
#pragma once

#ifdef MGE_HOST
#include "host_shim.h"
#define MGE_UNROLL

inline double widened(float x) { return x; }

template <class T>
inline bool says_largest(T&, int) {
    return true;
}
#else
#define MGE_UNROLL _Pragma("unroll")
#define MGE_EXPORT(name)  // the driver finds kernels by name
#define MGE_EXPORT_TOGETHER(name)

// What is there now, though other threads may be writing it.
template <class T>
__device__ inline T load_now(const T* at) {
    return *(const volatile T*)at;
}

// A weight in double precision. Kernels are compiled with -ftz (CuPy sees to that), by which a cast makes 0 of numbers
// below 1.2e-38.
__device__ inline double widened(float x) {
    double wide;
    asm("cvt.f64.f32 %0, %1;" : "=d"(wide) : "f"(x));
    return wide;
}

// Makes x the largest of a warp's, all of whose threads come here; true for the one that says it to others. On the
// host each thread says its own.
template <class T>
__device__ inline bool says_largest(T& x, int lane) {
    for (int step = 16; step > 0; step /= 2) {
        T other = __shfl_xor_sync(0xffffffff, x, step);
        if (other > x) x = other;
    }
    return lane % 32 == 0;
}
#endif

typedef int i32;
typedef long long i64;
typedef unsigned int u32;
typedef unsigned long long u64;

// Sizes and counters are 64-bit; CUDA's 64-bit atomics are unsigned, and sums wrap around alike.
__device__ inline i64 add(i64* at, i64 x) { return (i64)atomicAdd((u64*)at, (u64)x); }
__device__ inline double add(double* at, double x) { return atomicAdd(at, x); }
__device__ inline float add(float* at, float x) { return atomicAdd(at, x); }

// The same for sums of type T.
template <class T>
__device__ inline T weight_as(float x);
template <>
__device__ inline double weight_as<double>(float x) {
    return widened(x);
}
template <>
__device__ inline float weight_as<float>(float x) {
    return x;
}

// The last k in [low, high) whose start(k) is at most x; low where there is none. Starts ascend.
template <class Start>
__device__ inline u32 last_start(u32 low, u32 high, i64 x, Start start) {
    while (high - low > 1) {
        u32 middle = (low + high) / 2;
        if (start(middle) <= x)
            low = middle;
        else
            high = middle;
    }
    return low;
}

// A team of threads that work on one item together: a warp, or the whole block where that is not made of warps.
struct Team {
    int lane, lanes;      // this thread's number in its team, threads of a team
    int number, count;    // this team's number in its block, teams of a block
    i64 first, all;       // the same among the teams of all blocks
};

__device__ inline Team team() {
    int lanes = blockDim.x % 32 ? blockDim.x : 32;
    Team t;
    t.lane = threadIdx.x % lanes;
    t.lanes = lanes;
    t.number = threadIdx.x / lanes;
    t.count = blockDim.x / lanes;
    t.first = (i64)blockIdx.x * t.count + t.number;
    t.all = (i64)gridDim.x * t.count;
    return t;
}

// The number of this thread among all, and of all threads.
__device__ inline i64 thread_number() { return (i64)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ inline i64 thread_count() { return (i64)gridDim.x * blockDim.x; }
