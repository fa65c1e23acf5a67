"""Positions that can be exchanged: the tokens of a transformer, the points of a point cloud.

What treats all tokens alike and mixes them only as a whole (attention, a mean) has the same graph however
they are numbered. The position pairs alone show it. A tap that pairs positions one to one ties them
together; what is tied together, through however many layers, is a *thread* (a token, with the pixels of its
patch). A tap that pairs all of some positions with all of others ties none. Threads with the same ties and
the same part in every such product can be exchanged as a whole, each with each; a position and those that
it is exchanged with are an *orbit*. Orbits, a channel at a time, make an equitable partition of the nodes
(Godsil and Royle, Algebraic Graph Theory, 2001, section 9.3).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from mge_gpu.backends.adjacency import OWN
from mge_gpu.backends.cpu import compress
from mge_gpu.graph.blocks import Placed, place_block
from mge_gpu.graph.positions import PositionMap
from mge_gpu.tracing.program import Partition, place

FEWEST = 4
"""Threads of a kind from which on they count as alike; fewer stay as many different ones."""


@dataclass(frozen=True)
class Orbits:
    """The quotient of a graph by the exchanges of its positions: one position for each orbit.

    Attributes:
        partitions: channels and orbits of each partition, channels first.
        blocks: those of the graph, with the same nonzeros and orbits in place of positions.
        whole: for each block which of its taps pair all with all, (taps,) bool; any other one pairs positions
            of the same thread.
        sizes: for each partition how many positions each orbit has, (orbits,) int64.
    """

    partitions: tuple[Partition, ...]
    blocks: tuple[Placed, ...]
    whole: tuple[np.ndarray, ...]
    sizes: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Taps:
    """The position pairs of a map, by kind of tap."""

    whole: np.ndarray  # (taps,) bool: all of some targets with all of some sources
    times: np.ndarray  # (taps,) int64: how often each pair occurs, since several ways may lead along it
    ties: np.ndarray  # (3, pairs) int64: tap, target, source of the others, which pair one to one
    targets: np.ndarray  # (2, n) int64: tap and target, each once, of those that pair all with all
    sources: np.ndarray  # (2, n) int64: the same of sources


def find_orbits(partitions: Sequence[Partition], blocks: Iterable[Placed]) -> Orbits | None:
    """The orbits of a graph's positions; None where they would leave half of the nodes or more.

    Not every symmetry is found: the tokens of windows, and mirror images, count as different.

    Example:
        >>> import torch, mge_gpu
        >>> graph = mge_gpu.encode(torch.nn.Linear(3, 2, bias=False), (6, 3))  # six tokens of three channels
        >>> orbits = find_orbits(graph.partitions, graph.iterate_blocks())
        >>> [(p.shape, n.tolist()) for p, n in zip(orbits.partitions, orbits.sizes)]
        [((3, 1), [6]), ((2, 1), [6])]
    """
    placed, taps = list(blocks), []
    if any(block.view != OWN for _, _, block, _ in placed):
        return None
    known: dict[int, Taps | None] = {}
    for *_, positions in placed:
        if id(positions) not in known:
            known[id(positions)] = _taps(positions)
        found = known[id(positions)]
        if found is None:
            return None
        taps.append(found)
    first = np.cumsum([0] + [p.positions for p in partitions])  # of the positions of all partitions
    at = [(first[t], first[s], x) for (s, t, *_), x in zip(placed, taps, strict=True)]
    orbit, sizes = _orbits(first, *_threads(first, at))
    left = sum(p.channels * len(n) for p, n in zip(partitions, sizes, strict=True))
    if 2 * left >= sum(p.size for p in partitions):
        return None
    smaller = place([(p.name, (p.channels, len(n)), 0) for p, n in zip(partitions, sizes, strict=True)])
    quotients: dict[tuple[int, int, int], PositionMap | None] = {}
    out = []
    for (s, t, block, positions), x in zip(placed, taps, strict=True):
        key = s, t, id(positions)
        if key not in quotients:
            ends = orbit[first[t] : first[t + 1]], orbit[first[s] : first[s + 1]]
            quotients[key] = _quotient(x, *ends, sizes[t], sizes[s])
        pairs = quotients[key]
        if pairs is None:
            return None
        columns = block.target_channel, block.source_channel, block.tap, block.weight
        out.append((s, t, place_block(columns, pairs, smaller[s], smaller[t], OWN), pairs))
    return Orbits(smaller, tuple(out), tuple(x.whole for x in taps), sizes)


def _taps(m: PositionMap) -> Taps | None:
    """The kinds of a map's taps; None where one pairs in another way, or together they tie nearly all."""
    pairs = np.diff(m.ptr)
    tap = np.repeat(np.arange(m.taps), pairs)
    targets, sources = _each_once(tap, m.target, m.targets), _each_once(tap, m.source, m.sources)
    many, more = (np.bincount(x[0], minlength=m.taps) for x in (targets, sources))
    one = (pairs == many) & (pairs == more) & (pairs > 1)  # a lone pair has a place of its own
    ties = np.stack([tap, m.target, m.source])[:, one[tap]]
    if one.sum() > 1:  # they tie all together where windows overlap: found before any large work
        threads = _connected(m.targets + m.sources, ties[1], m.targets + ties[2])
        if threads.max(initial=0) + 1 < FEWEST:
            return None
    times = pairs // np.maximum(many * more, 1)
    if (times * many * more != pairs)[~one].any():
        return None
    for k in np.flatnonzero(~one & (pairs > 1)):
        here = slice(m.ptr[k], m.ptr[k + 1])
        if not _all_with_all(m.target[here], m.source[here], times[k]):
            return None
    return Taps(~one, times, ties, targets[:, ~one[targets[0]]], sources[:, ~one[sources[0]]])


def _all_with_all(target: np.ndarray, source: np.ndarray, times: int) -> bool:
    """Whether each target has a pair with each source, and so often."""
    a, b = (np.cumsum(np.bincount(x) > 0)[x] - 1 for x in (target, source))
    return bool((np.bincount(a * (b.max() + 1) + b) == times).all())


def _each_once(tap: np.ndarray, position: np.ndarray, positions: int) -> np.ndarray:
    """(2, n) tap and position, each pair of them once; taps come in ascending order."""
    first = compress.first_of_each(tap, position, np.full(positions, -1))
    return np.stack([tap[first], position[first]])


def _connected(n: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n,) the number of each thing's component, where pairs (a, b) of n things are tied together."""
    ties = sp.coo_array((np.ones(len(a), np.int8), (a, b)), shape=(n, n))
    found: np.ndarray = connected_components(ties, directed=False)[1].astype(np.int64)
    return found


def _threads(first: np.ndarray, placed: Sequence[tuple[int, int, Taps]]) -> tuple[np.ndarray, np.ndarray]:
    """Kind of each position's thread, and its rank among the positions of the thread, (positions,) each.

    Args:
        first: the first position of each partition, and the end.
        placed: first position of the target, of the source, and taps, of each block.
    """
    n = int(first[-1])
    nothing = np.zeros(0, np.int64)
    a, b = (np.concatenate([nothing, *(x.ties[k] + at[k - 1] for *at, x in placed)]) for k in (1, 2))
    thread = _connected(n, a, b)
    order = np.argsort(thread, kind="stable")
    rank = np.empty(n, np.int64)
    rank[order] = np.arange(n) - np.searchsorted(thread[order], thread[order])
    code = np.zeros(int(thread.max(initial=-1)) + 1, np.uint64)  # of all that tells threads apart
    partition = np.repeat(np.arange(len(first) - 1), np.diff(first))
    for position, *marks in _marks(partition, rank, placed):
        np.add.at(code, thread[position], _mixed(*marks))
    _, kind, alike = np.unique(code, return_inverse=True, return_counts=True)
    few = alike[kind] < FEWEST
    kind[few] = len(alike) + np.flatnonzero(few)
    return kind[thread], rank


def _orbits(
    first: np.ndarray, kind: np.ndarray, rank: np.ndarray
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Orbit of each position, numbered within its partition, and how many positions each orbit has."""
    name = kind * (int(rank.max(initial=0)) + 1) + rank
    orbit, sizes = np.empty(len(name), np.int64), []
    for p in range(len(first) - 1):
        here = slice(first[p], first[p + 1])
        found = np.unique(name[here], return_index=True, return_inverse=True, return_counts=True)
        _, begin, which, size = found
        in_order = np.argsort(begin)  # of their first positions
        orbit[here] = np.argsort(in_order)[which]
        sizes.append(size[in_order])
    return orbit, tuple(sizes)


def _marks(
    partition: np.ndarray, rank: np.ndarray, placed: Sequence[tuple[int, int, Taps]]
) -> Iterator[tuple[np.ndarray, ...]]:
    """Positions, and numbers that say what each is in its thread: its partition, its ties, its products."""
    yield np.arange(len(rank)), partition, rank
    for k, (target, source, x) in enumerate(placed):
        tap, a, b = x.ties
        yield a + target, np.array(4 * k), tap, rank[a + target], rank[b + source]
        for side, offset, (tap, at) in (1, target, x.targets), (2, source, x.sources):
            yield at + offset, np.array(4 * k + side), tap, rank[at + offset]


def _mixed(*numbers: np.ndarray) -> np.ndarray:
    """64 bits that depend on all the numbers (splitmix64's finalizer): sums of them are hashes of sets."""
    code = np.zeros(1, np.uint64)
    for number in (*numbers, np.array(len(numbers))):
        code = code + number.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        code = (code ^ (code >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        code = (code ^ (code >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        code ^= code >> np.uint64(31)
    return code


def _quotient(
    x: Taps, target: np.ndarray, source: np.ndarray, targets: np.ndarray, sources: np.ndarray
) -> PositionMap | None:
    """The pairs of orbits of each tap; None where an orbit is not paired as a whole.

    That is proof: the hashes of different threads may be equal, and their ties are then not.

    Args:
        x: the taps.
        target, source: orbit of each position, (positions,) each.
        targets, sources: positions of each orbit, (orbits,) each.
    """
    taps, ends = len(x.whole), (len(x.whole), len(targets), len(sources))
    tap, a, b = x.ties
    found, count = np.unique(np.ravel_multi_index((tap, target[a], source[b]), ends), return_counts=True)
    tied = np.stack(np.unravel_index(found, ends))
    if (count != targets[tied[1]]).any() or (count != sources[tied[2]]).any():
        return None
    sides = []
    for (tap, at), orbit, sizes in (x.targets, target, targets), (x.sources, source, sources):
        found, count = np.unique(tap * len(sizes) + orbit[at], return_counts=True)
        if (count != sizes[found % len(sizes)]).any():
            return None
        sides.append((np.searchsorted(found, np.arange(taps + 1) * len(sizes)), found % len(sizes)))
    (t_ptr, t), (s_ptr, s) = sides
    pairs = [tied]
    for k in np.flatnonzero(x.whole):
        here, there = t[t_ptr[k] : t_ptr[k + 1]], s[s_ptr[k] : s_ptr[k + 1]]
        both = np.repeat(here, len(there)), np.tile(there, len(here))
        pairs.append(np.tile(np.stack([np.full(len(both[0]), k), *both]), x.times[k]))
    tap, a, b = np.concatenate(pairs, axis=1)
    order = np.argsort(tap, kind="stable")
    ptr = np.concatenate([[0], np.cumsum(np.bincount(tap, minlength=taps))]).astype(np.int64)
    return PositionMap(len(targets), len(sources), ptr, a[order], b[order])
