"""Products with the adjacency: each node adds up what leads to it, over all blocks in one launch."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mge_gpu.backends.adjacency import Block
from mge_gpu.backends.cuda.positions import Geometry, geometry
from mge_gpu.backends.cuda.resident import Resident, resident_block, side_by_side
from mge_gpu.backends.cuda.runtime import Runtime
from mge_gpu.backends.cuda.shortage import Outcome, attempt


class Side(NamedTuple):
    """The nodes of a block that a direction writes or reads."""

    channel: np.ndarray  # (nonzeros,) int32
    offset: int
    stride: int

    @property
    def channels(self) -> int:
        """Channels that the nonzeros have."""
        return int(self.channel.max(initial=-1)) + 1


def sides(b: Block, ahead: bool) -> tuple[Side, Side]:
    """(written, read) of a block: targets and sources where x goes forward (``ahead``), else the reverse."""
    target = Side(b.target_channel, b.target_offset, b.target_channel_stride)
    source = Side(b.source_channel, b.source_offset, b.source_channel_stride)
    return (target, source) if ahead else (source, target)


class Leg(NamedTuple):
    """A block in one direction."""

    block: Block
    ahead: bool
    geometry: Geometry
    channels: int  # of the side that is written


class Entries(NamedTuple):
    """The weights of a leg on the device, by the channel that they lead to."""

    row_ptr: Any  # (channels + 1,) int64, into entry
    entry: Any  # (entries of several legs, 4) int32: ``struct Entry`` of kernels/gather.cu


def make_entries(runtime: Runtime, legs: Sequence[Leg]) -> list[Entries]:
    """The entries of legs of the same direction, made together."""
    xp, ahead, blocks = runtime.xp, legs[0].ahead, [leg.block for leg in legs]
    far, near = zip(*(sides(b, ahead) for b in blocks), strict=True)
    rows, taps, nonzeros = (
        np.cumsum([0, *sizes])
        for sizes in (
            [g.channels for g in legs],
            [len(b.pair_count) for b in blocks],
            [len(b.tap) for b in blocks],
        )
    )
    places = np.array([(side.offset, side.stride) for side in near], np.int64)
    parts = xp.asarray(np.column_stack([nonzeros[:-1], taps[:-1], rows[:-1], places]))
    tap_rows = xp.asarray(np.concatenate([np.column_stack(leg.geometry.taps) for leg in legs]))
    written, read, tap = (
        side_by_side(runtime, arrays, np.int32)
        for arrays in ([s.channel for s in far], [s.channel for s in near], [b.tap for b in blocks])
    )
    weight = side_by_side(runtime, [b.weight for b in blocks], np.float32)
    count = int(nonzeros[-1])
    given, threads = (parts, np.int64(len(legs)), np.int64(count)), runtime.threads(count)
    row, entry = xp.empty(count, np.int32), xp.empty((count, 4), np.int32)
    runtime.launch("gather", "output_rows", threads, *given, written, row)
    order = None if ahead else xp.argsort(row).astype(np.int64, copy=False)  # by target they are sorted
    runtime.launch("gather", "entries", threads, *given, read, tap, weight, order, tap_rows, entry)
    row = row if order is None else row[order]
    ptr = xp.searchsorted(row, xp.arange(rows[-1] + 1, dtype=np.int32)).astype(np.int64, copy=False)
    ends = rows.tolist()
    return [Entries(ptr[a : b + 1], entry) for a, b in zip(ends, ends[1:], strict=False)]


class Group(NamedTuple):
    """Legs that write rows of one geometry: node = offset + row * stride + position * step."""

    legs: list[Leg]
    offset: int
    stride: int
    step: int
    positions: int
    rows: int

    @property
    def end(self) -> int:
        """The node behind its last."""
        return self.offset + (self.rows - 1) * self.stride + (self.positions - 1) * self.step + 1


def grouped(legs: Sequence[Leg]) -> list[Group]:
    """Legs by the nodes that they write."""
    same: dict[tuple[int, int], list[Leg]] = {}
    for leg in legs:
        far, _ = sides(leg.block, leg.ahead)
        same.setdefault((far.offset, far.stride), []).append(leg)
    groups = []
    for (offset, stride), some in same.items():
        step = max(int(np.gcd.reduce([leg.geometry.step for leg in some])), 1)
        positions = max(leg.geometry.last for leg in some) // step + 1
        groups.append(Group(some, offset, stride, step, positions, max(leg.channels for leg in some)))
    return groups


def in_rounds(groups: Sequence[Group]) -> list[list[Group]]:
    """Groups that do not write to the same nodes go together."""
    rounds: list[list[Group]] = []
    for g in groups:
        for some in rounds:
            if all(g.offset >= other.end or other.offset >= g.end for other in some):
                some.append(g)
                break
        else:
            rounds.append([g])
    return rounds


class Gather:
    """The product over some legs as launches of one kernel; ``struct Group`` and ``Leg`` of the source."""

    def __init__(self, runtime: Runtime, groups: Sequence[Group], ready: dict[Any, Any]) -> None:
        self.runtime, self.launches = runtime, list[tuple[int, int]]()
        self.kept: list[Any] = []  # what the tables point to
        rows: list[list[int]] = []
        legs: list[list[int]] = []
        items = 0
        for some in in_rounds(groups):
            first = items
            for g in some:
                rows.append([items, len(legs), len(g.legs), g.offset, g.stride, g.step, g.positions])
                items += g.rows * runtime.threads(g.positions)
                legs += [self._leg(leg, g, ready) for leg in g.legs]
            self.launches.append((first, items - first))
        self.groups = len(rows)
        self.group, self.leg = (runtime.xp.asarray(np.array(t, np.int64)) for t in (rows, legs))

    def _leg(self, leg: Leg, g: Group, ready: dict[Any, Any]) -> list[int]:
        key = "table", id(leg.geometry), g.step, g.positions
        if key not in ready:
            ready[key] = leg.geometry, self.runtime.xp.asarray(leg.geometry.table(g.step, g.positions))
        arrays = *ready[id(leg.block), leg.ahead], ready[key][1]
        self.kept.append(arrays)
        return [*map(self.runtime.address, arrays), leg.channels, leg.geometry.taps.single]

    def add(self, x: Any, y: Any) -> None:
        """Add the product to y."""
        kernel = "gather_f32" if y.dtype == np.float32 else "gather_f64"
        for first, items in self.launches:
            self.runtime.launch(
                "gather", kernel, items, self.group, np.int64(self.groups), self.leg, np.int64(first),
                np.int64(items), x, y,
            )  # fmt: skip


class Operator:
    """x -> A^T x (towards targets) over some blocks plus A x over some.

    ``atomic``: blocks without tables, whose products are atomic additions. ``there`` makes an operator on the
    host, for when the device's memory turns out to be short.
    """

    def __init__(
        self,
        runtime: Runtime,
        gather: Gather | None,
        atomic: list[tuple[Resident, int, bool, bool]],
        dtype: Any,
        there: Callable[[], Callable[[Any], Any]],
    ) -> None:
        self.runtime, self.gather, self.atomic, self.dtype = runtime, gather, atomic, dtype
        self._there = there
        self._on_host: Callable[[Any], Any] | None = None

    @property
    def how(self) -> str:
        """Which engines were chosen."""
        if self._on_host is not None:
            return "on the CPU, for want of GPU memory"
        launches = len(self.gather.launches) if self.gather is not None else 0
        return f"gathered in {launches} launches, {len(self.atomic)} blocks by atomic additions"

    def __call__(self, x: Any) -> Any:
        """The product, (N,) of x's dtype."""
        with self.runtime.active():
            if self._on_host is None:
                y = attempt(self.runtime, lambda: self._product(x))
                if y is not Outcome.SHORT:
                    return y
                self.gather, self.atomic, self._on_host = None, [], self._there()
            return self._on_host(x)

    def _product(self, x: Any) -> Any:
        xp, wanted = self.runtime.xp, x.dtype
        x = xp.ascontiguousarray(x, self.dtype)
        y = xp.zeros(len(x), self.dtype)
        if self.gather is not None:
            self.gather.add(x, y)
        kernel = "product_f32" if self.dtype == np.float32 else "product_f64"
        for block, size, ahead, back in self.atomic:
            self.runtime.launch("product", kernel, size, block.table, np.bool_(ahead), np.bool_(back), x, y)
        return y.astype(wanted, copy=False)


def _planned(
    forward: Sequence[Block], backward: Sequence[Block], ready: dict[Any, Any]
) -> tuple[list[Group], dict[int, tuple[Block, bool, bool]]]:
    """The groups of legs; and blocks without a table, with the directions (forward, backward) to be added."""
    legs: list[Leg] = []
    left: list[tuple[Block, bool]] = []
    for ahead, blocks in ((True, forward), (False, backward)):
        for block in {id(b): b for b in blocks if len(b.tap)}.values():
            key = "geometry", id(block), ahead
            if key not in ready:
                ready[key] = geometry(block, ahead)
            if ready[key] is None:
                left.append((block, ahead))
            else:
                legs.append(Leg(block, ahead, ready[key], sides(block, ahead)[0].channels))
    groups = []
    for g in grouped(legs):
        fitting = [leg for leg in g.legs if leg.geometry.fits(g.positions)]
        left += [(leg.block, leg.ahead) for leg in g.legs if not leg.geometry.fits(g.positions)]
        if fitting:
            groups.append(g._replace(legs=fitting))
    others: dict[int, tuple[Block, bool, bool]] = {}
    for block, ahead in left:
        _, there, back = others.get(id(block), (block, False, False))
        others[id(block)] = block, there or ahead, back or not ahead
    return groups, others


def operator(
    runtime: Runtime,
    forward: Sequence[Block],
    backward: Sequence[Block],
    single: bool,
    prepared: dict[Any, Any] | None,
    there: Callable[[], Callable[[Any], Any]],
) -> Operator:
    """An operator over blocks; those that share ``prepared`` share what lies on the device."""
    ready: dict[Any, Any] = {} if prepared is None else prepared
    groups, others = _planned(forward, backward, ready)
    for ahead in (True, False):
        missing = [
            leg
            for g in groups
            for leg in g.legs
            if leg.ahead == ahead and (id(leg.block), ahead) not in ready
        ]
        if missing:
            made = make_entries(runtime, missing)
            ready.update({(id(leg.block), ahead): e for leg, e in zip(missing, made, strict=True)})
    atomic = []
    for key, (block, ahead, back) in others.items():
        if key not in ready:
            ready[key] = resident_block(runtime, block)
        atomic.append((ready[key], len(block.tap), ahead, back))
    gather = Gather(runtime, groups, ready) if groups else None
    return Operator(runtime, gather, atomic, np.float32 if single else np.float64, there)
