// Sums of values that have powers of two beside them: see `Backend.scaled_sum`.
#include "meeting.cuh"

constexpr i64 NOTHING = -((i64)1 << 40);  // the exponent of a row of zeros
constexpr i64 PIECE = 1 << 8;             // values that a team takes at a time

struct Sizes {  // values are (rows, before, networks, behind), exponents (rows, networks)
    i64 rows;
    i64 before;
    i64 networks;
    i64 behind;

    // visit(number of the exponent, first value, values) for each piece, by a team.
    template <class Visit>
    __device__ void pieces(const Team& t, Visit visit) const {
        i64 each = (behind + PIECE - 1) / PIECE, all = rows * before * networks * each;
        for (i64 k = t.first; k < all; k += t.all) {
            i64 segment = k / each, at = k % each * PIECE;
            i64 row = segment / (before * networks), network = segment % networks;
            visit(row * networks + network, segment * behind + at, behind - at < PIECE ? behind - at : PIECE);
        }
    }
};

// The exponent of a part by the bits of its largest value, which are ordered as values are.
__device__ inline i64 top_of(u64 most, i64 exponent) {
    return most == 0 ? NOTHING : exponent + (i64)(most >> 52) - 1022;
}

__device__ inline double times(double x, i64 exponent) {
    return ldexp(x, (int)(exponent < -3000 ? -3000 : exponent > 3000 ? 3000 : exponent));
}

// out = a + b; a alone where b is null. The last two rows have the same exponents. ``most``, zero before, has the blocks
// that met, and the largest value of each row and network, of a and then of b.
extern "C" __global__ void __launch_bounds__(256, 3) scaled_sum(
    const double* a, const i64* a_exponent, const double* b, const i64* b_exponent, i64 rows, i64 before, i64 networks,
    i64 behind, u64* most, double* out, i64* exponent) {
    const Sizes sizes = {rows, before, networks, behind};
    const Team t = team();
    u64 *most_a = most + 1, *most_b = most_a + rows * networks;
    for (int part = 0; part < (b ? 2 : 1); ++part) {
        const double* values = part ? b : a;
        sizes.pieces(t, [&](i64 number, i64 first, i64 count) {
            double largest = 0;
            for (i64 j = t.lane; j < count; j += t.lanes)
                if (values[first + j] > largest) largest = values[first + j];
            u64 bits = (u64)__double_as_longlong(largest), *there = (part ? most_b : most_a) + number;
            if (says_largest(bits, t.lane) && bits > load_now(there)) atomicMax(there, bits);
        });
    }
    meet(most);
    auto top = [&](i64 number) {
        i64 found = top_of(most_a[number], a_exponent[number]);
        i64 other = b ? top_of(most_b[number], b_exponent[number]) : NOTHING;
        return found > other ? found : other;
    };
    sizes.pieces(t, [&](i64 number, i64 first, i64 count) {
        i64 here = top(number), row = number / networks;
        if (rows > 1 && row >= rows - 2) {
            i64 other = top(number + (row == rows - 1 ? -networks : networks));
            if (other > here) here = other;
        }
        i64 by_a = a_exponent[number] - here, by_b = b ? b_exponent[number] - here : 0;
        for (i64 j = t.lane; j < count; j += t.lanes)
            out[first + j] = times(a[first + j], by_a) + (b ? times(b[first + j], by_b) : 0);
        if (t.lane == 0 && first % behind == 0) exponent[number] = here;  // each ``before`` writes the same
    });
}
MGE_EXPORT_TOGETHER(scaled_sum)
