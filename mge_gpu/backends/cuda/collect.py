"""Sums of x that several weights read, made once before the weights (pools, all tokens of attention).

A tap that links a position to several of the other side makes every weight add up the same values. Where
there are more weights than sums, the sums of each channel read and tap come first, a value for each position
that is written, and the weights read these: at the position itself.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from mge_gpu.backends.cuda.positions import Geometry, Taps
from mge_gpu.backends.cuda.resident import uploaded
from mge_gpu.backends.cuda.runtime import Runtime

if TYPE_CHECKING:
    from mge_gpu.backends.cuda.gather import Leg

SHARED = 2
"""Weights for each sum from which on the sums come first."""

MOST = 1 << 26
"""Sums of a block at most."""

DEEP = 64
"""Values of a sum from which on several threads share it, `LANES`."""

LANES = 32


def pays(leg: "Leg") -> bool:
    """Whether a leg's sums come first: many weights read them, or each would add up many values alone."""
    taps = leg.geometry.taps
    sums = leg.near.channels * len(taps.first)
    wanted = SHARED * sums <= len(leg.block.tap) or int(taps.depth.max(initial=0)) >= DEEP
    return wanted and sums * leg.geometry.positions <= MOST and not taps.single


def collected(leg: "Leg") -> "Leg":
    """The leg that reads the sums: channel c * taps + t of them for tap t of channel c."""
    taps = len(leg.geometry.taps.first)
    near = replace(
        leg.near,
        channel=leg.near.channel * np.int32(taps) + leg.block.tap,
        offset=0,
        stride=leg.geometry.positions,
        layout=None,
    )
    same = in_place(leg.geometry.step, leg.geometry.positions)
    return leg._replace(near=near, geometry=same, tap=np.zeros_like(leg.block.tap), origin=leg)


@lru_cache(maxsize=256)
def in_place(step: int, positions: int) -> Geometry:
    """Each position with itself."""
    at = np.arange(positions, dtype=np.int32)
    one = np.ones(1, np.int64)
    return Geometry(Taps(0 * one, one), 0 * at, at * np.int32(step), at, step, step * (positions - 1))


class Stage:
    """Makes the sums of some legs: a vector [sums | x], and where each leg's sums begin.

    The tables are of ``struct Collected`` in ``kernels/gather.cu``.
    """

    def __init__(self, runtime: Runtime, legs: Sequence["Leg"], ready: dict[Any, Any]) -> None:
        self.runtime, self.begin, self.size = runtime, dict[tuple[Any, ...], int](), 0
        self.launches: list[tuple[Any, int, int, int, int]] = []  # table, legs, first sum, sums, lanes
        self.kept: list[Any] = []  # what the tables point to
        deep = [int(leg.geometry.taps.depth.max(initial=0)) >= DEEP for leg in legs]
        for lanes in (1, LANES):
            rows, first = [], self.size
            for leg in (leg for leg, many in zip(legs, deep, strict=True) if many == (lanes > 1)):
                rows.append([self.size, *self._tables(leg, ready)])
                self.begin[leg.key] = self.size
                self.size += leg.near.channels * len(leg.geometry.taps.first) * leg.geometry.positions
            if rows:
                table = runtime.xp.asarray(np.array(rows, np.int64))
                self.launches.append((table, len(rows), first, self.size - first, lanes))

    def beside(self, x: Any) -> Any:
        """[sums | x], (size + N,) of x's dtype."""
        values = self.runtime.xp.empty(self.size + len(x), x.dtype)
        values[self.size :] = x
        self.collect(values)
        return values

    def collect(self, values: Any) -> None:
        """Fill in the sums of (size + N,), whose x is there."""
        kernel = "collect_f32" if values.dtype == np.float32 else "collect_f64"
        for table, legs, first, count, lanes in self.launches:
            numbers = (np.int64(n) for n in (legs, first, count, self.size))
            blocks = self.runtime.threads(count * lanes)
            self.runtime.launch("gather", kernel, blocks, table, *numbers, np.int32(lanes), values)

    def _tables(self, leg: "Leg", ready: dict[Any, Any]) -> list[int]:
        """(table, rows of each tap, taps, positions, offset, stride) of a leg; ``ready`` keeps the arrays."""
        key = "collected", id(leg.geometry)
        if key not in ready:
            table = leg.geometry.table(max(leg.geometry.step, 1), leg.geometry.positions)
            taps = np.column_stack(leg.geometry.taps)
            ready[key] = leg.geometry, [uploaded(self.runtime, a) for a in (table, taps)]
        arrays = ready[key][1]
        self.kept.append(arrays)
        at = map(self.runtime.address, arrays)
        return [*at, len(leg.geometry.taps.first), leg.geometry.positions, leg.near.offset, leg.near.stride]
