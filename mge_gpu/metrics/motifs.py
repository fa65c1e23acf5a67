"""Motifs: connected induced subgraphs on four nodes."""

import numpy as np

from mge_gpu.metrics import sampling
from mge_gpu.metrics.base import Measured, Workspace, exact_sum, metric


@metric("motifs")
def motifs(w: Workspace) -> Measured:
    """Number of connected induced 4-node subgraphs of the undirected graph.

    From non-induced counts: P4 + claws - 3 C4 - 2 paws + 4 diamonds - 6 K4, where

        P4 = sum over edges of (d_u - 1)(d_v - 1) - 3 T,    claws = sum over nodes of C(d, 3),
        C4 = 1/2 sum over pairs of C(codegree, 2),          paws = sum over nodes of t_v (d_v - 2),
        diamonds = sum over edges of C(t_e, 2),             T triangles, t_v and t_e those at v and e.

    Wedges are counted once a channel and class of positions. Where even that would take too long, the
    terms that need wedges are estimated from a sample of nodes, with a standard error; the other
    two, which make up most of the total, stay exact.
    """
    degree = w.degree
    paths = _edge_products(w)
    claws = sum(d * (d - 1) * (d - 2) // 6 * c for d, c in _histogram(degree))
    nodes, times = w.backend.representatives(w.adjacency, False)
    degree = w.backend.host(degree)
    cost = w.backend.path_counts(w.adjacency, nodes, False)
    if w.exact or cost.sum() <= sampling.BUDGET:
        squares, corners, pairs = w.backend.wedge_counts(w.adjacency, nodes, cost).T
        triangles = exact_sum(corners, times) // 6
        paws = exact_sum(corners // 2 * np.maximum(degree[nodes] - 2, 0), times)
        cliques = exact_sum(w.backend.clique_counts(w.adjacency, nodes, cost), times) // 24
        total = paths - 3 * triangles + claws - 3 * (exact_sum(squares, times) // 4)
        total += 4 * (exact_sum(pairs, times) // 2) - 2 * paws - 6 * cliques
        return Measured(total, f"wedges of {len(nodes):,} classes of positions")

    def correction(some: np.ndarray, walks: np.ndarray) -> np.ndarray:
        squares, corners, pairs = w.backend.wedge_counts(w.adjacency, some, walks).T.astype(np.float64)
        cliques = w.backend.clique_counts(w.adjacency, some, walks)
        around = corners * np.maximum(degree[some] - 2, 0)
        value: np.ndarray = 2 * pairs - 0.75 * squares - 0.5 * corners - 0.25 * cliques - around
        return value

    # A node has about d^2 / 2 wedges. Counting them can take far fewer steps where a layer is dense.
    wedges = degree[nodes].astype(np.float64) ** 2
    population = sampling.Population(nodes, times, cost, wedges, w.partition_of(nodes))
    base = float(paths + claws)
    value, error = sampling.estimate(correction, population, w.seed, base)
    return Measured(base + value, "exact paths and claws, wedges of a sample of nodes", error)


def _histogram(degree: np.ndarray) -> list[tuple[int, int]]:
    """(degree, number of nodes) as Python ints, whose cubes do not overflow."""
    values, counts = np.unique(degree, return_counts=True)
    return list(zip(values.tolist(), counts.tolist(), strict=True))


def _edge_products(w: Workspace) -> int:
    """Sum over edges of (d_u - 1)(d_v - 1)."""
    less = w.degree - 1
    ahead = w.backend.neighbour_sums(w.adjacency, less)
    return exact_sum(ahead, np.maximum(less, 0))  # a node without edges has no neighbours to sum over
