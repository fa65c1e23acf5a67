"""What lies within two steps of single nodes, in scratch memory that each block of threads has for itself."""

from typing import Any

import numpy as np

from mge_gpu.backends.adjacency import Adjacency
from mge_gpu.backends.cpu import local
from mge_gpu.backends.cpu.cliques import clique_partitions
from mge_gpu.backends.cpu.kinds import arc_kinds
from mge_gpu.backends.cpu.local import owners
from mge_gpu.backends.cuda.resident import Resident
from mge_gpu.backends.cuda.runtime import Runtime
from mge_gpu.backends.cuda.shortage import Outcome, attempt
from mge_gpu.backends.cuda.windows import plain_partitions, windows

FEW = 1 << 13
"""Walks from a node up to which its wedges are first tried in shared memory: see ``kernels/local.cu``."""


class Neighbourhoods:
    """The kernels of ``kernels/local.cu`` and ``hubs.cu`` over an adjacency and its table on the device.

    Those of ``hubs.cu`` take nodes from which two steps come upon hubs, or along arcs where position does not
    matter: about as many steps as on the CPU. Other nodes have simpler ones.
    """

    def __init__(self, runtime: Runtime, adjacency: Adjacency, there: Resident) -> None:
        self.runtime, self.adjacency, self.there = runtime, adjacency, there
        self.kinds = arc_kinds(adjacency)

    def path_counts(self, nodes: np.ndarray, directed: bool, degree: Any) -> np.ndarray:
        """See `Backend.path_counts`; ``degree`` (N,) int64 is that of the direction."""
        plain = self._plain(nodes, directed)
        out, some = np.empty(len(nodes), np.int64), nodes[plain]
        out[plain] = self._count(
            "local.path_counts", some, (), self.runtime.teams(len(some)), np.bool_(directed), degree
        )
        if not plain.all():
            rest = nodes[~plain]
            out[~plain] = local.path_counts(self.adjacency, rest, directed, lambda: self.runtime.host(degree))
        return out

    def _plain(self, nodes: np.ndarray, directed: bool) -> np.ndarray:
        """(R,) bool: whether two steps from a node come upon no hub."""
        found: np.ndarray = plain_partitions(self.adjacency, self.kinds, directed)[
            owners(self.adjacency, nodes)
        ]
        return found

    def two_hop_sizes(self, nodes: np.ndarray) -> np.ndarray:
        """See `Backend.two_hop_sizes`."""
        plain, words = self._plain(nodes, True), self.adjacency.num_nodes // 32 + 1
        out = np.empty(len(nodes), np.int64)
        out[plain] = self._in_scratch(
            "local.two_hop_sizes", nodes[plain], (), words, np.uint32, np.int64(words)
        )
        out[~plain] = self._of_hubs("hubs.two_hop_sizes_of_hubs", nodes[~plain], ())
        return out

    def wedge_counts(self, nodes: np.ndarray, cost: np.ndarray) -> np.ndarray:
        """See `Backend.wedge_counts`."""
        plain, out = self._plain(nodes, False), np.full((len(nodes), 3), -1, np.int64)
        few = np.flatnonzero(plain & (cost <= FEW))
        out[few] = self._count("local.wedge_counts_few", nodes[few], (3,), len(few))
        left = np.flatnonzero(plain & (out[:, 0] < 0))
        out[left] = self._in_windows("local.wedge_counts", nodes[left], (3,), np.int32)
        out[~plain] = self._of_hubs("hubs.wedge_counts_of_hubs", nodes[~plain], (3,))
        return out

    def clique_counts(self, nodes: np.ndarray) -> np.ndarray:
        """See `Backend.clique_counts`."""
        member = clique_partitions(self.adjacency).max(axis=0)
        some = np.flatnonzero(member[owners(self.adjacency, nodes)])
        out = np.zeros(len(nodes), np.int64)
        if len(some):
            out[some] = self._in_windows("local.clique_counts", nodes[some], (), np.uint8)
        return out

    def _count(
        self, kernel: str, nodes: np.ndarray, columns: tuple[int, ...], blocks: int, *args: Any
    ) -> np.ndarray:
        """A result a node, by so many blocks; ``kernel`` as "source.name"."""
        if not len(nodes):
            return np.zeros((0, *columns), np.int64)
        xp, there = self.runtime.xp, self.runtime.xp.asarray(np.asarray(nodes, np.int64))
        out = xp.zeros((len(nodes), *columns), np.int64)
        source, name = kernel.split(".")
        self.runtime.launch(source, name, blocks, self.there.table, there, np.int64(len(nodes)), *args, out)
        return self.runtime.host(out)

    def _in_windows(
        self, kernel: str, nodes: np.ndarray, columns: tuple[int, ...], dtype: type
    ) -> np.ndarray:
        """The same with a value for each node of the window: fewer than for each of the graph."""
        found = windows(self.adjacency, self.kinds, nodes)
        first, size = self.runtime.xp.asarray(found.first[:, 0].copy()), found.sizes[0]
        return self._in_scratch(kernel, nodes, columns, size, dtype, first, np.int64(size))

    def _of_hubs(self, kernel: str, nodes: np.ndarray, columns: tuple[int, ...]) -> np.ndarray:
        """The same with values for nodes, channels and hubs: ``struct Scratch`` of ``kernels/hubs.cu``."""
        found, kinds = windows(self.adjacency, self.kinds, nodes), self.kinds
        arrays = kinds.whole, kinds.same, kinds.channel, kinds.positions, found.first
        table = Resident(self.runtime, arrays, found.sizes)
        size = sum(n * times for n, times in zip(found.sizes, (1, 2, 2), strict=True))
        return self._in_scratch(kernel, nodes, columns, size, np.int32, table.table)

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
        name = kernel.split(".")[1]
        blocks = self.runtime.workers(name, len(nodes), size * np.dtype(dtype).itemsize)

        def work() -> np.ndarray:
            room = self.runtime.xp.zeros(blocks * size, dtype)
            return self._count(kernel, nodes, columns, blocks, room, *args)

        while blocks > 1:
            found = attempt(self.runtime, work)
            if found is not Outcome.SHORT:
                return found
            blocks //= 2
        return work()
