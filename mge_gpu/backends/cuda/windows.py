"""Where two steps from the nodes of a partition can lead, and whether they come upon hubs."""

from typing import NamedTuple

import numpy as np

from mge_gpu.backends.adjacency import Adjacency, arc_partitions, arcs_taken
from mge_gpu.backends.cpu.kinds import Kinds
from mge_gpu.backends.cpu.local import owners


class Windows(NamedTuple):
    """What two steps in any direction reach: nodes, channels and hubs of a window each, by partition.

    Attributes:
        first: (P, 3) int64 first node, channel and hub of the windows of a partition.
        sizes: nodes, channels and hubs of the largest ones.
    """

    first: np.ndarray
    sizes: tuple[int, int, int]


def windows(g: Adjacency, kinds: Kinds, nodes: np.ndarray) -> Windows:
    """The windows of all partitions; ``sizes`` are those of the partitions that ``nodes`` lie in."""
    near, far = _around(g, 1), _around(g, 2)
    of_arc = np.searchsorted(g.hub_arc, np.arange(len(g.arc_other) + 1))  # hubs go arc by arc
    starts = g.offset, kinds.channel, of_arc[g.arc_ptr]
    ranges = [
        (start[low], start[high + 1]) for start, (low, high) in zip(starts, (far, far, near), strict=True)
    ]
    some = np.unique(owners(g, nodes))
    most = [int((end - first)[some].max(initial=0)) for first, end in ranges]
    return Windows(np.column_stack([first for first, _ in ranges]), (most[0], most[1], most[2]))


def _around(g: Adjacency, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest partition within so many steps of each, (P,) int64 each."""
    owner = arc_partitions(g)
    low = high = np.arange(len(g.divisor))
    for _ in range(steps):
        lower, higher = low.copy(), high.copy()
        np.minimum.at(lower, owner, low[g.arc_other])
        np.maximum.at(higher, owner, high[g.arc_other])
        low, high = lower, higher
    return low, high


def plain_partitions(g: Adjacency, kinds: Kinds, directed: bool) -> np.ndarray:
    """(P,) bool: whether two steps from all nodes of a partition go along lists of their own.

    The second ones, that is: along none that several nodes share (hubs), and neither step from all positions
    to all positions, for which channels are counted.
    """
    owner, taken = arc_partitions(g), arcs_taken(g, directed)
    shared = np.zeros(len(owner), np.bool_)
    shared[g.hub_arc] = True
    plain, single = np.ones((2, len(g.divisor)), np.bool_)
    single[owner[taken & (shared | kinds.whole)]] = False
    plain[owner[taken & (kinds.whole | ~single[g.arc_other])]] = False
    return plain
