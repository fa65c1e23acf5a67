// Stand-ins for CUDA's words, so that g++ compiles the very kernels that NVRTC compiles.
//
// Blocks run one after the other, in the order of a permutation that the launcher is given: what one block writes
// without an atomic operation while another reads it shows as a result that depends on the order. The threads of
// a block are one, or several threads of the host that run at the same time and meet at barriers. Blocks of a kernel
// that is exported with MGE_EXPORT_TOGETHER all run at the same time; it has no shared memory.
#pragma once

#include <cmath>
#include <condition_variable>
#include <cstddef>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __shared__ static  // blocks run one after the other
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)

struct MgeDim {
    unsigned int x = 0, y = 0, z = 0;
};

static thread_local MgeDim blockIdx, threadIdx, blockDim, gridDim;

class MgeBarrier {
    std::mutex mutex;
    std::condition_variable all_here;
    unsigned int waiting = 0, round = 0;

public:
    void wait(unsigned int threads) {
        std::unique_lock<std::mutex> lock(mutex);
        unsigned int mine = round;
        if (++waiting == threads) {
            waiting = 0;
            ++round;
            all_here.notify_all();
        } else {
            all_here.wait(lock, [&] { return round != mine; });
        }
    }
};

static thread_local MgeBarrier* mge_barrier;  // of this thread's block

inline void __syncthreads() {
    if (blockDim.x > 1) mge_barrier->wait(blockDim.x);
}

inline void __threadfence() {}  // the atomic operations below are fences

inline long long __double_as_longlong(double x) {
    long long bits;
    std::memcpy(&bits, &x, sizeof x);
    return bits;
}

inline void __nanosleep(unsigned int) { std::this_thread::yield(); }

template <class T>
inline bool mge_swap(T* at, T& expected, T x) {
    return __atomic_compare_exchange(at, &expected, &x, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

template <class T>
inline T load_now(const T* at) {
    T x;
    __atomic_load(at, &x, __ATOMIC_SEQ_CST);
    return x;
}

template <class T>
inline T atomicAdd(T* at, T x) {  // floating point as well, of which the compiler has no sum
    T old = load_now(at);
    while (!mge_swap(at, old, (T)(old + x))) {
    }
    return old;
}

template <class T>
inline T atomicMin(T* at, T x) {
    T old = load_now(at);
    while (x < old && !mge_swap(at, old, x)) {
    }
    return old;
}

template <class T>
inline T atomicMax(T* at, T x) {
    T old = load_now(at);
    while (x > old && !mge_swap(at, old, x)) {
    }
    return old;
}

template <class T>
inline T atomicSub(T* at, T x) {
    return __atomic_fetch_sub(at, x, __ATOMIC_SEQ_CST);
}

template <class T>
inline T atomicExch(T* at, T x) {
    return __atomic_exchange_n(at, x, __ATOMIC_SEQ_CST);
}

template <class T>
inline T atomicOr(T* at, T x) {
    return __atomic_fetch_or(at, x, __ATOMIC_SEQ_CST);
}

template <class T>
inline T atomicCAS(T* at, T expected, T x) {
    mge_swap(at, expected, x);
    return expected;
}

template <class... A, std::size_t... I>
void mge_call(void (*kernel)(A...), void** args, std::index_sequence<I...>) {
    kernel(*static_cast<A*>(args[I])...);
}

template <class... A>
void mge_launch(
    void (*kernel)(A...), unsigned int blocks, unsigned int threads, const unsigned int* order, void** args,
    bool together) {
    std::vector<MgeBarrier> barriers(blocks);
    std::vector<std::thread> running;
    auto run = [&](unsigned int block, unsigned int thread) {
        mge_barrier = &barriers[block];
        blockDim.x = threads;
        gridDim.x = blocks;
        blockIdx.x = block;
        threadIdx.x = thread;
        mge_call(kernel, args, std::index_sequence_for<A...>{});
    };
    for (unsigned int k = 0; k < blocks; ++k) {
        bool last = !together || k + 1 == blocks;  // whose first thread is this one
        for (unsigned int t = last; t < threads; ++t) running.emplace_back(run, order[k], t);
        if (!last) continue;
        run(order[k], 0);
        for (std::thread& one : running) one.join();
        running.clear();
    }
}

// args point to the arguments, as for cuLaunchKernel
#define MGE_EXPORT_AS(name, together)                                                                 \
    extern "C" void name##_on_host(                                                                   \
        unsigned int blocks, unsigned int threads, const unsigned int* order, void** args) {          \
        mge_launch(name, blocks, threads, order, args, together);                                     \
    }
#define MGE_EXPORT(name) MGE_EXPORT_AS(name, false)
#define MGE_EXPORT_TOGETHER(name) MGE_EXPORT_AS(name, true)
