// In- and out-degrees from list lengths: O(N arcs), no list is read.
#include "adjacency.cuh"

extern "C" __global__ void degrees(const Adjacency* table, i64* indeg, i64* outdeg) {
    const Adjacency g = *table;
    for (i64 v = thread_number(); v < g.nodes; v += thread_count()) {
        Place here = place_of(g, v);
        i64 out = 0, in = 0;
        for (int arc = g.arc_ptr[here.partition]; arc < g.arc_ptr[here.partition + 1]; ++arc)
            (arc < g.arc_mid[here.partition] ? out : in) += length_of(g, arc, list_of(g, arc, here).row);
        outdeg[v] = out;
        indeg[v] = in;
    }
}
MGE_EXPORT(degrees)
