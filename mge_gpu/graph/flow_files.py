"""The flow of a graph as JSON and arrays, for its file."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from mge_gpu.backends.adjacency import FLAT, OWN, Block
from mge_gpu.graph.blocks import Placed, block_positions
from mge_gpu.graph.checks import sound_block, sound_partitions
from mge_gpu.graph.flow import Flow, Link
from mge_gpu.graph.positions import PositionMap
from mge_gpu.tracing.program import Partition

Arrays = dict[str, Any]


def pack_block(name: str, block: Block, arrays: Arrays) -> dict[str, Any]:
    """Put a block's arrays under ``name``; returns its numbers."""
    fields = block._asdict()
    arrays |= {f"{name}.{f}": v for f, v in fields.items() if isinstance(v, np.ndarray)}
    return {f: v for f, v in fields.items() if not isinstance(v, np.ndarray)}


def unpack_block(name: str, numbers: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Block:
    """The block that `pack_block` put under ``name``; KeyError or TypeError where a part of it is missing."""
    if "flat" in numbers:  # format 3
        numbers = {**numbers, "view": FLAT if numbers["flat"] else OWN}
    found: dict[str, Any] = {f: numbers[f] if f in numbers else arrays[f"{name}.{f}"] for f in Block._fields}
    return Block(**found)


def unpack_partition(head: Mapping[str, Any]) -> Partition:
    """A partition from its entries."""
    return Partition(head["name"], tuple(head["shape"]), head["offset"], head["channel_dim"])


def pack_flow(flow: Flow, arrays: Arrays) -> dict[str, Any]:
    """Put what the graph's blocks do not say among the arrays; returns the rest, for JSON."""
    head: dict[str, Any] = {
        "weights": flow.weights,
        "inner": [asdict(s) for s in flow.sets[flow.partitions :]],
        "links": _pack_links("link", flow.links, arrays),
        "edges": _pack_links("edge", flow.edges, arrays),
    }
    for side in ("inputs", "outputs"):
        masks: dict[int, np.ndarray] = getattr(flow, side)
        head[side] = sorted(masks)
        arrays |= {f"{side}.{p}": np.packbits(mask) for p, mask in masks.items()}
    return head


def _pack_links(name: str, links: Sequence[Link], arrays: Arrays) -> list[dict[str, Any]]:
    heads = []
    for k, link in enumerate(links):
        numbers = {} if link.number is not None else pack_block(f"{name}.{k}", link.make()[0], arrays)
        if link.entry is not None:
            arrays[f"{name}.{k}.entry"] = link.entry
        about = {f: getattr(link, f) for f in ("source", "target", "weighted", "number")}
        heads.append({**numbers, **about, "entry": link.entry is not None})
    return heads


def unpack_flow(
    head: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    partitions: Sequence[Partition],
    placed: Sequence[Placed],
) -> Flow:
    """The flow that `pack_flow` wrote. Raises ValueError (or KeyError, TypeError) where it is not sound."""
    sets = (*partitions, *map(unpack_partition, head["inner"]))
    weights = head["weights"]
    if not sound_partitions(sets, [*head["inputs"], *head["outputs"]]) or not isinstance(weights, int):
        raise ValueError("its node sets contradict each other")

    def links(name: str, those: Sequence[Mapping[str, Any]]) -> tuple[Link, ...]:
        each = enumerate(those)
        return tuple(_unpack_link(f"{name}.{k}", x, arrays, sets, placed, weights) for k, x in each)

    def masks(side: str) -> dict[int, np.ndarray]:
        return {p: _unpack_mask(arrays[f"{side}.{p}"], sets[p].size) for p in head[side]}

    flow = Flow(
        sets,
        len(partitions),
        links("link", head["links"]),
        links("edge", head["edges"]),
        masks("inputs"),
        masks("outputs"),
        weights,
    )
    flow.order()  # raises ValueError where links go round in a circle
    return flow


def _unpack_mask(bits: np.ndarray, size: int) -> np.ndarray:
    if bits.shape != (-(-size // 8),):
        raise ValueError("its masks have another size than its node sets")
    return np.unpackbits(bits, count=size).astype(np.bool_)


def _unpack_link(
    name: str,
    about: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    sets: Sequence[Partition],
    placed: Sequence[Placed],
    weights: int,
) -> Link:
    source, target, number = about["source"], about["target"], about["number"]
    if number is not None:
        if not 0 <= number < len(placed) or placed[number][:2] != (source, target):
            raise ValueError("its links contradict its blocks")
        made: tuple[Block, PositionMap] = placed[number][2:]
    else:
        block = unpack_block(name, about, arrays)
        if not sound_block(source, target, block, sets):
            raise ValueError("the arrays of its links contradict each other")
        made = block, block_positions(block, sets[source])
    entry = arrays[f"{name}.entry"] if about["entry"] else None
    if entry is not None:
        within = entry.dtype == np.int64 and entry.shape == made[0].tap.shape
        if not within or entry.min(initial=0) < -1 or entry.max(initial=-1) >= weights:
            raise ValueError("the weights of its links contradict each other")
    return Link(source, target, partial(tuple, made), bool(about["weighted"]), entry, number)  # type: ignore[arg-type]
