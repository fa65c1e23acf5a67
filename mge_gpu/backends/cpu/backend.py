"""`CpuBackend`: the primitives of `mge_gpu.backends.Backend` in numba."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import numpy as np
import torch

from mge_gpu._memory import available_memory
from mge_gpu.backends.adjacency import Adjacency, Block, total_weight
from mge_gpu.backends.cpu import (
    cliques,
    coo,
    cuts,
    local,
    neighbours,
    peel,
    powers,
    product,
    reach,
    scaled,
    traverse,
    wedges,
)
from mge_gpu.backends.cpu.representatives import Representatives, representatives
from mge_gpu.backends.cpu.threads import evenly, num_threads, run

R = TypeVar("R")


class CpuBackend:
    """Primitives on the CPU; arrays are NumPy arrays."""

    name = "cpu"
    shares_cores = True

    def active(self) -> AbstractContextManager[None]:
        """Nothing to prepare."""
        return nullcontext()

    def available_memory(self) -> int | None:
        """Bytes of memory that are free, or None where the system does not say."""
        return available_memory()

    def within_memory(self, work: Callable[[], R], host_helps: bool = False) -> R:
        """What ``work`` returns: this is the host."""
        return work()

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        """A torch tensor in the array's memory."""
        return torch.from_numpy(array)

    def prototype(self) -> None:
        """NumPy's arrays are their own."""

    def host(self, array: np.ndarray) -> np.ndarray:
        """The array itself."""
        return array

    def counts(self, flags: np.ndarray) -> Any:
        """How many of flags (..., n) bool are set along the last dimension, (...) int64."""
        return np.count_nonzero(flags, axis=None if flags.ndim == 1 else -1)

    def degrees(self, adjacency: Adjacency) -> tuple[np.ndarray, np.ndarray]:
        """(in-degree, out-degree), each (N,) int32."""
        indeg, outdeg = (np.zeros(adjacency.num_nodes, np.int32) for _ in range(2))
        ends = evenly(adjacency.num_nodes, num_threads())
        run(lambda k: neighbours.degrees(adjacency, ends[k], ends[k + 1], indeg, outdeg), len(ends) - 1)
        return indeg, outdeg

    def coo(
        self, blocks: Sequence[Block], ids: Any = np.int64, floats: Any = np.float32
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every edge once: source and target of type ``ids``, weight of type ``floats``, block by block."""
        return coo.coo(list(blocks), ids, floats)

    def coo_chunks(
        self, blocks: Sequence[Block], limit: int, ids: Any = np.int64, floats: Any = np.float32
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The edges of `coo` in pieces of at most ``limit``, each edge once."""
        return coo.coo_chunks(list(blocks), limit, ids, floats)

    def total_weight(self, blocks: Sequence[Block]) -> float:
        """Sum of all edge weights."""
        return total_weight(blocks)

    def operator(
        self,
        forward: Sequence[Block],
        backward: Sequence[Block],
        single: bool = False,
        prepared: dict[Any, Any] | None = None,
    ) -> Callable[..., np.ndarray]:
        """x -> A^T x (towards targets) over ``forward`` plus A x over ``backward``, (N,) of x's dtype."""
        dtype = np.float32 if single else np.float64
        return product.operator(forward, backward, dtype, prepared=prepared)

    def power_sums(
        self,
        block: Block,
        x: np.ndarray,
        terms: Sequence[tuple[int, int, int]],
        size: int,
        backward: bool = False,
        prepared: dict[Any, Any] | None = None,
    ) -> np.ndarray:
        """(rows, size) sums of powers of weights times values over edges; nothing is kept of a block."""
        return powers.power_sums(block, x, terms, size, backward)

    def reach(
        self, block: Block, marks: np.ndarray, backward: bool = False, prepared: dict[Any, Any] | None = None
    ) -> np.ndarray:
        """``marks`` (N,) bool, and nodes that an edge leads to from a marked one, or comes from."""
        reach.reach(block, marks, backward)
        return marks

    def between(
        self,
        block: Block,
        before: np.ndarray,
        behind: np.ndarray,
        prepared: dict[Any, Any] | None = None,
    ) -> np.ndarray:
        """(nonzeros,) bool: whether a nonzero has an edge from a node of ``before`` to one of ``behind``."""
        return reach.between(block, before, behind)

    def scaled_sum(
        self, values: Sequence[np.ndarray], exponents: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The sum of parts, each ``values`` * 2^``exponents``."""
        return scaled.scaled_sum(values, exponents)

    def neighbour_sums(self, adjacency: Adjacency, x: np.ndarray) -> np.ndarray:
        """Sum of x over the out-neighbours of each node, (N,) of x's dtype."""
        out = np.zeros(adjacency.num_nodes, x.dtype)
        shared = np.zeros(adjacency.num_hubs, x.dtype)
        parts = 8 * num_threads()
        hubs = evenly(len(shared), parts)
        run(lambda k: neighbours.hub_sums(adjacency, x, hubs[k], hubs[k + 1], shared), parts)
        ends = evenly(len(out), parts)
        run(lambda k: neighbours.neighbour_sums(adjacency, x, shared, ends[k], ends[k + 1], out), parts)
        return out

    def components(self, adjacency: Adjacency) -> tuple[int, np.ndarray]:
        """(connected components, BFS parent of each node (N,) int32, -1 at roots)."""
        parent = traverse.forest(adjacency, self._degree(adjacency))
        return int((parent == traverse.ROOT).sum()), parent

    def _degree(self, adjacency: Adjacency) -> np.ndarray:
        indeg, outdeg = self.degrees(adjacency)
        indeg += outdeg
        return indeg

    def coreness(self, adjacency: Adjacency) -> np.ndarray:
        """Core number of each node of the undirected graph, (N,) int32."""
        degree = self._degree(adjacency)
        peel.coreness(adjacency, degree, num_threads())
        return degree

    def cut_marks(self, adjacency: Adjacency, parent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(bridges, articulation points), each (N,) bool, on a certificate of at most 2 (N - 1) edges.

        The certificate is the BFS forest ``parent`` and any maximal forest of the rest.
        """
        return cuts.cut_marks(parent, traverse.forest(adjacency, self._degree(adjacency), parent))

    def representatives(self, adjacency: Adjacency, directed: bool) -> Representatives:
        """Nodes that stand for all with the same two-step surroundings, and how many each stands for."""
        return representatives(adjacency, directed)

    def path_counts(self, adjacency: Adjacency, nodes: np.ndarray, directed: bool) -> np.ndarray:
        """About the steps that counting takes from each node, (R,) int64: see `local.path_counts`."""

        def degree() -> np.ndarray:
            return self.degrees(adjacency)[1] if directed else self._degree(adjacency)

        return local.path_counts(adjacency, nodes, directed, degree)

    def two_hop_sizes(self, adjacency: Adjacency, nodes: np.ndarray, cost: np.ndarray) -> np.ndarray:
        """Nodes within two directed steps of each node, itself included, (R,) int64."""
        return local.two_hop_sizes(adjacency, nodes, cost)

    def wedge_counts(self, adjacency: Adjacency, nodes: np.ndarray, cost: np.ndarray) -> np.ndarray:
        """Squares and triangles at each node, (R, 3) int64: see `wedges.wedge_counts`."""
        return wedges.wedge_counts(adjacency, nodes, cost)

    def clique_counts(self, adjacency: Adjacency, nodes: np.ndarray, cost: np.ndarray) -> np.ndarray:
        """Six times the number of 4-cliques at each node, (R,) int64."""
        most = int(self._degree(adjacency).max(initial=0))
        return cliques.clique_counts(adjacency, nodes, cost, most)
