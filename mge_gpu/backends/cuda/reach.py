"""Marks passed along the edges of one block, and the weights between marked nodes."""

from collections.abc import Callable
from typing import Any

import numpy as np

from mge_gpu.backends.adjacency import Block
from mge_gpu.backends.cuda.powers import staged
from mge_gpu.backends.cuda.resident import Resident, sharers, sharing
from mge_gpu.backends.cuda.runtime import Runtime

FEW = 8
"""Threads that look for the first pair of a nonzero, at most: most have one among the first pairs."""


def reach(
    runtime: Runtime,
    block: Block,
    marks: Any,
    backward: bool,
    ready: dict[Any, Any],
    resident: Callable[[Block, dict[Any, Any]], Resident],
) -> Any:
    """See `Backend.reach`; ``resident`` brings a block to the device, as far as ``ready`` has none.

    What a window or all tokens hold is looked at once, before all that read it: as sums of marks.
    """
    first, x = staged(runtime, block, backward, ready), marks
    if first is not None:
        near = block.target_offset if backward else block.source_offset
        block, x = first.block, first.sums(marks[near : near + first.reads].astype(np.float64)) > 0
    table = resident(block, ready).table
    runtime.launch("reach", "reach", sharing(runtime, block), table, np.bool_(backward), x, marks)
    return marks


def between(runtime: Runtime, block: Block, before: Any, behind: Any, resident: Resident) -> Any:
    """See `Backend.between`; ``resident`` is the block on the device."""
    out, together = runtime.xp.zeros(len(block.tap), np.bool_), min(sharers(block), FEW)
    blocks, marks = runtime.threads(len(block.tap) * together), (before, behind)
    runtime.launch("reach", "between", blocks, resident.table, np.int64(together), *marks, out)
    return out
