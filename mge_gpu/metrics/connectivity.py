"""Global connectivity: components, bridges, articulation points of the undirected graph."""

from mge_gpu.metrics.base import Measured, Workspace, metric

BFS = "breadth-first search"
CERTIFICATE = "biconnected components of a certificate of two forests"


@metric("components")
def components(w: Workspace) -> Measured:
    """Number of connected components; a node without edges is one."""
    return Measured(w.num_components, BFS)


@metric("component_size")
def component_size(w: Workspace) -> Measured:
    """Mean size of a component, N / components."""
    count = w.num_components
    return Measured(w.num_nodes / (count + (count == 0)), BFS)


@metric("cut_edges")
def cut_edges(w: Workspace) -> Measured:
    """Number of bridges: edges whose removal splits a component.

    Found on at most 2 (N - 1) edges: a BFS forest and a maximal forest of the remaining edges keep
    all bridges and articulation points and add none (a sparse certificate of 2-connectivity, after
    Cheriyan, Kao and Thurimella, SIAM J. Comput. 22, 1993).
    """
    return Measured(w.cuts[0], CERTIFICATE)


@metric("cut_nodes")
def cut_nodes(w: Workspace) -> Measured:
    """Number of articulation points: nodes whose removal splits a component."""
    return Measured(w.cuts[1], CERTIFICATE)
