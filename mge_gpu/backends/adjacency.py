"""The compressed adjacency: the graph as every backend reads it, O(nonzero weights) large.

All positions of a class see the same neighbourhood, shifted. The neighbours of node (channel,
position) along an arc are therefore those of one short list, moved to where the position is:

    at = arc_position[arc] + position
    l = row_list[arc_row[arc] + channel * arc_classes[arc] + position_class[at]]
    neighbours = anchor[at] + span[span_ptr[arc]:span_ptr[arc + 1]] + shifts[list_ptr[l]:list_ptr[l + 1]]

where the last line means all sums of an entry of ``span`` and one of ``shifts``. The span of most arcs
is {0}; it holds what all lists of an arc have in common (the window of a pool, all tokens for
attention), so that a list is as long as the nonzero weights that it stands for.

What is channel and what position of a node is for each arc to say (``arc_view``). Along most it is as the
partition has it (`OWN`). Along a `FLAT` arc, an index table in place of a closed form, the position is the
node's number within its partition and the channel 0. Along a `CROSSED` arc, to a layer that mixes positions
channel by channel (the token mixing of MLP-Mixer), the two change places.

Every block of edges appears as two arcs, one a direction. Arcs of partition p are
``arc_ptr[p] : arc_ptr[p + 1]``, those before ``arc_mid[p]`` leading to out-neighbours, the others to
in-neighbours. A neighbour appears once in all arcs of a node together. Lists are in ascending order.

Where many positions have their class and their anchor in common (the pixels of one pooling cell, all
tokens of an attention layer) the nodes there have the very same neighbours. Such nodes form a *hub*, of
number ``list_hub[l] + position_group[at]`` (``list_hub`` is -1 for lists that are not shared): whatever
depends only on the neighbour list is computed once a hub. Hub h stands for list ``hub_list[h]`` at
``hub_anchor[h]``, along arc ``hub_arc[h]``.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

OWN, FLAT, CROSSED = 0, 1, 2
"""Views of a partition's nodes by the arcs of a block, and by the block itself of its sources."""


class Adjacency(NamedTuple):
    """Arrays of the compressed adjacency. P partitions, A arcs; node ids are int32, pointers int64."""

    offset: np.ndarray  # (P + 1,) int64: first node of each partition
    divisor: np.ndarray  # (P,) int64: positions, or channels where the channel runs fastest
    channel_first: np.ndarray  # (P,) bool: node = channel * positions + position, else the reverse
    arc_ptr: np.ndarray  # (P + 1,) int32
    arc_mid: np.ndarray  # (P,) int32
    arc_other: np.ndarray  # (A,) int32: the partition at the other end
    arc_view: np.ndarray  # (A,) int8: OWN, FLAT or CROSSED
    arc_position: np.ndarray  # (A,) int64: where the arc's part of the arrays of positions begins
    arc_classes: np.ndarray  # (A,) int32
    arc_row: np.ndarray  # (A,) int64: where the arc's rows begin
    span_ptr: np.ndarray  # (A + 1,) int64
    span: np.ndarray  # (shifts that an arc's lists have in common,) int32, ascending
    position_class: np.ndarray  # (positions of all arcs,) int32
    position_group: np.ndarray  # (positions of all arcs,) int32: number of its (class, anchor) in the arc
    anchor: np.ndarray  # (positions of all arcs,) int32
    row_list: np.ndarray  # (rows,) int64
    list_ptr: np.ndarray  # (lists + 1,) int64
    list_hub: np.ndarray  # (lists,) int64: first hub of the list, or -1
    shifts: np.ndarray  # (entries,) int32
    hub_arc: np.ndarray  # (hubs,) int32
    hub_list: np.ndarray  # (hubs,) int64, -1 for a number that no node has
    hub_anchor: np.ndarray  # (hubs,) int32

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return int(self.offset[-1])

    @property
    def num_hubs(self) -> int:
        """Number of neighbour lists, each at one place, that several nodes share."""
        return len(self.hub_arc)

    @property
    def nbytes(self) -> int:
        """Memory of all arrays in bytes."""
        return sum(a.nbytes for a in self)


class Block(NamedTuple):
    """One block of the adjacency matrix, from a source to a target partition: sum_k W_k (x) R_k.

    W_k, the weights of tap k, holds (target channel, source channel, |w|); R_k pairs target and
    source positions. Pairs are kept as runs: target0 + j * target_step, source0 + j * source_step
    for j < length. Steps and starts count nodes within the partition. Where the ``view`` is FLAT every
    source node is a position of its own, of channel 0, and each input channel of the weight has its own
    taps; where it is CROSSED the channels of the source are its positions and the reverse.
    """

    source_offset: int
    target_offset: int
    source_channel_stride: int
    target_channel_stride: int
    target_position_stride: int
    target_positions: int
    target_channel: np.ndarray  # (nonzeros,) int32, ascending
    source_channel: np.ndarray  # (nonzeros,) int32
    tap: np.ndarray  # (nonzeros,) int32
    weight: np.ndarray  # (nonzeros,) float32, >= 0
    run_ptr: np.ndarray  # (taps + 1,) int64
    runs: np.ndarray  # (runs, 5) int64: target0, source0, length, target_step, source_step
    pair_count: np.ndarray  # (taps,) int64: position pairs of each tap
    overlaps: bool  # whether two nonzeros can meet in one edge
    view: int = OWN


def node_positions(adjacency: Adjacency, partition: int) -> tuple[int, int]:
    """Channels and positions of a partition."""
    size = int(adjacency.offset[partition + 1] - adjacency.offset[partition])
    other = int(adjacency.divisor[partition])
    pair = size // max(other, 1), other
    return pair if adjacency.channel_first[partition] else pair[::-1]


def arc_positions(adjacency: Adjacency, partition: int, arc: int) -> tuple[int, int]:
    """Channels and positions of a partition as one of its arcs sees them."""
    pair = node_positions(adjacency, partition)
    if adjacency.arc_view[arc] == FLAT:
        return 1, pair[0] * pair[1]
    return pair[::-1] if adjacency.arc_view[arc] == CROSSED else pair


def arc_partitions(adjacency: Adjacency) -> np.ndarray:
    """The partition that each arc leads away from, (A,) int64."""
    return np.repeat(np.arange(len(adjacency.divisor)), np.diff(adjacency.arc_ptr))


def arcs_taken(adjacency: Adjacency, directed: bool) -> np.ndarray:
    """Which arcs lead to out-neighbours, (A,) bool; all of them unless ``directed``."""
    every = np.arange(len(adjacency.arc_other))
    return every < adjacency.arc_mid[arc_partitions(adjacency)] if directed else every >= 0


def total_weight(blocks: Sequence[Block]) -> float:
    """Sum of all edge weights, from the nonzeros and how many position pairs each stands for."""
    return float(sum(b.pair_count[b.tap] @ b.weight.astype(np.float64) for b in blocks))
