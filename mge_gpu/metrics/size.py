"""Size: nodes and edges."""

from mge_gpu.metrics.base import Measured, Workspace, metric


@metric("nodes")
def nodes(w: Workspace) -> Measured:
    """Number of nodes, N."""
    return Measured(w.graph.num_nodes, "partition sizes")


@metric("edges")
def edges(w: Workspace) -> Measured:
    """Number of edges, E."""
    return Measured(w.graph.num_edges, "row lengths and class sizes")
