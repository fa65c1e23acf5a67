// Which nodes an edge leads to, and which weights lie between marked nodes.
#include "block.cuh"

// Marks in y the far ends of edges whose near end x marks; x may be y. All that is written is true.
extern "C" __global__ void reach(const Block* table, bool backward, const bool* x, bool* y) {
    const Block b = *table;
    nonzeros_of(b, [&](i64 k, Sharer sharer) {
        pairs_of(b, k, sharer, [&](i64 s, i64 t) {
            if (x[backward ? t : s]) y[backward ? s : t] = true;
        });
    });
}

// Marks in out (false before) the nonzeros with an edge from a node of ``before`` to one of ``behind``. So many threads
// share a nonzero.
extern "C" __global__ void between(
    const Block* table, i64 sharers, const bool* before, const bool* behind, bool* out) {
    Block b = *table;
    b.sharers = sharers;
    nonzeros_of(b, [&](i64 k, Sharer sharer) {
        if (some_pair(b, k, sharer, [&](i64 s, i64 t) { return before[s] && behind[t]; })) out[k] = true;
    });
}
MGE_EXPORT(reach)
MGE_EXPORT(between)
