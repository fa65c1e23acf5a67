// The compressed adjacency on the device, and how a kernel walks along it.
//
// Read mge_gpu/backends/adjacency.py first: the arrays are those of `Adjacency` there, in the same order,
// followed by their sizes. Kernels get the table of pointers in device memory.
#pragma once

#include "device.cuh"

struct Adjacency {
    const i64* offset;
    const i64* divisor;
    const bool* channel_first;
    const i32* arc_ptr;
    const i32* arc_mid;
    const i32* arc_other;
    const signed char* arc_view;
    const i64* arc_position;
    const i32* arc_classes;
    const i64* arc_row;
    const i64* span_ptr;
    const i32* span;
    const i32* position_class;
    const i32* position_group;
    const i32* anchor;
    const i64* row_list;
    const i64* list_ptr;
    const i64* list_hub;
    const i32* shifts;
    const i32* hub_arc;
    const i64* hub_list;
    const i32* hub_anchor;
    i64 partitions;
    i64 nodes;
    i64 hubs;
};

enum Direction { OUT, IN, BOTH };
enum View { OWN, FLAT, CROSSED };

// The partition that holds node v.
__device__ inline int partition_of(const Adjacency& g, i64 v) {
    return (int)last_start(0, (u32)g.partitions, v, [&](u32 p) { return g.offset[p]; });
}

// Where a node stands in its partition.
struct Place {
    int partition;
    i64 local;
    i64 channel;
    i64 position;
};

__device__ inline Place place_at(const Adjacency& g, int partition, i64 local) {
    Place here;
    here.partition = partition;
    here.local = local;
    u32 divisor = (u32)g.divisor[partition];
    u32 quotient = (u32)local / divisor, remainder = (u32)local - quotient * divisor;
    bool first = g.channel_first[partition];
    here.channel = first ? quotient : remainder;
    here.position = first ? remainder : quotient;
    return here;
}

__device__ inline Place place_of(const Adjacency& g, i64 v) {
    int partition = partition_of(g, v);
    return place_at(g, partition, v - g.offset[partition]);
}

// The list of a node along an arc, and what all of its entries are moved by.
struct List {
    i64 at;   // index into the arrays of positions
    i64 row;  // list
};

__device__ inline List list_of(const Adjacency& g, int arc, const Place& here) {
    int view = g.arc_view[arc];
    i64 channel = view == OWN ? here.channel : view == CROSSED ? here.position : 0;
    i64 position = view == OWN ? here.position : view == CROSSED ? here.channel : here.local;
    List found;
    found.at = g.arc_position[arc] + position;
    found.row = g.row_list[g.arc_row[arc] + channel * g.arc_classes[arc] + g.position_class[found.at]];
    return found;
}

__device__ inline int first_arc(const Adjacency& g, int p, Direction way) {
    return way == IN ? g.arc_mid[p] : g.arc_ptr[p];
}

__device__ inline int last_arc(const Adjacency& g, int p, Direction way) {
    return way == OUT ? g.arc_mid[p] : g.arc_ptr[p + 1];
}

// Number of neighbours along an arc that a list stands for.
__device__ inline i64 length_of(const Adjacency& g, int arc, i64 row) {
    return (g.list_ptr[row + 1] - g.list_ptr[row]) * (g.span_ptr[arc + 1] - g.span_ptr[arc]);
}

// visit(u) for the neighbours u of one list at an anchor: those whose number is lane, lane + lanes, ... The whole list
// comes for each place of the span, which can be all positions of a map where the list has a few entries.
template <class Visit>
__device__ inline void along(
    const Adjacency& g, int arc, i64 anchor, i64 row, int lane, int lanes, Visit visit) {
    const i32 *span = g.span + g.span_ptr[arc], *shifts = g.shifts + g.list_ptr[row];
    u32 spans = (u32)(g.span_ptr[arc + 1] - g.span_ptr[arc]), length = (u32)(g.list_ptr[row + 1] - g.list_ptr[row]);
    u32 m = 0, j = (u32)lane, places = 0, entries = (u32)lanes;  // a step passes so many places and entries
    if (spans > 1 && length > 0) {
        m = j / length, j %= length;
        places = entries / length, entries %= length;
    }
    if (m >= spans || j >= length) return;
    i64 start = anchor + span[m];
    while (true) {
        visit(start + shifts[j]);
        u32 passed = places;
        j += entries;
        if (j >= length) j -= length, ++passed;
        if (passed == 0) continue;
        m += passed;
        if (m >= spans) return;
        start = anchor + span[m];
    }
}

// visit(u) for every neighbour u of node v in the given directions.
template <class Visit>
__device__ inline void neighbours(
    const Adjacency& g, i64 v, Direction way, int lane, int lanes, Visit visit) {
    Place here = place_of(g, v);
    for (int arc = first_arc(g, here.partition, way); arc < last_arc(g, here.partition, way); ++arc) {
        List list = list_of(g, arc, here);
        along(g, arc, g.anchor[list.at], list.row, lane, lanes, visit);
    }
}

// The first index in [low, high) whose shift is at least ``bound``, or high: lists ascend.
__device__ inline i64 first_shift(const Adjacency& g, i64 low, i64 high, i64 bound) {
    while (low < high) {
        i64 middle = (low + high) / 2;
        if (g.shifts[middle] < bound)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// Whether u is a neighbour of v.
__device__ inline bool linked(const Adjacency& g, i64 v, i64 u) {
    Place here = place_of(g, v);
    int q = partition_of(g, u);
    for (int arc = g.arc_ptr[here.partition]; arc < g.arc_ptr[here.partition + 1]; ++arc) {
        if (g.arc_other[arc] != q) continue;
        List list = list_of(g, arc, here);
        i64 stop = g.list_ptr[list.row + 1];
        for (i64 m = g.span_ptr[arc]; m < g.span_ptr[arc + 1]; ++m) {
            i64 wanted = u - g.anchor[list.at] - g.span[m];
            i64 j = first_shift(g, g.list_ptr[list.row], stop, wanted);
            if (j < stop && g.shifts[j] == wanted) return true;
        }
    }
    return false;
}
