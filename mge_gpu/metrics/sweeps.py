"""Sweeps along all paths of a network at once: marks, sums of products of weights, numbers of paths.

Values run through the node sets in the order of the network. Each set keeps its own power of two beside its
values, so that neither 2^1000 paths nor products of a hundred small weights leave the range of float64.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mge_gpu.backends import Backend, Block
from mge_gpu.graph.flow import Flow, Link, pair_adjacency

BAND = 40
"""Binary orders of magnitude of weights that are worked on together: their squares fit float32."""


class Scaled(NamedTuple):
    """values * 2^exponent; the values are at most 1."""

    values: Any  # (nodes,) float64
    exponent: int


def scaled(values: Any, exponent: int = 0) -> Scaled:
    """Move the largest value's power of two to the exponent."""
    shift = math.frexp(float(values.max()))[1] if len(values) else 0
    return Scaled(values * math.ldexp(1.0, -shift), exponent + shift)


def summed(parts: Sequence[Scaled]) -> Scaled | None:
    """The sum, or None where all values are zero."""
    parts = [p for p in parts if len(p.values) and float(p.values.max()) > 0]
    if not parts:
        return None
    top = max(p.exponent for p in parts)
    total = sum(p.values * math.ldexp(1.0, max(p.exponent - top, -1100)) for p in parts)
    return scaled(total, top)


def log_sum(parts: Sequence[Scaled]) -> float:
    """Natural logarithm of the sum of all values of all parts; -inf for 0.

    >>> log_sum([Scaled(np.array([0.5, 0.25]), 3)]) == math.log(6)
    True
    """
    whole = summed([Scaled(p.values.sum(keepdims=True), p.exponent) for p in parts])
    return -math.inf if whole is None else math.log(float(whole.values[0])) + whole.exponent * math.log(2)


def _marks(flow: Flow, given: Mapping[int, np.ndarray], like: Any) -> list[Any]:
    """(nodes,) bool of each set on the device: those of ``given``, none elsewhere."""
    none = (np.zeros(s.size, np.bool_) for s in flow.sets)
    return [np.asarray(given.get(p, empty), like=like) for p, empty in enumerate(none)]


class Reached(NamedTuple):
    """(nodes,) bool of each set: what the input reaches, and what reaches an output."""

    before: list[Any]
    behind: list[Any]


def reached(flow: Flow, backend: Backend) -> Reached:
    """Marks passed forward from the input and backward from the outputs."""
    like = backend.prototype()
    before, behind = _marks(flow, flow.inputs, like), _marks(flow, flow.outputs, like)
    order = flow.order()
    into: dict[int, list[Link]] = {}
    out_of: dict[int, list[Link]] = {}
    for link in flow.links:
        into.setdefault(link.target, []).append(link)
        out_of.setdefault(link.source, []).append(link)
    for p in order:
        for link in into.get(p, ()):
            near, far = before[link.source], before[p]
            if near.any() and not far.all():
                marks = np.concatenate([near, np.zeros_like(far)])
                before[p] = far | backend.reach(link.local(flow.sets)[0], marks)[len(near) :]
    for p in reversed(order):
        for link in out_of.get(p, ()):
            near, far = behind[link.target], behind[p]
            if near.any() and not far.all():
                marks = np.concatenate([np.zeros_like(far), near])
                behind[p] = far | backend.reach(link.local(flow.sets)[0], marks, True)[: len(far)]
    return Reached(before, behind)


def effective(flow: Flow, backend: Backend, marks: Reached) -> Iterator[tuple[Link, np.ndarray]]:
    """(link, (nonzeros,) bool) of each link of weights: those on a path from the input to an output."""
    for link in flow.links:
        if link.weighted:
            before, behind = marks.before[link.source], marks.behind[link.target]
            block = link.local(flow.sets)[0]
            near = np.concatenate([before, np.zeros_like(behind)])
            far = np.concatenate([np.zeros_like(before), behind])
            yield link, backend.host(backend.between(block, near, far))


def count_effective(flow: Flow, backend: Backend, marks: Reached) -> int:
    """Number of weights on a path from the input to an output; one that several layers use counts once."""
    count, shared = 0, [np.zeros(0, np.int64)]
    for link, flags in effective(flow, backend, marks):
        if link.entry is None:
            count += int(flags.sum())
        else:
            shared.append(link.entry[flags])
    return count + len(np.unique(np.concatenate(shared)))


def _bands(block: Block) -> Iterator[tuple[Block, int]]:
    """The block in pieces with weights in (2^-BAND, 1], and the exponent of each."""
    exponent = np.frexp(block.weight)[1]
    while len(exponent):
        top = int(exponent.max())
        inside = exponent > top - BAND
        columns = ("target_channel", "source_channel", "tap", "weight")
        piece = block if inside.all() else block._replace(**{c: getattr(block, c)[inside] for c in columns})  # type: ignore[arg-type]
        yield piece._replace(weight=np.ldexp(piece.weight, -top)), top
        if inside.all():
            return
        block = block._replace(**{c: getattr(block, c)[~inside] for c in columns})  # type: ignore[arg-type]
        exponent = exponent[~inside]


def _forward(
    backend: Backend, block: Block, given: Sequence[Scaled], targets: int, shift: int
) -> list[Scaled]:
    """A^T x of each of some vectors on the sources of a block, times 2^shift."""
    apply = backend.operator([block], [])
    out = []
    for x in given:
        room = np.concatenate([x.values, np.zeros(targets, like=x.values)])
        out.append(scaled(apply(room)[len(x.values) :], x.exponent + shift))
    return out


class Norms(NamedTuple):
    """Natural logarithms of sums over all paths p from the input to an output; -inf where there is none."""

    l1: float  # of sum_p prod |w|
    l2: float  # of (sum_p prod w^2)^(1/2)
    trace: float  # of sum_p sum_{i in p} (prod w / w_i)^2


def norms(flow: Flow, backend: Backend) -> Norms:
    """Path norms and the path-kernel trace in one sweep.

    Beside f(v) = sum_u w_uv^2 f(u), over the routes into v, runs its derivative in the direction of all ones,
    g(v) = sum_u w_uv^2 g(u) + f(u): the sum of the derivatives in all w^2, which the trace is.
    """
    like = backend.prototype()
    into: dict[int, list[Link]] = {}
    for link in flow.links:
        into.setdefault(link.target, []).append(link)
    readers = Counter(link.source for link in flow.links)
    values: dict[int, tuple[Scaled | None, Scaled | None, Scaled | None]] = {}
    ends: tuple[list[Scaled], list[Scaled], list[Scaled]] = ([], [], [])
    for p in flow.order():
        one: list[Scaled] = []
        if p in flow.inputs:
            one.append(scaled(np.asarray(flow.inputs[p].astype(np.float64), like=like)))
        two, three = list(one), []
        for link in into.get(p, ()):
            x, y, z = values[link.source]
            if x is not None or y is not None:
                a, b, c = _step(backend, link, flow, x, y, z)
                one += a
                two += b
                three += c
            readers[link.source] -= 1
            if not readers[link.source]:
                del values[link.source]
        here = summed(one), summed(two), summed(three)
        if p in flow.outputs:
            mask = np.asarray(flow.outputs[p].astype(np.float64), like=like)
            for end, found in zip(ends, here, strict=True):
                if found is not None:
                    end.append(Scaled(found.values * mask, found.exponent))
        if readers[p]:
            values[p] = here
    l1, squares, trace = map(log_sum, ends)
    return Norms(l1, squares / 2, trace)


def _step(
    backend: Backend, link: Link, flow: Flow, x: Scaled | None, y: Scaled | None, z: Scaled | None
) -> tuple[list[Scaled], list[Scaled], list[Scaled]]:
    """What one link adds to f for |w|, to f for w^2 and to g at its target."""
    block, targets = link.local(flow.sets)[0], flow.sets[link.target].size

    def along(weights: Block, shift: int, *given: Scaled | None) -> list[list[Scaled]]:
        there = [v for v in given if v is not None]
        found = iter(_forward(backend, weights, there, targets, shift) if there else ())
        return [[next(found)] if v is not None else [] for v in given]

    if not link.weighted:
        a, b, c = along(block, 0, x, y, z)
        return a, b, c
    one: list[Scaled] = []
    two: list[Scaled] = []
    three: list[Scaled] = []
    for piece, top in _bands(block):
        one += along(piece, top, x)[0]
        b, c = along(piece._replace(weight=np.square(piece.weight)), 2 * top, y, z)
        two += b
        three += c
    three += along(block._replace(weight=np.ones_like(block.weight)), 0, y)[0]
    return one, two, three


def log_paths(flow: Flow, backend: Backend) -> float:
    """Natural logarithm of the number of paths in the graph with identity skips, -inf for none.

    Backward: c(u) = [u is an output] + sum of c(v) over the edges u -> v, each of them once.
    """
    like = backend.prototype()
    readers = Counter(link.target for link in flow.edges)
    out_of: dict[int, list[Link]] = {}
    for link in flow.edges:
        out_of.setdefault(link.source, []).append(link)
    values: dict[int, Scaled | None] = {}
    ends: list[Scaled] = []
    for p in reversed(flow.order()):
        if p >= flow.partitions:
            continue
        parts: list[Scaled] = []
        if p in flow.outputs:
            parts.append(scaled(np.asarray(flow.outputs[p].astype(np.float64), like=like)))
        for link in out_of.get(p, ()):
            if (x := values[link.target]) is not None:
                parts.append(_behind(backend, link, flow, x))
            readers[link.target] -= 1
            if not readers[link.target]:
                del values[link.target]
        here = summed(parts)
        if p in flow.inputs and here is not None:
            mask = np.asarray(flow.inputs[p].astype(np.float64), like=like)
            ends.append(Scaled(here.values * mask, here.exponent))
        if readers[p]:
            values[p] = here
    return log_sum(ends)


def _behind(backend: Backend, link: Link, flow: Flow, x: Scaled) -> Scaled:
    """Sums of x over the targets of a link's edges, for each source."""
    size = flow.sets[link.source].size
    block = link.local(flow.sets)[0]
    room = np.concatenate([np.zeros(size, like=x.values), x.values])
    if block.overlaps:
        found = backend.neighbour_sums(pair_adjacency(link, flow.sets), room)
    else:
        found = backend.operator([], [block._replace(weight=np.ones_like(block.weight))])(room)
    return scaled(found[:size], x.exponent)
