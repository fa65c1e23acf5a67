// y += A^T x (forward, towards targets) and y += A x (backward) of one block, a nonzero at a time: for blocks whose
// positions fit no table of `gather.cu`.
//
// Sums are taken by atomic additions: their order, and with it the last digits, differ from run to run.
#include "block.cuh"

template <class T>
__device__ void multiply(const Block& b, bool forward, bool backward, const T* x, T* y) {
    nonzeros_of(b, [&](i64 k, Sharer sharer) {
        T w = weight_as<T>(b.weight[k]);
        pairs_of(b, k, sharer, [&](i64 s, i64 t) {
            if (forward) add(y + t, w * x[s]);
            if (backward) add(y + s, w * x[t]);
        });
    });
}

extern "C" __global__ void product_f32(
    const Block* b, bool forward, bool backward, const float* x, float* y) {
    multiply(*b, forward, backward, x, y);
}
extern "C" __global__ void product_f64(
    const Block* b, bool forward, bool backward, const double* x, double* y) {
    multiply(*b, forward, backward, x, y);
}
MGE_EXPORT(product_f32)
MGE_EXPORT(product_f64)
