"""Products by gathering: each node adds up what leads to it, over all blocks in one launch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from mge_gpu.backends.adjacency import Block
from mge_gpu.backends.cuda import dense
from mge_gpu.backends.cuda.collect import Stage, collected, pays
from mge_gpu.backends.cuda.positions import Geometry, Layout, geometry, layouts_of, says_itself
from mge_gpu.backends.cuda.resident import side_by_side, uploaded
from mge_gpu.backends.cuda.runtime import Runtime


@dataclass(frozen=True, eq=False)
class Side:
    """The nodes of a block that a direction writes or reads: offset + channel * stride + the position's."""

    channel: np.ndarray  # (nonzeros,) int32
    offset: int
    stride: int
    layout: Layout | None  # where channels run fastest by the graph's numbers; here positions do

    @cached_property
    def channels(self) -> int:
        """Channels that the nonzeros have; all of them are looked at, once."""
        return int(self.channel.max(initial=-1)) + 1


def sides(b: Block, ahead: bool, layouts: Mapping[int, Layout]) -> tuple[Side, Side]:
    """(written, read) of a block: targets and sources where x goes forward (``ahead``), else the reverse."""

    def side(channel: np.ndarray, offset: int, stride: int) -> Side:
        layout = layouts.get(offset)
        return Side(channel, offset, stride if layout is None else stride * layout.positions, layout)

    target = side(b.target_channel, b.target_offset, b.target_channel_stride)
    source = side(b.source_channel, b.source_offset, b.source_channel_stride)
    return (target, source) if ahead else (source, target)


class Leg(NamedTuple):
    """A block in one direction."""

    block: Block
    ahead: bool
    far: Side
    near: Side
    geometry: Geometry
    tap: np.ndarray  # (nonzeros,) int32, of the geometry
    origin: "Leg | None" = None  # of a leg that reads sums: what these are of

    @property
    def key(self) -> tuple[Any, ...]:
        """What its entries depend on."""
        return id(self.block), self.ahead, self.near.layout, self.origin is None

    @property
    def edges(self) -> int:
        """Products that are added up."""
        if self.origin is not None:
            return len(self.tap) * self.geometry.positions
        return int(self.block.pair_count[self.tap].sum())


class Entries(NamedTuple):
    """The weights of a leg on the device, by the channel that they lead to."""

    row_ptr: Any  # (channels + 1,) int64, into entry
    entry: Any  # (entries of several legs, 4) int32: ``struct Entry`` of kernels/gather.cu


def make_entries(runtime: Runtime, legs: Sequence[Leg]) -> list[Entries]:
    """The entries of legs of the same direction, made together."""
    xp = runtime.xp
    sizes = [(leg.far.channels, len(leg.geometry.taps.first), len(leg.tap)) for leg in legs]
    rows, taps, nonzeros = np.cumsum([(0, 0, 0), *sizes], 0).T
    places = np.array([(leg.near.offset, leg.near.stride) for leg in legs], np.int64)
    parts = np.column_stack([nonzeros[:-1], taps[:-1], rows[:-1], places])
    tap_rows = np.concatenate([np.column_stack(leg.geometry.taps) for leg in legs])
    parts, tap_rows = (xp.asarray(np.ascontiguousarray(a)) for a in (parts, tap_rows))
    written, read, tap = (
        side_by_side(runtime, arrays, np.int32)
        for arrays in zip(*((g.far.channel, g.near.channel, g.tap) for g in legs), strict=True)
    )
    weight = side_by_side(runtime, [leg.block.weight for leg in legs], np.float32)
    count = int(nonzeros[-1])
    given, threads = (parts, np.int64(len(legs)), np.int64(count)), runtime.threads(count)
    row, entry = xp.empty(count, np.int32), xp.empty((count, 4), np.int32)
    runtime.launch("gather", "output_rows", threads, *given, written, row)
    order = None  # forward: nonzeros are sorted by target channel
    if not legs[0].ahead:
        order = xp.argsort(row).astype(np.int64, copy=False)
    runtime.launch("gather", "entries", threads, *given, read, tap, weight, order, tap_rows, entry)
    row = row if order is None else row[order]
    ptr = xp.searchsorted(row, xp.arange(int(rows[-1]) + 1, dtype=np.int32)).astype(np.int64, copy=False)
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

    @property
    def cost(self) -> float:
        """Sums for a row, roughly. What takes longest begins first."""
        return sum(len(leg.tap) for leg in self.legs) * self.positions / self.rows


def grouped(legs: Sequence[Leg]) -> list[Group]:
    """Legs by the nodes that they write."""
    same: dict[tuple[int, int], list[Leg]] = {}
    for leg in legs:
        same.setdefault((leg.far.offset, leg.far.stride), []).append(leg)
    groups = []
    for (offset, stride), some in same.items():
        step = max(int(np.gcd.reduce([leg.geometry.step for leg in some])), 1)
        positions = max(leg.geometry.last for leg in some) // step + 1
        groups.append(Group(some, offset, stride, step, positions, max(leg.far.channels for leg in some)))
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
    """The product over some legs as launches of one kernel; ``struct Group`` and ``Leg`` of the source.

    Those of ``products`` are added as dense products, between the same turns.
    """

    def __init__(
        self,
        runtime: Runtime,
        groups: Sequence[Group],
        products: Sequence[dense.Dense],
        ready: dict[Any, Any],
    ) -> None:
        self.runtime, self.launches = runtime, list[tuple[int, int]]()
        every = [leg for g in groups for leg in g.legs] + [product.leg for product in products]
        self.stage = Stage(runtime, [leg.origin for leg in every if leg.origin is not None], ready)
        self.kept: list[Any] = []  # what the tables point to
        rows: list[list[int]] = []
        legs: list[list[int]] = []
        items = 0
        for some in in_rounds(groups):
            first = items
            for g in sorted(some, key=lambda g: g.cost / runtime.threads(g.positions), reverse=True):
                rows.append([items, len(legs), len(g.legs), g.offset, g.stride, g.step, g.positions])
                items += g.rows * runtime.threads(g.positions)
                legs += [self._leg(leg, g, ready) for leg in g.legs]
            self.launches.append((first, items - first))
        self.groups = len(rows)
        self.group, self.leg = (runtime.xp.asarray(np.array(t, np.int64)) for t in (rows, legs))
        self.dense = [(product, self._begin(product.leg)) for product in products]
        sides = [side for leg in every for side in (leg.far, (leg.origin or leg).near)]
        turned = sorted({(side.offset, *side.layout) for side in sides if side.layout is not None})
        self.turned: Any = runtime.xp.asarray(np.array(turned, np.int64)) if turned else None

    def _leg(self, leg: Leg, g: Group, ready: dict[Any, Any]) -> list[int]:
        key = "table", id(leg.geometry), g.step, g.positions
        if key not in ready:
            table = leg.geometry.table(g.step, g.positions)
            ready[key] = leg.geometry, uploaded(self.runtime, table), says_itself(table, g.positions)
        _, table, same = ready[key]
        arrays = *ready[leg.key], table
        self.kept.append(arrays)
        numbers = leg.far.channels, leg.geometry.taps.single, same, self._begin(leg)
        return [*map(self.runtime.address, arrays), *numbers]

    def _begin(self, leg: Leg) -> int:
        """Where in [sums | x] what a leg reads begins."""
        return self.stage.size if leg.origin is None else self.stage.begin[leg.origin.key]

    def __call__(self, x: Any, out: Any) -> Any:
        """The product, (N,) float32 or float64 as x is, in ``out``."""
        y = out if self.turned is None else self.runtime.xp.empty_like(out)
        y[:] = 0
        x = self._read(x)
        for first, items in self.launches:
            self._launch("gather", items, self.group, self.groups, self.leg, first, items, x, y)
        if self.dense:
            dense.add(self.dense, self.runtime.tensor(x), self.runtime.tensor(y))
        return out if self.turned is None else self._turn(y, True, out)

    def _read(self, x: Any) -> Any:
        """What legs read, [sums | x]: with positions running fastest in all partitions."""
        if self.turned is None:
            return self.stage.beside(x) if self.stage.size else x
        values = self.runtime.xp.empty(self.stage.size + len(x), x.dtype)
        self._turn(x, False, values[self.stage.size :])
        self.stage.collect(values)
        return values

    def _turn(self, x: Any, back: bool, out: Any) -> Any:
        """x with positions running fastest in all partitions; or ``back``."""
        n = len(x)
        self._launch("turn", self.runtime.threads(n), self.turned, len(self.turned), n, back, x, out)
        return out

    def _launch(self, kernel: str, blocks: int, *args: Any) -> None:
        kernel += "_f32" if args[-1].dtype == np.float32 else "_f64"
        of = {int: np.int64, bool: np.bool_}
        self.runtime.launch("gather", kernel, blocks, *(of.get(type(a), lambda x: x)(a) for a in args))


class Plan(NamedTuple):
    """How a product goes."""

    groups: list[Group]  # gathered
    dense: list[Leg]
    atomic: dict[int, tuple[Block, bool, bool]]  # blocks without a table, and the directions to be added


def planned(
    forward: Sequence[Block],
    backward: Sequence[Block],
    itemsize: int,
    ready: dict[Any, Any],
    engine: str | None = None,
) -> Plan:
    """How each block goes, with vectors of ``itemsize`` bytes a number; ``ready`` keeps what is found.

    ``engine``: "dense" or "sparse" for all blocks for which there is a choice; None: the faster one of each.
    """
    layouts = layouts_of([*forward, *backward])
    legs: list[Leg] = []
    left: list[tuple[Block, bool]] = []
    for ahead, blocks in ((True, forward), (False, backward)):
        for block in {id(b): b for b in blocks if len(b.tap)}.values():
            far, near = sides(block, ahead, layouts)
            key = "geometry", id(block), ahead, far.layout, near.layout
            if key not in ready:
                ready[key] = geometry(block, ahead, far.layout, near.layout)
            if ready[key] is None:
                left.append((block, ahead))
            else:
                leg = Leg(block, ahead, far, near, ready[key], block.tap)
                legs.append(collected(leg) if pays(leg) else leg)
    chosen = [dense.pays(leg, itemsize) if engine is None else engine == "dense" for leg in legs]
    plan = Plan([], [leg for leg, there in zip(legs, chosen, strict=True) if there], {})
    for g in grouped([leg for leg, there in zip(legs, chosen, strict=True) if not there]):
        fitting = [leg for leg in g.legs if leg.geometry.fits(g.positions)]
        left += [(leg.block, leg.ahead) for leg in g.legs if not leg.geometry.fits(g.positions)]
        if fitting:
            plan.groups.append(g._replace(legs=fitting))
    for block, ahead in left:
        _, there, back = plan.atomic.get(id(block), (block, False, False))
        plan.atomic[id(block)] = block, there or ahead, back or not ahead
    return plan
