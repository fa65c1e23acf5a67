"""Networks whose layers link partitions of two colours, and what the colours say of eigenvectors."""

from typing import Any

import numpy as np

from mge_gpu.metrics.base import Workspace


def two_colours(w: Workspace) -> list[bool] | None:
    """A colouring of the partitions in which every block links two colours, or None."""
    near: dict[int, set[int]] = {p: set() for p in range(len(w.graph.partitions))}
    for s, t, _ in w.graph.blocks:
        near[s].add(t)
        near[t].add(s)
    colour: dict[int, bool] = {}
    for root in near:
        if root in colour:
            continue
        colour[root] = False
        stack = [root]
        while stack:
            p = stack.pop()
            for q in near[p]:
                if q not in colour:
                    colour[q] = not colour[p]
                    stack.append(q)
                elif colour[q] == colour[p]:
                    return None
    return [colour[p] for p in range(len(near))]


def laplacian_signs(w: Workspace, dtype: Any) -> np.ndarray:
    """Signs of a first vector of Lanczos on D - A that has the squared strengths of the nodes, (N,).

    With two colours D - A has the eigenvalues of D + A, and its last eigenvector has the signs of the
    colours (Perron and Frobenius): a vector of these signs is not orthogonal to it, and has little of what
    oscillates within a colour, of which large maps have much just below the top. Without: random numbers.

    The strengths s, since the largest eigenvalue is at least max s, and at most max s_u + s_v over edges
    (Anderson and Morley, 1985): some node of its component has at least half of the largest strength.
    """
    colour = two_colours(w)
    if colour is None:
        return np.random.default_rng(w.seed).standard_normal(w.num_nodes).astype(dtype, copy=False)
    networks = w.graph.num_nodes // max(w.num_nodes, 1)
    sizes = [p.size // max(networks, 1) for p in w.graph.partitions]
    return np.repeat(np.array([-1 if white else 1 for white in colour], dtype), sizes)
