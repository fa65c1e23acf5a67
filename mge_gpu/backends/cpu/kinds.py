"""Arcs along which position does not matter: what they lead to can be kept channel by channel."""

from typing import NamedTuple

import numpy as np

from mge_gpu.backends.adjacency import OWN, Adjacency, node_positions


class Kinds(NamedTuple):
    """What is known of arcs and partitions as wholes. A arcs, P partitions."""

    whole: np.ndarray  # (A,) bool: every position sees all positions at the other end
    same: np.ndarray  # (A,) bool: positions see one position each, all of them another one
    channel: np.ndarray  # (P + 1,) int64: number of the first channel of each partition
    positions: np.ndarray  # (P,) int64
    triangle: np.ndarray  # (P, P) bool: linked, with a third partition linked to both


def arc_kinds(g: Adjacency) -> Kinds:
    """Read off the compressed adjacency which arcs do without positions."""
    n = len(g.divisor)
    sizes = [node_positions(g, p) for p in range(n)]
    whole, same = (np.zeros(len(g.arc_other), np.bool_) for _ in range(2))
    linked = np.zeros((n, n), np.bool_)
    for p in range(n):
        for arc in range(g.arc_ptr[p], g.arc_ptr[p + 1]):
            q = int(g.arc_other[arc])
            linked[p, q] = True
            if g.arc_classes[arc] != 1 or not _plain(g, p, q):
                continue
            positions = sizes[p][1]
            at = slice(int(g.arc_position[arc]), int(g.arc_position[arc]) + positions)
            width = g.span_ptr[arc + 1] - g.span_ptr[arc]
            alike = not g.position_group[at].any()
            whole[arc] = alike and width == sizes[q][1] and _in_place(g, arc, sizes[p], sizes[q])
            if not whole[arc] and width == 1 and positions == sizes[q][1]:
                distinct = len(np.unique(g.anchor[at])) == positions
                same[arc] = distinct and _in_place(g, arc, sizes[p], sizes[q])
    third = linked.astype(np.int32)
    return Kinds(
        whole,
        same,
        np.cumsum([0] + [c for c, _ in sizes]).astype(np.int64),
        np.array([x for _, x in sizes], np.int64),
        linked & (third @ third > 0),
    )


def _plain(g: Adjacency, p: int, q: int) -> bool:
    """Whether channels and positions of both partitions are their own along all arcs between them."""
    arcs = (slice(g.arc_ptr[a], g.arc_ptr[a + 1]) for a in (p, q))
    return not any(
        (g.arc_view[a][g.arc_other[a] == other] != OWN).any() for a, other in zip(arcs, (q, p), strict=True)
    )


def _in_place(g: Adjacency, arc: int, here: tuple[int, int], there: tuple[int, int]) -> bool:
    """Whether no entry of the arc's lists moves the position."""
    rows = g.row_list[int(g.arc_row[arc]) : int(g.arc_row[arc]) + here[0]]
    if not len(rows):
        return True
    shifts = g.shifts[g.list_ptr[rows.min()] : g.list_ptr[rows.max() + 1]]  # an arc's lists lie together
    q = int(g.arc_other[arc])
    return not (shifts % there[1]).any() if g.channel_first[q] else not (shifts >= there[0]).any()
