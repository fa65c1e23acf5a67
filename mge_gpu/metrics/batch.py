"""Many masks of one network: one trace, one geometry, and what can be worked on side by side."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mge_gpu.errors import GraphError, MaskError, MetricError
from mge_gpu.graph import MultipartiteGraph, encode
from mge_gpu.masks import check_masks
from mge_gpu.metrics import expansion
from mge_gpu.metrics.base import Workspace
from mge_gpu.metrics.measuring import Progress, Tally, measure
from mge_gpu.metrics.report import Report
from mge_gpu.metrics.together import TOGETHER, measure_together
from mge_gpu.tracing import Program, trace
from mge_gpu.tracing.program import MAX_NODES

BATCHED = ("spectral_gap", "spectral_radius")
"""Metrics that the CPU computes for many graphs at once; a GPU has those of `TOGETHER`."""

HELD = 50_000_000
"""Nonzero weights (16 bytes each) of the graphs that are held at the same time."""

NODE = 1024
"""Bytes of a GPU's memory a node of what is worked on together, with room for the counters of 128 blocks."""


def measure_masks(
    masks: Sequence[Mapping[str, Tensor]],
    model: nn.Module | Program | None,
    input_shape: Sequence[int] | None,
    keys: list[str],
    exact: bool,
    budget: int | None,
    seed: int,
    progress: Progress | None,
    options: Mapping[str, Any],
) -> list[Report]:
    """A report for each of many masks of one model, in their order.

    Graphs are held as blocks while they are worked on together: on the CPU for their eigenvalues, on a GPU
    for the metrics of `TOGETHER`. The compressed adjacency, which the other metrics need, exists for one
    graph at a time.
    """
    program, options = _program(model, input_shape, options)
    shapes = program.weight_shapes()
    for k, given in enumerate(masks):
        try:
            check_masks(given, shapes)
        except MaskError as error:
            raise type(error)(f"masks[{k}]: {error}") from error
    tallies = [Tally({"model": program.model_name, "nodes": program.num_nodes}, keys) for _ in masks]
    at = 0
    try:
        while at < len(masks):
            graphs = _group(program, masks[at:], options, keys)
            span = range(at, at + len(graphs))
            workspaces = [Workspace(graph, exact, seed, budget) for graph in graphs]
            graphs.clear()
            for k, workspace in zip(span, workspaces, strict=True):
                tallies[k].info |= workspace.graph.info
            _measure_group(workspaces, [tallies[k] for k in span], keys, _ahead(progress, span, len(masks)))
            workspaces.reverse()
            for k in span:  # each graph goes when its report is there
                left = [key for key in keys if key not in tallies[k].found]
                measure(workspaces.pop(), tallies[k], left, _part(progress, k, len(masks)))
            at = span.stop
        if progress is not None:
            progress("done", 1.0)
    except KeyboardInterrupt:
        if not any(tally.found for tally in tallies):
            raise
    return [tally.report() for tally in tallies]


def _measure_group(
    workspaces: Sequence[Workspace], tallies: Sequence[Tally], keys: list[str], progress: Callable[[str], Any]
) -> None:
    """Into the tallies what is measured of all graphs of a group together."""
    if not workspaces[0].backend.shares_cores:
        return measure_together(workspaces, tallies, keys, progress)
    for key in (key for key in keys if key in BATCHED):
        progress(key)
        begin = time.perf_counter()
        values = expansion.measure_batch(workspaces, [key])
        seconds = (time.perf_counter() - begin) / len(values)
        for tally, found in zip(tallies, values, strict=True):
            tally.add(key, found[key], seconds)


def _program(
    model: nn.Module | Program | None, input_shape: Sequence[int] | None, options: Mapping[str, Any]
) -> tuple[Program, dict[str, Any]]:
    """The traced model, and the options that are left for `encode`."""
    if "masks" in options:
        raise MetricError("got masks= beside a list of masks; the list is all there is to pass")
    if model is None:
        raise MetricError("got a list of masks without model=; pass the module or Program that they are for")
    if isinstance(model, Program):
        return model, {**options, "input_shape": input_shape}
    if input_shape is None:
        raise GraphError("got a model without input_shape; pass the shape of one sample, e.g. (3, 224, 224)")
    tracing = {name: options[name] for name in ("pad_input", "identity_skips") if name in options}
    rest = {name: value for name, value in options.items() if name not in tracing}
    return trace(model, input_shape, **tracing), rest


def _group(
    program: Program, masks: Sequence[Mapping[str, Tensor]], options: Mapping[str, Any], keys: Sequence[str]
) -> list[MultipartiteGraph]:
    """Graphs of the first masks, as many as may be held at the same time, at least one."""
    graphs = [encode(program, masks=masks[0], **options)]
    backend, size = graphs[0].backend, graphs[0].num_nodes
    most = len(masks) if set(keys) & set(BATCHED if backend.shares_cores else TOGETHER) else 1
    if not backend.shares_cores:
        memory = backend.available_memory()
        fitting = MAX_NODES * NODE if memory is None else min(MAX_NODES * NODE, memory // 2)
        most = min(most, fitting // (NODE * max(size, 1)))
    nonzeros = _nonzeros(graphs[0])
    while len(graphs) < most:
        if nonzeros > HELD * (len(graphs) / (len(graphs) + 1)):  # another one of this size would not fit
            break
        graphs.append(encode(program, masks=masks[len(graphs)], **options))
        nonzeros += _nonzeros(graphs[-1])
    return graphs


def _nonzeros(graph: MultipartiteGraph) -> int:
    return sum(len(block.tap) for _, _, block in graph.blocks)


def _named(span: range) -> str:
    return f"masks {span.start}" if len(span) == 1 else f"masks {span.start} to {span.stop - 1}"


def _part(progress: Progress | None, number: int, count: int) -> Progress | None:
    """Progress of one of many graphs."""
    if progress is None or count == 1:
        return progress
    return lambda text, share: progress(f"{text} of masks {number}", (number + (share or 0.0)) / count)


def _ahead(progress: Progress | None, span: range, count: int) -> Callable[[str], Any]:
    """Progress of what a group of graphs has together."""
    if progress is None:
        return lambda key: None
    if count == 1:
        return lambda key: progress(key, None)
    return lambda key: progress(f"{key} of {_named(span)}", span.start / count)
