"""Random bipartite graphs in which all nodes of a side have the same degree, as nearly as the edges allow."""

import numpy as np

from mge_gpu.backends.cpu.jit import jit

SWEEPS = 30
"""Each sweep lets every node of the right trade with another; spectra no longer change after about ten."""


def near_regular(
    right: int, left: int, edges: int, generator: np.random.Generator
) -> np.ndarray:  # (right, left) bool
    """A random simple bipartite graph: on each side the degrees differ by one at most.

    They are all equal where the side's size divides ``edges``. Starts from rows of consecutive columns, whose
    degrees are as asked, and mixes by global curveball trades, which keep all degrees and lead to every such
    graph with equal probability in the end (Carstens, Hamann, Meyer, Penschuck, Tran, Wagner, "Parallel and
    I/O-efficient randomisation of massive networks using global curveball trades", ESA 2018).

    >>> graph = near_regular(6, 4, 12, np.random.default_rng(0))
    >>> graph.sum(0).tolist(), graph.sum(1).tolist()
    ([3, 3, 3, 3], [2, 2, 2, 2, 2, 2])
    """
    if not 0 <= edges <= right * left:
        raise ValueError(f"{edges} edges between {right} and {left} nodes")
    start = (
        np.arange(right + 1) * edges
    ) // right  # row i holds the columns start[i] .. start[i + 1], mod left
    graph = np.zeros((right, left), dtype=np.bool_)
    graph[np.repeat(np.arange(right), np.diff(start)), np.arange(edges) % left] = True
    graph = np.ascontiguousarray(graph[generator.permutation(right)][:, generator.permutation(left)])
    if 0 < edges < right * left:
        for _ in range(SWEEPS):
            _trade(graph, generator.permutation(right), generator)
    return graph


@jit
def _trade(graph: np.ndarray, order: np.ndarray, generator: np.random.Generator) -> None:
    """Rows meet in pairs, pool the columns that only one of them has, and share them out anew at random."""
    left = graph.shape[1]
    pool = np.empty(left, np.int64)
    for pair in range(len(order) // 2):
        one, two = graph[order[2 * pair]], graph[order[2 * pair + 1]]
        size = share = 0
        for column in range(left):
            if one[column] != two[column]:
                pool[size] = column
                size += 1
                share += one[column]
        for place in range(size):
            if place < share:
                other = place + int(generator.random() * (size - place))
                pool[place], pool[other] = pool[other], pool[place]
            one[pool[place]] = place < share
            two[pool[place]] = place >= share
