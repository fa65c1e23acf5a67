"""Many masks of one network: one trace, one geometry, eigenproblems side by side."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mge_gpu.errors import GraphError, MaskError, MetricError
from mge_gpu.graph import MultipartiteGraph, encode
from mge_gpu.masks import check_masks
from mge_gpu.metrics import expansion
from mge_gpu.metrics.base import METRICS, Measured, Workspace
from mge_gpu.metrics.measuring import Progress, Tally, measure
from mge_gpu.metrics.report import Report
from mge_gpu.tracing import Program, trace

BATCHED = ("spectral_gap", "spectral_radius")
"""Metrics that are computed for many graphs at once."""

TOGETHER = 50_000_000
"""Nonzero weights (16 bytes each) of the graphs that are held at the same time."""


def measure_masks(
    masks: Sequence[Mapping[str, Tensor]],
    model: nn.Module | Program | None,
    input_shape: Sequence[int] | None,
    keys: list[str],
    exact: bool,
    seed: int,
    progress: Progress | None,
    options: Mapping[str, Any],
) -> list[Report]:
    """A report for each of many masks of one model, in their order.

    Graphs are held as blocks while their eigenvalues are computed together; the compressed adjacency,
    which the other metrics need, exists for one graph at a time.
    """
    program, options = _program(model, input_shape, options)
    shapes = program.weight_shapes()
    for k, given in enumerate(masks):
        try:
            check_masks(given, shapes)
        except MaskError as error:
            raise type(error)(f"masks[{k}]: {error}") from error
    tallies = [Tally({"model": program.model_name, "nodes": program.num_nodes}, keys) for _ in masks]
    together = [key for key in keys if key in BATCHED]
    alone = [key for key in keys if key not in BATCHED]
    at = 0
    try:
        while at < len(masks):
            graphs = _group(program, masks[at:], options, bool(together))
            span = range(at, at + len(graphs))
            workspaces = [Workspace(graph, exact, seed) for graph in graphs]
            for k, workspace in zip(span, workspaces, strict=True):
                tallies[k].info |= workspace.graph.info
            for key in together:
                if progress is not None:
                    progress(f"{key} of {_named(span)}", at / len(masks))
                begin = time.perf_counter()
                values = measure_batch(workspaces, key)
                seconds = (time.perf_counter() - begin) / len(graphs)
                for k, value in zip(span, values, strict=True):
                    tallies[k].add(key, value, seconds)
            graphs.clear()
            workspaces.reverse()
            for k in span:  # each graph goes when its report is there
                measure(workspaces.pop(), tallies[k], alone, _part(progress, k, len(masks)))
            at = span.stop
        if progress is not None:
            progress("done", 1.0)
    except KeyboardInterrupt:
        if not any(tally.found for tally in tallies):
            raise
    return [tally.report() for tally in tallies]


def measure_batch(workspaces: Sequence[Workspace], key: str) -> list[Measured]:
    """One of `BATCHED` for each of some graphs with the same partitions."""
    if len(workspaces) > 1:
        return [found[key] for found in expansion.measure_batch(workspaces, [key])]
    return [METRICS[key](workspace) for workspace in workspaces]


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
    program: Program, masks: Sequence[Mapping[str, Tensor]], options: Mapping[str, Any], several: bool
) -> list[MultipartiteGraph]:
    """Graphs of the first masks, as many as may be held at the same time, at least one."""
    graphs: list[MultipartiteGraph] = []
    nonzeros = 0
    for given in masks:
        graphs.append(encode(program, masks=given, **options))
        if not several:
            break
        nonzeros += sum(len(block.tap) for _, _, block in graphs[-1].blocks)
        if nonzeros > TOGETHER * (len(graphs) / (len(graphs) + 1)):  # another one of this size would not fit
            break
    return graphs


def _named(span: range) -> str:
    return f"masks {span.start}" if len(span) == 1 else f"masks {span.start} to {span.stop - 1}"


def _part(progress: Progress | None, number: int, count: int) -> Progress | None:
    """Progress of one of many graphs."""
    if progress is None:
        return None
    return lambda text, share: progress(f"{text} of masks {number}", (number + (share or 0.0)) / count)
