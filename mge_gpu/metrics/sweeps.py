"""Sweeps along all paths of a network at once: marks, sums of products of weights, numbers of paths.

Values run through the node sets in the order of the network, or of all networks of a union: what is found is
one value a network. Nothing on the way waits for the device, but for the marks of weights.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from mge_gpu.backends import Backend, Block
from mge_gpu.graph.flow import Flow, Link, pair_adjacency
from mge_gpu.metrics.scaling import Scaled, added, log_totals

HELD = 1 << 26
"""Nonzero weights (16 bytes each, and as many on the device) that are kept from one sweep to the next."""


class Course:
    """A flow on a backend: how values lie there, and the blocks that they pass, ready for several sweeps."""

    def __init__(self, flow: Flow, backend: Backend) -> None:
        self.flow, self.backend, self.networks = flow, backend, flow.networks
        self.like = backend.prototype()
        self.into: dict[int, list[Link]] = {}
        self.out_of: dict[int, list[Link]] = {}
        for link in flow.links:
            self.into.setdefault(link.target, []).append(link)
            self.out_of.setdefault(link.source, []).append(link)
        self._size = max((s.offset + s.size for s in flow.sets), default=0)
        self._kept: dict[tuple[str, int], Block] = {}
        self._room = 0 if backend.shares_cores else HELD  # the CPU takes blocks as they are
        self._prepared: dict[Any, Any] = {}

    def _block(self, link: Link) -> tuple[Block, dict[Any, Any] | None]:
        """The block, and what the backend keeps of it."""
        key = ("made", id(link)) if link.number is None else ("graph", link.number)
        if key in self._kept:
            return self._kept[key], self._prepared
        block, _ = link.make()
        if len(block.tap) > self._room:
            return block, None
        self._room -= len(block.tap)
        self._kept[key] = block
        return block, self._prepared

    def marks(self, given: Mapping[int, np.ndarray]) -> Any:
        """(nodes of all sets,) bool on the device: those of ``given``, none elsewhere."""
        found = np.zeros(self._size, np.bool_, like=self.like)
        for p, mask in given.items():
            found[self._nodes(p)] = np.asarray(mask, like=self.like)
        return found

    def _nodes(self, p: int) -> slice:
        s = self.flow.sets[p]
        return slice(s.offset, s.offset + s.size)

    def mask(self, given: np.ndarray, p: int) -> Any:
        """Marks of nodes of set p as values, (1, before, networks, behind) float64."""
        return np.asarray(given.astype(np.float64), like=self.like).reshape(1, *self.shape(p))

    def shape(self, p: int) -> tuple[int, int, int]:
        """(before, networks, behind): the nodes of a set, those of one network side by side."""
        s = self.flow.sets[p]
        before = prod(s.shape[: s.channel_dim]) if self.networks > 1 else 1
        return before, self.networks, s.size // max(before * self.networks, 1)

    def reach(self, link: Link, marks: Any, backward: bool = False) -> Any:
        """The marks, and nodes that a link leads to from marked ones; ``backward``: comes from."""
        if self.backend.shares_cores:  # to ask a GPU takes as long
            near, far = (self._nodes(p) for p in (link.source, link.target)[:: -1 if backward else 1])
            if marks[far].all() or not marks[near].any():
                return marks
        block, kept = self._block(link)
        return self.backend.reach(block, marks, backward, prepared=kept)

    def between(self, link: Link, marks: "Reached") -> Any:
        """(nonzeros,) bool on the device: those on a path from the input to an output."""
        block, kept = self._block(link)
        return self.backend.between(block, *marks, prepared=kept)

    def count(self, link: Link, flags: Any) -> Any:
        """(networks,) int64 on the device: flags (nonzeros,) bool of a link that are set."""
        if self.networks == 1 or not len(flags):
            return self.backend.counts(flags)
        before = np.zeros(len(flags) + 1, np.int64, like=self.like)
        np.cumsum(flags, out=before[1:])
        return np.diff(before[np.asarray(self.ends(link, len(flags)), like=self.like)])

    def ends(self, link: Link, count: int) -> list[int]:
        """Where the nonzeros of each network begin, and their number, which is ``count``."""
        if self.networks == 1:  # blocks may take long to make
            return [0, count]
        block, _ = self._block(link)
        each = self.flow.sets[link.target].channels // self.networks
        inner = np.searchsorted(block.target_channel, each * np.arange(1, self.networks)).tolist()
        return [0, *inner, count]

    def sums(
        self,
        link: Link,
        x: Scaled,
        terms: Sequence[tuple[int, int, int]],
        backward: bool = False,
        made: tuple[Block, dict[Any, Any] | None] | None = None,
    ) -> Scaled:
        """`Backend.power_sums` along a link; a row of sums has the exponents of x in the same row."""
        block, kept = made or self._block(link)
        there = link.source if backward else link.target
        rows, size = x.values.reshape(len(x.values), -1), self.flow.sets[there].size
        found = self.backend.power_sums(block, rows, terms, size, backward, prepared=kept)
        return Scaled(found.reshape(-1, *self.shape(there)), x.exponent)

    def edge_sums(self, link: Link, x: Scaled) -> Scaled:
        """Sums of x (one row) over the targets of a link's edges, each of them once, for each source."""
        block, kept = self._block(link)
        if not block.overlaps:
            return self.sums(link, x, [(0, 0, 0)], True, (block, kept))
        size = self.flow.sets[link.source].size
        room = np.concatenate([np.zeros(size, like=x.values), x.values.ravel()])
        found = self.backend.neighbour_sums(pair_adjacency(link, self.flow.sets), room)[:size]
        return Scaled(found.reshape(1, *self.shape(link.source)), x.exponent)


class Reached(NamedTuple):
    """(nodes of all sets,) bool: what the input reaches, and what reaches an output."""

    before: Any
    behind: Any


def reached(course: Course) -> Reached:
    """Marks passed forward from the input and backward from the outputs."""
    flow = course.flow
    before, behind = course.marks(flow.inputs), course.marks(flow.outputs)
    order = flow.order()
    for p in order:
        for link in course.into.get(p, ()):
            before = course.reach(link, before)
    for p in reversed(order):
        for link in course.out_of.get(p, ()):
            behind = course.reach(link, behind, backward=True)
    return Reached(before, behind)


def effective(course: Course, marks: Reached) -> Iterator[tuple[Link, Any]]:
    """(link, (nonzeros,) bool on the device) of each link of weights: those on a path to an output."""
    for link in course.flow.links:
        if link.weighted:
            yield link, course.between(link, marks)


def count_effective(course: Course, marks: Reached) -> np.ndarray:
    """(networks,) int64: weights on a path from the input to an output; one that layers share counts once."""
    count = np.zeros(course.networks, np.int64, like=course.like)
    shared = [np.zeros(0, np.int64)]
    for link, flags in effective(course, marks):
        if link.entry is None:
            count += course.count(link, flags)
        else:
            network = np.repeat(np.arange(course.networks), np.diff(course.ends(link, len(flags))))
            shared.append((network << 40 | link.entry + 1)[course.backend.host(flags)])
    once = np.bincount(np.unique(np.concatenate(shared)) >> 40, minlength=course.networks)
    found: np.ndarray = course.backend.host(count) + once
    return found


class Norms(NamedTuple):
    """Natural logarithms of sums over all paths p from the input to an output; -inf where there is none."""

    l1: np.ndarray  # (networks,) of sum_p prod |w|
    l2: np.ndarray  # of (sum_p prod w^2)^(1/2)
    trace: np.ndarray  # of sum_p sum_{i in p} (prod w / w_i)^2


ROUTES = (0, 1, 0), (1, 1, 1), (2, 1, 2)
WEIGHTS = (0, 1, 0), (1, 2, 1), (2, 2, 2), (1, 0, 2)
"""What adds to the rows of `norms` along a link of routes, or of weights: (row, power of the weight, row)."""


def norms(course: Course) -> Norms:
    """Path norms and the path-kernel trace in one sweep.

    Row 0 is f(v) = sum_u |w_uv| f(u), over the routes into v, row 1 the same with w^2 for |w|. Beside it runs
    its derivative in the direction of all ones, row 2, g(v) = sum_u w_uv^2 g(u) + f(u): the sum of the
    derivatives in all w^2, which the trace is. Along a path g / f is a sum of 1 / w^2, less than 2^310 apart:
    they share exponents.
    """
    flow, n = course.flow, course.networks
    readers = Counter(link.source for link in flow.links)
    values: dict[int, Scaled | None] = {}
    ends: list[Scaled] = []
    for p in flow.order():
        parts = []
        if p in flow.inputs:
            ones = course.mask(flow.inputs[p], p)
            rows = np.concatenate([ones, ones, np.zeros_like(ones)])
            parts.append(Scaled(rows, np.zeros((3, n), np.int64, like=course.like)))
        for link in course.into.get(p, ()):
            if (x := values[link.source]) is not None:
                parts.append(course.sums(link, x, WEIGHTS if link.weighted else ROUTES))
            readers[link.source] -= 1
            if not readers[link.source]:
                del values[link.source]
        here = added(parts, course.backend) if parts else None
        if p in flow.outputs and here is not None:
            ends.append(Scaled(here.values * course.mask(flow.outputs[p], p), here.exponent))
        if readers[p]:
            values[p] = here
    l1, squares, trace = log_totals(ends, 3, n, course.backend)
    return Norms(l1, squares / 2, trace)


def log_paths(course: Course) -> np.ndarray:
    """(networks,) logarithms of the number of paths in the graph with identity skips, -inf for none.

    Backward: c(u) = [u is an output] + sum of c(v) over the edges u -> v, each of them once.
    """
    flow, n = course.flow, course.networks
    readers = Counter(link.target for link in flow.edges)
    out_of: dict[int, list[Link]] = {}
    for link in flow.edges:
        out_of.setdefault(link.source, []).append(link)
    values: dict[int, Scaled | None] = {}
    ends: list[Scaled] = []
    for p in reversed(flow.order()):
        if p >= flow.partitions:
            continue
        parts = []
        if p in flow.outputs:
            parts.append(
                Scaled(course.mask(flow.outputs[p], p), np.zeros((1, n), np.int64, like=course.like))
            )
        for link in out_of.get(p, ()):
            if (x := values[link.target]) is not None:
                parts.append(course.edge_sums(link, x))
            readers[link.target] -= 1
            if not readers[link.target]:
                del values[link.target]
        here = added(parts, course.backend) if parts else None
        if p in flow.inputs and here is not None:
            ends.append(Scaled(here.values * course.mask(flow.inputs[p], p), here.exponent))
        if readers[p]:
            values[p] = here
    found: np.ndarray = log_totals(ends, 1, n, course.backend)[0]
    return found
