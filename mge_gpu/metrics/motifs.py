"""Motifs: connected induced subgraphs on four nodes."""

from typing import Any

import numpy as np

from mge_gpu.metrics import sampling
from mge_gpu.metrics.base import Measured, Workspace, metric


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
    paths = _edge_products(w)
    claws = w.exact_total_of(_claws, w.degree) // 3
    nodes, times = w.backend.representatives(w.adjacency, False)
    cost = w.backend.path_counts(w.adjacency, nodes, False)
    degree = w.backend.host(w.degree)
    if w.affordable(cost, nodes):

        def total(values: np.ndarray) -> Any:
            return w.exact_total(values, times, nodes)

        squares, corners, pairs = w.backend.wedge_counts(w.adjacency, nodes, cost).T
        triangles = total(corners) // 6
        paws = total(corners // 2 * np.maximum(degree[nodes] - 2, 0))
        cliques = total(w.backend.clique_counts(w.adjacency, nodes, cost)) // 24
        found = paths - 3 * triangles + claws - 3 * (total(squares) // 4)
        found += 4 * (total(pairs) // 2) - 2 * paws - 6 * cliques
        return Measured(found, f"wedges of {len(nodes):,} classes of positions")

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


def _edge_products(w: Workspace) -> Any:
    """Sum over edges of (d_u - 1)(d_v - 1)."""
    less = w.degree.astype(np.int64)
    less -= 1
    ahead = w.backend.neighbour_sums(w.adjacency, less)
    # a node without edges has no neighbours to sum over
    return w.exact_total_of(lambda ahead, less: (ahead, np.maximum(less, 0)), ahead, less)


def _claws(degree: Any) -> tuple[Any, Any]:
    """Pairs of neighbours, and how many others there are: three times the claws at each node."""
    degree = degree.astype(np.int64)
    return degree * (degree - 1) // 2, np.maximum(degree - 2, 0)
