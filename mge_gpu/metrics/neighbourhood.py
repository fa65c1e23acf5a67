"""Neighbourhoods: how far a signal spreads in one and two steps."""

import numpy as np

from mge_gpu.metrics import sampling
from mge_gpu.metrics.base import Measured, Workspace, metric


@metric("one_hop")
def one_hop(w: Workspace) -> Measured:
    """Mean of 1 + out-degree: nodes within one directed step, the node itself included."""
    return Measured(1 + w.graph.num_edges / max(w.graph.num_nodes, 1), "row lengths and class sizes")


@metric("two_hop")
def two_hop(w: Workspace) -> Measured:
    """Mean number of nodes within two directed steps, the node itself included.

    Counted once for each channel and class of positions with the same two-step neighbourhood up to
    a shift, times the size of the class: exact.
    """
    nodes, times = w.backend.representatives(w.adjacency, True)
    cost = w.backend.path_counts(w.adjacency, nodes, True)
    n = max(w.num_nodes, 1)
    if w.affordable(cost, nodes):
        sizes = w.backend.two_hop_sizes(w.adjacency, nodes, cost)
        return Measured(w.exact_total(sizes, times, nodes) / n, f"{len(nodes):,} classes of positions")

    def count(some: np.ndarray, walks: np.ndarray) -> np.ndarray:
        sizes: np.ndarray = w.backend.two_hop_sizes(w.adjacency, some, walks).astype(np.float64)
        return sizes

    # Between the out-degree, which two steps reach at least, and the steps, which they reach at most. Where
    # many nodes share their lists both can be far off, so half of the draws go by the steps alone.
    steps = cost.astype(np.float64)
    guesses = np.sqrt(steps * (1 + w.backend.host(w.outdeg)[nodes])), steps**1.25
    size = sum(guess / (times @ (guess / np.sqrt(steps))) for guess in guesses)
    population = sampling.Population(nodes, times, cost, size, w.partition_of(nodes))
    value, error = sampling.estimate(count, population, w.seed)
    return Measured(value / n, "sample of nodes", error / n)
