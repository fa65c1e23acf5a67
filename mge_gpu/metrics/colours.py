"""Networks whose layers link partitions of two colours, and what the colours say of eigenvectors."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mge_gpu.backends import Block
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


def colour_by_colour(colour: Sequence[bool]) -> list[int]:
    """The partitions of the first colour, then those of the second.

    >>> colour_by_colour([False, True, False])
    [0, 2, 1]
    """
    return sorted(range(len(colour)), key=colour.__getitem__)


class Numbered(NamedTuple):
    """Blocks whose nodes are numbered anew: those of the first colour, then those of the second.

    Within a colour the order stays. Without two colours the numbers stay, and all blocks are ``ahead``.
    """

    ahead: list[Block]  # from the first colour to the second
    back: list[Block]
    sizes: list[int] | None  # nodes of the first colour and of the second

    @property
    def every(self) -> list[Block]:
        """All blocks."""
        return self.ahead + self.back


def by_colour(w: Workspace) -> Numbered:
    """The blocks with nodes numbered by colour, so that those of a colour are a slice; made once."""
    if "by colour" not in w.operators:
        w.operators["by colour"] = renumbered(w, w.graph.blocks)
    found: Numbered = w.operators["by colour"]
    return found


def renumbered(w: Workspace, blocks: Iterable[tuple[int, int, Block]]) -> Numbered:
    """Some blocks (source partition, target partition, block) of a workspace's graph, in that order."""
    colour = two_colours(w)
    if colour is None:
        return Numbered([block for _, _, block in blocks], [], None)
    parts, sizes, first = w.graph.partitions, [0, 0], [0] * len(colour)
    for p in colour_by_colour(colour):
        first[p] = sum(sizes)
        sizes[colour[p]] += parts[p].size
    legs: tuple[list[Block], list[Block]] = [], []
    for s, t, block in blocks:
        moved = block._replace(
            source_offset=block.source_offset - parts[s].offset + first[s],
            target_offset=block.target_offset - parts[t].offset + first[t],
        )
        legs[colour[s]].append(moved)
    return Numbered(*legs, sizes)


def laplacian_signs(w: Workspace, dtype: Any, numbered: bool = False) -> np.ndarray:
    """Signs of a first vector of Lanczos on D - A that has the squared strengths of the nodes, (N,).

    With two colours D - A has the eigenvalues of D + A, and its last eigenvector has the signs of the
    colours (Perron and Frobenius): a vector of these signs is not orthogonal to it, and has little of what
    oscillates within a colour, of which large maps have much just below the top. Without: random numbers.

    The strengths s, since the largest eigenvalue is at least max s, and at most max s_u + s_v over edges
    (Anderson and Morley, 1985): some node of its component has at least half of the largest strength.

    ``numbered``: in the order of `by_colour`.
    """
    colour = two_colours(w)
    if colour is None:
        return np.random.default_rng(w.seed).standard_normal(w.num_nodes).astype(dtype, copy=False)
    networks = w.graph.num_nodes // max(w.num_nodes, 1)
    sizes = [p.size // max(networks, 1) for p in w.graph.partitions]
    if numbered and (of_colours := by_colour(w).sizes):
        colour, sizes = [False, True], of_colours
    return np.repeat(np.array([-1 if second else 1 for second in colour], dtype), sizes)
