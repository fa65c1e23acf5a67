"""Edges written down on the device: the nonzeros of many blocks side by side, in a few launches."""

import weakref
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from mge_gpu.backends.adjacency import Block
from mge_gpu.backends.cuda.resident import BLOCK_NUMBERS, side_by_side, uploaded
from mge_gpu.backends.cuda.runtime import Runtime
from mge_gpu.backends.cuda.shortage import Outcome, attempt
from mge_gpu.errors import NotEnoughMemoryError

Edges = tuple[Any, Any, Any]

TOGETHER = 1 << 26
"""Nonzeros that lie on the device at a time (24 bytes each), but for a block that has more."""

MERGED = 1 << 26
"""Pairs that are merged at a time where several nonzeros may lead to one edge (about 90 bytes each)."""

FEWEST = 1 << 16
"""Pairs below which a piece is not cut where memory is short."""

KEPT = 1 << 25
"""Nonzeros that stay on the device for the next call, at most: 800 MB, or a twentieth of what is free."""

EACH = 16
"""Edges that a thread writes: twice ``ITEMS`` of ``kernels/coo.cu``."""

COLUMNS = ("target_channel", "source_channel", "tap")


class Filler:
    """The pairs of some blocks, block by block, nonzero by nonzero."""

    def __init__(self, runtime: Runtime, blocks: Sequence[Block]) -> None:
        xp, self.runtime = runtime.xp, runtime
        taps = np.cumsum([0, *(len(b.pair_count) for b in blocks)])
        nonzeros = np.cumsum([0, *(len(b.tap) for b in blocks)])
        runs = np.concatenate([b.runs for b in blocks])
        places = [tuple(getattr(b, name) for name in BLOCK_NUMBERS) for b in blocks]
        tables = (
            np.column_stack([nonzeros[:-1], taps[:-1], np.array(places, np.int64)]).ravel(),
            np.concatenate([b.pair_count for b in blocks]),
            np.concatenate([[0], np.concatenate([np.diff(b.run_ptr) for b in blocks]).cumsum()]),
            np.concatenate([[0], runs[:, 2].cumsum()]),
        )
        ends = np.cumsum([len(t) for t in tables])[:-1]
        table = uploaded(runtime, np.concatenate(tables).astype(np.int64, copy=False))  # all at once
        part, pair_count, self.run_ptr, self.run_start = (
            table[a:b] for a, b in zip([0, *ends], [*ends, None], strict=True)
        )
        self.run = uploaded(runtime, np.asarray(runs[:, [0, 1, 3, 4]], np.int32))
        self.columns = [side_by_side(runtime, [getattr(b, c) for b in blocks], np.int32) for c in COLUMNS]
        weight = side_by_side(runtime, [b.weight for b in blocks], np.float32)
        self.weights = {weight.dtype: weight}
        self.nonzeros = int(nonzeros[-1])
        pairs = xp.empty(self.nonzeros + 1, np.int64)
        runtime.launch(
            "coo", "place", runtime.threads(self.nonzeros), part, np.int64(len(blocks)),
            np.int64(self.nonzeros), *self.columns, pair_count, pairs,
        )  # fmt: skip
        self.start = xp.cumsum(pairs)  # pairs before each nonzero, and in all
        self.size = int(self.start[-1])

    def fill(self, first: int, edges: Edges) -> None:
        """Write pairs from number ``first`` on until the three arrays are full."""
        ids, floats, count = edges[0].dtype, edges[2].dtype, len(edges[0])
        if floats not in self.weights:
            self.weights[floats] = self.weights[np.dtype(np.float32)].astype(floats)
        kernel = f"fill_i{8 * ids.itemsize}_f{8 * floats.itemsize}"
        self.runtime.launch(
            "coo", kernel, self.runtime.threads(-(-count // EACH)), *self.columns, self.weights[floats],
            self.start, self.run_ptr, self.run_start, self.run, np.uint32(self.nonzeros), np.int64(first),
            np.int64(count), *edges,
        )  # fmt: skip

    def made(self, first: int, last: int, ids: Any = np.int64, floats: Any = np.float32) -> Edges:
        """Pairs ``first`` to ``last``, with node ids of type ``ids`` and weights of type ``floats``."""
        edges = _empty(self.runtime, last - first, ids, floats)
        self.fill(first, edges)
        return edges


class Kept:
    """The nonzeros that were written down last stay on the device as long as their blocks live."""

    def __init__(self) -> None:
        self.clear()

    def clear(self, _: Any = None) -> None:
        """Give the memory back."""
        self._numbers: list[Any] = []
        self._arrays: list[weakref.ref[np.ndarray]] = []
        self._filler: Filler | None = None

    def filler(self, runtime: Runtime, blocks: Sequence[Block]) -> Filler:
        """The filler of some blocks: the last one where it is of the same."""
        fields = [field for b in blocks for field in b]
        arrays = [x for x in fields if isinstance(x, np.ndarray)]
        numbers = [x for x in fields if not isinstance(x, np.ndarray)]
        same = len(arrays) == len(self._arrays) and numbers == self._numbers
        if (
            self._filler is None
            or not same
            or any(r() is not a for r, a in zip(self._arrays, arrays, strict=True))
        ):
            self.clear()  # the old one makes room first
            filler = Filler(runtime, blocks)
            memory = runtime.available_memory()
            if filler.nonzeros > (KEPT if memory is None else min(KEPT, memory // 512)):
                return filler
            self._numbers, self._filler = numbers, filler
            self._arrays = [weakref.ref(a, self.clear) for a in arrays]
        return self._filler


def _empty(runtime: Runtime, size: int, ids: Any, floats: Any) -> Edges:
    source, target, weight = (runtime.xp.empty(size, t) for t in (ids, ids, floats))
    return source, target, weight


def _part(edges: Edges, first: int, last: int) -> Edges:
    source, target, weight = (a[first:last] for a in edges)
    return source, target, weight


def _batches(blocks: Sequence[Block], limit: int) -> Iterator[list[Block]]:
    """Blocks one after another, of at most ``limit`` nonzeros together unless a single one has more."""
    batch, held = list[Block](), 0
    for block in blocks:
        if batch and held + len(block.tap) > limit:
            yield batch
            batch, held = [], 0
        batch.append(block)
        held += len(block.tap)
    if batch:
        yield batch


def _short(size: int) -> NotEnoughMemoryError:
    return NotEnoughMemoryError(f"a piece of {size:,} edges does not fit the GPU's memory")


def _ready(runtime: Runtime, blocks: Sequence[Block]) -> Filler:
    filler = attempt(runtime, lambda: Filler(runtime, blocks))
    if filler is Outcome.SHORT:
        nonzeros = sum(len(b.tap) for b in blocks)
        raise NotEnoughMemoryError(f"a block of {nonzeros:,} weights does not fit the GPU's memory")
    return filler


def _plain_pieces(
    runtime: Runtime, blocks: Sequence[Block], limit: int, ids: Any, floats: Any
) -> Iterator[Edges]:
    """Pieces of at most ``limit`` edges, fewer where memory is short; no two nonzeros meet in one edge."""
    for batch in _batches(blocks, max(limit, FEWEST)):
        filler = _ready(runtime, batch)
        at, size = 0, filler.size
        while at < size:
            last = min(size, at + limit)
            edges = attempt(runtime, partial(filler.made, at, last, ids, floats))
            if edges is Outcome.SHORT:
                if limit <= FEWEST:
                    raise _short(last - at)
                limit = max(FEWEST, (last - at) // 2)
                continue
            at = last
            yield edges


def _merged_pieces(runtime: Runtime, block: Block, limit: int, ids: Any, floats: Any) -> Iterator[Edges]:
    """Pieces of at most ``limit`` pairs, or of the nonzeros of one edge, with equal edges merged."""
    order = np.lexsort((block.source_channel, block.target_channel))  # what may meet comes together
    fields: dict[str, Any] = {name: getattr(block, name)[order] for name in (*COLUMNS, "weight")}
    block = block._replace(**fields)
    cell = np.diff(block.target_channel) | np.diff(block.source_channel)
    start = np.concatenate([[0], np.cumsum(block.pair_count[block.tap])])
    bounds = start[np.concatenate([[0], np.flatnonzero(cell) + 1, [len(block.tap)]])]
    filler = _ready(runtime, [block])
    at = 0
    while at < len(bounds) - 1:
        most = int(np.searchsorted(bounds, bounds[at] + limit, side="right"))
        after = max(at + 1, most - 1)
        first, last = int(bounds[at]), int(bounds[after])
        edges = attempt(runtime, lambda: _merged(runtime, ids, floats, *filler.made(first, last)))  # noqa: B023
        if edges is Outcome.SHORT:
            if limit <= FEWEST or after == at + 1:
                raise _short(last - first)
            limit = max(FEWEST, (last - first) // 2)
            continue
        at = after
        yield edges


def _merged(runtime: Runtime, ids: Any, floats: Any, source: Any, target: Any, weight: Any) -> Edges:
    """Equal edges become one, with the sum of their weights in float64."""
    xp = runtime.xp
    key = target << 31 | source  # node ids are 32-bit
    distinct, back = xp.unique(key, return_inverse=True)
    wide = _as(runtime, np.float64, weight)
    total = xp.bincount(back.ravel(), weights=wide, minlength=len(distinct))
    source, target = (x.astype(ids, copy=False) for x in (distinct & (1 << 31) - 1, distinct >> 31))
    return source, target, _as(runtime, np.float32, total).astype(floats, copy=False)  # as the CPU rounds


def _as(runtime: Runtime, dtype: Any, x: Any) -> Any:
    """x in another precision, by torch: CuPy makes 0 of numbers below 1.2e-38 on the way."""
    out = runtime.xp.empty(len(x), dtype)
    runtime.tensor(out).copy_(runtime.tensor(x))
    return out


def _sorted_out(blocks: Sequence[Block]) -> tuple[list[Block], list[Block]]:
    """Blocks with nonzeros: those whose edges are their pairs, and those in which several may meet."""
    held = [b for b in blocks if len(b.tap)]
    return [b for b in held if not b.overlaps], [b for b in held if b.overlaps]


def coo_chunks(
    runtime: Runtime, blocks: Sequence[Block], limit: int, ids: Any, floats: Any
) -> Iterator[Edges]:
    """Every edge once, in pieces of at most ``limit``."""
    plain, meeting = _sorted_out(blocks)
    yield from _plain_pieces(runtime, plain, limit, ids, floats)
    for block in meeting:
        for edges in _merged_pieces(runtime, block, limit, ids, floats):
            for k in range(0, len(edges[0]), limit):
                yield _part(edges, k, k + limit)


def coo(runtime: Runtime, blocks: Sequence[Block], kept: Kept, ids: Any, floats: Any) -> Edges:
    """Every edge once: source and target of type ``ids``, weight of type ``floats``, block by block.

    Edges go straight to their place; only those of blocks in which several nonzeros may lead to one edge are
    merged before that, and stand at the end.
    """
    plain, meeting = _sorted_out(blocks)
    extra = [part for block in meeting for part in _merged_pieces(runtime, block, MERGED, ids, floats)]
    batches = list(_batches(plain, TOGETHER))
    filler = kept.filler(runtime, batches[0]) if batches else None
    sizes = [filler.size] if filler is not None else []
    sizes += [sum(int(b.pair_count[b.tap].sum()) for b in batch) for batch in batches[1:]]
    edges = _empty(runtime, sum(sizes) + sum(len(part[0]) for part in extra), ids, floats)
    at = 0
    for batch, size in zip(batches, sizes, strict=True):
        filler = filler or Filler(runtime, batch)
        filler.fill(0, edges if size == len(edges[0]) else _part(edges, at, at + size))
        filler, at = None, at + size  # one batch at a time
    while extra:
        part = extra.pop(0)
        for whole, values in zip(_part(edges, at, at + len(part[0])), part, strict=True):
            whole[:] = values
        at += len(part[0])
    return edges
