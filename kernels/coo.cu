// Edges written down: source, target and weight of every position pair of nonzeros first ... first + n.
#include "block.cuh"

// start[k] is where nonzero k begins in the arrays, counted from ``base``.
extern "C" __global__ void fill(
    const Block* table, i64 first, i64 n, const i64* start, i64 base, i64* source, i64* target, float* weight) {
    const Block b = *table;
    for (i64 k = first + blockIdx.x; k < first + n; k += gridDim.x) {
        i64 at = start[k] - base;
        float w = b.weight[k];
        pairs_of(b, k, [&](i64 j, i64 s, i64 t) {
            source[at + j] = s;
            target[at + j] = t;
            weight[at + j] = w;
        });
    }
}
MGE_EXPORT(fill)
