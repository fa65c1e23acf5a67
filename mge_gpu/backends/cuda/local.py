"""What lies within two steps of single nodes, in scratch memory that each block of threads has for itself."""

from typing import Any, NamedTuple

import numpy as np

from mge_gpu.backends.adjacency import Adjacency
from mge_gpu.backends.cpu.cliques import clique_partitions
from mge_gpu.backends.cpu.local import owners
from mge_gpu.backends.cuda.resident import Resident
from mge_gpu.backends.cuda.runtime import Runtime
from mge_gpu.backends.cuda.shortage import Outcome, attempt

FEW = 1 << 13
"""Walks from a node up to which its wedges are first tried in shared memory: see ``kernels/local.cu``."""


class Windows(NamedTuple):
    """Where the nodes lie that two steps in any direction reach: those of a window, by partition.

    Attributes:
        first: (P,) int64 first node of the window of a partition's nodes.
        size: nodes of the largest one.
    """

    first: np.ndarray
    size: int


def windows(g: Adjacency, nodes: np.ndarray) -> Windows:
    """The windows of all partitions; ``size`` is that of those which ``nodes`` lie in."""
    parts = np.arange(len(g.divisor))
    owner = np.repeat(parts, np.diff(g.arc_ptr))
    low, high = parts, parts
    for _ in range(2):
        lower, higher = low.copy(), high.copy()
        np.minimum.at(lower, owner, low[g.arc_other])
        np.maximum.at(higher, owner, high[g.arc_other])
        low, high = lower, higher
    first, some = g.offset[low], np.unique(owners(g, nodes))
    return Windows(first, int((g.offset[high + 1] - first)[some].max(initial=0)))


class Neighbourhoods:
    """The kernels of ``kernels/local.cu`` over an adjacency and its table on the device."""

    def __init__(self, runtime: Runtime, adjacency: Adjacency, there: Resident) -> None:
        self.runtime, self.adjacency, self.there = runtime, adjacency, there

    def path_counts(self, nodes: np.ndarray, directed: bool, degree: Any) -> np.ndarray:
        """See `Backend.path_counts`; ``degree`` (N,) int64 is that of the direction."""
        return self._count(
            "path_counts", nodes, (), self.runtime.teams(len(nodes)), np.bool_(directed), degree
        )

    def two_hop_sizes(self, nodes: np.ndarray) -> np.ndarray:
        """See `Backend.two_hop_sizes`."""
        words = self.adjacency.num_nodes // 32 + 1
        return self._in_scratch("two_hop_sizes", nodes, (), words, np.uint32, np.int64(words))

    def wedge_counts(self, nodes: np.ndarray, cost: np.ndarray) -> np.ndarray:
        """See `Backend.wedge_counts`."""
        out, few = np.full((len(nodes), 3), -1, np.int64), np.flatnonzero(cost <= FEW)
        out[few] = self._count("wedge_counts_few", nodes[few], (3,), len(few))
        left = np.flatnonzero(out[:, 0] < 0)
        if len(left):
            out[left] = self._in_windows("wedge_counts", nodes[left], (3,), np.int32)
        return out

    def clique_counts(self, nodes: np.ndarray) -> np.ndarray:
        """See `Backend.clique_counts`."""
        member = clique_partitions(self.adjacency).max(axis=0)
        some = np.flatnonzero(member[owners(self.adjacency, nodes)])
        out = np.zeros(len(nodes), np.int64)
        if len(some):
            out[some] = self._in_windows("clique_counts", nodes[some], (), np.uint8)
        return out

    def _count(
        self, kernel: str, nodes: np.ndarray, columns: tuple[int, ...], blocks: int, *args: Any
    ) -> np.ndarray:
        """A result a node, by so many blocks."""
        xp, there = self.runtime.xp, self.runtime.xp.asarray(np.asarray(nodes, np.int64))
        out = xp.zeros((len(nodes), *columns), np.int64)
        self.runtime.launch(
            "local", kernel, blocks, self.there.table, there, np.int64(len(nodes)), *args, out
        )
        return self.runtime.host(out)

    def _in_windows(
        self, kernel: str, nodes: np.ndarray, columns: tuple[int, ...], dtype: type
    ) -> np.ndarray:
        """The same with a value for each node of the window: fewer than for each of the graph."""
        first, size = windows(self.adjacency, nodes)
        there = self.runtime.xp.asarray(first)
        return self._in_scratch(kernel, nodes, columns, size, dtype, there, np.int64(size))

    def _in_scratch(
        self,
        kernel: str,
        nodes: np.ndarray,
        columns: tuple[int, ...],
        size: int,
        dtype: type,
        *args: Any,
    ) -> np.ndarray:
        """The same by as many blocks as have room for so many values each, which begin and end as zero."""
        blocks = self.runtime.workers(kernel, len(nodes), size * np.dtype(dtype).itemsize)

        def work() -> np.ndarray:
            room = self.runtime.xp.zeros(blocks * size, dtype)
            return self._count(kernel, nodes, columns, blocks, room, *args)

        while blocks > 1:
            found = attempt(self.runtime, work)
            if found is not Outcome.SHORT:
                return found
            blocks //= 2
        return work()
