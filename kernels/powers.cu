// Sums of |w|^power x over the edges of one block, for several (row of x, power, row of y) at once.
//
// Sums are taken by atomic additions: their order, and with it the last digits, differ from run to run.
#include "block.cuh"

// y[out] += sum of |w|^power x[in] over the edges, towards the targets (backward: towards the sources). x is
// (rows, near) over the nodes on the one side, y is (rows, far) over those on the other. A term takes 12 bits of
// ``terms``: in, power (0, 1 or 2), out. Terms of the same out that follow one another are one addition.
extern "C" __global__ void power_sums(
    const Block* table, bool backward, i64 count, i64 terms, i64 near, i64 far, const double* x, double* y) {
    const Block b = *table;
    nonzeros_of(b, [&](i64 k, Sharer sharer) {
        double w = widened(b.weight[k]);
        pairs_of(b, k, sharer, [&](i64 s, i64 t) {
            i64 source = s - b.source_offset, target = t - b.target_offset;
            i64 from = backward ? target : source, to = backward ? source : target;
            double sum = 0;
            for (i64 n = 0; n < count; ++n) {
                i64 term = terms >> 12 * n, power = term >> 4 & 15, out = term >> 8 & 15;
                double value = x[(term & 15) * near + from];
                if (value != 0) sum += power == 0 ? value : power == 1 ? w * value : w * w * value;
                if (n + 1 < count && (term >> 20 & 15) == out) continue;
                if (sum != 0) add(y + out * far + to, sum);
                sum = 0;
            }
        });
    });
}
MGE_EXPORT(power_sums)
