"""Sums of powers of weights times values over the edges of one block."""

from collections.abc import Sequence

import numpy as np

from mge_gpu.backends.adjacency import Block
from mge_gpu.backends.cpu import product


def power_sums(
    block: Block, x: np.ndarray, terms: Sequence[tuple[int, int, int]], size: int, backward: bool = False
) -> np.ndarray:
    """See `Backend.power_sums`. Rows of x that are zero take no time."""
    empty = np.zeros(size)
    sources = size if backward else x.shape[1]
    mine = slice(sources) if backward else slice(sources, None)
    block = block._replace(source_offset=0, target_offset=sources)
    out: list[np.ndarray] = [empty] * (1 + max(row for _, _, row in terms))
    for power in sorted({p for _, p, _ in terms}):
        there = [(k, row) for k, p, row in terms if p == power and x[k].max(initial=0) > 0]
        if there:
            blocks = [_raised(block, power)]
            apply = product.operator([], blocks) if backward else product.operator(blocks, [])
            for k, row in there:
                found = apply(np.concatenate([empty, x[k]] if backward else [x[k], empty]))[mine]
                out[row] = found if out[row] is empty else np.add(out[row], found, out=found)
    return out[0][None] if len(out) == 1 else np.stack(out)


def _raised(block: Block, power: int) -> Block:
    """A block with powers of the weights; squares of float32 are exact as float64."""
    if power == 1:
        return block
    w = block.weight
    return block._replace(weight=np.square(w, dtype=np.float64) if power else np.ones_like(w))
