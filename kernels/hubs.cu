// What lies within two steps of single nodes, where nodes have neighbours in common: a hub's list is walked once for all
// of its nodes, and where position does not matter channels are counted in place of their nodes, as in wedges.py and
// local.py of the CPU backend. One block works on one node at a time, with scratch of its own that is zero before and
// after: its teams share the first steps, the threads of a team the second.
#include "adjacency.cuh"

struct Kinds {
    const bool* whole;     // of an arc: every position sees all positions at the other end
    const bool* same;      // of an arc: positions see one position each, all of them another one
    const i64* channel;    // number of the first channel of each partition, and behind the last
    const i64* positions;  // of each partition
    const i64* window;     // (partitions, 3): the first node, channel and hub that two steps from it can lead to
    i64 nodes;             // sizes of the largest windows
    i64 channels;
    i64 hubs;
};

// A block's scratch; indices are the graph's own.
struct Scratch {
    i32* node;     // of a node
    i32* channel;  // of a channel, for all of its nodes
    i32* apart;    // of a channel: nodes of which something is said at ``node``
    i32* hub;      // of a hub: times that it was reached
    i32* reached;  // hubs that were reached, one after the other
    u32* count;    // how many, for all threads of the block
};

// The scratch for a node of a partition; all threads of the block come here.
__device__ inline Scratch scratch_of(const Kinds& kinds, i32* room, int partition, u32* count) {
    i64 all = kinds.nodes + 2 * kinds.channels + 2 * kinds.hubs;
    const i64* first = kinds.window + 3 * partition;
    i32* mine = room + blockIdx.x * all;
    Scratch s;
    s.node = mine - first[0];
    s.channel = mine + kinds.nodes - first[1];
    s.apart = s.channel + kinds.channels;
    s.hub = mine + kinds.nodes + 2 * kinds.channels - first[2];
    s.reached = mine + kinds.nodes + 2 * kinds.channels + kinds.hubs;
    s.count = count;
    if (threadIdx.x == 0) *count = 0;
    __syncthreads();
    return s;
}

// A hub was reached so many times more.
__device__ inline void reach(const Scratch& s, i64 h, i64 times) {
    if (atomicAdd(s.hub + h, (i32)times) == 0) s.reached[atomicAdd(s.count, 1u)] = (i32)h;
}

__device__ inline void forget_hubs(const Scratch& s) {
    for (u32 e = threadIdx.x; e < *s.count; e += blockDim.x) s.hub[s.reached[e]] = 0;
}

// The channel of node w of partition q.
__device__ inline i64 channel_of(const Adjacency& g, const Kinds& kinds, int q, i64 w) {
    return kinds.channel[q] + place_at(g, q, w - g.offset[q]).channel;
}

// visit(c) for the channels of a list: those whose number is lane, lane + lanes, ...
template <class Visit>
__device__ inline void channels_along(
    const Adjacency& g, const Kinds& kinds, int arc, i64 row, int lane, int lanes, Visit visit) {
    int q = g.arc_other[arc];
    i64 stride = g.channel_first[q] ? kinds.positions[q] : 1;
    for (i64 j = g.list_ptr[row] + lane; j < g.list_ptr[row + 1]; j += lanes) visit(kinds.channel[q] + g.shifts[j] / stride);
}

// Second steps from node u of partition q: ``hub(h, times)`` by one thread of the team, ``channels(arc, row, times)`` and
// ``nodes(arc, anchor, row)`` by all of it. ``every``: from all nodes of u's channel.
template <class Hub, class Channels, class Nodes>
__device__ inline void onwards(
    const Adjacency& g, const Kinds& kinds, int q, i64 u, bool every, Direction way, int lane, const Hub& hub,
    const Channels& channels, const Nodes& nodes) {
    Place here = place_at(g, q, u - g.offset[q]);
    i64 width = every ? kinds.positions[q] : 1;
    for (int arc = first_arc(g, q, way); arc < last_arc(g, q, way); ++arc) {
        List list = list_of(g, arc, here);
        bool whole = kinds.whole[arc];
        i64 h = g.list_hub[list.row];
        if (h >= 0 && (whole || !every)) {
            if (lane == 0) hub(h + g.position_group[list.at], width);
        } else if (whole || (every && kinds.same[arc])) {
            channels(arc, list.row, whole ? width : 1);
        } else if (!every) {
            nodes(arc, (i64)g.anchor[list.at], list.row);
        } else {
            for (i64 z = 0; z < width; ++z) {
                i64 local = g.channel_first[q] ? here.channel * width + z : z * g.divisor[q] + here.channel;
                List moved = list_of(g, arc, place_at(g, q, local));
                nodes(arc, (i64)g.anchor[moved.at], moved.row);
            }
        }
    }
}

// The same from all neighbours of v. Along an arc to all positions one node stands for those of its channel.
template <class Hub, class Channels, class Nodes>
__device__ inline void two_steps(
    const Adjacency& g, const Kinds& kinds, const Place& here, Direction way, const Hub& hub,
    const Channels& channels, const Nodes& nodes) {
    const Team t = team();
    for (int arc = first_arc(g, here.partition, way); arc < last_arc(g, here.partition, way); ++arc) {
        List list = list_of(g, arc, here);
        int q = g.arc_other[arc];
        i64 anchor = g.anchor[list.at];
        bool every = kinds.whole[arc];
        auto on = [&](i64 u) { onwards(g, kinds, q, u, every, way, t.lane, hub, channels, nodes); };
        if (!every) {
            along(g, arc, anchor, list.row, t.number, t.count, on);
            continue;
        }
        anchor += g.span[g.span_ptr[arc]];
        for (i64 j = g.list_ptr[list.row] + t.number; j < g.list_ptr[list.row + 1]; j += t.count) on(anchor + g.shifts[j]);
    }
}

// visit(h, arc, anchor, row) by a team for each of the hubs that were reached.
template <class Visit>
__device__ inline void reached_hubs(const Adjacency& g, const Scratch& s, Visit visit) {
    const Team t = team();
    for (u32 e = t.number; e < *s.count; e += t.count) {
        i64 h = s.reached[e];
        visit(h, (int)g.hub_arc[h], (i64)g.hub_anchor[h], g.hub_list[h]);
    }
}

// visit(arc, anchor, row, lane, lanes) by so many threads for the lists of nodes within two directed steps, where no channel
// is counted for them; of hubs for those that were reached.
template <class Visit>
__device__ inline void out_lists_of_nodes(
    const Adjacency& g, const Kinds& kinds, const Scratch& s, const Place& here, Visit visit) {
    const Team t = team();
    for (int arc = first_arc(g, here.partition, OUT); arc < last_arc(g, here.partition, OUT); ++arc) {
        List list = list_of(g, arc, here);
        if (!kinds.whole[arc]) visit(arc, (i64)g.anchor[list.at], list.row, (int)threadIdx.x, (int)blockDim.x);
    }
    auto of_team = [&](int arc, i64 anchor, i64 row) { visit(arc, anchor, row, t.lane, t.lanes); };
    two_steps(
        g, kinds, here, OUT, [](i64, i64) {}, [](int, i64, i64) {}, of_team);
    reached_hubs(g, s, [&](i64, int arc, i64 anchor, i64 row) {
        if (!kinds.whole[arc]) of_team(arc, anchor, row);
    });
}

// See ``two_hop_sizes`` of local.cu.
extern "C" __global__ void __launch_bounds__(512, 1) two_hop_sizes_of_hubs(
    const Adjacency* table, const i64* nodes, i64 n, i32* room, const Kinds* kinds_of, i64* out) {
    __shared__ u32 count;
    const Adjacency g = *table;
    const Kinds kinds = *kinds_of;
    const Team t = team();
    for (i64 k = blockIdx.x; k < n; k += gridDim.x) {
        Place here = place_of(g, nodes[k]);
        Scratch s = scratch_of(kinds, room, here.partition, &count);
        i64 found = threadIdx.x == 0;
        auto mark_channels = [&](int arc, i64 row, int lane, int lanes) {
            i64 size = kinds.positions[g.arc_other[arc]];
            channels_along(g, kinds, arc, row, lane, lanes, [&](i64 c) {
                if (atomicExch(s.channel + c, 1) == 0) found += size;
            });
        };
        auto mark_nodes = [&](int arc, i64 anchor, i64 row, int lane, int lanes) {
            int q = g.arc_other[arc];
            along(g, arc, anchor, row, lane, lanes, [&](i64 w) {
                if (atomicExch(s.node + w, 1)) return;
                if (s.channel[channel_of(g, kinds, q, w)] == 0) ++found;
            });
        };
        auto clear_nodes = [&](int arc, i64 anchor, i64 row, int lane, int lanes) {
            along(g, arc, anchor, row, lane, lanes, [&](i64 w) { s.node[w] = 0; });
        };
        // channels first, then nodes of other channels
        for (int arc = first_arc(g, here.partition, OUT); arc < last_arc(g, here.partition, OUT); ++arc)
            if (kinds.whole[arc]) mark_channels(arc, list_of(g, arc, here).row, (int)threadIdx.x, (int)blockDim.x);
        two_steps(
            g, kinds, here, OUT, [&](i64 h, i64 times) { reach(s, h, times); },
            [&](int arc, i64 row, i64) { mark_channels(arc, row, t.lane, t.lanes); }, [](int, i64, i64) {});
        __syncthreads();
        reached_hubs(g, s, [&](i64, int arc, i64, i64 row) {
            if (kinds.whole[arc]) mark_channels(arc, row, t.lane, t.lanes);
        });
        __syncthreads();
        out_lists_of_nodes(g, kinds, s, here, mark_nodes);
        add(out + k, found);
        __syncthreads();
        out_lists_of_nodes(g, kinds, s, here, clear_nodes);
        for (i64 c = threadIdx.x; c < kinds.channels; c += blockDim.x) s.channel[c + kinds.window[3 * here.partition + 1]] = 0;
        forget_hubs(s);
        __syncthreads();
    }
}

// See ``wedge_counts`` of local.cu. A node has node[v] neighbours in common with the one that is worked on, and
// channel[its channel] more.
extern "C" __global__ void __launch_bounds__(512, 1) wedge_counts_of_hubs(
    const Adjacency* table, const i64* nodes, i64 n, i32* room, const Kinds* kinds_of, i64* out) {
    __shared__ u32 count;
    const Adjacency g = *table;
    const Kinds kinds = *kinds_of;
    const Team t = team();
    for (i64 k = blockIdx.x; k < n; k += gridDim.x) {
        i64 v = nodes[k], triangles = 0, pairs = 0, squares = 0;
        Place here = place_of(g, v);
        Scratch s = scratch_of(kinds, room, here.partition, &count);
        auto add_channels = [&](int arc, i64 row, i64 times) {
            channels_along(g, kinds, arc, row, t.lane, t.lanes, [&](i64 c) { atomicAdd(s.channel + c, (i32)times); });
        };
        auto add_nodes = [&](int arc, i64 anchor, i64 row, i32 times) {
            along(g, arc, anchor, row, t.lane, t.lanes, [&](i64 w) { atomicAdd(s.node + w, times); });
        };
        two_steps(
            g, kinds, here, BOTH, [&](i64 h, i64 times) { reach(s, h, times); }, add_channels,
            [&](int arc, i64 anchor, i64 row) { add_nodes(arc, anchor, row, 1); });
        __syncthreads();
        reached_hubs(g, s, [&](i64 h, int arc, i64 anchor, i64 row) {
            if (kinds.whole[arc])
                add_channels(arc, row, s.hub[h]);
            else
                add_nodes(arc, anchor, row, s.hub[h]);
        });
        __syncthreads();
        for (int arc = first_arc(g, here.partition, BOTH); arc < last_arc(g, here.partition, BOTH); ++arc) {
            List list = list_of(g, arc, here);
            int q = g.arc_other[arc];
            along(g, arc, g.anchor[list.at], list.row, threadIdx.x, blockDim.x, [&](i64 w) {
                i64 x = (i64)s.node[w] + s.channel[channel_of(g, kinds, q, w)];
                triangles += x;
                pairs += x * (x - 1) / 2;
            });
        }
        if (threadIdx.x == 0 && s.node[v] == 0) {  // v is not a pair with itself
            i64 own = s.channel[kinds.channel[here.partition] + here.channel];
            squares -= own * (own - 1) / 2;
        }
        __syncthreads();
        auto take_nodes = [&](int arc, i64 anchor, i64 row) {  // whoever comes first takes the count away
            int q = g.arc_other[arc];
            along(g, arc, anchor, row, t.lane, t.lanes, [&](i64 w) {
                i64 x = atomicExch(s.node + w, 0);
                if (x == 0) return;
                i64 c = channel_of(g, kinds, q, w), more = s.channel[c];
                if (more) atomicAdd(s.apart + c, 1);
                x += more;
                if (w != v) squares += x * (x - 1) / 2;
            });
        };
        two_steps(
            g, kinds, here, BOTH, [](i64, i64) {}, [](int, i64, i64) {}, take_nodes);
        reached_hubs(g, s, [&](i64, int arc, i64 anchor, i64 row) {
            if (!kinds.whole[arc]) take_nodes(arc, anchor, row);
        });
        __syncthreads();
        i64 first = kinds.window[3 * here.partition + 1];
        for (i64 c = first + threadIdx.x; c < first + kinds.channels; c += blockDim.x) {
            i64 x = s.channel[c];
            if (x == 0) continue;
            u32 q = last_start(0, (u32)g.partitions, c, [&](u32 p) { return kinds.channel[p]; });
            squares += x * (x - 1) / 2 * (kinds.positions[q] - s.apart[c]);
            s.channel[c] = 0;
            s.apart[c] = 0;
        }
        forget_hubs(s);
        add(out + 3 * k, squares);
        add(out + 3 * k + 1, triangles);
        add(out + 3 * k + 2, pairs);
        __syncthreads();
    }
}
MGE_EXPORT(two_hop_sizes_of_hubs)
MGE_EXPORT(wedge_counts_of_hubs)
