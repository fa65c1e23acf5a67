"""`topometrics`: compute metrics of a graph and report them."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import nn

from mge_gpu.errors import MetricError
from mge_gpu.graph import MultipartiteGraph, encode
from mge_gpu.metrics.base import METRICS, Measured, Workspace, need
from mge_gpu.metrics.report import Report
from mge_gpu.tracing import Program

Progress = Callable[[str, float | None], Any]


def topometrics(
    graph: MultipartiteGraph | nn.Module | Program,
    input_shape: Sequence[int] | None = None,
    metrics: str | Iterable[str] = "all",
    *,
    exact: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
    **encode_options: Any,
) -> Report:
    """Measure the topology of a graph, or of a model that is encoded first.

    Args:
        graph: a `MultipartiteGraph`; or a model or `Program`, then ``input_shape`` and the options
            of `mge_gpu.encode` apply.
        metrics: "all", or some of `METRIC_KEYS`.
        exact: never estimate. Without it, counts over a stated cost are estimated from a sample and
            carry a standard error in the report.
        seed: of start vectors and samples; the global random state is not used.
        progress: called as progress(text, fraction done) before each metric.

    Raises:
        MetricError: unknown metric.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(2, 1, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[-3.0, 0.0]]))
        >>> report = topometrics(layer, (2,))
        >>> report["disconnected_nodes"], report["cut_edges"], round(report["spectral_radius"], 6)
        (1, 1, 6.0)
    """
    if not isinstance(graph, MultipartiteGraph):
        graph = encode(graph, input_shape, **encode_options)
    elif input_shape is not None or encode_options:
        raise MetricError("got a graph and options of encode(); pass them when the graph is encoded")
    if isinstance(metrics, str):
        metrics = list(METRICS) if metrics == "all" else [metrics]
    keys = need(list(dict.fromkeys(metrics)))
    workspace = Workspace(graph, exact, seed)
    found: dict[str, Measured] = {}
    seconds: dict[str, float] = {}
    for k, key in enumerate(keys):
        if progress is not None:
            progress(key, k / len(keys))
        begin = time.perf_counter()
        found[key] = METRICS[key](workspace)
        seconds[key] = time.perf_counter() - begin
    if progress is not None:
        progress("done", 1.0)
    return Report(
        {k: m.value for k, m in found.items()},
        {k: m.standard_error for k, m in found.items() if m.standard_error is not None},
        {k: m.how for k, m in found.items()},
        seconds,
        {**graph.info, "nodes": graph.num_nodes, "edges": graph.num_edges},
    )
