// Disjoint sets of nodes: label[v] is a node of v's set that is not larger than v, v itself at the root.
#pragma once

#include "device.cuh"

// The root of v; paths are halved on the way (Jayanti and Tarjan, Distributed Computing 34, 2021).
__device__ inline i32 root_of(i32* label, i32 v) {
    while (true) {
        i32 above = load_now(label + v);
        if (above == v) return v;
        i32 further = load_now(label + above);
        if (further == above) return above;
        atomicCAS(label + v, above, further);
        v = further;
    }
}

// Unite the sets of u and v. Returns the root that was hooked under the smaller one, -1 where they were one set.
__device__ inline i32 unite(i32* label, i32 u, i32 v) {
    if (label[u] == label[v]) return -1;  // an old value will do, and most edges lie within a set: sets only merge
    i32 a = root_of(label, u), b = root_of(label, v);
    while (a != b) {
        i32 larger = a > b ? a : b, smaller = a > b ? b : a;
        if (atomicCAS(label + larger, larger, smaller) == larger) return larger;
        a = root_of(label, larger);
        b = root_of(label, smaller);
    }
    return -1;
}
