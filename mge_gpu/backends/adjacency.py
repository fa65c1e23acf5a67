"""The compressed adjacency: the graph as every backend reads it, O(nonzero weights) large.

All positions of a class see the same neighbourhood, shifted. The neighbours of node (channel,
position) along an arc are therefore ``anchor[position] + shift`` for the shifts in one short row,
kept once for each (channel, position class):

    row = arc_row[arc] + channel * arc_classes[arc] + position_class[arc_position[arc] + position]
    neighbours = anchor[arc_position[arc] + position] + shifts[row_ptr[row] : row_ptr[row + 1]]

Every block of edges appears as two arcs, one a direction. Arcs of partition p are
``arc_ptr[p] : arc_ptr[p + 1]``, those before ``arc_mid[p]`` leading to out-neighbours, the others to
in-neighbours. A neighbour appears once in all arcs of a node together.
"""

from typing import NamedTuple

import numpy as np


class Adjacency(NamedTuple):
    """Arrays of the compressed adjacency. P partitions, A arcs; node ids are int32, pointers int64."""

    offset: np.ndarray  # (P + 1,) int64: first node of each partition
    divisor: np.ndarray  # (P,) int64: positions, or channels where the channel runs fastest
    channel_first: np.ndarray  # (P,) bool: node = channel * positions + position, else the reverse
    arc_ptr: np.ndarray  # (P + 1,) int32
    arc_mid: np.ndarray  # (P,) int32
    arc_other: np.ndarray  # (A,) int32: the partition at the other end
    arc_position: np.ndarray  # (A,) int64: where the arc's rows of position_class and anchor begin
    arc_classes: np.ndarray  # (A,) int32
    arc_row: np.ndarray  # (A,) int64: where the arc's rows of row_ptr begin
    position_class: np.ndarray  # (positions of all arcs,) int32
    anchor: np.ndarray  # (positions of all arcs,) int32
    row_ptr: np.ndarray  # (rows + 1,) int64
    shifts: np.ndarray  # (entries,) int32

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return int(self.offset[-1])

    @property
    def nbytes(self) -> int:
        """Memory of all arrays in bytes."""
        return sum(a.nbytes for a in self)


class Block(NamedTuple):
    """One block of the adjacency matrix, from a source to a target partition: sum_k W_k (x) R_k.

    W_k, the weights of tap k, holds (target channel, source channel, |w|); R_k pairs target and
    source positions. Pairs are kept as runs: target0 + j * target_step, source0 + j * source_step
    for j < length. Steps and starts count nodes within the partition.
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


def node_positions(adjacency: Adjacency, partition: int) -> tuple[int, int]:
    """Channels and positions of a partition."""
    size = int(adjacency.offset[partition + 1] - adjacency.offset[partition])
    other = int(adjacency.divisor[partition])
    pair = size // max(other, 1), other
    return pair if adjacency.channel_first[partition] else pair[::-1]
