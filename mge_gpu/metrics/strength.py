"""Strength and density of the core."""

from mge_gpu.metrics.base import Measured, Workspace, metric


@metric("strength")
def strength(w: Workspace) -> Measured:
    """Mean over nodes of the summed weight of all incident edges: 2 sum |w| / N."""
    total = w.backend.total_weight(w.blocks)
    return Measured(2 * total / max(w.graph.num_nodes, 1), "nonzero weights times their positions")


@metric("k_core")
def k_core(w: Workspace) -> Measured:
    """Mean coreness: the largest k such that a node lies in a subgraph of minimum degree k.

    Peeling of the undirected graph, all nodes of the lowest degree at a time (Batagelj and Zaversnik, "An
    O(m) algorithm for cores decomposition of networks", 2003; in rounds, Kabir and Madduri, 2017).
    """
    core = w.backend.coreness(w.adjacency)
    return Measured(w.total(core.astype("int64")) / max(w.num_nodes, 1), "peeling level by level")
