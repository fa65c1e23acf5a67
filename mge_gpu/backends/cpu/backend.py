"""`CpuBackend`: the primitives of `mge_gpu.backends.Backend` in numba."""

from collections.abc import Sequence

import numpy as np

from mge_gpu.backends.adjacency import Adjacency, Block, node_positions
from mge_gpu.backends.cpu import coo, local, neighbours, peel, product, traverse
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

    def total_weight(self, blocks: Sequence[Block]) -> float:
        """Sum of all edge weights."""
        return float(sum(b.pair_count[b.tap] @ b.weight.astype(np.float64) for b in blocks))

    def product(self, blocks: Sequence[Block], x: np.ndarray, forward: bool = True,
                backward: bool = True) -> np.ndarray:  # fmt: skip
        """A^T x (``forward``: from sources to targets) plus A x (``backward``), (N,) float64."""
        return product.product(list(blocks), x, forward, backward)

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

    def representatives(self, adjacency: Adjacency, directed: bool) -> local.Representatives:
        """Nodes that stand for all with the same two-step neighbourhood."""
        return local.representatives(adjacency, directed)

    def path_counts(self, adjacency: Adjacency, reps: local.Representatives, directed: bool) -> np.ndarray:
        """Two-step walks from each representative, (R,) int64."""
        indeg, outdeg = self.degrees(adjacency)
        return local.path_counts(adjacency, reps, outdeg, indeg + outdeg, directed)

    def two_hop_total(self, adjacency: Adjacency) -> int:
        """Sum over nodes of the number of nodes within two directed steps, themselves included."""
        reps = local.representatives(adjacency, True)
        return local.two_hop_total(adjacency, reps, self.path_counts(adjacency, reps, True))

    def wedge_sums(self, adjacency: Adjacency, reps: local.Representatives,
                   cost: np.ndarray) -> tuple[int, int, int, int]:  # fmt: skip
        """(4-cycles, triangles, diamonds, paws), non-induced, of the undirected graph."""
        indeg, outdeg = self.degrees(adjacency)
        return local.wedge_sums(adjacency, reps, cost, indeg + outdeg)

    def clique_count(self, adjacency: Adjacency, reps: local.Representatives, cost: np.ndarray) -> int:
        """4-cliques of the undirected graph."""
        indeg, outdeg = self.degrees(adjacency)
        return local.clique_count(adjacency, reps, cost, int((indeg + outdeg).max(initial=0)))
