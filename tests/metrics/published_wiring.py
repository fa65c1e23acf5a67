"""The edges that the paper's research code gives strided convolutions, and our metrics on a list of edges.

Its encoder cuts a padded even map (C, H, W) to the H + 1 by W + 1 that a 3x3 window of stride 2 reaches, then
takes all four borders away as padding, although only two of them still are. So the last row and column lose
their edges, what is left is numbered as a map of H - 1 by W - 1 from the input's first node on, and the
outputs are numbered right behind that: C (H W - (H - 1)(W - 1)) nodes too early, which is 1,008 in ResNet-20.
The first of these are the input's own last nodes, which become sinks; the last outputs become sources.
"""

from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from mge_gpu import encode, topometrics
from mge_gpu.backends import Adjacency
from mge_gpu.backends.adjacency import FLAT
from mge_gpu.graph import MultipartiteGraph
from mge_gpu.metrics.base import METRICS, Workspace
from mge_gpu.metrics.report import Report
from mge_gpu.tracing import Program

STRIDED = ("layer2.0.conv1", "layer3.0.conv1", "block2.0.conv1", "block3.0.conv1")
"""The partitions of `mge_gpu.models` that only a strided 3x3 convolution leads to."""

Edges = tuple[np.ndarray, np.ndarray]


def edges_of(graph: MultipartiteGraph) -> Edges:
    """(sources, targets) as they should be."""
    src, dst, _ = graph.coo()
    return src.numpy(), dst.numpy()


def misplaced(graph: MultipartiteGraph, src: np.ndarray, dst: np.ndarray) -> Edges:
    """The same edges with those of `STRIDED` where the research code has them; some are lost."""
    for target in graph.partitions:
        here = (dst >= target.offset) & (dst < target.offset + target.size)
        if target.name not in STRIDED or not here.any():
            continue
        (source,) = (p for p in graph.partitions if 0 <= src[here][0] - p.offset < p.size)
        channels, height, width = source.shape
        channel, y, x = np.unravel_index(src[here] - source.offset, source.shape)
        kept = (y < height - 1) & (x < width - 1)
        new_src = source.offset + (channel * (height - 1) + y) * (width - 1) + x
        early = channels * (height * width - (height - 1) * (width - 1))
        at = dst[here] - target.offset - early
        new_dst = at + np.where(at >= 0, target.offset, source.offset + source.size)
        src = np.concatenate([src[~here], new_src[kept]])
        dst = np.concatenate([dst[~here], new_dst[kept]])
    return src, dst


def compressed(nodes: int, src: np.ndarray, dst: np.ndarray) -> Adjacency:
    """Any directed simple graph as one partition whose nodes are positions, each of a class of its own."""
    ahead, back = (
        sp.csr_array((np.ones(len(src), np.int8), ends), shape=(nodes, nodes))
        for ends in ((src, dst), (dst, src))
    )
    assert ahead.nnz == len(src), "an edge appears twice"
    ahead.sort_indices()
    back.sort_indices()
    none = np.zeros(0, np.int64)
    return Adjacency(
        offset=np.array([0, nodes]),
        divisor=np.array([nodes]),
        channel_first=np.array([True]),
        arc_ptr=np.array([0, 2], np.int32),
        arc_mid=np.array([1], np.int32),
        arc_other=np.zeros(2, np.int32),
        arc_view=np.full(2, FLAT, np.int8),
        arc_position=np.array([0, nodes]),
        arc_classes=np.full(2, nodes, np.int32),
        arc_row=np.array([0, nodes]),
        span_ptr=np.arange(3),
        span=np.zeros(2, np.int32),
        position_class=np.tile(np.arange(nodes, dtype=np.int32), 2),
        position_group=np.tile(np.arange(nodes, dtype=np.int32), 2),
        anchor=np.zeros(2 * nodes, np.int32),
        row_list=np.arange(2 * nodes),
        list_ptr=np.concatenate([ahead.indptr, back.indptr[1:] + np.int64(len(src))]),
        list_hub=np.full(2 * nodes, -1),
        shifts=np.concatenate([ahead.indices, back.indices]).astype(np.int32),
        hub_arc=none.astype(np.int32),
        hub_list=none,
        hub_anchor=none.astype(np.int32),
    )


def measured(
    graph: MultipartiteGraph,
    num_edges: int,
    keys: list[str],
    *,
    adjacency: Adjacency | None = None,
    degrees: Edges | None = None,
) -> dict[str, float]:
    """`Report.normalized` of our metrics on other edges between the graph's nodes.

    The edges are given as a compressed adjacency, or, for metrics that need no more, as in- and out-degrees.
    """
    other = SimpleNamespace(
        adjacency=adjacency,
        num_nodes=graph.num_nodes,
        num_edges=num_edges,
        backend=graph.backend,
        in_partitions=graph.in_partitions,
        input_partitions=graph.input_partitions,
        output_partitions=graph.output_partitions,
    )
    workspace = Workspace(other)
    if degrees is not None:
        workspace.__dict__["degrees"] = degrees
    values = {key: METRICS[key](workspace).value for key in keys}
    return Report(values, info={"nodes": graph.num_nodes, "edges": num_edges}).normalized(names="mge")


def as_published(program: Program, masks: Mapping[str, Tensor], keys: list[str]) -> dict[str, float]:
    """The metrics with every edge where the research code has it."""
    graph = encode(program, masks=masks)
    if not any(p.name in STRIDED for p in graph.partitions):
        return topometrics(graph, metrics=keys).normalized(names="mge")
    src, dst = misplaced(graph, *edges_of(graph))
    return measured(graph, len(src), keys, adjacency=compressed(graph.num_nodes, src, dst))


def degrees_as_published(program: Program, masks: Mapping[str, Tensor], keys: list[str]) -> dict[str, float]:
    """The same for metrics of degrees, with no edges written down but those of strided convolutions."""
    graph = encode(program, masks=masks)
    n, edges = graph.num_nodes, graph.num_edges
    indeg, outdeg = (degrees.copy() for degrees in graph.backend.degrees(graph.adjacency))
    for name in STRIDED:
        if any(p.name == name for p in graph.partitions):
            only = {k: m if k == f"{name}.weight" else torch.zeros_like(m) for k, m in masks.items()}
            alone = encode(program, masks=only)
            right = edges_of(alone)
            wrong = misplaced(alone, *right)
            edges += len(wrong[0]) - len(right[0])
            outdeg += np.bincount(wrong[0], minlength=n) - np.bincount(right[0], minlength=n)
            indeg += np.bincount(wrong[1], minlength=n) - np.bincount(right[1], minlength=n)
    return measured(graph, edges, keys, degrees=(indeg, outdeg))
