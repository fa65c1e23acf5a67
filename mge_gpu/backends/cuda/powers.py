"""Sums of powers of weights times values over the edges of one block."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mge_gpu.backends.adjacency import Block
from mge_gpu.backends.cuda.collect import Stage, collected, pays
from mge_gpu.backends.cuda.gather import Leg, sides
from mge_gpu.backends.cuda.positions import geometry
from mge_gpu.backends.cuda.resident import Resident, sharing
from mge_gpu.backends.cuda.runtime import Runtime

PAIRS = 1 << 21
"""Pairs of positions up to which it is looked at whether sums come first."""


class Staged(NamedTuple):
    """A block that reads sums in place of the nodes of another, and what makes them."""

    block: Block
    stage: Stage
    reads: int  # nodes from the first of the near side on, as far as any is read

    def sums(self, x: Any) -> Any:
        """The sums of x, the nodes of the near side from the first on."""
        return self.stage.beside(x)[: self.stage.size]


def staged(runtime: Runtime, block: Block, backward: bool, ready: dict[Any, Any]) -> Staged | None:
    """What `collect` makes of a block in one direction; None where that does not pay."""
    key = "staged", id(block), backward
    if key not in ready:
        ready[key] = None
        windows = block.pair_count.max(initial=0) > block.target_positions  # else a tap is a shift
        few = int(block.pair_count.sum()) <= PAIRS
        if windows and few and (pairs := geometry(block, not backward)) is not None:
            far, near = sides(block._replace(source_offset=0, target_offset=0), not backward, {})
            leg = Leg(block, not backward, far, near, pairs, block.tap)
            if pays(leg):
                reads = (near.channels - 1) * near.stride + int(pairs.near.max(initial=-1)) + 1
                ready[key] = Staged(_reading(leg, backward), Stage(runtime, [leg], ready), reads)
    found: Staged | None = ready[key]
    return found


def _reading(leg: Leg, backward: bool) -> Block:
    """The block of a leg that reads its sums."""
    sums, positions, step = collected(leg).near, leg.geometry.positions, leg.geometry.step
    steps = (1, step) if backward else (step, 1)
    side = "target" if backward else "source"
    fields: dict[str, Any] = {
        "tap": np.zeros_like(leg.tap),
        "run_ptr": np.array([0, 1]),
        "runs": np.array([[0, 0, positions, *steps]]),
        "pair_count": np.array([positions]),
        f"{side}_offset": 0,
        f"{side}_channel": sums.channel,
        f"{side}_channel_stride": sums.stride,
    }
    return leg.block._replace(**fields)


def power_sums(
    runtime: Runtime,
    block: Block,
    x: Any,
    terms: Sequence[tuple[int, int, int]],
    size: int,
    backward: bool,
    ready: dict[Any, Any],
    resident: Callable[[Block, dict[Any, Any]], Resident],
) -> Any:
    """See `Backend.power_sums`; ``resident`` brings a block to the device, as far as ``ready`` has none."""
    xp = runtime.xp
    x, first = xp.ascontiguousarray(x, np.float64), staged(runtime, block, backward, ready)
    if first is not None:
        block, x = first.block, np.stack([first.sums(row) for row in x])
    y = xp.zeros((1 + max(out for _, _, out in terms), size), np.float64)
    packed = sum((row | power << 4 | out << 8) << 12 * k for k, (row, power, out) in enumerate(terms))
    numbers = map(np.int64, (len(terms), packed, x.shape[1], size))
    table = resident(block, ready).table
    blocks = sharing(runtime, block)
    runtime.launch("powers", "power_sums", blocks, table, np.bool_(backward), *numbers, x, y)
    return y
