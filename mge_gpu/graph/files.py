"""Save and load: the compressed form of a graph in one ``.npz`` file, which holds no Python objects."""

import json
import os
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mge_gpu.errors import GraphError
from mge_gpu.graph.blocks import block_positions
from mge_gpu.graph.checks import sound_block, sound_partitions
from mge_gpu.graph.flow_files import (
    Arrays,
    pack_block,
    pack_flow,
    unpack_block,
    unpack_flow,
    unpack_partition,
)

if TYPE_CHECKING:
    from mge_gpu.graph.multipartite import MultipartiteGraph

FORMAT = 4
"""The format that is written. Formats 2 and 3, which are read as well, know no crossed blocks; format 2 does
not say how signals flow."""


def save(graph: "MultipartiteGraph", path: str | os.PathLike[str]) -> None:
    """Write the compressed form; an unfinished file never takes the old one's place."""
    arrays = packed(graph)
    partial = f"{os.fspath(path)}.{os.getpid()}.part"
    try:
        try:
            with open(partial, "xb") as f:
                np.savez_compressed(f, **arrays)
            os.replace(partial, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(partial)
            raise
    except OSError as error:
        raise GraphError(
            f"cannot write the graph to {os.fspath(path)!r}: {error.strerror or error}"
        ) from error


def packed(graph: "MultipartiteGraph") -> Arrays:
    """The compressed form as arrays: of blocks and flow, and "head", which says what they are."""
    arrays: Arrays = {}
    head: dict[str, Any] = {
        "format": FORMAT,
        "partitions": [asdict(p) for p in graph.partitions],
        "input_partitions": graph.input_partitions,
        "output_partitions": graph.output_partitions,
        "info": graph.info,
        "blocks": [],
    }
    for k, (source, target, block) in enumerate(graph.blocks):
        numbers = pack_block(f"block.{k}", block, arrays)
        head["blocks"].append({"source": source, "target": target, **numbers})
    if graph.knows_flow:
        head["flow"] = pack_flow(graph.flow, arrays)
    arrays["head"] = np.frombuffer(json.dumps(head).encode(), np.uint8)
    return arrays


def load(path: str | os.PathLike[str]) -> "MultipartiteGraph":
    """Read a graph that `MultipartiteGraph.save` wrote.

    Raises GraphError where the file is missing, truncated, of another format or inconsistent.
    """
    name = os.fspath(path)
    try:
        with np.load(path, allow_pickle=False) as f:
            return unpacked({k: f[k] for k in f.files}, name)
    except GraphError:
        raise
    except FileNotFoundError as error:
        raise GraphError(f"no file {name!r}; graph.save(path) writes one") from error
    except Exception as error:  # zlib, zipfile, json and NumPy each have their own; all mean the same here
        raise GraphError(
            f"{name!r} is not a graph file or is damaged ({type(error).__name__}: {error}); save it again"
        ) from error


def unpacked(arrays: Arrays, name: str, device: str | torch.device = "cpu") -> "MultipartiteGraph":
    """The graph that `packed` gave the arrays of; ``name`` says in errors where they are from.

    Raises GraphError where their format is another, and whatever it comes upon where they are not sound.
    """
    from mge_gpu.graph.multipartite import MultipartiteGraph

    head = json.loads(arrays["head"].tobytes())
    if head["format"] not in (2, 3, FORMAT):
        raise GraphError(
            f"{name!r} has format {head['format']}, this version reads 2 to {FORMAT}; encode again"
        )
    partitions = [unpack_partition(p) for p in head["partitions"]]
    blocks = []
    for k, numbers in enumerate(head["blocks"]):
        blocks.append((numbers["source"], numbers["target"], unpack_block(f"block.{k}", numbers, arrays)))
    inputs, outputs = head["input_partitions"], head["output_partitions"]
    info = {key: tuple(x) if isinstance(x, list) else x for key, x in head["info"].items()}
    sound = sound_partitions(partitions, [*inputs, *outputs]) and all(
        sound_block(*b, partitions) for b in blocks
    )
    if not sound:
        raise ValueError("its arrays contradict each other")
    placed = [(s, t, b, block_positions(b, partitions[s])) for s, t, b in blocks]
    flow = unpack_flow(head["flow"], arrays, partitions, placed) if "flow" in head else None
    make_flow = None if flow is None else lambda: flow
    return MultipartiteGraph(partitions, placed, inputs, outputs, info, device, make_flow)
