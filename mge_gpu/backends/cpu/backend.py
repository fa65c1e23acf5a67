"""`CpuBackend`: the primitives of `mge_gpu.backends.Backend` in numba."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from mge_gpu.backends.adjacency import Adjacency, Block, node_positions
from mge_gpu.backends.cpu import coo, local, neighbours, peel, product, traverse
from mge_gpu.backends.cpu.representatives import Representatives, representatives
from mge_gpu.backends.cpu.threads import balanced, num_threads, run

NONE = np.zeros(0, np.int32)


class CpuBackend:
    """Primitives on the CPU; arrays are NumPy arrays."""

    name = "cpu"

    def num_edges(self, adjacency: Adjacency) -> int:
        """E, from row lengths and the number of positions of each class."""
        g, total = adjacency, 0
        for p in range(len(g.divisor)):
            channels, positions = node_positions(g, p)
            for arc in range(g.arc_ptr[p], g.arc_mid[p]):
                classes = int(g.arc_classes[arc])
                at = int(g.arc_position[arc])
                times = np.bincount(g.position_class[at : at + positions], minlength=classes)
                row = int(g.arc_row[arc])
                lengths = np.diff(g.row_ptr[row : row + channels * classes + 1]).reshape(channels, classes)
                total += int(lengths.sum(0) @ times)
        return total

    def degrees(self, adjacency: Adjacency) -> tuple[np.ndarray, np.ndarray]:
        """(in-degree, out-degree), each (N,) int64."""
        indeg, outdeg = (np.zeros(adjacency.num_nodes, np.int64) for _ in range(2))
        neighbours.degrees(adjacency, indeg, outdeg)
        return indeg, outdeg

    def coo(self, blocks: Sequence[Block]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every edge once: source int64, target int64, weight float32, block by block."""
        return coo.coo(list(blocks))

    def coo_chunks(
        self, blocks: Sequence[Block], limit: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The edges of `coo` in pieces of at most ``limit``, each edge once."""
        return coo.coo_chunks(list(blocks), limit)

    def total_weight(self, blocks: Sequence[Block]) -> float:
        """Sum of all edge weights."""
        return float(sum(b.pair_count[b.tap] @ b.weight.astype(np.float64) for b in blocks))

    def operator(
        self, forward: Sequence[Block], backward: Sequence[Block], single: bool = False
    ) -> Callable[[np.ndarray], np.ndarray]:
        """x -> A^T x (towards targets) over ``forward`` plus A x over ``backward``; (N,) float64."""
        return product.operator(forward, backward, np.float32 if single else np.float64)

    def neighbour_sums(self, adjacency: Adjacency, x: np.ndarray) -> np.ndarray:
        """Sum of x over the out-neighbours of each node, (N,) of x's dtype."""
        out = np.zeros(adjacency.num_nodes, x.dtype)
        cuts = balanced(np.ones(len(out)), 8 * num_threads())
        run(lambda k: neighbours.neighbour_sums(adjacency, x, cuts[k], cuts[k + 1], out), len(cuts) - 1)
        return out

    def components(self, adjacency: Adjacency) -> tuple[int, np.ndarray]:
        """(connected components, BFS parent of each node (N,) int32, -1 at roots)."""
        parent, queue = (np.empty(adjacency.num_nodes, np.int32) for _ in range(2))
        return traverse.forest(adjacency, NONE, parent, queue), parent

    def coreness(self, adjacency: Adjacency) -> np.ndarray:
        """Core number of each node of the undirected graph, (N,) int32."""
        indeg, outdeg = self.degrees(adjacency)
        degree = (indeg + outdeg).astype(np.int32)
        peel.coreness(adjacency, degree)
        return degree

    def cut_counts(self, adjacency: Adjacency, parent: np.ndarray) -> tuple[int, int]:
        """(bridges, articulation points), on a certificate of at most 2 (N - 1) edges.

        The certificate is the BFS forest ``parent`` and any maximal forest of the rest.
        """
        second, queue = (np.empty(adjacency.num_nodes, np.int32) for _ in range(2))
        traverse.forest(adjacency, parent, second, queue)
        del queue
        bridges, articulation = traverse.low_points(*traverse.forest_csr(parent, second))
        return int(bridges), int(articulation)

    def representatives(self, adjacency: Adjacency, directed: bool) -> Representatives:
        """Nodes that stand for all with the same two-step surroundings, and how many each stands for."""
        return representatives(adjacency, directed)

    def path_counts(self, adjacency: Adjacency, nodes: np.ndarray, directed: bool) -> np.ndarray:
        """Two-step walks from each node plus one, (R,) int64."""
        indeg, outdeg = self.degrees(adjacency)
        return local.path_counts(adjacency, nodes, indeg + outdeg, outdeg, directed)

    def two_hop_sizes(self, adjacency: Adjacency, nodes: np.ndarray, cost: np.ndarray) -> np.ndarray:
        """Nodes within two directed steps of each node, itself included, (R,) int64."""
        return local.two_hop_sizes(adjacency, nodes, cost)

    def wedge_counts(self, adjacency: Adjacency, nodes: np.ndarray, cost: np.ndarray) -> np.ndarray:
        """Squares and triangles at each node, (R, 3) int64: see `local.wedge_counts`."""
        return local.wedge_counts(adjacency, nodes, cost)

    def clique_counts(self, adjacency: Adjacency, nodes: np.ndarray, cost: np.ndarray) -> np.ndarray:
        """Six times the number of 4-cliques at each node, (R,) int64."""
        indeg, outdeg = self.degrees(adjacency)
        return local.clique_counts(adjacency, nodes, cost, int((indeg + outdeg).max(initial=0)))
