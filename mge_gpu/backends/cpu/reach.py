"""Which nodes an edge leads to, and which weights lie between marked nodes; each pass ends where it can."""

from typing import NamedTuple

import numpy as np

from mge_gpu.backends.adjacency import Block
from mge_gpu.backends.cpu.jit import jit_in_place
from mge_gpu.backends.cpu.threads import call, evenly, num_threads, run


class Side(NamedTuple):
    """Source or target of a block: node = offset + channel * stride + an entry of a run."""

    channel: np.ndarray  # (nonzeros,) int32
    offset: int
    stride: int
    first: int  # column of `Block.runs` where runs begin
    step: int  # and of their steps


def sides(b: Block) -> tuple[Side, Side]:
    """(source, target) of a block."""
    return (
        Side(b.source_channel, b.source_offset, b.source_channel_stride, 1, 4),
        Side(b.target_channel, b.target_offset, b.target_channel_stride, 0, 3),
    )


def furthest(side: Side, runs: np.ndarray) -> int:
    """The largest entry of all runs, -1 where there are none."""
    last = runs[:, side.first] + (runs[:, 2] - 1) * runs[:, side.step]
    return int(np.maximum(runs[:, side.first], last).max(initial=-1))


@jit_in_place
def _cover(runs: np.ndarray, first: int, step: int, there: np.ndarray) -> None:
    for r in range(len(runs)):
        for j in range(runs[r, 2]):
            there[runs[r, first] + j * runs[r, step]] = True


@jit_in_place
def _count(
    channels: int, offset: int, stride: int, places: np.ndarray, x: np.ndarray, out: np.ndarray
) -> None:
    for c in range(channels):
        base = offset + c * stride
        for k in range(len(places)):
            if x[base + places[k]]:
                out[c] += 1


def _marked(side: Side, runs: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, int]:
    """((channels,) int64: marked nodes of each channel among those that runs reach, how many these are)."""
    there = np.zeros(furthest(side, runs) + 1, np.bool_)
    _cover(runs, side.first, side.step, there)
    places = np.flatnonzero(there)
    count = np.zeros(int(side.channel.max(initial=-1)) + 1, np.int64)
    _count(len(count), side.offset, side.stride, places, x, count)
    return count, len(places)


@jit_in_place
def _spread(
    near: Side,
    far: Side,
    tap: np.ndarray,
    run_ptr: np.ndarray,
    runs: np.ndarray,
    there: np.ndarray,
    left: np.ndarray,
    marks: np.ndarray,
) -> None:
    for k in range(len(tap)):
        a, b = near.channel[k], far.channel[k]
        if there[a] == 0 or left[b] == 0:
            continue
        s0, t0 = near.offset + a * near.stride, far.offset + b * far.stride
        for r in range(run_ptr[tap[k]], run_ptr[tap[k] + 1]):
            s, t = s0 + runs[r, near.first], t0 + runs[r, far.first]
            for _ in range(runs[r, 2]):
                if marks[s] and not marks[t]:
                    marks[t] = True
                    left[b] -= 1
                s += runs[r, near.step]
                t += runs[r, far.step]


def reach(b: Block, marks: np.ndarray, backward: bool = False) -> None:
    """Mark the nodes that an edge leads to from a marked one, or (``backward``) comes from; marks (N,) bool.

    A channel whose nodes are all reached is passed over, so that mostly each node costs a few steps.
    """
    near, far = sides(b)[::-1] if backward else sides(b)
    there, _ = _marked(near, b.runs, marks)
    reached, count = _marked(far, b.runs, marks)
    call(_spread, near, far, b.tap, b.run_ptr, b.runs, there, count - reached, marks)


@jit_in_place
def _between(
    source: Side,
    target: Side,
    tap: np.ndarray,
    run_ptr: np.ndarray,
    runs: np.ndarray,
    there: np.ndarray,
    beyond: np.ndarray,
    before: np.ndarray,
    behind: np.ndarray,
    first: int,
    last: int,
    out: np.ndarray,
) -> None:
    for k in range(first, last):
        a, b = source.channel[k], target.channel[k]
        if there[a] == 0 or beyond[b] == 0:
            continue
        s0, t0 = source.offset + a * source.stride, target.offset + b * target.stride
        for r in range(run_ptr[tap[k]], run_ptr[tap[k] + 1]):
            s, t = s0 + runs[r, source.first], t0 + runs[r, target.first]
            for _ in range(runs[r, 2]):
                if before[s] and behind[t]:
                    out[k] = True
                    break
                s += runs[r, source.step]
                t += runs[r, target.step]
            if out[k]:
                break


def between(b: Block, before: np.ndarray, behind: np.ndarray) -> np.ndarray:
    """(nonzeros,) bool: whether a nonzero has an edge from a node of ``before`` to one of ``behind``."""
    source, target = sides(b)
    there, _ = _marked(source, b.runs, before)
    beyond, _ = _marked(target, b.runs, behind)
    out = np.zeros(len(b.tap), np.bool_)
    cuts = evenly(len(out), num_threads() if len(out) > 1 << 16 else 1)
    fixed = source, target, b.tap, b.run_ptr, b.runs, there, beyond, before, behind
    run(lambda k: _between(*fixed, cuts[k], cuts[k + 1], out), len(cuts) - 1)
    return out
